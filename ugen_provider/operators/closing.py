# SPDX-License-Identifier: Apache-2.0
"""What a gate and a cancel task tell the create task of their run: that they cancelled its job, and why.

Airflow opens the state store of a task instance to that task instance alone (its execution API asks for the scope
`ti:self`), so nobody else in a worker can write into the create task's intent. They say it in an XCom of their own,
before they cancel. It outlives a clear until their own next attempt begins; whoever looks at the job again reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.jobs.intent import IntentStore

CLOSING = "ugen_closing"
"""The XCom, and the entry of a gate's own state store."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A job that is to be cancelled for good.

    Attributes:
        job_id: The job.
        reason: Why, in the words of the intent.
        at: Seconds since the epoch.
    """

    job_id: str
    reason: Literal["rejected", "expired", "operator"]
    at: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: object) -> Closing | None:
        """Read what `to_dict` made; None where it is something else."""
        if not isinstance(stored, Mapping) or not set(cls.__slots__) <= set(stored):
            return None
        return cls(**{name: stored[name] for name in cls.__slots__})


def tell(context: Context, closing: Closing) -> None:
    """Say that a job is about to be cancelled; to be called before it is."""
    context["ti"].xcom_push(key=CLOSING, value=closing.to_dict())


def take_back(context: Context) -> None:
    """Say that nothing was cancelled after all: the job had ended, or cannot be cancelled."""
    context["ti"].xcom_push(key=CLOSING, value={})


def learn(context: Context, store: IntentStore, scope: str) -> None:
    """Write what other tasks of this run told into the intent, as if they had written it there themselves.

    Args:
        context: Of the task whose intent it is.
        store: Where that is kept.
        scope: The intent's scope.
    """
    from ugen_provider.core.jobs.intent import OurAction

    tellers = list(_tellers(context))
    intent = store.read(scope) if tellers else None
    if intent is None or intent.job_id is None or (intent.action is not None and intent.action.kind == "cancel"):
        return
    for task_id in tellers:
        told = context["ti"].xcom_pull(task_ids=task_id, key=CLOSING)
        for each in told if isinstance(told, list) else [told]:
            closing = Closing.from_dict(each)
            if closing is not None and closing.job_id == intent.job_id:
                store.write(replace(intent, action=OurAction("cancel", closing.reason, closing.at)))
                return


def _tellers(context: Context) -> Iterator[str]:
    """The tasks of the DAG that may cancel a job which another task bought."""
    dag = cast("Any", context.get("dag"))
    for task in () if dag is None else dag.tasks:
        if getattr(getattr(task, "operator_class", type(task)), "closes_jobs", False):
            yield task.task_id
