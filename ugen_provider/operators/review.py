# SPDX-License-Identifier: Apache-2.0
"""`UGenKeyframeApprovalOperator`: a person looks at the anchor keyframe before money goes into a video.

Stands on Airflow's own human-in-the-loop, from Airflow 3.1 on.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from ugen_provider.core.api.errors import ConfigError, PurchaseError
from ugen_provider.operators.arguments import refusing, require_named
from ugen_provider.operators.base import DEFAULT_CONN_ID, UGenJobOperator, UsesConnection, push_watch
from ugen_provider.operators.closing import CLOSING, Closing, take_back, tell
from ugen_provider.operators.control import plain_job_id, raise_if_dead
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.triggers.killing import Watch
from ugen_provider.version_compat import NEVER_EXPIRE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.jobs.gate import Look

# Older standard providers, such as the one in the constraints of Airflow 3.1, name it as every task's own timeout.
_RESPONSE_TIMEOUT = (
    "response_timeout"
    if "response_timeout" in inspect.signature(HITLOperator.__init__).parameters
    else "execution_timeout"
)

LOOK = "ugen_look"
"""The XCom that holds what was shown in this attempt, and so what a yes is about."""


SUBJECT = "Does this keyframe look right?"
"""The headline where neither the user nor the job says more."""


class UGenKeyframeApprovalOperator(UsesConnection, ApprovalOperator):
    """Show the anchor keyframe of a job that stopped at `init`, and wait for a yes or a no. Free.

    The yes binds the job, the keyframe and the digest of its picture: `UGenResumeJobOperator(approval=…)` refuses a
    look that was made again since. A no, and a time that ran out, cancel the job, which releases its credits; a task
    instance that a person ends does too. After a no the tasks behind it are skipped; a time that ran out fails the
    task, without a retry. The create task knows of both: when it is cleared, it buys another job only by `regenerate`.
    Waiting holds neither a worker nor the triggerer. An open gate holds the job's credits and perhaps one of the
    account's job slots, so let no more of them stand open than the account bears:
    give the create task a pool, with deferred tasks included.

    Args:
        job_id: The job, or what the create operator returned.
        ugen_conn_id: The connection.
        response_timeout: After which the look counts as expired; None waits as long as it takes.
        subject: Headline, templated; default asks about the keyframe of the product by its name, since Airflow lists
            open actions by their headlines.
        fail_on_reject: Whether a no fails the task instead of skipping what comes after it.

    Returns:
        The approval, for `UGenResumeJobOperator`.

    Examples:
        >>> UGenKeyframeApprovalOperator(task_id="look", job_id="{{ params.job_id }}")
        <Task(UGenKeyframeApprovalOperator): look>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "subject")
    operator_extra_links = UGenJobOperator.operator_extra_links
    ui_color = "#f3e8ff"
    closes_jobs = True

    def __init__(
        self,
        *,
        job_id: Any,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        subject: str = SUBJECT,
        response_timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        timeout: dict[str, Any] = {_RESPONSE_TIMEOUT: response_timeout}
        super().__init__(subject=subject, **timeout, **kwargs)
        self.job_id = job_id
        self.ugen_conn_id = ugen_conn_id
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)
            require_named("job_id", job_id)
            if response_timeout is not None and not (
                isinstance(response_timeout, timedelta) and response_timeout > timedelta(0)
            ):
                raise ConfigError(f"response_timeout: must be a timedelta above 0, got {response_timeout!r}")

    def execute(self, context: Context) -> Any:
        """Look at the keyframe as it is now, show it, and wait for an answer."""
        from ugen_provider.core.api.models import JobState
        from ugen_provider.core.jobs.gate import Approval, look_at

        with failing_for_good(self.ugen_conn_id), self.hook.get_conn() as client:
            job_id = plain_job_id(self.job_id)
            job = client.jobs.get(job_id)
            decided = self._decided(context, job_id)
            if decided is not None and (not job.ended or job.state is JobState.CANCELLED):
                self.log.info("job %s was %s in an earlier attempt, which is gone on with", job_id, decided.reason)
                return self._close(context, decided)
            raise_if_dead(job)
            look = client.run(look_at(client.caller, job_id))
            self._announce(context, look)
            if not _stands_at_its_gate(job):
                self.log.info("job %s is beyond its gate already: there is nothing to ask", job_id)
                return Approval.of(look, by="", at=client.clock.now()).to_dict()
        if self.subject == SUBJECT and job.product_name:
            self.subject = f"{job.product_name}: does this keyframe look right?"
        self.body = body_of(look, product=job.product_name)
        return super().execute(context)

    def _announce(self, context: Context, look: Look) -> None:
        ti = context["ti"]
        push_watch(context, Watch(look.job_id, self.ugen_conn_id, scope="", attempt=ti.try_number, cancel_on_kill=True))
        ti.xcom_push(key=LOOK, value=asdict(look))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Act on the answer: a yes becomes an approval of what was shown, anything else cancels the job."""
        from ugen_provider.core.jobs.gate import Approval, Look

        ti = context["ti"]
        look = Look(**ti.xcom_pull(task_ids=self.task_id, key=LOOK, map_indexes=ti.map_index))
        try:
            answer = super(ApprovalOperator, self).execute_complete(context, event)
        except HITLTimeoutError:
            return self._close(context, Closing(look.job_id, "expired", time.time()))
        if answer["chosen_options"][0] != self.APPROVE:
            return self._close(context, Closing(look.job_id, "rejected", time.time()), event=event)
        who = answer["responded_by_user"] or {}
        by = str(who.get("name") or who.get("id") or "")
        return Approval.of(look, by=by, at=answer["responded_at"].timestamp()).to_dict()

    # Closing: written down before the call, so that the next attempt goes on with it instead of asking again.

    def _decided(self, context: Context, job_id: str) -> Closing | None:
        """What was decided in an earlier attempt, from Airflow 3.3 on."""
        state = context.get("task_state_store")
        decided = None if state is None else Closing.from_dict(state.get(CLOSING))
        return decided if decided is not None and decided.job_id == job_id else None

    def _close(self, context: Context, closing: Closing, *, event: dict[str, Any] | None = None) -> Any:
        from ugen_provider.core.api.errors import JobCancelledError
        from ugen_provider.core.jobs.gate import close_gate

        state = context.get("task_state_store")
        if state is not None:
            state.set(CLOSING, closing.to_dict(), retention=NEVER_EXPIRE)
        tell(context, closing)
        job_id, reason = closing.job_id, closing.reason
        assert reason != "operator"  # a gate does not give that one
        with failing_for_good(self.ugen_conn_id):
            with self.hook.get_conn() as client:
                closed = client.run(close_gate(client.caller, job_id, reason=reason))
            if not closed.confirmed:
                take_back(context)
                if state is not None:
                    state.delete(CLOSING)
            if not closed.confirmed and closed.job is not None and not closed.job.ended:
                raise PurchaseError(
                    f"job {job_id} was {reason}, and U-Gen does not cancel it in its state: it is an orphan that "
                    "holds its credits; cancel it in the dashboard",
                    scope="",
                    reason="cancel_refused",
                    job_id=job_id,
                )
            became = "is cancelled, and its credits are released" if closed.confirmed else "had ended already"
            if reason == "expired":
                raise JobCancelledError(f"nobody answered in time: job {job_id} {became}", job_id=job_id)
            self.log.info("the look was rejected: job %s %s", job_id, became)
            if self.fail_on_reject:
                raise JobCancelledError(f"the look was rejected: job {job_id} {became}", job_id=job_id)
        super().execute_complete(context, event or self._rejection(closing))
        return {"job_id": job_id, "approved": False}

    def _rejection(self, closing: Closing) -> dict[str, Any]:
        """The answer of an earlier attempt, as Airflow would hand it over."""
        at = datetime.fromtimestamp(closing.at, UTC)
        return {"chosen_options": [self.REJECT], "params_input": {}, "responded_at": at, "responded_by_user": None}


def _stands_at_its_gate(job: Any) -> bool:
    from ugen_provider.core.api.models import JobState

    ended_there = job.state is JobState.COMPLETED and job.final_video_url is None
    return job.state is JobState.PAUSED or ended_there


def body_of(look: Look, *, product: str | None) -> str:
    """What the person sees: the picture, its score, and what a yes means, as Markdown."""
    score = "no score" if look.qai_score is None else f"{look.qai_score:.2f}"
    name = (product or look.job_id).translate(_PLAIN)
    return (
        f"**{name}** · quality score {score}\n\n"
        f"![keyframe]({look.image_url})\n\n"
        "Every later picture of the video follows this one. **Approve** lets the job go on and spends its credits; "
        "**Reject** cancels it and releases them.\n\n"
        f"Job `{look.job_id}`"
    )


_PLAIN = {ord(mark): " " for mark in "*_`[]()<>!#|\\\n"}
