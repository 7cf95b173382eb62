# SPDX-License-Identifier: Apache-2.0
"""Checks of how this account's service behaves where its documentation is silent: reads and free calls only.

A `Check` is a request and the meaning of its answer; `client.diagnose` sends them one after the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ugen_provider.core.api import endpoints
from ugen_provider.core.api import rules as job_rules
from ugen_provider.core.api.answers import is_media_link, link_in, read_response
from ugen_provider.core.api.endpoints import Endpoint, Request, Response
from ugen_provider.core.api.errors import APIError, NotFoundError, ResponseError, UGenError
from ugen_provider.core.api.pagination import Page
from ugen_provider.core.api.profile import JobState, is_known_word, rows, state_of

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Estimate, Job, Model
    from ugen_provider.core.api.profile import ServiceProfile

T = TypeVar("T")

_SAMPLE = {
    "product_name": "Estimate only",
    "product_image_url": "https://example.com/estimate.jpg",
    "segment_count": 1,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: The name of the check, in snake_case.
        holds: Whether the assumption holds; None where this account could not show it.
        seen: What the service answered, in words.
        means: What a failed assumption means for you, and what to do.
    """

    name: str
    holds: bool | None
    seen: str
    means: str = ""


Verdict = Literal["confirmed", "contradicted", "not testable for free"]


@dataclass(frozen=True, slots=True)
class RowFinding:
    """What free answers show of one row of the service profile.

    Attributes:
        row: The row.
        verdict: `confirmed`, `contradicted` or `not testable for free`.
        seen: The evidence.
    """

    row: str
    verdict: Verdict
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order of their checks.

    Attributes:
        findings: The findings.
        profile: Rows of the service profile that the answers show to differ from the one in use, as JSON.
        rows: For each row of the profile: confirmed, contradicted or not testable for free, with the evidence.
    """

    findings: tuple[Finding, ...]
    profile: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[RowFinding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no assumption about the service failed."""
        return all(finding.holds is not False for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)


def _not_checked(name: str) -> Callable[[UGenError], Sequence[Finding]]:
    return lambda error: [Finding(name, None, str(error), "could not be checked")]


@dataclass(frozen=True, slots=True)
class ServiceCheck(Generic[T]):
    """One free request and the meaning of its answer.

    Attributes:
        endpoint: Sends the request and parses its answer.
        judge_value: Turns the parsed answer, the answer itself and the time in seconds since the epoch into findings.
        judge_error: Turns an error into findings.
        required: Whether the diagnosis ends where this check fails.
    """

    endpoint: Endpoint[T]
    judge_value: Callable[[T, Response, float], Sequence[Finding]]
    judge_error: Callable[[UGenError], Sequence[Finding]]
    required: bool = False

    @property
    def request(self) -> Request:
        """Request that the check sends."""
        return self.endpoint.request

    def judge(self, answer: Response, *, now: float, profile: ServiceProfile) -> Sequence[Finding]:
        """Turn an answer into findings.

        Raises:
            ResponseError: The answer is not what its endpoint promises.
        """
        return self.judge_value(read_response(answer, self.endpoint, after_unclear=False, profile=profile), answer, now)


def _judge_account(body: Any, answer: Response, now: float) -> Sequence[Finding]:
    free = body.available_credits
    means = "" if free > 0 else "buy credits before you start"
    findings = [
        Finding("key", True, "accepted"),
        Finding("balance_readable", True, "a number of credits"),
        Finding("balance", free > 0, f"{free} credits available", means),
    ]
    if (skew := _skew(answer.headers.get("date"), now=now)) is not None:
        right = skew < 120
        means = "" if right else "set this machine's clock: webhooks are refused by their time"
        findings.append(Finding("clock", right, f"{skew:.0f} s apart", means))
    return findings


