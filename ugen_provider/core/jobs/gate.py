# SPDX-License-Identifier: Apache-2.0
"""The gate: a job that stops after its anchor keyframe goes on only for the very picture that was approved.

An approval binds the job, the keyframe and the digest of its picture. Whoever resumes reads the keyframe again and
refuses on a difference, so a look that was made again after somebody said yes is never paid for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from ugen_provider.core.api import operations
from ugen_provider.core.api.config import Spending
from ugen_provider.core.api.effects import Flow, Now, Perform
from ugen_provider.core.api.errors import (
    JobCancelledError,
    JobFailedError,
    PurchaseError,
)
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job, JobState, Keyframe
from ugen_provider.core.api.polling import Seen
from ugen_provider.core.jobs.cancelling import Cancelled, cancel
from ugen_provider.core.jobs.intent import Intent, IntentStore, OurAction, PendingRetry, write_down
from ugen_provider.core.jobs.repeating import count_reserves, send_looked_after

ANCHOR = 0
"""Index of the keyframe that `init` makes and that every later one follows."""

GATE_STAGE = "init"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Look:
    """A picture as it was shown to whoever decides.

    Attributes:
        job_id: The job that stands at the gate.
        keyframe_id: The service's id of the keyframe, or its index as text.
        digest: SHA-256 of the picture's bytes, in hexadecimal.
        image_url: Where the picture was; it may expire, and is no identity.
        qai_score: 0 to 1, None where the service has not said.
    """

    job_id: str
    keyframe_id: str
    digest: str
    image_url: str
    qai_score: float | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A yes to one look. An approval that is older than the keyframe cannot exist: the digest would differ.

    Attributes:
        job_id: The job.
        keyframe_id: The keyframe.
        digest: SHA-256 of the picture that was approved.
        by: Who approved, a person or a check.
        at: Seconds since the epoch.
    """

    job_id: str
    keyframe_id: str
    digest: str
    by: str = ""
    at: float = 0.0

    @classmethod
    def of(cls, look: Look, *, by: str, at: float) -> Self:
        """The approval of a look."""
        return cls(look.job_id, look.keyframe_id, look.digest, by, at)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for an XCom or an event's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made.

        Raises:
            ValueError: It is no approval.
        """
        try:
            return cls(**{name: stored[name] for name in ("job_id", "keyframe_id", "digest", "by", "at")})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no approval: {error} is missing") from None


def mismatch(approval: Approval, look: Look) -> str | None:
    """Why an approval does not cover a look; None where it does.

    Examples:
        >>> look = Look("j1", "k1", "aa", "https://u.example/k1.png")
        >>> mismatch(Approval("j1", "k1", "bb"), look)
        'the picture was made again after it was approved'
    """
    if approval.job_id != look.job_id:
        return f"the approval is for job {approval.job_id}"
    if approval.digest != look.digest:
        return "the picture was made again after it was approved"
    if approval.keyframe_id != look.keyframe_id:
        return f"the approval is for keyframe {approval.keyframe_id}"
    return None


def picture_digest(url: str) -> str:
    """SHA-256 of what stands at an address, read without the key.

    Raises:
        TransportError: It could not be read.
        PurchaseError: It is no picture that could be approved.
    """
    from ugen_provider.core.api._streams import open_stream

    digest, size = hashlib.sha256(), 0
    with open_stream(url) as stream:
        if stream.status != 200:
            raise PurchaseError(
                f"the keyframe cannot be read: its address answers {stream.status}", scope="", reason="no_picture"
            )
        for chunk in stream.chunks():
            digest.update(chunk)
            size += len(chunk)
            if size > _MOST_BYTES:
                raise PurchaseError("the keyframe is larger than 64 MB", scope="", reason="no_picture")
    return digest.hexdigest()


def look_at(caller: Caller, job_id: str, *, digest_of: Callable[[str], str] = picture_digest) -> Flow[Look]:
    """Read the anchor keyframe of a job as it is now. Free; `GET /jobs/{jobId}/keyframes` and the picture itself.

    Args:
        caller: Calls the service.
        job_id: The job.
        digest_of: Reads the picture at an address and gives its SHA-256.

    Raises:
        PurchaseError: The job has no keyframe yet.
    """
    frames: tuple[Keyframe, ...] = yield from caller.call(operations.list_keyframes(job_id))
    anchor = next((frame for frame in frames if frame.index in {ANCHOR, None} and frame.image_url), None)
    if anchor is None or anchor.image_url is None:
        raise PurchaseError(
            f"job {job_id} has no anchor keyframe to look at yet; it is made in stage {GATE_STAGE}",
            scope="",
            reason="no_keyframe",
            job_id=job_id,
        )
    url = anchor.image_url
    digest: str = yield Perform("picture", lambda: digest_of(url))
    return Look(job_id, anchor.keyframe_id or str(anchor.index), digest, url, anchor.qai_score)


@dataclass(frozen=True, slots=True)
class Passed:
    """A job beyond its gate.

    Attributes:
        job: The job as it is now.
        how: `resumed`, `retried` where the service had ended it at the gate, or `already` where it was on its way.
        stale: A state that does not count while waiting.
    """

    job: Job
    how: Literal["resumed", "retried", "already"]
    stale: Seen | None = None


def pass_gate(
    caller: Caller,
    approval: Approval,
    *,
    spending: Spending = "allow",
    store: IntentStore | None = None,
    scope: str | None = None,
    digest_of: Callable[[str], str] = picture_digest,
) -> Flow[Passed]:
    """Let an approved job go on. Approving twice buys once: a job that is on its way is left on it.

    Costs what was reserved when the job was created; where the service ends a stopped job as completed, going on is a
    retry from `generation`, which reserves again. `POST …/resume` or `POST …/retry`, after a look.

    Args:
        caller: Calls the service.
        approval: What was approved.
        spending: `allow`, or nothing is resumed.
        store: Where the order's intent is kept, if known here.
        scope: The intent's scope.
        digest_of: Reads the picture at an address and gives its SHA-256.

    Raises:
        PurchaseError: The approval does not cover the picture as it is now, or spending is off.
        JobFailedError: The job failed at or before its gate.
        JobCancelledError: The job was cancelled.
    """
    job_id = approval.job_id
    job: Job = yield from caller.call(operations.get_job(job_id))
    if job.state is JobState.CANCELLED:
        raise JobCancelledError(f"job {job_id} was cancelled at its gate", job_id=job_id, job=job)
    if job.state is JobState.FAILED:
        raise JobFailedError(f"job {job_id} failed: {job.error_message or 'no reason given'}", job_id=job_id, job=job)
    ended_at_the_gate = job.state is JobState.COMPLETED and job.final_video_url is None
    if job.state is not JobState.PAUSED and not ended_at_the_gate:
        return Passed(job, "already")
    look = yield from look_at(caller, job_id, digest_of=digest_of)
    if why := mismatch(approval, look):
        raise PurchaseError(
            f"job {job_id} does not go on: {why}; look again and approve what is there now",
            scope=scope or "",
            reason="approval_outdated",
            job_id=job_id,
        )
    if spending != "allow":
        raise PurchaseError(
            f"job {job_id} is approved, and spending is {spending}: it is not resumed",
            scope=scope or "",
            reason=f"spending_{spending}",
            job_id=job_id,
        )
    if store is not None and scope is not None:
        intent: Intent | None = yield Perform("intent.read", lambda: store.read(scope))
        if intent is not None and intent.job_id == job_id and intent.action is not None:
            yield from write_down(store, replace(intent, action=None))
    restart = operations.retry_job(job_id, restart_from_stage="generation")
    onward = restart if ended_at_the_gate else operations.resume_job(job_id)
    reserves = (yield from count_reserves(caller, job_id)) if ended_at_the_gate else None
    seen = Seen.of(job)
    yield from send_looked_after(caller, onward, job_id, pending=PendingRetry(seen, reserves))
    job = yield from caller.call(operations.get_job(job_id))
    return Passed(job, "retried" if ended_at_the_gate else "resumed", seen if seen.is_still(job) else None)


def close_gate(
    caller: Caller,
    job_id: str,
    *,
    reason: Literal["rejected", "expired"],
    store: IntentStore | None = None,
    scope: str | None = None,
) -> Flow[Cancelled]:
    """Cancel a job whose look was rejected, or that nobody decided in time.

    Where the service does not cancel a paused job, that is written down, and the outcome is not confirmed: the job is
    an orphan that holds its reservation, to be named wherever orphans are.
    """
    return (yield from cancel(caller, job_id, reason=reason, store=store, scope=scope))


def hold_at_gate(store: IntentStore, scope: str, job_id: str) -> Flow[None]:
    """Write down that the job stands where we told it to, so that nobody takes its pause for somebody else's."""
    intent: Intent | None = yield Perform("intent.read", lambda: store.read(scope))
    if intent is not None and intent.job_id == job_id and intent.action is None:
        now: float = yield Now()
        held = replace(intent, action=OurAction("pause", "gate", now, confirmed=True))
        yield from write_down(store, held)
