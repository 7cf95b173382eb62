# SPDX-License-Identifier: Apache-2.0
"""Operators for a job that exists: retry, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.api.polling import JobError
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
from ugen_provider.operators.base import (
    DEFAULT_CONN_ID,
    DEFAULT_TIMEOUT,
    KillClock,
    KillContext,
    UGenJobOperator,
    describe_deadline,
    describe_end,
    earliest,
    execution_deadline,
    trigger_timeout,
)
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.task_state import (
    OpenStore,
    open_order_store,
    order_key_of,
    publish_cancel,
    upstream_ref,
    withdraw_cancel,
)
from ugen_provider.triggers.cancellation import attempt_name
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, UGenJobTrigger, earliest_event

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.api.polling import Goal
    from ugen_provider.core.jobs.approval import Approval
    from ugen_provider.core.jobs.results import ActionResult
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.hooks.ugen import UGenSettings


@dataclass(slots=True)
class JobAttempt:
    """One attempt of a task at a job that exists.

    Attributes:
        context: Airflow's.
        settings: Of the connection.
        client: Calls the API.
        opened: Where records are kept.
        world: Contacts with the outside.
        job_id: The job.
        order_key: Text key of the job's order; None where no ledger knows it.
        kill: A kill of this process.
    """

    context: Context
    settings: UGenSettings
    client: UGenClient
    opened: OpenStore
    world: World
    job_id: str
    order_key: str | None
    kill: KillContext


class UGenExistingJobOperator(UGenJobOperator):
    """An operator that acts on a job and may wait for it.

    Args:
        job_id: The job, usually `{{ ti.xcom_pull(task_ids='make_video')['job_id'] }}` or another task's output.
        ugen_conn_id: The connection.
        wait_for_completion: Whether to wait for the result of the action.
        deferrable: Whether to wait in the triggerer.
        poll_interval: Seconds between polls; the service asks for 5 to 10.
        timeout: Seconds to wait, or a timedelta; None waits without limit. The job keeps running.
        cancel_on_kill: Whether the job is cancelled when a person ends the task instance or its run.
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id")
    _log_words: ClassVar[tuple[str, str]] = ("done", "no request was needed")
    """The log's words for an action that was taken now, and for one that was not needed."""
    accepts_any_end: ClassVar[bool] = False
    """Whether a job that failed or was cancelled is a result like any other."""
    owns_job: ClassVar[bool] = False
    """Whether the job belongs to this task from now on, so that the end of an earlier task cancels nothing."""

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

    def _act(self, attempt: JobAttempt) -> ActionResult:
        """Do the action, which is safe to repeat."""
        raise NotImplementedError

    def _goal(self) -> Goal:
        """Return the goal of the wait after the action."""
        from ugen_provider.core.api.polling import Goal

        return Goal(through_pauses=True)

    def execute(self, context: Context) -> dict[str, Any]:
        """Act, and wait."""
        with self._attempt(context, job_id_in(self.job_id)) as attempt:
            self._take_ownership(attempt)
            self._publish(attempt)
            done = self._act(attempt)
            words = self._log_words[done.outcome != "done"]
            self.log.info("job %s: %s; status %s", attempt.job_id, words, done.job.status)
            if not self.wait_for_completion:
                return self._result(attempt, done.job)
            return self._wait(attempt, done)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Read the job again, believe only that, and continue from there."""
        from ugen_provider.core.api.polling import judge, timed_out
        from ugen_provider.core.jobs.results import ActionResult

        carry = event["payload"]
        with self._attempt(context, event["job_id"], expected_id=carry.get("ledger_id")) as attempt:
            attempt.kill.token = int(carry.get("token") or 0)
            job = attempt.client.jobs.get(attempt.job_id)
            if judge(job, goal=self._goal()) is not None:
                return self._conclude(attempt, job)
            if event["status"] == "timeout":
                raise timed_out(attempt.job_id, job)
            self.log.warning("job %s: still %s; %s", job.job_id, job.status, event.get("message") or "waiting again")
            return self._wait(attempt, ActionResult(job, "already"), deadline=carry["deadline"])

    @contextmanager
    def _attempt(self, context: Context, job_id: str | None, *, expected_id: str | None = None) -> Iterator[JobAttempt]:
        with fail_without_retry(self.ugen_conn_id):
            job_id = plain_job_id(job_id)
            settings = self.hook.get_settings()
            if not expected_id:
                ref = upstream_ref(context, job_id, settings.signer)
                expected_id = ref.ledger_id if ref is not None else None
            with (
                open_order_store(context, settings, expected_id=expected_id) as opened,
                self.kill_context(context, settings, opened) as kill,
                self.hook.get_conn(config=settings.config, clock=KillClock(kill)) as client,
            ):
                from ugen_provider.core.jobs.sync.world import World

                world = World(client, opened.store, is_stopping=lambda: kill.is_set)
                order_key = opened.order_key_of(job_id)
                kill.job_id, kill.order_key = job_id, order_key or ""
                yield JobAttempt(context, settings, client, opened, world, job_id, order_key, kill)

    def _take_ownership(self, attempt: JobAttempt) -> None:
        """Make this attempt the newest one of the job's order, so that the job belongs to this task."""
        if self.owns_job and attempt.order_key is not None:
            record = attempt.world.take_token(attempt.order_key, attempt_name(attempt.context["ti"]))
            attempt.kill.token = record.token

    def _publish(self, attempt: JobAttempt) -> None:
        self.publish_job_id(
            attempt.context,
            attempt.settings,
            job_id=attempt.job_id,
            order_key=attempt.order_key or "",
            token=attempt.kill.token,
            ledger_id=attempt.opened.ledger_id,
        )

    def _request_key(self, attempt: JobAttempt) -> str:
        """Return the key of the record of this task's own request."""
        namespace = attempt.settings.config.namespace
        return str(order_key_of(attempt.context, namespace=namespace, part=type(self).__name__))

    def _wait(self, attempt: JobAttempt, done: ActionResult, *, deadline: float | None = None) -> dict[str, Any]:
        from ugen_provider.core.api import polling

        job, goal = done.job, self._goal()
        if polling.judge(job, goal=goal, stale=done.stale) is not None:
            return self._conclude(attempt, job)
        limit = seconds(self.timeout)
        now = attempt.world.now()
        if deadline is None:
            deadline = earliest(
                None if limit is None else now + limit, execution_deadline(attempt.context, self.execution_timeout)
            )
        self.log.info("job %s: %s, waiting %s", job.job_id, job.status, describe_deadline(deadline))
        if self.deferrable:
            stale, opened = done.stale, attempt.opened
            self.defer(
                trigger=UGenJobTrigger(
                    job_id=job.job_id,
                    ugen_conn_id=self.ugen_conn_id,
                    poll_interval=self.poll_interval,
                    end_time=deadline,
                    event_after=earliest_event(now, poll_interval=self.poll_interval),
                    wait_for_pause=goal.stopped,
                    ignore_pauses=goal.through_pauses,
                    ignore_state=None if stale is None else (stale.status, stale.stage, stale.updated_at),
                    payload={"deadline": deadline, "ledger_id": opened.ledger_id, "token": attempt.kill.token},
                    cancel_on_kill=self.cancel_on_kill,
                    order_key=attempt.order_key or "",
                    token=attempt.kill.token,
                    ledger_conn_id=opened.ledger_conn_id,
                    ledger_id=opened.ledger_id,
                ),
                method_name="execute_complete",
                timeout=trigger_timeout(deadline, now=now, poll_interval=self.poll_interval),
            )
        outcome = attempt.world.wait(
            job.job_id, goal=goal, interval=self.poll_interval, deadline=deadline, stale=done.stale
        )
        return self._conclude(attempt, outcome.job)

    def _conclude(self, attempt: JobAttempt, job: Job) -> dict[str, Any]:
        if not self.accepts_any_end:
            raise_if_ended_badly(job)
        return self._result(attempt, job)

    def _result(self, attempt: JobAttempt, job: Job) -> dict[str, Any]:
        from ugen_provider.core.jobs.results import Scores, describe

        keyframes = job.keyframes
        if job.ended and not keyframes:
            keyframes = attempt.client.jobs.list_keyframes(job.job_id)
        scores = Scores.of(job, keyframes=keyframes)
        result = describe(job, scores=scores)
        if job.ended:
            self.log.info("job %s: %s", job.job_id, describe_end(job, scores=scores))
        picture = (job.model_extra or {}).get("product_image_url")
        return self.record_lineage(result, picture=picture, video_model=job.video_model)


