# SPDX-License-Identifier: Apache-2.0
"""The service profile: one table of the client's assumptions about the service, with documented defaults.

The documentation of U-Gen is partial. Each row is one assumption; `docs/explain/assumptions.md` is rendered from these
rows. `ugen doctor` fills a profile from real, free answers. A connection, a Dagster resource and a command line profile
accept one as `service_profile`. Imports neither httpx nor pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args

from ugen_provider.core.api.errors import ConfigError

# The meaning of a job's status.


class JobState(Enum):
    """The meaning of a status for a wait."""

    ACTIVE = "active"
    """Waiting or running; also every status that this version does not know."""
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


KNOWN_WORDS: Mapping[str, JobState] = {
    **dict.fromkeys(("pending", "queued", "in_queue", "waiting", "submitted", "created", "throttled"), JobState.ACTIVE),
    **dict.fromkeys(
        ("processing", "in_progress", "starting", "started", "running", "rendering", "generating"), JobState.ACTIVE
    ),
    **dict.fromkeys(("fetching", "preprocessing", "saving", "retrying"), JobState.ACTIVE),
    "paused": JobState.PAUSED,
    **dict.fromkeys(
        ("completed", "complete", "succeeded", "succeed", "success", "done", "finished"), JobState.COMPLETED
    ),
    **dict.fromkeys(("failed", "fail", "failure", "error", "errored"), JobState.FAILED),
    **dict.fromkeys(("cancelled", "canceled"), JobState.CANCELLED),
}
"""The status words that need no configuration, in lower case with underscores."""


def plain_word(word: str) -> str:
    """Return a status word in lower case with underscores, without the prefix of an enumeration.

    Examples:
        >>> plain_word(" In-Progress "), plain_word("JobStatus.COMPLETED"), plain_word("JOB_STATUS_FAILED")
        ('in_progress', 'completed', 'failed')
    """
    plain = word.strip().lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    for prefix in ("job_status_", "job_state_", "status_", "state_"):
        plain = plain.removeprefix(prefix)
    return plain


def state_of(status: str) -> JobState:
    """Return the meaning of a status; an unknown one is active, since ending the wait could lose a paid result.

    Examples:
        >>> state_of("canceled"), state_of("awaiting_review")
        (<JobState.CANCELLED: 'cancelled'>, <JobState.ACTIVE: 'active'>)
    """
    return KNOWN_WORDS.get(plain_word(status), JobState.ACTIVE)


def is_known_word(status: str) -> bool:
    """Whether a status word needs no configuration; `unknown`, for a missing one, is none."""
    return plain_word(status) in KNOWN_WORDS


# The table.

Names = tuple[str, ...]
Statuses = tuple[int, ...]
Words = tuple[tuple[str, str], ...]
Evidence = Literal["documented", "assumed"]
Proof = Literal["free", "purchase", "never"]
"""How an assumption can be checked: by free answers, only by a purchase, or not at all."""


class Assumption(NamedTuple):
    """One assumption.

    Attributes:
        name: The name of the field, as a profile spells it.
        about: What is assumed, as a sentence.
        default: The default, as JSON.
        evidence: Whether the documentation states the default.
        proof: How it can be checked.
        otherwise: What the client does if the service behaves in another way.
    """

    name: str
    about: str
    default: Any
    evidence: Evidence
    proof: Proof
    otherwise: str


def _row(
    default: Any, about: str, *, evidence: Evidence = "assumed", proof: Proof = "free", otherwise: str = ""
) -> Any:
    metadata = {"about": about, "evidence": evidence, "proof": proof, "otherwise": otherwise}
    return field(default=default, metadata=metadata)


_OTHER_NAMES = "further names are tried in this order; a name of your own comes first"


@dataclass(frozen=True, slots=True)
class ServiceProfile:
    """The client's assumptions about the service; each field is one row.

    Names that you give come before the default names and do not replace them.

    Examples:
        >>> ServiceProfile.of({"status_map": {"rendered": "completed"}}).meaning("Rendered")
        <JobState.COMPLETED: 'completed'>
    """

    envelopes: Names = _row(
        ("data", "job", "result", "response"),
        "An object comes bare, or inside a field of one of these names.",
        otherwise="each name is tried, up to three levels deep",
    )
    id_names: Names = _row(
        ("job_id", "id", "uuid", "video_id", "render_id", "task_id", "generation_id"),
        "The field of a job's id.",
        evidence="documented",
        otherwise=_OTHER_NAMES,
    )
    status_names: Names = _row(
        ("status", "state", "job_status", "task_status"), "The field of a job's status.", otherwise=_OTHER_NAMES
    )
    status_map: Words = _row(
        (),
        "Status words beyond those that the client knows, each with its meaning: `active`, `paused`, `completed`, "
        "`failed` or `cancelled`.",
        otherwise="an unknown word counts as active and is reported; with an end time or a video as *probably ended*",
    )
    video_names: Names = _row(
        (
            "final_video_url",
            "video_url",
            "video_output",
            "output_url",
            "result_url",
            "download_url",
            "output",
            "video",
            "download",
            "assets",
            "task_result",
        ),
        "The field of the final video's link: text, a list, or an object with a link.",
        evidence="documented",
        proof="purchase",
        otherwise=_OTHER_NAMES,
    )
    thumbnail_names: Names = _row(
        ("thumbnail_url", "thumbnail", "video_thumbnail", "poster", "cover_url"),
        "The field of the thumbnail's link.",
        proof="purchase",
        otherwise=_OTHER_NAMES,
    )
    key_names: Names = _row(
        ("idempotency_key", "client_reference_id", "external_id"),
        "The field in which a job names its idempotency key.",
        otherwise="a lost order that no list names cannot be found by its key: it fails and asks a person",
    )
    reserved_names: Names = _row(
        ("credits_reserved", "reserved_credits", "credits_held"),
        "The field of a job's reserved credits.",
        proof="purchase",
        otherwise=_OTHER_NAMES,
    )
    consumed_names: Names = _row(
        ("credits_consumed", "consumed_credits", "credits_used", "credits_charged", "credit_cost"),
        "The field of a job's consumed credits.",
        proof="purchase",
        otherwise=_OTHER_NAMES,
    )
    available_names: Names = _row(
        ("available_credits", "credits_available", "available", "remaining_credits", "remaining", "remaining_quota"),
        "The field of the credits that can be spent.",
        evidence="documented",
        otherwise=_OTHER_NAMES,
    )
    balance_names: Names = _row(
        ("credit_balance", "balance", "total_credits", "credits"),
        "The field of the credits that the account holds.",
        evidence="documented",
        otherwise=_OTHER_NAMES,
    )
    estimate_names: Names = _row(
        ("total_credits", "total", "estimated_credits", "credits", "cost", "estimate", "credit_cost", "price"),
        "The field of the sum in an estimate.",
        otherwise="without a sum nothing is bought within a budget, unless `assume_credits` says what to count",
    )
    list_names: Names = _row(
        ("items", "data", "results", "jobs", "transactions", "records", "entries", "list", "rows", "edges"),
        "The field of the entries in a list; a bare array is read as well.",
        evidence="documented",
        otherwise=_OTHER_NAMES,
    )
    page_parameter: str = _row(
        "page", "The query parameter that chooses a page.", evidence="documented", otherwise="set it in the profile"
    )
    page_size_parameter: str = _row(
        "page_size",
        "The query parameter of the page size, at most 100.",
        evidence="documented",
        otherwise="smaller pages are read; only an explicit end proves that a list is complete",
    )
    paging: str = _row(
        "number",
        "The page parameter counts pages (`number`) or entries (`offset`). Links and cursors in answers come first.",
        evidence="documented",
        otherwise="a page that repeats ends the reading, and the list does not count as complete",
    )
    first_page: int = _row(
        1,
        "The number of the first page.",
        evidence="documented",
        otherwise="a list that lacks the page that comes without a number does not count as complete",
    )
    conflict_statuses: Statuses = _row(
        (409,),
        "Statuses that say that an idempotency key was used for another request.",
        proof="never",
        otherwise="a 400 or 422 that says so in words counts as well; the job is then searched, never bought anew",
    )
    not_found_statuses: Statuses = _row(
        (404,),
        "Statuses that say that a job does not exist.",
        otherwise="another refusal ends a wait with the service's own words",
    )
    expired_statuses: Statuses = _row(
        (400, 401, 403, 404, 410),
        "Statuses by which a link says that it has expired.",
        proof="purchase",
        otherwise="the job is read again once for a fresh link",
    )
    own_error_names: Names = _row(
        ("error", "detail"),
        "The fields by which the service's own error differs from a gateway's page.",
        evidence="documented",
        otherwise="a 404 in another form never counts as *deleted*; after ten minutes it fails and names `base_url`",
    )
    completed_without_video: bool = _row(
        False,
        "Whether a completed job may lack a final video without having been stopped.",
        proof="purchase",
        otherwise="such a job is an error; its result is not paid for again",
    )
    list_days: float = _row(
        3.0,
        "Days for which a list surely shows a job.",
        proof="never",
        otherwise="a list without a job from before an older order proves nothing about it: a person has to check",
    )
    list_lag: float = _row(
        600.0,
        "Seconds by which a list of jobs may be behind; at least ten minutes.",
        proof="purchase",
        otherwise="within this time a search never proves that a job does not exist",
    )

    def __post_init__(self) -> None:
        for name, default in _defaults().items():
            value = getattr(self, name)
            if isinstance(default, tuple) and not isinstance(value, tuple):
                object.__setattr__(self, name, tuple(value))
        least = _defaults()["list_lag"]
        if self.list_lag < least:
            # A list that is believed too early proves that a paid job does not exist, and the order is bought again.
            raise ConfigError(f"service_profile.list_lag: must be at least {least:g} seconds, got {self.list_lag:g}")

    @classmethod
    def of(cls, value: ServiceProfile | Mapping[str, Any] | str | None) -> ServiceProfile:
        """Read a profile from settings: a mapping or its JSON; empty means the defaults.

        Raises:
            ConfigError: A row does not exist, or its value is of another kind.
        """
        if isinstance(value, ServiceProfile):
            return value
        if value is None or (isinstance(value, str) and not value.strip()):
            return DEFAULT_PROFILE
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise ConfigError("service_profile: must be a JSON object") from None
        if not isinstance(value, Mapping):
            raise ConfigError("service_profile: must be an object of rows and values")
        defaults = _defaults()
        read: dict[str, Any] = {}
        for name, given in value.items():
            if name not in defaults:
                known = ", ".join(sorted(defaults))
                raise ConfigError(f"service_profile: no row is called {name!r}; there are: {known}")
            read[name] = _value(name, given, defaults[name])
        return cls(**read)

    def as_dict(self) -> dict[str, Any]:
        """Return the rows that differ from the defaults, as JSON; `of` reads them."""
        shown: dict[str, Any] = {}
        for name, default in _defaults().items():
            value = getattr(self, name)
            if value == default:
                continue
            if name == "status_map":
                shown[name] = dict(value)
            elif isinstance(value, tuple):
                shown[name] = [one for one in value if one not in default] or list(value)
            else:
                shown[name] = value
        return shown

    def merged(self, rows: Mapping[str, Any]) -> ServiceProfile:
        """Return this profile with further rows, such as those that `ugen doctor` found."""
        given = self.as_dict()
        for name, value in rows.items():
            if isinstance(value, Mapping) and isinstance(given.get(name), Mapping):
                given[name] = {**given[name], **value}
            else:
                given[name] = value
        return ServiceProfile.of(given)

    def meaning(self, word: str) -> JobState | None:
        """Return the meaning of a status word; None for an unknown one."""
        plain = plain_word(word)
        for known, meaning in self.status_map:
            if plain_word(known) == plain:
                return JobState(meaning)
        return KNOWN_WORDS.get(plain)

    def paged(self, params: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """Return the query of a list in the service's own parameters."""
        if (self.page_parameter, self.page_size_parameter, self.paging, self.first_page) == _DOCUMENTED_PAGING:
            return params
        given = dict(params)
        if "page" in given:
            number = int(given.pop("page")) - 1
            size = int(given.get("page_size", 100))
            given[self.page_parameter] = str(number * size if self.paging == "offset" else number + self.first_page)
        if "page_size" in given:
            given[self.page_size_parameter] = given.pop("page_size")
        return tuple(given.items())


