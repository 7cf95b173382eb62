# SPDX-License-Identifier: Apache-2.0
"""`UGenFindOrphansOperator`: jobs that run and cost credits, and that nobody comes back for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.configuration import conf

from ugen_provider.operators.arguments import (
    refusing,
    require_flags,
    require_interval,
    require_named,
    require_number,
    require_one_of,
)
from ugen_provider.operators.base import DEFAULT_CONN_ID, UGenOperator
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, MOST_JOBS, UGenJobBatchTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.operators.airflow_rest import AirflowRest

_ACTIVE = ("pending", "processing", "paused")


class UGenFindOrphansOperator(UGenOperator):
    """Compare the service's active jobs with what task instances and ledgers hold, and name what nobody comes back for.

    Jobs that something else on the account bought, another Airflow, a Dagster or a script, look like orphans from here:
    report first, and cancel only on an account, or among products, that are this Airflow's alone. Free; `GET /jobs`.

    Args:
        airflow_conn_id: A connection to Airflow's own REST API, since a worker has no database: host with scheme and
            port, login and password of a user who may read the task instances and XComs of all DAGs.
        ledger_conn_ids: Ledgers whose products hold jobs too: those of all feeds on this account.
        action: `report` names them; `attach` waits until they have ended, so that their outputs can be collected;
            `cancel` cancels them, which releases their credits.
        min_age: Seconds that a job must have gone unchanged; a younger one may be just about to be written down.
        product_name: Only jobs whose product's name contains this.
        deferrable: Whether `attach` waits in the triggerer.
        poll_interval: Seconds between looks while attached.
        ugen_conn_id: The connection.

    Returns:
        A dict per orphan: `job_id`, `product_name`, `status`, `credits_reserved`, `created_at`, and its `status`
        afterwards.

    Examples:
        >>> UGenFindOrphansOperator(task_id="orphans", airflow_conn_id="airflow_api")
        <Task(UGenFindOrphansOperator): orphans>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "airflow_conn_id", "ledger_conn_ids", "product_name")

    def __init__(
        self,
        *,
        airflow_conn_id: str,
        ledger_conn_ids: str | Sequence[str] = (),
        action: Literal["report", "attach", "cancel"] = "report",
        min_age: float = 900.0,
        product_name: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(ugen_conn_id=ugen_conn_id, **kwargs)
        self.airflow_conn_id = airflow_conn_id
        self.ledger_conn_ids = ledger_conn_ids
        self.action: Literal["report", "attach", "cancel"] = action
        self.min_age = min_age
        self.product_name = product_name
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        with refusing():
            require_named("airflow_conn_id", airflow_conn_id)
            require_one_of("action", action, ("report", "attach", "cancel"))
            require_number("min_age", min_age)
            require_flags(deferrable=deferrable)
            require_interval("poll_interval", poll_interval)

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Find them, and do with them what was told."""
        with failing_for_good(self.ugen_conn_id), self.hook.get_conn() as client:
            airflow, ledgers = self._holders()
            # The service first: a job that is bought in between is then held when Airflow is asked.
            active = self._active(client)
            held = self._held([job.job_id for job in active], airflow, ledgers) if active else set()
            orphans = [job for job in active if job.job_id not in held]
            for job in orphans:
                self.log.warning("orphan: job %s (%s), %s", job.job_id, job.product_name, job.status)
            if self.action == "cancel":
                return [_told(self._cancel(client, job)) for job in orphans]
            if self.action == "attach" and orphans:
                return self._attach(client, [job.job_id for job in orphans])
            return [_told(job) for job in orphans]

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:  # noqa: ARG002
        """Read the jobs again, and wait on for those that have not ended."""
        with failing_for_good(self.ugen_conn_id), self.hook.get_conn() as client:
            return self._attach(client, event["carry"]["job_ids"])

    def _active(self, client: UGenClient) -> list[Job]:
        now = client.clock.now()
        found: dict[str, Job] = {}
        for status in _ACTIVE:
            for job in client.jobs.list(status=status):
                old = job.updated_at is None or now - job.updated_at.timestamp() >= self.min_age
                named = not self.product_name or self.product_name in (job.product_name or "")
                if old and named and not job.ended:
                    found[job.job_id] = job
        return list(found.values())

    def _holders(self) -> tuple[AirflowRest, list[str]]:
        """Whom to ask; read first, so that a wrong connection is told on a quiet day too."""
        from ugen_provider.operators.airflow_rest import AirflowRest
        from ugen_provider.operators.feeds import ledger_address

        named = self.ledger_conn_ids
        conn_ids = [named] if isinstance(named, str) else list(named)
        return AirflowRest(self.airflow_conn_id), [ledger_address(conn_id) for conn_id in conn_ids]

    def _held(self, job_ids: list[str], airflow: AirflowRest, ledgers: list[str]) -> set[str]:
        held = airflow.held_jobs()
        for address in ledgers:
            from ugen_provider.core.batch.ledger import Ledger
            from ugen_provider.operators.machines import tasks_span_machines

            with Ledger(address, shared=tasks_span_machines()) as ledger:
                held |= ledger.known_jobs(job_ids)
        return held

    def _cancel(self, client: UGenClient, job: Job) -> Job:
        from ugen_provider.core.jobs.cancelling import cancel

        return client.run(cancel(client.caller, job.job_id, reason="operator")).job or job

    def _attach(self, client: UGenClient, job_ids: list[str]) -> list[dict[str, Any]]:
        jobs = [client.jobs.get(job_id) for job_id in job_ids]
        going_on = [job.job_id for job in jobs if not job.ended]
        if not going_on:
            return [_told(job) for job in jobs]
        if self.deferrable:
            self.defer(
                trigger=UGenJobBatchTrigger(
                    job_ids=going_on[:MOST_JOBS],
                    ugen_conn_id=self.ugen_conn_id,
                    at_least=len(going_on[:MOST_JOBS]),
                    poll_interval=self.poll_interval,
                    carry={"job_ids": job_ids},
                ),
                method_name="execute_complete",
            )
        from ugen_provider.core.api.polling import Goal, wait

        goal = Goal(through_pauses=True)
        for job_id in going_on:
            client.run(wait(client.caller, job_id, goal=goal, interval=self.poll_interval))
        return [_told(client.jobs.get(job_id)) for job_id in job_ids]


def _told(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "product_name": job.product_name,
        "status": job.status,
        "credits_reserved": job.credits_reserved,
        "created_at": None if job.created_at is None else job.created_at.isoformat(),
    }
