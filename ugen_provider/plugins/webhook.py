# SPDX-License-Identifier: Apache-2.0
"""Deliveries of U-Gen's become asset events, one per job and outcome, for jobs that no task waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.errors import ConfigError

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from sqlalchemy.orm import Session

    from ugen_provider.core.api.models import Job

_WAITING = ("scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting")


class NobodyListens(LookupError):  # noqa: N818  the delivery was good
    """The delivery was good, and there is nothing to tell anybody."""


def asset_uri(ugen_conn_id: str, outcome: str) -> str:
    """The URI of the asset that is updated when a job of a connection ends so: `completed`, `failed`, `cancelled`.

    Examples:
        >>> asset_uri("ugen_default", "completed")
        'ugen://ugen_default/jobs/completed'
    """
    return f"ugen://{ugen_conn_id}/jobs/{outcome}"


def receive(ugen_conn_id: str, body: bytes, headers: Sequence[tuple[str, str]]) -> str:
    """Take a delivery: verify it, read the job again and believe only that, and tell Airflow once.

    Args:
        ugen_conn_id: The connection whose secret signs it.
        body: The raw body.
        headers: Of the request.

    Returns:
        What was done, for the answer.

    Raises:
        WebhookError: It is not to be believed.
        ConfigError: The connection is missing, or has no secret.
        NobodyListens: Nothing is to be told.
        UGenError: The job could not be read.
    """
    from ugen_provider.core.jobs.summary import Scores, describe, keyframes_of
    from ugen_provider.core.jobs.webhooks import verify
    from ugen_provider.hooks.ugen import UGenHook

    hook = UGenHook(ugen_conn_id)
    settings = hook.get_settings()
    if settings.webhook_secret is None:
        raise ConfigError(f"connection {ugen_conn_id!r} has no webhook_secret")
    event = verify(body, headers, settings.webhook_secret)
    with hook.get_conn() as client:
        job = client.jobs.get(event.job_id)
        if not job.ended:
            raise NobodyListens(f"job {job.job_id} has not ended")
        keyframes = client.run(keyframes_of(client.caller, job))
    return _tell(ugen_conn_id, job, extra=describe(job, scores=Scores.of(job, keyframes=keyframes)))


def _tell(ugen_conn_id: str, job: Job, *, extra: dict[str, Any]) -> str:
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    uri = asset_uri(ugen_conn_id, job.state.value)
    with create_session() as session:
        # The lock lets one of two deliveries that come at once see the other's event.
        asset = session.scalar(select(AssetModel).where(AssetModel.uri == uri).with_for_update())
        if asset is None:
            raise NobodyListens(f"no DAG names the asset {uri}")
        if _is_waited_for(job.job_id, session=session):
            raise NobodyListens(f"a task waits for job {job.job_id}")
        if _was_told(asset, job.job_id, session=session):
            raise NobodyListens(f"job {job.job_id} was told already")
        asset_manager.register_asset_change(asset=asset, extra={"ugen": extra}, session=session)
    return f"{uri} was updated"


def _is_waited_for(job_id: str, *, session: Session) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import String, and_, cast, select

    from ugen_provider.triggers.killing import WATCH

    same = and_(
        TaskInstance.dag_id == XComModel.dag_id,
        TaskInstance.run_id == XComModel.run_id,
        TaskInstance.task_id == XComModel.task_id,
        TaskInstance.map_index == XComModel.map_index,
    )
    query = (
        select(TaskInstance.id)
        .join(XComModel, same)
        .where(XComModel.key == WATCH, TaskInstance.state.in_(_WAITING))
        .where(cast(XComModel.value, String).contains(job_id, autoescape=True))
        .limit(1)
    )
    return session.scalar(query) is not None


def _was_told(asset: AssetModel, job_id: str, *, session: Session) -> bool:
    from airflow.models.asset import AssetEvent
    from sqlalchemy import String, cast, select

    query = (
        select(AssetEvent.id)
        .where(AssetEvent.asset_id == asset.id)
        .where(cast(AssetEvent.extra, String).contains(job_id, autoescape=True))
        .limit(1)
    )
    return session.scalar(query) is not None
