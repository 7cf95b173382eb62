# SPDX-License-Identifier: Apache-2.0
"""`UGenReconcileOperator`: does what is owed after the task that decided it is gone."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.operators.arguments import refusing, require_flags, require_named
from ugen_provider.operators.base import DEFAULT_CONN_ID, UGenOperator
from ugen_provider.operators.errors import fail_without_retry

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.ledger.record import OrderRecord
    from ugen_provider.hooks.ugen import UGenHook


class UGenReconcileOperator(UGenOperator):
    """Settle what is owed in a ledger: cancels that are not confirmed, expired gates, outputs of failed tasks. Free.

    Triggerers and feed runs of the account do the same every five minutes, except that they store no outputs. It
    cancels only what a record in the ledger says is to be cancelled. Calls `GET /jobs` and `DELETE /jobs/{jobId}`.

    Args:
        ledger_conn_id: The connection of the ledger's database. Default: the `ledger_conn_id` that the connection
            names.
        collect: Whether to store the outputs of jobs that ended after their task had failed for good. Default yes.
        ugen_conn_id: The connection.

    Returns:
        A dict: `ran` (False while another process does it), `done`, `withdrawn`, and `owed`, a dict for each action
        with `job_id`, `kind`, `reason` and `why`.

    Examples:
        >>> UGenReconcileOperator(task_id="reconcile", ledger_conn_id="ugen_ledger")
        <Task(UGenReconcileOperator): reconcile>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "ledger_conn_id")

    def __init__(
        self,
        *,
        ledger_conn_id: str | None = None,
        collect: bool = True,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(ugen_conn_id=ugen_conn_id, **kwargs)
        self.ledger_conn_id = ledger_conn_id
        self.collect = collect
        with refusing():
            require_flags(collect=collect)
            if ledger_conn_id is not None:
                require_named("ledger_conn_id", ledger_conn_id)

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Do one round of the reconciler."""
        with fail_without_retry(self.ugen_conn_id):
            report = reconcile_once(self.hook, ledger_conn_id=self.ledger_conn_id, collects=self.collect)
        for owed in report["owed"]:
            self.log.warning("job %(job_id)s: %(kind)s (%(reason)s) is still owed: %(why)s", owed)
        self.log.info("%d settled, %d withdrawn, %d owed", report["done"], report["withdrawn"], len(report["owed"]))
        return report


def reconcile_once(hook: UGenHook, *, ledger_conn_id: str | None, collects: bool) -> dict[str, Any]:
    """Do one round of what is owed in a ledger, and return the report in JSON types.

    Args:
        hook: Of the connection.
        ledger_conn_id: The connection of the ledger, in place of the one that the connection names.
        collects: Whether to store outputs.

    Raises:
        ConfigError: No ledger is named, or it cannot be opened.
    """
    from ugen_provider.core.jobs.sync.reconciler import reconcile
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.hooks.ugen import open_ledger
    from ugen_provider.triggers.cancellation import attempt_state, owner_state

    settings = hook.get_settings()
    named = ledger_conn_id or settings.ledger_conn_id
    if named is None:
        raise ConfigError(f"ledger_conn_id: must be named here or in connection {hook.ugen_conn_id!r}")
    with open_ledger(named) as ledger, hook.get_conn(config=settings.config) as client:

        def collect(record: OrderRecord, job: Job) -> str:
            return _collect(client, record, job)

        report = reconcile(
            World(client, LedgerOrderStore(ledger, signer=settings.signer)),
            ledger,
            owner=uuid.uuid4().hex,
            owner_state=owner_state,
            attempt_state=attempt_state,
            collect=collect if collects else None,
        )
    owed = [
        {"job_id": action.job_id, "kind": action.kind, "reason": action.reason, "why": why}
        for action, why in report.owed
    ]
    return {"ran": report.ran, "done": len(report.done), "withdrawn": len(report.withdrawn), "owed": owed}


def _collect(client: UGenClient, record: OrderRecord, job: Job) -> str:
    from ugen_provider.operators.media import INCLUDE, store_outputs

    destination: Any = record.destination
    if "@" in str(destination).partition("://")[2].partition("/")[0]:  # the address of an ObjectStoragePath
        from airflow.sdk import ObjectStoragePath

        destination = ObjectStoragePath(str(record.destination))
    keyframes = job.keyframes or client.jobs.list_keyframes(job.job_id)
    include: Any = record.outputs or INCLUDE
    stored = store_outputs(client, job, destination, keyframes=keyframes, include=include, request=record.body)
    return str(stored["manifest_uri"])
