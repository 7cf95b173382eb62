# SPDX-License-Identifier: Apache-2.0
"""`UGenKeyframeApprovalOperator`: a person reviews the anchor keyframe before credits are spent on a video.

Built on Airflow's own human-in-the-loop, from Airflow 3.1 on.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from ugen_provider.core.api.errors import ConfigError, PurchaseError
from ugen_provider.core.text import escape_markdown, markdown_link, one_line
from ugen_provider.operators.arguments import refusing, require_named
from ugen_provider.operators.base import DEFAULT_CONN_ID, UGenJobOperator, UsesConnection, publish_ref
from ugen_provider.operators.control import plain_job_id, raise_if_ended_badly
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.task_state import (
    ClosingReason,
    OpenStore,
    open_order_store,
    publish_cancel,
    read_decision,
    store_decision,
    upstream_ref,
    withdraw_cancel,
)
from ugen_provider.triggers.cancellation import JobRef, attempt_name

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.jobs.approval import KeyframeSnapshot
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.hooks.ugen import UGenSettings

# Older standard providers, such as the one in the constraints of Airflow 3.1, name it as every task's own timeout.
_RESPONSE_TIMEOUT = (
    "response_timeout"
    if "response_timeout" in inspect.signature(HITLOperator.__init__).parameters
    else "execution_timeout"
)

KEYFRAME = "ugen_keyframe"
"""The XCom that holds the keyframe as it was shown in this attempt, which is what an approval binds."""

SUBJECT = "Does this keyframe look right?"
"""The headline where neither the user nor the job names another."""

_EXPIRY_SLACK = 300.0
"""Seconds after `response_timeout` after which the reconciler cancels the job of a gate that its task left open."""


@dataclass(slots=True)
class _Gate:
    context: Context
    settings: UGenSettings
    client: UGenClient
    opened: OpenStore
    world: World
    job_id: str
    order_key: str | None


@dataclass(frozen=True, slots=True)
class _Decision:
    reason: ClosingReason
    at: float


class UGenKeyframeApprovalOperator(UsesConnection, ApprovalOperator):
    """Show the anchor keyframe of a job that stopped at `init`, and wait for an approval. Free.

    The approval binds the job, the keyframe and the digest of its picture: `UGenResumeJobOperator(approval=…)` refuses
    a keyframe that was made again since. A rejection, and a response timeout, cancel the job, which releases its
    credits; so does a person who ends the task instance. After a rejection the tasks behind it are skipped; a timeout
    fails the task, without a retry. The create task knows of both: when it is cleared, it buys another job only for a
    new `regenerate` value. With a ledger, a gate whose run timed out or was deleted is cancelled by the reconciler.

    Waiting holds neither a worker nor the triggerer. An open gate holds the job's credits and perhaps one of the
    account's job slots, so limit how many are open: give the create task a pool, with deferred tasks included.

    Args:
        job_id: The job, or the result of the create operator.
        ugen_conn_id: The connection.
        response_timeout: Time after which the gate expires; None waits without limit.
        subject: Headline, templated; default asks about the keyframe of the product by its name, since Airflow lists
            open actions by their headlines.
        fail_on_reject: Whether a rejection fails the task instead of skipping the tasks behind it.

    Returns:
        The approval, for `UGenResumeJobOperator`.

    Examples:
        >>> UGenKeyframeApprovalOperator(task_id="look", job_id="{{ params.job_id }}")
        <Task(UGenKeyframeApprovalOperator): look>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "subject")
    operator_extra_links = UGenJobOperator.operator_extra_links
    ui_color = "#f3e8ff"
    cancels_jobs = True

    def __init__(
        self,
        *,
        job_id: Any,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        subject: str = SUBJECT,
        response_timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        timeout: dict[str, Any] = {_RESPONSE_TIMEOUT: response_timeout}
        super().__init__(subject=subject, **timeout, **kwargs)
        self.job_id = job_id
        # Airflow counts `execution_timeout` of a task that asks a person as its response timeout.
        self._response_timeout: timedelta | None = getattr(self, "response_timeout", response_timeout)
        self.ugen_conn_id = ugen_conn_id
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)
            require_named("job_id", job_id)
            if response_timeout is not None and not (
                isinstance(response_timeout, timedelta) and response_timeout > timedelta(0)
            ):
                raise ConfigError(f"response_timeout: must be a timedelta above 0, got {response_timeout!r}")

    @contextmanager
    def _gate(self, context: Context, job_id: str, *, expected_id: str | None = None) -> Iterator[_Gate]:
        settings = self.hook.get_settings()
        if not expected_id:
            ref = upstream_ref(context, job_id, settings.signer)
            expected_id = ref.ledger_id if ref is not None else None
        with (
            open_order_store(context, settings, expected_id=expected_id) as opened,
            self.hook.get_conn(config=settings.config) as client,
        ):
            from ugen_provider.core.jobs.sync.world import World

            order_key = opened.order_key_of(job_id)
            yield _Gate(context, settings, client, opened, World(client, opened.store), job_id, order_key)

    def execute(self, context: Context) -> Any:
        """Read the keyframe as it is now, show it, and wait for an answer."""
        from ugen_provider.core.api.models import JobState
        from ugen_provider.core.jobs.approval import Approval
        from ugen_provider.core.jobs.sync.actions import read_keyframe

        with (
            fail_without_retry(self.ugen_conn_id),
            self._gate(context, plain_job_id(self.job_id)) as gate,
        ):
            job = gate.client.jobs.get(gate.job_id)
            decided = self._earlier_decision(gate)
            if decided is not None and (not job.ended or job.state is JobState.CANCELLED):
                self.log.info("job %s: was %s in an earlier attempt, which is continued", gate.job_id, decided.reason)
                return self._close(gate, decided)
            raise_if_ended_badly(job)
            keyframe = read_keyframe(gate.world, gate.job_id)
            self._take_over(gate, keyframe, is_open=_is_at_its_gate(job))
            if not _is_at_its_gate(job):
                self.log.info("job %s: is beyond its gate already; no approval is asked for", gate.job_id)
                return Approval.of(keyframe, by="", at=gate.world.now()).to_dict()
            others = [frame.image_url for frame in job.keyframes or gate.client.jobs.list_keyframes(gate.job_id)]
        if self.subject == SUBJECT and job.product_name:
            self.subject = f"{one_line(job.product_name, most=200)}: does this keyframe look right?"
        self.body = body_of(keyframe, product=job.product_name, others=[url for url in others if url])
        return super().execute(context)

    def _take_over(self, gate: _Gate, keyframe: KeyframeSnapshot, *, is_open: bool) -> None:
        """Make the job this task's own, and record the gate, which is cancelled if its run ends without an answer."""
        from ugen_provider.core.jobs.sync.actions import hold_at_gate

        ti, token = gate.context["ti"], 0
        if gate.order_key is not None:
            record = gate.world.take_token(gate.order_key, attempt_name(ti))
            token = record.token
            if is_open:
                timeout = self._response_timeout
                expires_at = None if timeout is None else gate.world.now() + timeout.total_seconds() + _EXPIRY_SLACK
                hold_at_gate(gate.world, record, expires_at=expires_at)
        ref = JobRef(
            job_id=gate.job_id,
            ugen_conn_id=self.ugen_conn_id,
            attempt=attempt_name(ti),
            order_key=gate.order_key or "",
            token=token,
            ledger_id=gate.opened.ledger_id,
            cancel_on_kill=True,
        )
        publish_ref(gate.context, ref, gate.settings)
        ti.xcom_push(key=KEYFRAME, value={**asdict(keyframe), "ledger_id": gate.opened.ledger_id})

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Act on the answer: an approval binds the keyframe that was shown, anything else cancels the job."""
        from ugen_provider.core.jobs.approval import Approval, KeyframeSnapshot

        ti = context["ti"]
        shown = dict(ti.xcom_pull(task_ids=self.task_id, key=KEYFRAME, map_indexes=ti.map_index))
        ledger_id = shown.pop("ledger_id", None)
        keyframe = KeyframeSnapshot(**shown)
        reason: ClosingReason | None = None
        answer: dict[str, Any] = {}
        try:
            answer = super(ApprovalOperator, self).execute_complete(context, event)
        except HITLTimeoutError:
            reason = "expired"
        if reason is None and answer["chosen_options"][0] != self.APPROVE:
            reason = "rejected"
        with (
            fail_without_retry(self.ugen_conn_id),
            self._gate(context, keyframe.job_id, expected_id=ledger_id) as gate,
        ):
            if reason is not None:
                decision = _Decision(reason, gate.world.now())
                return self._close(gate, decision, event=event if reason == "rejected" else None)
            self._record_approved(gate)
        user = answer["responded_by_user"] or {}
        by = str(user.get("name") or user.get("id") or "")
        return Approval.of(keyframe, by=by, at=answer["responded_at"].timestamp()).to_dict()

    def _record_approved(self, gate: _Gate) -> None:
        """Withdraw the gate's expiry: an approved job waits for its resume, however long that takes."""
        for action in gate.world.actions(gate.order_key) if gate.order_key is not None else ():
            if action.kind == "pause" and action.job_id == gate.job_id and action.state != "withdrawn":
                gate.world.mark_action(action, "withdrawn")

    # Closing: recorded before the cancel, so that the next attempt continues with it instead of asking again.

    def _earlier_decision(self, gate: _Gate) -> _Decision | None:
        """Return the decision of an earlier attempt; without a ledger, from Airflow 3.3 on."""
        if gate.order_key is None:
            found = read_decision(gate.context, gate.settings.signer, job_id=gate.job_id)
            return None if found is None else _Decision(*found)
        for action in reversed(gate.world.actions(gate.order_key)):
            about = action.kind == "cancel" and action.job_id == gate.job_id and action.state != "withdrawn"
            if about and action.reason in {"rejected", "expired"}:
                return _Decision("rejected" if action.reason == "rejected" else "expired", action.at)
        return None

    def _cancel(self, gate: _Gate, decision: _Decision) -> Any:
        from ugen_provider.core.jobs.sync.actions import cancel_job, cancel_order

        if gate.order_key is not None:
            reason: Any = decision.reason
            return cancel_order(gate.world, gate.order_key, reason=reason, job_id=gate.job_id)
        signer, context = gate.settings.signer, gate.context
        store_decision(context, signer, job_id=gate.job_id, reason=decision.reason, at=decision.at)
        publish_cancel(context, signer, job_id=gate.job_id, reason=decision.reason, at=decision.at)
        result = cancel_job(gate.world, gate.job_id)
        if not result.confirmed:
            withdraw_cancel(context)
            store_decision(context, signer, job_id=None, reason=decision.reason, at=decision.at)
        return result

    def _close(self, gate: _Gate, decision: _Decision, *, event: dict[str, Any] | None = None) -> Any:
        from ugen_provider.core.api.polling import JobCancelledError

        job_id, reason = gate.job_id, decision.reason
        result = self._cancel(gate, decision)
        confirmed = result is not None and result.confirmed
        if result is not None and not confirmed and result.job is not None and not result.job.ended:
            then = (
                "the reconciler repeats the cancel"
                if gate.order_key is not None
                else "it holds its credits; cancel it in the dashboard"
            )
            raise PurchaseError(
                f"job {job_id} was {reason}, and U-Gen does not cancel it in its state: {then}",
                scope=gate.order_key or "",
                reason="cancel_refused",
                job_id=job_id,
            )
        became = "is cancelled, and its credits are released" if confirmed else "had ended already"
        if reason == "expired":
            raise JobCancelledError(f"no answer arrived in time: job {job_id} {became}", job_id=job_id)
        self.log.info("job %s: its keyframe was rejected; it %s", job_id, became)
        if self.fail_on_reject:
            raise JobCancelledError(f"the keyframe was rejected: job {job_id} {became}", job_id=job_id)
        super().execute_complete(gate.context, event or self._rejection(decision))
        return {"job_id": job_id, "approved": False}

    def _rejection(self, decision: _Decision) -> dict[str, Any]:
        """Return the answer of an earlier attempt in Airflow's form."""
        at = datetime.fromtimestamp(decision.at, UTC)
        return {"chosen_options": [self.REJECT], "params_input": {}, "responded_at": at, "responded_by_user": None}


