# SPDX-License-Identifier: Apache-2.0
"""Deliveries of U-Gen's become asset events, one per job and outcome, for jobs that no task waits for.

Anyone who reaches the API server may call the endpoint, so what costs least is checked first: the form of the headers,
the rate of their source, the size of the body. Only then a connection is looked up, in a few threads of its own.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

from ugen_provider.core.api.errors import ConfigError, SignatureMismatchError, UGenError, WebhookError
from ugen_provider.core.jobs.webhooks import MOST_BYTES, SIGNATURE_HEADER, verify
from ugen_provider.core.text import get_logger, one_line

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from fastapi import Request
    from sqlalchemy.orm import Session

    from ugen_provider.core.api.models import Job

_log = get_logger("ugen_provider.plugins")
_WAITING = (
    "scheduled",
    "queued",
    "running",
    "deferred",
    "awaiting_input",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
)
_CONN_ID = re.compile(r"[\w.@:/-]{1,200}")
_SIGNATURES = re.compile(r"\s*(sha256=)?[0-9a-f]{64}\s*(,\s*(sha256=)?[0-9a-f]{64}\s*){0,7}", re.IGNORECASE)
_REFUSED = (401, "the signature or the time of this delivery is wrong")


@dataclass(slots=True)
class RateLimit:
    """How many deliveries of one source may cost more than a check of their headers.

    Attributes:
        burst: Deliveries at once.
        per_second: Deliveries in the long run.
        most_sources: Sources that are remembered; the one that was seen longest ago is forgotten.
        tick: A clock that is never set back.
    """

    burst: float = 20.0
    per_second: float = 2.0
    most_sources: int = 4096
    tick: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, source: str) -> bool:
        """Count a delivery of one source.

        Args:
            source: Who sent it.

        Returns:
            Whether it is within the limit.
        """
        left, seen = self._left.pop(source, (self.burst, self.tick()))
        left = min(self.burst, left + (self.tick() - seen) * self.per_second)
        allowed = left >= 1.0
        self._left[source] = (left - 1.0 if allowed else left, self.tick())
        if len(self._left) > self.most_sources:
            self._left.popitem(last=False)
        return allowed

    def give_back(self, source: str) -> None:
        """Take back the count of a delivery that was good."""
        left, seen = self._left.get(source, (self.burst, self.tick()))
        self._left[source] = (min(self.burst, left + 1.0), seen)


@dataclass(slots=True)
class WebhookEndpoint:
    """Endpoint that answers the deliveries of webhooks.

    Attributes:
        limit: Per source.
        workers: Threads that look up connections and jobs; the API server's own stay free.
        log_interval: Seconds between two entries of the log about refusals.
        tick: A clock that is never set back.
    """

    limit: RateLimit = field(default_factory=RateLimit)
    workers: int = 4
    log_interval: float = 10.0
    tick: Callable[[], float] = time.monotonic
    _threads: CapacityLimiter | None = None
    _logged_at: float = float("-inf")
    _unlogged: int = 0

    async def answer(self, ugen_conn_id: str, request: Request) -> tuple[int, str]:
        """Answer one delivery of the service.

        Args:
            ugen_conn_id: The id in the path.
            request: The request, whose body was not read yet.

        Returns:
            The HTTP status, and a sentence.
        """
        headers = list(request.headers.items())
        if _CONN_ID.fullmatch(ugen_conn_id) is None or not has_form_of_delivery(headers):
            return self._refuse(ugen_conn_id, "no headers of a delivery")
        source = source_of(request.client.host if request.client is not None else "")
        if not self.limit.take(source):
            return 429, "too many deliveries that could not be verified; polling continues"
        body = await small_body(request)
        if body is None:
            return 413, "a delivery is not that large"
        if self._threads is None:
            self._threads = CapacityLimiter(self.workers)
        try:
            said = await to_thread.run_sync(receive, ugen_conn_id, body, headers, limiter=self._threads)
        except (WebhookError, ConfigError) as error:
            # The answer does not reveal which connections exist; the log of Airflow does.
            return self._refuse(ugen_conn_id, str(error))
        except NothingToReportError as error:
            self.limit.give_back(source)
            return 202, str(error)
        except UGenError as error:
            self.limit.give_back(source)
            _log.warning("webhook: the job of a delivery could not be read: %s", one_line(error, most=500))
            return 503, "the job could not be read; deliver it again"
        self.limit.give_back(source)
        return 200, said

    def _refuse(self, ugen_conn_id: str, reason: str) -> tuple[int, str]:
        self._unlogged += 1
        if self.tick() - self._logged_at >= self.log_interval:
            shown = one_line(ugen_conn_id, most=80)
            _log.warning(
                "webhook: %d deliveries were refused, the last for connection %r: %s",
                self._unlogged,
                shown,
                one_line(reason, most=300),
            )
            self._logged_at, self._unlogged = self.tick(), 0
        return _REFUSED


def has_form_of_delivery(headers: Sequence[tuple[str, str]]) -> bool:
    """Return whether headers could be those of a delivery of now, as far as that shows without a secret.

    Args:
        headers: Of the request, as pairs.
    """
    signatures = [value for name, value in headers if name.lower() == SIGNATURE_HEADER.lower()]
    if len(signatures) != 1 or _SIGNATURES.fullmatch(signatures[0]) is None:
        return False
    length = next((value for name, value in headers if name.lower() == "content-length"), "0")
    if not (length.isascii() and length.isdigit()):
        return False
    try:
        verify(b"", headers, secrets.token_hex(16))
    except SignatureMismatchError:
        return True
    except WebhookError:
        return False
    return False


def source_of(host: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address.

    Examples:
        >>> source_of("2001:db8:1:2:3::4"), source_of("192.0.2.7")
        ('2001:db8:1:2::/64', '192.0.2.7')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return one_line(host, most=100)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


async def small_body(request: Request) -> bytes | None:
    """Read the raw body; None where it is larger than any delivery, of which no more is read."""
    if int(request.headers.get("content-length", "0")) > MOST_BYTES:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


class NothingToReportError(LookupError):
    """The delivery is valid, and no DAG is to be notified."""


def asset_uri(ugen_conn_id: str, outcome: str) -> str:
    """The URI of the asset that is updated when a job of a connection ends so: `completed`, `failed`, `cancelled`.

    Examples:
        >>> asset_uri("ugen_default", "completed")
        'ugen://ugen_default/jobs/completed'
    """
    return f"ugen://{ugen_conn_id}/jobs/{outcome}"


def receive(ugen_conn_id: str, body: bytes, headers: Sequence[tuple[str, str]]) -> str:
    """Take a delivery: verify it, read the job again and believe only that, and report it to Airflow once.

    Args:
        ugen_conn_id: The connection whose secret signs it.
        body: The raw body.
        headers: Of the request.

    Returns:
        What was done, for the answer.

    Raises:
        WebhookError: It is not to be believed.
        ConfigError: The connection is missing, or has no secret.
        NothingToReportError: The delivery changes nothing.
        UGenError: The job could not be read.
    """
    from ugen_provider.core.jobs.results import Scores, describe
    from ugen_provider.hooks.ugen import UGenHook

    hook = UGenHook(ugen_conn_id)
    settings = hook.get_settings()
    if settings.webhook_secret is None:
        raise ConfigError(f"connection {ugen_conn_id!r} has no webhook_secret")
    event = verify(body, headers, settings.webhook_secret)
    with hook.get_conn() as client:
        job = client.jobs.get(event.job_id)
        if not job.ended:
            raise NothingToReportError(f"job {job.job_id} has not ended")
        keyframes = job.keyframes or client.jobs.list_keyframes(job.job_id)
    return _notify(ugen_conn_id, job, extra=describe(job, scores=Scores.of(job, keyframes=keyframes)))


def _notify(ugen_conn_id: str, job: Job, *, extra: dict[str, Any]) -> str:
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    uri = asset_uri(ugen_conn_id, job.state.value)
    with create_session() as session:
        # The lock lets one of two deliveries that come at once see the other's event.
        asset = session.scalar(select(AssetModel).where(AssetModel.uri == uri).with_for_update())
        if asset is None:
            raise NothingToReportError(f"no DAG names the asset {uri}")
        if _is_waited_for(job.job_id, session=session):
            raise NothingToReportError(f"a task waits for job {job.job_id}")
        if _was_reported(asset, job.job_id, session=session):
            raise NothingToReportError(f"job {job.job_id} was reported already")
        asset_manager.register_asset_change(asset=asset, extra={"ugen": extra}, session=session)
    return f"{uri} was updated"


def _is_waited_for(job_id: str, *, session: Session) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import String, and_, cast, select

    from ugen_provider.triggers.cancellation import JOB_REF

    same = and_(
        TaskInstance.dag_id == XComModel.dag_id,
        TaskInstance.run_id == XComModel.run_id,
        TaskInstance.task_id == XComModel.task_id,
        TaskInstance.map_index == XComModel.map_index,
    )
    query = (
        select(TaskInstance.id)
        .join(XComModel, same)
        .where(XComModel.key == JOB_REF, TaskInstance.state.in_(_WAITING))
        .where(cast(XComModel.value, String).contains(job_id, autoescape=True))
        .limit(1)
    )
    return session.scalar(query) is not None


def _was_reported(asset: AssetModel, job_id: str, *, session: Session) -> bool:
    from airflow.models.asset import AssetEvent
    from sqlalchemy import String, cast, select

    query = (
        select(AssetEvent.id)
        .where(AssetEvent.asset_id == asset.id)
        .where(cast(AssetEvent.extra, String).contains(job_id, autoescape=True))
        .limit(1)
    )
    return session.scalar(query) is not None