def _skew(date: str | None, *, now: float) -> float | None:
    """Return the seconds between the service's clock and this machine's, where the service sends a readable date."""
    try:
        return None if date is None else abs(parsedate_to_datetime(date).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _judge_no_account(error: UGenError) -> Sequence[Finding]:
    if isinstance(error, ResponseError) and 200 <= error.status < 300 and error.body.startswith(("{", "[")):
        means = "name the field in `available_names`, or check the base URL"
        return [Finding("key", True, "accepted"), Finding("balance_readable", False, str(error), means)]
    if isinstance(error, APIError):
        refused = error.status in {401, 403}
        name, means = ("key", "check the API key") if refused else ("reachable", "check the base URL")
        return [Finding(name, False, str(error), means)]
    return [Finding("reachable", False, str(error), "check the base URL, the network and any proxy")]


def _judge_jobs(read: tuple[Any, Page], _answer: Response, _now: float) -> Sequence[Finding]:
    body, page = read
    items = page.items
    findings = [
        Finding(
            "list_shape",
            isinstance(body, dict),
            "an envelope with items" if isinstance(body, dict) else "a bare array",
            "" if isinstance(body, dict) else "the number of pages is not shown: a list is read until an empty page",
        )
    ]
    odd = page.count - len(items)
    means = "entries of the list cannot be read: name their fields in `id_names`" if odd else ""
    findings.append(Finding("jobs_readable", not (page.count and not items), f"{len(items)} of {page.count}", means))
    if not items:
        return [*findings, Finding("jobs", None, "the account has no jobs yet", "run this again after the first one")]
    words = sorted({str(item.get("status")) for item in items})
    unknown = [word for word in words if not is_known_word(word)]
    findings.append(
        Finding(
            "statuses",
            not unknown,
            ", ".join(words),
            f"{', '.join(unknown)} count as active: waits for such a job continue" if unknown else "",
        )
    )
    field = "job_id" if "job_id" in items[0] else "id" if "id" in items[0] else "none"
    findings.append(Finding("id_field", field != "none", field))
    created = [str(item["created_at"]) for item in items if item.get("created_at")]
    if len(created) > 1:
        newest_first = created == sorted(created, reverse=True)
        findings.append(
            Finding(
                "list_order",
                newest_first,
                "newest first" if newest_first else "another order",
                "" if newest_first else "several jobs that end at once cost a request each",
            )
        )
    keyed = all(item.get("idempotency_key") for item in items)
    findings.append(
        Finding(
            "keys_in_lists",
            keyed,
            "shown" if keyed else "not shown",
            "" if keyed else "an order whose answer was lost cannot be found by its key once key_window has passed",
        )
    )
    return findings


def _judge_no_jobs(error: UGenError) -> Sequence[Finding]:
    means = "a lost answer could not be found again: correct the rows that name lists, or the base URL"
    return [Finding("jobs_readable", False, str(error), means)]


def _judge_filter(page: Page, _answer: Response, _now: float) -> Sequence[Finding]:
    if not page.items:
        return [Finding("status_filter", None, "no job matches 'completed'", "run this again after the first one")]
    right = all(state_of(str(item.get("status"))).value == "completed" for item in page.items)
    means = "" if right else "the filter is ignored: waiting for many jobs costs one request each"
    return [Finding("status_filter", right, "filters" if right else "lets others through", means)]


def _judge_unknown_job(_body: Any, _answer: Response, _now: float) -> Sequence[Finding]:
    return [Finding("unknown_job", False, "answered as if it existed", "a wrong job id cannot be detected")]


def _judge_no_unknown_job(error: UGenError) -> Sequence[Finding]:
    if isinstance(error, NotFoundError):
        return [Finding("unknown_job", True, "404")]
    if isinstance(error, APIError):
        means = "a deleted job cannot be distinguished from another error"
        return [Finding("unknown_job", False, str(error.status), means)]
    return _not_checked("unknown_job")(error)


def _judge_transactions(page: Page, _answer: Response, _now: float) -> Sequence[Finding]:
    of_jobs = [item for item in page.items if item.get("type") in {"reserve", "consume", "release"}]
    if not of_jobs:
        return [Finding("transactions", None, "there are none yet", "run this again after the first job")]
    named = any(item.get("job_id") for item in of_jobs)
    means = "" if named else "the retries of a job cannot be counted where no state store exists"
    return [Finding("transactions", named, "name their job" if named else "do not name their job", means)]


def _judge_models(models: tuple[Model, ...], _answer: Response, _now: float) -> Sequence[Finding]:
    offered = [model.model_id for model in models]
    default = job_rules.DEFAULT_VIDEO_MODEL in offered
    return [
        Finding("models", bool(offered), ", ".join(offered) or "none"),
        Finding(
            "default_model",
            default,
            job_rules.DEFAULT_VIDEO_MODEL + (" is offered" if default else " is not offered"),
            "" if default else "name video_model in the connection, the resource or the client",
        ),
    ]


def _judge_estimate(estimate: Estimate, _answer: Response, _now: float) -> Sequence[Finding]:
    return [Finding("estimate", True, f"{estimate.total_credits} credits for one segment")]


def _judge_no_estimate(error: UGenError) -> Sequence[Finding]:
    return [Finding("estimate", False, str(error), "budgets need `assume_credits`, since the estimate failed")]


def _unparsed(request: Request) -> Endpoint[Any]:
    return Endpoint(request, lambda body: body)


def _with_body(endpoint: Endpoint[T]) -> Endpoint[tuple[Any, T]]:
    return Endpoint(endpoint.request, lambda body: (body, endpoint.parse(body)), endpoint.form)


CHECKS: tuple[ServiceCheck[Any], ...] = (
    ServiceCheck(endpoints.get_balance(), _judge_account, _judge_no_account, required=True),
    ServiceCheck(_with_body(endpoints.list_jobs(page_size=20)), _judge_jobs, _judge_no_jobs),
    ServiceCheck(endpoints.list_jobs(status="completed", page_size=20), _judge_filter, _not_checked("filter")),
    ServiceCheck(
        _unparsed(endpoints.get_job(str(uuid.UUID(int=0, version=4))).request),
        _judge_unknown_job,
        _judge_no_unknown_job,
    ),
    ServiceCheck(endpoints.list_transactions(page_size=20), _judge_transactions, _not_checked("transactions")),
    ServiceCheck(endpoints.list_models(), _judge_models, _not_checked("models")),
    ServiceCheck(endpoints.estimate(_SAMPLE), _judge_estimate, _judge_no_estimate),
)
"""All checks in their order; the first finds out whether the service can be reached with this key."""


# Whether a purchase would end here.


def sample_of(items: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the ids of at most six listed jobs, of different statuses where there are some."""
    by_word: dict[str, str] = {}
    for item in items:
        by_word.setdefault(str(item.get("status")), str(item.get("job_id")))
    return tuple(by_word.values())[:6]


def judge_purchase(
    findings: Sequence[Finding], jobs: Sequence[Job], errors: Sequence[UGenError]
) -> tuple[Finding, dict[str, Any]]:
    """Say whether a purchase would end here, and which rows of the profile would have to be set.

    Args:
        findings: The findings of all checks.
        jobs: Jobs of the account, read one by one.
        errors: Errors of jobs that could not be read.
    """
    name = "a_purchase"
    learned = _learned(jobs)
    by_name = {finding.name: finding for finding in findings}
    for needed in ("key", "balance_readable", "jobs_readable"):
        if needed in by_name and by_name[needed].holds is False:
            return Finding(name, False, by_name[needed].seen, by_name[needed].means), learned
    if errors:
        return Finding(name, False, str(errors[0]), "a job that is bought could not be read back"), learned
    unclear = [job for job in jobs if _has_probably_ended(job)]
    if unclear:
        words = ", ".join(sorted({job.status for job in unclear}))
        means = "waits would not end: say what the word means in `status_map`"
        return Finding(name, False, f"jobs that have probably ended are {words}", means), learned
    done = [job for job in jobs if job.state is JobState.COMPLETED]
    with_video = [job for job in done if job.final_video_url is not None or job.may_lack_video]
    if with_video:
        return Finding(name, True, f"job {with_video[0].job_id} ended with a final video"), learned
    wanted = [job for job in done if job.stop_at_stage is None]
    if wanted:
        means = "name the field of the video in `video_names`, or set `completed_without_video`"
        return Finding(name, False, f"job {wanted[0].job_id} is completed and shows no final video", means), learned
    seen = "no job of this account has completed yet"
    return Finding(name, None, seen, "not testable for free: run this again after the first purchase"), learned


def _has_probably_ended(job: Job) -> bool:
    from ugen_provider.core.api.polling import has_probably_ended

    return has_probably_ended(job)


def _learned(jobs: Sequence[Job]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    words = {}
    for job in jobs:
        if _has_probably_ended(job) and job.final_video_url is not None:
            words[job.status] = "completed"
        if job.state is JobState.COMPLETED and job.final_video_url is None:
            extra = job.model_extra or {}
            fields = [name for name, value in extra.items() if name != "url" and (link_in(value) or "")]
            fields = [name for name in fields if is_media_link(link_in(extra[name]) or "")]
            if fields:
                rows["video_names"] = fields[:1]
    if words:
        rows["status_map"] = words
    return rows


_NO_JOBS = "0 of 0"
"""An empty list confirms nothing: one whose rows are under an unknown name looks the same."""


def _verdict_on_videos(row: str, completed: Sequence[Job]) -> Verdict:
    """Return what completed jobs show of the two rows about the final video."""
    shown = any(job.final_video_url for job in completed)
    if not any(job.may_lack_video for job in completed):
        return "confirmed" if shown else "contradicted"
    if row == "video_names":
        return "confirmed" if shown else "not testable for free"
    return "confirmed" if any(not job.final_video_url for job in completed) else "not testable for free"


def judge_rows(findings: Sequence[Finding], jobs: Sequence[Job], learned: Mapping[str, Any]) -> tuple[RowFinding, ...]:
    """Say of each row of the profile what free answers show."""
    by_name = {finding.name: finding for finding in findings}
    evidence = {
        "id_names": "id_field",
        "status_names": "statuses",
        "status_map": "statuses",
        "key_names": "keys_in_lists",
        "available_names": "balance_readable",
        "balance_names": "balance_readable",
        "estimate_names": "estimate",
        "list_names": "jobs_readable",
        "page_parameter": "paging",
        "page_size_parameter": "paging",
        "paging": "paging",
        "first_page": "paging",
        "not_found_statuses": "unknown_job",
        "own_error_names": "unknown_job",
        "envelopes": "jobs_readable",
    }
    completed = [job for job in jobs if job.state is JobState.COMPLETED]
    found: list[RowFinding] = []
    for row in rows():
        finding = by_name.get(evidence.get(row.name, ""))
        if row.name in learned:
            found.append(RowFinding(row.name, "contradicted", f"found: {learned[row.name]}"))
        elif row.name in {"video_names", "completed_without_video"} and completed:
            found.append(
                RowFinding(row.name, _verdict_on_videos(row.name, completed), f"{len(completed)} jobs were read")
            )
        elif finding is not None and finding.holds is not None and not (finding.holds and finding.seen == _NO_JOBS):
            found.append(RowFinding(row.name, "confirmed" if finding.holds else "contradicted", finding.seen))
        else:
            seen = finding.seen.replace(_NO_JOBS, "the account has no jobs yet") if finding is not None else ""
            found.append(RowFinding(row.name, "not testable for free", seen))
    return tuple(found)
