# SPDX-License-Identifier: Apache-2.0
"""Data of the pages: the job of a task instance, and the open gates that a user may see.

A gate is shown where the user may see the task instance and its question, its task's serialized operator is the
approval operator, and an authenticated record names its job. The answer itself is sent to Airflow's own endpoint, which
checks the user again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ugen_provider.core.api.rules import STAGES, is_http_url
from ugen_provider.plugins.database import KnownOperators, access, is_operator, proven_job
from ugen_provider.triggers.cancellation import Place

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ugen_provider.core.api.models import Job, Keyframe


MOST_GATES = 1000
_ANSWERS = {"approve": "Approve", "reject": "Reject"}


def list_open_gates(
    *,
    session: Session,
    may_see: Callable[[str], bool],
    may_answer: Callable[[str, frozenset[str]], bool],
) -> list[OpenGate]:
    """Return the open gates, oldest first, at most `MOST_GATES`.

    Args:
        session: Of Airflow's database.
        may_see: Whether the user may see task instances and questions of a DAG.
        may_answer: Whether the user may answer questions of a DAG that are assigned to these users; none for all.
    """
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    query = (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            HITLDetail.subject,
            HITLDetail.created_at,
            HITLDetail.assignees,
            HITLDetail.options,
        )
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(TaskInstance.state.in_(("awaiting_input", "deferred")), HITLDetail.responded_at.is_(None))
        .where(TaskInstance.operator == "UGenKeyframeApprovalOperator")
        .order_by(HITLDetail.created_at)
    )
    seen: dict[str, bool] = {}
    known = KnownOperators()
    gates: list[OpenGate] = []
    for dag_id, run_id, task_id, index, subject, created_at, assignees, options in session.execute(query).all():
        if dag_id not in seen:
            seen[dag_id] = may_see(dag_id)
        place = Place(dag_id, run_id, task_id, index)
        if not seen[dag_id] or not is_operator(place, "UGenKeyframeApprovalOperator", session=session, known=known):
            continue
        if proven_job(place, session=session, known=known) is None:
            continue
        users = frozenset(str(user.get("id")) for user in assignees or ())
        answers = _answers(place, options) if may_answer(dag_id, users) else {}
        gates.append(_gate(place, subject, since=created_at.isoformat() if created_at else None, answers=answers))
        if len(gates) == MOST_GATES:
            break
    return gates


def _gate(place: Place, subject: str, *, since: str | None, answers: dict[str, GateAnswer]) -> OpenGate:
    names = {"dag_id": place.dag_id, "run_id": place.run_id, "task_id": place.task_id, "map_index": place.map_index}
    query = urlencode(names)
    return OpenGate(
        gate_id=query,
        subject=subject,
        job_url=f"job.json?{query}",
        since=since,
        page_url=f"job?{query}",
        answers=answers,
    )


def _answers(place: Place, options: object) -> dict[str, GateAnswer]:
    """Return requests to Airflow's own endpoint, relative to the board, so that a path prefix is kept."""
    dag, run, task = (quote(part, safe="") for part in (place.dag_id, place.run_id, place.task_id))
    url = f"../api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/{place.map_index}/hitlDetails"
    known = options if isinstance(options, list | tuple | set | dict) else ()
    return {
        name: GateAnswer("PATCH", url, {"chosen_options": [option], "params_input": {}})
        for name, option in _ANSWERS.items()
        if option in known
    }


# The review board knows nothing of the system that serves it: it fetches `review.json` beside it, reads each job from
# the address that its gate names, and sends an answer as the gate describes. Who may see or answer a gate is decided
# by the server of `review.json`, and again by the server that takes the answer.

PAGE = Path(__file__).with_name("review.html")
"""The page, self-contained: it loads nothing but its data and the pictures."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src * data:; "
    "connect-src 'self'; frame-ancestors 'self'"
)
"""The Content-Security-Policy to send with the page."""


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """A request that answers a gate.

    Attributes:
        method: The HTTP method.
        url: Relative to the page, so that a path prefix does not matter.
        body: The JSON to send.
    """

    method: str
    url: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A job that waits for a person.

    Attributes:
        gate_id: Identifies the gate on the page.
        subject: The question.
        job_url: Relative address of the job's data, as the page of a job reads it.
        since: When it was opened, in ISO 8601; None if that is not known.
        page_url: Relative address of the job's own page; None without one.
        answers: By their names, `approve` and `reject`; empty for a reader who may not answer.
    """

    gate_id: str
    subject: str
    job_url: str
    since: str | None = None
    page_url: str | None = None
    answers: Mapping[str, GateAnswer] = field(default_factory=dict)


def review_data(gates: Iterable[OpenGate]) -> dict[str, Any]:
    """Return what the page fetches as `review.json`.

    Args:
        gates: The open gates that the reader may see.

    Examples:
        >>> review_data([OpenGate("1", "Lamp?", "job.json?id=1")])["gates"][0]["answers"]
        {}
    """
    return {
        "gates": [
            {
                "id": gate.gate_id,
                "subject": gate.subject,
                "since": gate.since,
                "job": gate.job_url,
                "page": gate.page_url,
                "answers": {
                    name: {"method": answer.method, "url": answer.url, "body": dict(answer.body)}
                    for name, answer in gate.answers.items()
                },
            }
            for gate in gates
        ]
    }


class NoJobError(LookupError):
    """Nothing proves that the task instance has a job. The reason is not named, so no connection is revealed."""


def describe_job(place: Place) -> dict[str, Any]:
    """Describe the job of a task instance as it is now.

    Args:
        place: The task instance.

    Raises:
        NoJobError: Nothing proves that it has one.
        UGenError: The service refused.
    """
    from airflow.utils.session import create_session

    from ugen_provider.hooks.ugen import UGenHook

    with create_session() as session:
        proven = proven_job(place, session=session)
    if proven is None:
        raise NoJobError("This task instance has no U-Gen job, or has not created one yet.")
    hook = UGenHook(proven.ref.ugen_conn_id)
    with hook.get_conn(config=proven.settings.config) as client:
        job = client.jobs.get(proven.ref.job_id)
        keyframes = job.keyframes or client.jobs.list_keyframes(job.job_id)
    return {**describe(job, keyframes=keyframes), "notice": access.notice(proven.ledger_conn_id)}


def describe(job: Job, *, keyframes: Sequence[Keyframe] = ()) -> dict[str, Any]:
    """Describe a job for the page, in JSON types; links that are not http(s) are left out."""
    return {
        "job_id": job.job_id,
        "product_name": job.product_name,
        "status": job.status,
        "ended": job.ended,
        "stages": list(STAGES),
        "current_stage": job.current_stage,
        "progress_percent": job.progress_percent,
        "error_message": job.error_message,
        "credits_reserved": job.credits_reserved,
        "credits_consumed": job.credits_consumed,
        "video_model": job.video_model,
        "final_video_url": _link(job.final_video_url),
        "thumbnail_url": _link(job.thumbnail_url),
        "keyframes": [
            {"index": frame.index, "status": frame.status, "score": frame.qai_score, "url": _link(frame.image_url)}
            for frame in keyframes
        ],
        "segments": [
            {"index": part.index, "status": part.status, "score": part.qai_score, "url": _link(part.video_url)}
            for part in job.segments
        ],
    }


def _link(url: str | None) -> str | None:
    return url if url is not None and is_http_url(url) else None