class UGenRetryJobOperator(UGenExistingJobOperator):
    """Run an ended job again from a stage, once per task instance, however often the task is retried or cleared.

    Reserves credits again. Calls `POST /jobs/{jobId}/retry`, after reading the job and its transactions.

    Args:
        restart_from_stage: First stage to run again; None starts where it failed.

    Examples:
        >>> UGenRetryJobOperator(task_id="again", job_id="{{ params.job_id }}", restart_from_stage="generation")
        <Task(UGenRetryJobOperator): again>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "restart_from_stage")
    _log_words = ("runs again", "not retried, since it is running or this task instance retried it before")
    owns_job = True

    def __init__(self, *, restart_from_stage: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restart_from_stage = restart_from_stage
        with refusing():
            self._check_stage()

    def _check_stage(self) -> None:
        stage = self.restart_from_stage
        if stage is not None and not is_pending(stage) and (violations := rules.check_stage(stage)):
            raise InvalidRequestError(violations)

    def _act(self, attempt: JobAttempt) -> ActionResult:
        from ugen_provider.core.jobs.sync.actions import retry_job_once

        self._check_stage()
        return retry_job_once(
            attempt.world,
            attempt.job_id,
            request_key=self._request_key(attempt),
            attempt=attempt_name(attempt.context["ti"]),
            restart_from_stage=self.restart_from_stage or None,
            spending=attempt.settings.config.spending,
        )


class UGenPauseJobOperator(UGenExistingJobOperator):
    """Pause a job, and wait until it is paused, or ended before. Free; `POST /jobs/{jobId}/pause`.

    Examples:
        >>> UGenPauseJobOperator(task_id="pause", job_id="{{ params.job_id }}")
        <Task(UGenPauseJobOperator): pause>
    """

    accepts_any_end = True
    _log_words = ("asked to pause", "ended before it could be paused")

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(cancel_on_kill=cancel_on_kill, **kwargs)

    def _act(self, attempt: JobAttempt) -> ActionResult:
        from ugen_provider.core.api.models import JobState
        from ugen_provider.core.jobs.results import ActionResult
        from ugen_provider.core.jobs.sync.actions import pause_job

        job = attempt.client.jobs.get(attempt.job_id)
        if not job.ended and job.state is not JobState.PAUSED:
            pause_job(attempt.world, attempt.job_id)
            job = attempt.client.jobs.get(attempt.job_id)
        return ActionResult(job, "already" if job.ended else "done")

    def _goal(self) -> Goal:
        from ugen_provider.core.api.polling import Goal

        return Goal(stopped=True)


class UGenResumeJobOperator(UGenExistingJobOperator):
    """Resume a paused job, and wait until it has ended.

    At the gate it resumes the job only for the very picture that was approved: the keyframe is read again, and one that
    was made again after the approval is refused. Calls `POST /jobs/{jobId}/resume`, after a GET; where the service
    ended the stopped job, a retry from `generation`, which reserves credits again.

    Args:
        job_id: The job; may be left out where `approval` names it.
        approval: The result of `UGenKeyframeApprovalOperator`; None resumes the job without a check.

    Examples:
        >>> UGenResumeJobOperator(task_id="go_on", job_id="{{ params.job_id }}")
        <Task(UGenResumeJobOperator): go_on>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "approval")
    _log_words = ("resumed", "was not paused")
    owns_job = True

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

    def _act(self, attempt: JobAttempt) -> ActionResult:
        from ugen_provider.core.jobs.results import ActionResult
        from ugen_provider.core.jobs.sync.actions import resume_approved, resume_job_once

        spending = attempt.settings.config.spending
        if self.approval is None:
            key = attempt.order_key or self._request_key(attempt)
            return resume_job_once(attempt.world, attempt.job_id, request_key=key, spending=spending)
        approval = _read_approval(self.approval)
        if approval.job_id != attempt.job_id:
            raise ConfigError(f"approval: is for job {approval.job_id}, and job_id is {attempt.job_id}")
        passed = resume_approved(attempt.world, approval, order_key=attempt.order_key, spending=spending)
        return ActionResult(passed.job, "already" if passed.outcome == "already" else "done", passed.stale)


