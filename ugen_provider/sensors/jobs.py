# SPDX-License-Identifier: Apache-2.0
"""`UGenJobSensor`: waits for a job that somebody else bought."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import BaseSensorOperator

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.links.ugen import LINKS
from ugen_provider.operators.arguments import is_pending, refusing, require_flags, require_named
from ugen_provider.operators.base import DEFAULT_CONN_ID, UsesConnection
from ugen_provider.operators.control import plain_job_id, raise_if_dead
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.triggers.jobs import UGenJobTrigger
from ugen_provider.version_compat import AirflowSensorTimeout, AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.api.polling import Goal


class UGenJobSensor(UsesConnection, BaseSensorOperator):
    """Wait until a job has ended, or reached a stage. Free; `GET /jobs/{jobId}`.

    A job that failed or was cancelled fails the sensor at once, or skips it with `soft_fail`.

    Args:
        job_id: The job, or what the create operator returned.
        target_stage: Also done when this stage is reached.
        ugen_conn_id: The connection.
        deferrable: Whether to wait in the triggerer.

    Returns:
        `job_id`, `status`, `current_stage`, `final_video_url` and more, as the operators do.

    Examples:
        >>> UGenJobSensor(task_id="looks", job_id="{{ params.job_id }}", target_stage="generation", deferrable=True)
        <Task(UGenJobSensor): looks>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "target_stage")
    operator_extra_links: Collection[BaseOperatorLink] = LINKS
    ui_color = "#f3e8ff"

    def __init__(
        self,
        *,
        job_id: Any,
        target_stage: str | None = None,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job_id = job_id
        self.target_stage = target_stage
        self.ugen_conn_id = ugen_conn_id
        self.deferrable = deferrable
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)
            require_named("job_id", job_id)
            require_flags(deferrable=deferrable)
            self._check_stage()

    def _check_stage(self) -> None:
        stage = self.target_stage
        if stage and not is_pending(stage) and (violations := rules.check_stage(stage, name="target_stage")):
            raise InvalidRequestError(violations)

    def _goal(self) -> Goal:
        from ugen_provider.core.api.polling import Goal

        return Goal(stage=self.target_stage or None, through_pauses=True)

    def _look(self) -> tuple[Job, dict[str, Any] | None]:
        """The job, and what to return of it once it is as far as it was to be."""
        from ugen_provider.core.api.polling import judge

        with self.hook.get_conn() as client:
            job = client.jobs.get(plain_job_id(self.job_id))
            done = judge(job, goal=self._goal()) is not None
            return job, self._result(client, job) if done else None

    def poke(self, context: Context) -> Any:  # noqa: ARG002
        """Look once."""
        from airflow.sdk import PokeReturnValue

        with failing_for_good(self.ugen_conn_id):
            self._check_stage()
            _, result = self._look()
            return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def execute(self, context: Context) -> Any:
        """Wait; where the sensor may defer, it looks once before it does."""
        if not self.deferrable:
            return super().execute(context)
        with failing_for_good(self.ugen_conn_id):
            self._check_stage()
            job, result = self._look()
            if result is not None:
                return result
        self._defer(job.job_id, time.time() + self.timeout)
        return None

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read the job again, and believe only that."""
        with failing_for_good(self.ugen_conn_id):
            job, result = self._look()
            if result is not None:
                return result
        deadline = event["carry"]["deadline"]
        if event["status"] == "timeout":
            message = f"job {job.job_id} is {job.status} in stage {job.current_stage}; the sensor waited long enough"
            raise AirflowSkipException(message) if self.soft_fail else AirflowSensorTimeout(message)
        self._defer(job.job_id, deadline)
        return None

    def _defer(self, job_id: str, deadline: float) -> None:
        trigger = UGenJobTrigger(
            job_id=job_id,
            ugen_conn_id=self.ugen_conn_id,
            poll_interval=float(self.poke_interval),
            end_time=deadline,
            target_stage=self.target_stage or None,
            through_pauses=True,
            carry={"deadline": deadline},
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def _result(self, client: UGenClient, job: Job) -> dict[str, Any]:
        from ugen_provider.core.api.errors import JobError
        from ugen_provider.core.jobs.summary import Scores, describe, keyframes_of

        try:
            raise_if_dead(job)
        except JobError as error:
            if self.soft_fail:
                raise AirflowSkipException(str(error)) from None
            raise
        keyframes = client.run(keyframes_of(client.caller, job)) if job.ended else job.keyframes
        return describe(job, scores=Scores.of(job, keyframes=keyframes))
