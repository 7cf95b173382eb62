# SPDX-License-Identifier: Apache-2.0
"""Operators for a job that exists already: retry, pause, resume, cancel."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError, JobError
from ugen_provider.operators.arguments import (
    is_nothing,
    is_pending,
    refusing,
    require_flags,
    require_interval,
    require_named,
    require_positive,
    seconds,
)
from ugen_provider.operators.base import DEFAULT_CONN_ID, DEFAULT_TIMEOUT, UGenJobOperator, backstop
from ugen_provider.operators.closing import Closing, take_back, tell
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.operators.state import scope_of, store_of
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, UGenJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.effects import Flow
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.api.polling import Goal
    from ugen_provider.core.jobs.gate import Approval
    from ugen_provider.core.jobs.intent import IntentStore
    from ugen_provider.core.jobs.repeating import Acted


class UGenExistingJobOperator(UGenJobOperator):
    """An operator that acts on a job and may wait for it.

    Args:
        job_id: The job, usually `{{ ti.xcom_pull(task_ids='make_video')['job_id'] }}` or another task's output.
        ugen_conn_id: The connection.
        wait_for_completion: Whether to wait for what the action leads to.
        deferrable: Whether to wait in the triggerer.
        poll_interval: Seconds between looks; the service asks for 5 to 10.
        timeout: Seconds to wait, or a timedelta; None waits as long as it takes. The job is left.
        cancel_on_kill: Whether the job is cancelled where a person ends the task instance or its run.
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id")
    _did: ClassVar[tuple[str, str]] = ("done", "nothing had to be done")
    """What the log says of the action: that it was taken now, or that there was no need to."""
    any_end_is_fine: ClassVar[bool] = False
    """Whether a job that failed or was cancelled is a result like any other."""

    def __init__(
        self,
        *,
        job_id: Any,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(ugen_conn_id=ugen_conn_id, cancel_on_kill=cancel_on_kill, **kwargs)
        self.job_id = job_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        with refusing():
            require_flags(wait_for_completion=wait_for_completion, deferrable=deferrable, cancel_on_kill=cancel_on_kill)
            require_interval("poll_interval", poll_interval)
            require_positive("timeout", timeout)
            self._check_job()

    def _check_job(self) -> None:
        """Refuse an operator that names no job."""
        require_named("job_id", self.job_id)

    def _act(self, client: UGenClient, job_id: str, *, store: IntentStore, scope: str) -> Flow[Acted]:
        """What this operator does to the job, safe to ask for again."""
        raise NotImplementedError

    def _goal(self) -> Goal:
        """What is waited for afterwards."""
        from ugen_provider.core.api.polling import Goal

        return Goal(through_pauses=True)

    def execute(self, context: Context) -> dict[str, Any]:
        """Act, and wait."""
        with failing_for_good(self.ugen_conn_id):
            job_id = plain_job_id(self.job_id)
            store = store_of(context)
            with self.hook.get_conn() as client:
                scope = str(scope_of(context, namespace=client.config.namespace, part=type(self).__name__))
                self.announce(context, job_id=job_id, scope=scope)
                acted = client.run(self._act(client, job_id, store=store, scope=scope))
                self.log.info("job %s: %s; status %s", job_id, self._did[acted.how != "done"], acted.job.status)
                if not self.wait_for_completion:
                    return self._result(client, acted.job)
                return self._wait(context, client, acted, store, scope)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Read the job again, believe only that, and go on from there."""
        from ugen_provider.core.api.polling import judge, timed_out
        from ugen_provider.core.jobs.repeating import Acted

        with failing_for_good(self.ugen_conn_id), self.hook.get_conn() as client:
            job_id, deadline = event["job_id"], event["carry"]["deadline"]
            job = client.jobs.get(job_id)
            if judge(job, goal=self._goal()) is not None:
                return self._conclude(client, job)
            if event["status"] == "timeout":
                raise timed_out(job_id, job)
            self.log.warning("job %s goes on: %s", job_id, event.get("message") or "waiting again")
            scope = str(scope_of(context, namespace=client.config.namespace, part=type(self).__name__))
            return self._wait(context, client, Acted(job, "already"), store_of(context), scope, deadline=deadline)

    def _wait(
        self,
        context: Context,
        client: UGenClient,
        acted: Acted,
        store: IntentStore,
        scope: str,
        *,
        deadline: float | None = None,
    ) -> dict[str, Any]:
        from ugen_provider.core.api import polling

        job, goal = acted.job, self._goal()
        if polling.judge(job, goal=goal, stale=acted.stale) is not None:
            return self._conclude(client, job)
        limit = seconds(self.timeout)
        if deadline is None and limit is not None:
            deadline = client.clock.now() + limit
        if self.deferrable:
            stale = acted.stale
            self.defer(
                trigger=UGenJobTrigger(
                    job_id=job.job_id,
                    ugen_conn_id=self.ugen_conn_id,
                    poll_interval=self.poll_interval,
                    end_time=deadline,
                    stopped=goal.stopped,
                    through_pauses=goal.through_pauses,
                    stale=None if stale is None else (stale.status, stale.stage, stale.updated_at),
                    carry={"deadline": deadline},
                    cancel_on_kill=self.cancel_on_kill,
                ),
                method_name="execute_complete",
                timeout=backstop(deadline, now=client.clock.now(), poll_interval=self.poll_interval),
            )
        with self.holding(context, job.job_id, client.config, store, scope):
            outcome = client.run(
                polling.wait(
                    client.caller,
                    job.job_id,
                    goal=goal,
                    interval=self.poll_interval,
                    deadline=deadline,
                    stale=acted.stale,
                )
            )
        return self._conclude(client, outcome.job)

    def _conclude(self, client: UGenClient, job: Job) -> dict[str, Any]:
        if not self.any_end_is_fine:
            raise_if_dead(job)
        return self._result(client, job)

    def _result(self, client: UGenClient, job: Job) -> dict[str, Any]:
        from ugen_provider.core.jobs.summary import Scores, describe, keyframes_of

        keyframes = client.run(keyframes_of(client.caller, job)) if job.ended else job.keyframes
        result = describe(job, scores=Scores.of(job, keyframes=keyframes))
        return self.told(result, picture=(job.model_extra or {}).get("product_image_url"), video_model=job.video_model)


class UGenRetryJobOperator(UGenExistingJobOperator):
    """Run an ended job again from a stage, once per task instance, however often the task is retried or cleared.

    Reserves credits again. `POST /jobs/{jobId}/retry`, after a look at the job and its transactions.

    Args:
        restart_from_stage: First stage to run again; None starts where it failed.

    Examples:
        >>> UGenRetryJobOperator(task_id="again", job_id="{{ params.job_id }}", restart_from_stage="generation")
        <Task(UGenRetryJobOperator): again>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "restart_from_stage")
    _did = ("is run again", "not asked for again, since it runs, or this task instance asked for it before")

    def __init__(self, *, restart_from_stage: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restart_from_stage = restart_from_stage
        with refusing():
            self._check_stage()

    def _check_stage(self) -> None:
        stage = self.restart_from_stage
        if stage is not None and not is_pending(stage) and (violations := rules.check_stage(stage)):
            raise InvalidRequestError(violations)

    def _act(self, client: UGenClient, job_id: str, *, store: IntentStore, scope: str) -> Flow[Acted]:
        from ugen_provider.core.jobs.repeating import retry_once

        self._check_stage()
        return retry_once(
            client.caller,
            job_id,
            store=store,
            scope=scope,
            restart_from_stage=self.restart_from_stage or None,
            spending=client.config.spending,
        )


class UGenPauseJobOperator(UGenExistingJobOperator):
    """Pause a job, and wait until it stands still, or ended before it could. Free; `POST /jobs/{jobId}/pause`.

    Examples:
        >>> UGenPauseJobOperator(task_id="pause", job_id="{{ params.job_id }}")
        <Task(UGenPauseJobOperator): pause>
    """

    any_end_is_fine = True
    _did = ("is asked to pause", "ended before it could be paused")

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(cancel_on_kill=cancel_on_kill, **kwargs)

    def _act(self, client: UGenClient, job_id: str, *, store: IntentStore, scope: str) -> Flow[Acted]:  # noqa: ARG002
        from ugen_provider.core.api import operations
        from ugen_provider.core.jobs.cancelling import pause
        from ugen_provider.core.jobs.repeating import Acted

        job = yield from pause(client.caller, job_id)
        if job is None:
            job = yield from client.caller.call(operations.get_job(job_id))  # a 404, in the service's own words
        return Acted(job, "already" if job.ended else "done")

    def _goal(self) -> Goal:
        from ugen_provider.core.api.polling import Goal

        return Goal(stopped=True)


class UGenResumeJobOperator(UGenExistingJobOperator):
    """Let a paused job go on, and wait until it has ended.

    Beyond the gate it goes only for the very picture that was approved: the keyframe is read again, and a look that was
    made again after somebody said yes is refused. `POST /jobs/{jobId}/resume`, after a look; where the service ended
    the stopped job, a retry from `generation`, which reserves credits again.

    Args:
        job_id: The job; may be left out where `approval` names it.
        approval: What `UGenKeyframeApprovalOperator` returned; None resumes whatever is there.

    Examples:
        >>> UGenResumeJobOperator(task_id="go_on", job_id="{{ params.job_id }}")
        <Task(UGenResumeJobOperator): go_on>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "approval")
    _did = ("goes on", "was not paused")

    def __init__(self, *, job_id: Any = None, approval: Any = None, **kwargs: Any) -> None:
        self.approval = approval
        super().__init__(job_id=job_id, **kwargs)

    def _check_job(self) -> None:
        if self.job_id is None and self.approval is None:
            raise ConfigError("job_id: name the job, or hand over an approval")
        if self.job_id is not None:
            super()._check_job()
        if self.approval is not None and not is_pending(self.approval):
            _read_approval(self.approval)

    def execute(self, context: Context) -> dict[str, Any]:
        """Resume, and wait."""
        if isinstance(self.approval, Mapping) and self.job_id is None:
            self.job_id = self.approval.get("job_id")
        return super().execute(context)

    def _act(self, client: UGenClient, job_id: str, *, store: IntentStore, scope: str) -> Flow[Acted]:  # noqa: ARG002
        from ugen_provider.core.jobs.gate import pass_gate
        from ugen_provider.core.jobs.repeating import Acted, resume_once

        if self.approval is None:
            return (yield from resume_once(client.caller, job_id, scope=scope, spending=client.config.spending))
        approval = _read_approval(self.approval)
        passed = yield from pass_gate(client.caller, approval, spending=client.config.spending)
        return Acted(passed.job, "already" if passed.how == "already" else "done", passed.stale)


class UGenCancelJobOperator(UGenExistingJobOperator):
    """Cancel a job that has not ended; its reservation is released. A job that ended first keeps its result.

    `DELETE /jobs/{jobId}`, after a look. The create task of the same run knows from then on whose cancel it was: when
    it is cleared, it names this one, and buys another job only by `regenerate`.

    Examples:
        >>> UGenCancelJobOperator(task_id="stop", job_id="{{ params.job_id }}")
        <Task(UGenCancelJobOperator): stop>
    """

    any_end_is_fine = True
    _did = ("is cancelled", "ended before it could be cancelled")
    closes_jobs = True

    def execute(self, context: Context) -> dict[str, Any]:
        """Say that it is to be cancelled, cancel, and wait."""
        with failing_for_good(self.ugen_conn_id):
            tell(context, Closing(plain_job_id(self.job_id), "operator", time.time()))
        result = super().execute(context)
        if result["status"] != "cancelled":
            take_back(context)
        return result

    def _act(self, client: UGenClient, job_id: str, *, store: IntentStore, scope: str) -> Flow[Acted]:  # noqa: ARG002
        from ugen_provider.core.api import operations
        from ugen_provider.core.jobs.cancelling import cancel
        from ugen_provider.core.jobs.repeating import Acted

        done = yield from cancel(client.caller, job_id, reason="operator")
        job = done.job
        if job is None:
            job = yield from client.caller.call(operations.get_job(job_id))  # a 404, in the service's own words
        return Acted(job, "done" if done.confirmed else "already")


def _read_approval(given: object) -> Approval:
    from ugen_provider.core.jobs.gate import Approval

    if not isinstance(given, Mapping):
        raise ConfigError(f"approval: must be what UGenKeyframeApprovalOperator returned, got {given!r}")
    try:
        return Approval.from_dict(given)
    except ValueError as error:
        raise ConfigError(f"approval: {error}") from None


def plain_job_id(value: object) -> str:
    """The id of a job as a task was given it: itself, or inside what another task returned.

    Raises:
        ConfigError: There is none, as where a template rendered to nothing.
    """
    found = value.get("job_id") if isinstance(value, Mapping) else value
    if not isinstance(found, str) or is_nothing(found):
        raise ConfigError("job_id: there is none; its template rendered to nothing")
    return found.strip()


def raise_if_dead(job: Job) -> None:
    """Raise for a job that failed or was cancelled."""
    from ugen_provider.core.api.errors import JobCancelledError, JobFailedError
    from ugen_provider.core.api.models import JobState
    from ugen_provider.core.jobs.buying import failure_kind

    error: JobError
    if job.state is JobState.FAILED:
        why = job.error_message or "the service gave no reason"
        error = JobFailedError(
            f"job {job.job_id} failed: {why}", job_id=job.job_id, job=job, retryable=failure_kind(job) == "passing"
        )
        raise error
    if job.state is JobState.CANCELLED:
        error = JobCancelledError(f"job {job.job_id} was cancelled", job_id=job.job_id, job=job)
        raise error