_DOCUMENTED_PAGING = ("page", "page_size", "number", 1)


def rows() -> Iterator[Assumption]:
    """Yield the rows of the table, in its order."""
    defaults = _defaults()
    for row in fields(ServiceProfile):
        about = row.metadata
        default = dict(defaults[row.name]) if row.name == "status_map" else defaults[row.name]
        shown = list(default) if isinstance(default, tuple) else default
        yield Assumption(row.name, about["about"], shown, about["evidence"], about["proof"], about["otherwise"])


def _defaults() -> dict[str, Any]:
    return {row.name: row.default for row in fields(ServiceProfile)}


def _with_defaults(given: tuple[Any, ...], default: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the given names, then the default ones that are not among them."""
    return (*given, *(name for name in default if name not in given))


def _value(name: str, given: Any, default: Any) -> Any:
    wrong = ConfigError(f"service_profile.{name}: must be {_kind(name, default)}, got {str(given)[:60]!r}")
    if name == "status_map":
        meanings = {state.value for state in JobState}
        if not isinstance(given, Mapping) or any(str(meaning) not in meanings for meaning in given.values()):
            raise wrong
        return tuple((str(word), str(meaning)) for word, meaning in given.items())
    if name == "paging":
        if given not in get_args(Literal["number", "offset"]):
            raise wrong
        return given
    if isinstance(default, bool):
        if not isinstance(given, bool):
            raise wrong
        return given
    if isinstance(default, int | float):
        if isinstance(given, bool) or not isinstance(given, int | float) or given < 0:
            raise wrong
        return type(default)(given)
    if isinstance(default, str):
        if not isinstance(given, str) or not given.strip():
            raise wrong
        return given.strip()
    entries = [given] if isinstance(given, str | int) and not isinstance(given, bool) else given
    kind = type(default[0])
    if not isinstance(entries, list | tuple) or not all(type(entry) is kind for entry in entries):
        raise wrong
    return _with_defaults(tuple(entries), default)


def _kind(name: str, default: Any) -> str:
    if name == "status_map":
        return "an object of words, each active, paused, completed, failed or cancelled"
    if name == "paging":
        return "number or offset"
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int | float):
        return "a number from 0"
    if isinstance(default, str):
        return "text"
    return "a list of HTTP statuses" if isinstance(default[0], int) else "a list of names"


DEFAULT_PROFILE = ServiceProfile()
"""The documented service."""