class UGenCancelJobOperator(UGenExistingJobOperator):
    """Cancel a job that has not ended; its reservation is released. A job that ended first keeps its result.

    Calls `DELETE /jobs/{jobId}`, after a GET. The create task of the same run knows of the cancel: when it is cleared,
    it names this one, and buys another job only for a new `regenerate` value.

    Examples:
        >>> UGenCancelJobOperator(task_id="stop", job_id="{{ params.job_id }}")
        <Task(UGenCancelJobOperator): stop>
    """

    accepts_any_end = True
    _log_words = ("cancelled", "ended before it could be cancelled")
    cancels_jobs = True

    def _act(self, attempt: JobAttempt) -> ActionResult:
        from ugen_provider.core.jobs.results import ActionResult
        from ugen_provider.core.jobs.sync.actions import cancel_job, cancel_order

        world, context = attempt.world, attempt.context
        if attempt.order_key is not None:
            result = cancel_order(world, attempt.order_key, reason="operator", job_id=attempt.job_id)
        else:
            publish_cancel(context, attempt.settings.signer, job_id=attempt.job_id, reason="operator", at=world.now())
            result = cancel_job(world, attempt.job_id)
            if not result.confirmed and (result.job is None or result.job.ended):
                withdraw_cancel(context)
        job = result.job if result is not None and result.job is not None else None
        if job is None:
            job = attempt.client.jobs.get(attempt.job_id)  # a 404, in the service's own words
        return ActionResult(job, "done" if result is not None and result.confirmed else "already")


def _read_approval(given: object) -> Approval:
    from ugen_provider.core.jobs.approval import Approval

    if not isinstance(given, Mapping):
        raise ConfigError(f"approval: must be the result of UGenKeyframeApprovalOperator, got {given!r}")
    try:
        return Approval.from_dict(given)
    except ValueError as error:
        raise ConfigError(f"approval: {error}") from None


def plain_job_id(value: object) -> str:
    """Return the id of a job from a task's argument: the id itself, or another task's result that holds it.

    Raises:
        ConfigError: There is none, as where a template rendered to nothing.
    """
    found = value.get("job_id") if isinstance(value, Mapping) else value
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)  # native rendering makes a number of an id that has only digits
    if not isinstance(found, str) or is_nothing(found):
        raise ConfigError("job_id: there is none; its template rendered to nothing")
    return found.strip()


def job_id_in(value: object) -> Any:
    """Return the id inside another task's result, and any other value unchanged."""
    return value.get("job_id") if isinstance(value, Mapping) else value


def raise_if_ended_badly(job: Job) -> None:
    """Raise for a job that failed or was cancelled."""
    from ugen_provider.core.api.models import JobState
    from ugen_provider.core.api.polling import JobCancelledError, JobFailedError, failure_kind

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