def _is_at_its_gate(job: Job) -> bool:
    from ugen_provider.core.api.models import JobState

    ended_there = job.state is JobState.COMPLETED and job.final_video_url is None
    return job.state is JobState.PAUSED or ended_there


_COLUMNS = 4
"""Columns of the table of pictures, so that many keyframes do not become one long column."""


def body_of(keyframe: KeyframeSnapshot, *, product: str | None, others: Sequence[str] = ()) -> str:
    """Return the review as Markdown: the pictures, the score, and what an approval means.

    Args:
        keyframe: The anchor keyframe, which is what an approval binds.
        product: The product's name.
        others: Addresses of all keyframes of the job.
    """
    from ugen_provider.links.ugen import PAGES, base_of

    score = "no score" if keyframe.qai_score is None else f"{keyframe.qai_score:.2f}"
    name = escape_markdown(product or keyframe.job_id)
    address = markdown_link(keyframe.image_url)
    shown = [f"![keyframe]({address})" if address else "The address of the keyframe cannot be shown."]
    more = [link for url in others if url != keyframe.image_url and (link := markdown_link(url))]
    shown += [f"![keyframe {number}]({link})" for number, link in enumerate(more, 1)]
    rows = [shown[first : first + _COLUMNS] for first in range(0, len(shown), _COLUMNS)]
    cells = [f"| {' | '.join([*row, *[' '] * (_COLUMNS - len(row))])} |" for row in rows]
    table = "\n".join([cells[0], "|" + " --- |" * _COLUMNS, *cells[1:]])
    return (
        f"**{name}** · quality score {score} · [review board]({base_of()}{PAGES}/review)\n\n"
        f"{table}\n\n"
        "Every later picture of the video follows this one. **Approve** resumes the job and spends its credits; "
        "**Reject** cancels it and releases them.\n\n"
        f"Job {escape_markdown(keyframe.job_id)}"
    )
