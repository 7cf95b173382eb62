# SPDX-License-Identifier: Apache-2.0
"""`UGenJobSensor`: waits for a job that another task or process bought. `UGenSensor` is the base of all sensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import BaseSensorOperator

from ugen_provider.core.api import rules
from ugen_provider.core.api.clock import SystemClock
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.api.polling import JobError
from ugen_provider.links.ugen import LINKS
from ugen_provider.operators.arguments import is_pending, refusing, require_flags, require_named
from ugen_provider.operators.base import DEFAULT_CONN_ID, UsesConnection, earliest, execution_deadline, trigger_timeout
from ugen_provider.operators.control import plain_job_id, raise_if_ended_badly
from ugen_provider.operators.errors import UGenFailure, fail_without_retry
from ugen_provider.triggers.jobs import UGenJobTrigger, earliest_event
from ugen_provider.version_compat import AirflowSensorTimeout, AirflowSkipException, AirflowTaskTimeout

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.api.polling import Goal


class UGenSensor(UsesConnection, BaseSensorOperator):
    """The base of all sensors.

    `soft_fail` and `never_fail` mean the same whether the sensor pokes or defers. They skip a sensor whose time ran
    out, or whose job failed or was cancelled. They never skip a wrong connection, a refused key, an unknown job or a
    wrong argument: a DAG in which those are skipped stays green while it makes no videos.

    Args:
        ugen_conn_id: The connection.
    """

    template_fields: Collection[str] = ("ugen_conn_id",)
    ui_color = "#f3e8ff"

    def __init__(self, *, ugen_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.ugen_conn_id = ugen_conn_id
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)

    def execute(self, context: Context) -> Any:
        """Poke until the condition holds."""
        with self._skipping():
            return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the triggerer has reported the end."""
        with self._skipping():
            return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Skip what the sensor's settings allow to skip, and nothing else; Airflow skips any error that is permanent.

        Airflow itself does this for a sensor that pokes or comes back from the triggerer, and not for one that fails
        before it defers.
        """
        try:
            yield
        except AirflowSkipException as skipped:
            failure = skipped.__cause__
            if isinstance(failure, UGenFailure) and not isinstance(failure.error, JobError):
                raise failure from None
            raise
        except (UGenFailure, JobError) as failure:
            error = failure.error if isinstance(failure, UGenFailure) else failure
            if isinstance(error, JobError) and (self.soft_fail or self.never_fail):
                raise AirflowSkipException(str(error)) from failure
            raise


class UGenJobSensor(UGenSensor):
    """Wait until a job has ended, or reached a stage. Free; `GET /jobs/{jobId}`.

    A job that failed or was cancelled fails the sensor at once, or skips it with `soft_fail`. A wrong connection fails
    it in any case.

    Args:
        job_id: The job, or what the create operator returned.
        target_stage: Also done when this stage is reached.
        ugen_conn_id: The connection.
        deferrable: Whether to wait in the triggerer.

    Returns:
        `job_id`, `status`, `current_stage`, `final_video_url` and more, as the operators do.

    Examples:
        >>> UGenJobSensor(task_id="wait", job_id="{{ params.job_id }}", target_stage="generation", deferrable=True)
        <Task(UGenJobSensor): wait>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "target_stage")
    operator_extra_links: Collection[BaseOperatorLink] = LINKS

    def __init__(
        self,
        *,
        job_id: Any,
        target_stage: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job_id = job_id
        self.target_stage = target_stage
        self.deferrable = deferrable
        with refusing():
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

    def _read(self) -> tuple[Job, dict[str, Any] | None]:
        """Return the job as it is now, and the result once the goal is reached."""
        from ugen_provider.core.api.polling import judge

        with self.hook.get_conn() as client:
            job = client.jobs.get(plain_job_id(self.job_id))
            done = judge(job, goal=self._goal()) is not None
            return job, self._result(client, job) if done else None

    def poke(self, context: Context) -> Any:  # noqa: ARG002
        """Poll the job once and report whether it is done."""
        from airflow.sdk import PokeReturnValue

        with fail_without_retry(self.ugen_conn_id):
            self._check_stage()
            _, result = self._read()
            return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def execute(self, context: Context) -> Any:
        """Wait; a sensor that may defer polls once before it does."""
        if not self.deferrable:
            return super().execute(context)
        with self._skipping(), fail_without_retry(self.ugen_conn_id):
            self._check_stage()
            job, result = self._read()
            if result is not None:
                return result
        self._defer(context, job.job_id, SystemClock().now() + self.timeout)
        return None

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Read the job again, and believe only that."""
        with fail_without_retry(self.ugen_conn_id):
            job, result = self._read()
            if result is not None:
                return result
        deadline = event["payload"]["deadline"]
        if event["status"] == "timeout":
            message = f"job {job.job_id} is {job.status} in stage {job.current_stage}; the sensor's"
            if SystemClock().now() < deadline:  # as for a sensor that pokes: neither skipped nor kept from a retry
                raise AirflowTaskTimeout(f"{message} execution_timeout passed")
            raise AirflowSensorTimeout(f"{message} timeout passed")
        self._defer(context, job.job_id, deadline)
        return None

    def _defer(self, context: Context, job_id: str, deadline: float) -> None:
        now, interval = SystemClock().now(), float(self.poke_interval)
        end_time = earliest(deadline, execution_deadline(context, self.execution_timeout))
        trigger = UGenJobTrigger(
            job_id=job_id,
            ugen_conn_id=self.ugen_conn_id,
            poll_interval=interval,
            end_time=end_time,
            event_after=earliest_event(now, poll_interval=interval),
            target_stage=self.target_stage or None,
            ignore_pauses=True,
            payload={"deadline": deadline},
        )
        timeout = trigger_timeout(end_time, now=now, poll_interval=interval)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _result(self, client: UGenClient, job: Job) -> dict[str, Any]:
        from ugen_provider.core.jobs.results import Scores, describe

        raise_if_ended_badly(job)
        keyframes = job.keyframes
        if job.ended and not keyframes:
            keyframes = client.jobs.list_keyframes(job.job_id)
        return describe(job, scores=Scores.of(job, keyframes=keyframes))
