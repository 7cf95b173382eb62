# SPDX-License-Identifier: Apache-2.0
"""How an answer is read: as the value that its endpoint promises, or as an error. The one place that is lenient.

A service may wrap an object, spell names in camel case, send numbers as text or leave fields out; the service profile
says what is expected. The models and the lists read what comes out of here. No I/O, and free of pydantic.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ugen_provider.core.api.config import redact_json, redact_text
from ugen_provider.core.api.endpoints import NOT_JSON, Endpoint, Form, Repeat, Request, Response, WrongSubjectError
from ugen_provider.core.api.errors import (
    APIError,
    ConflictError,
    NotFoundError,
    ResponseError,
    TransportError,
    api_error_type,
    may_have_bought,
)
from ugen_provider.core.api.pagination import objects
from ugen_provider.core.api.profile import DEFAULT_PROFILE, JobState, Names, ServiceProfile, is_known_word, state_of

T = TypeVar("T")
E = TypeVar("E", TransportError, APIError, ResponseError, TransportError | APIError | ResponseError)


def complete_error(error: E, request: Request) -> E:
    """Add to the error of a create its key and, where the job may exist, how to get it without paying twice."""
    key = error.idempotency_key = request.idempotency_key
    if key is not None and may_have_bought(error) and not isinstance(error, ConflictError):
        advice = f"Repeat the call with idempotency_key={key!r}: while the service remembers the key, "
        error.args = (f"{error.args[0]}. The job may exist all the same. {advice}that cannot buy twice",)
    return error


def error_of(
    response: Response, request: Request, *, now: float, profile: ServiceProfile = DEFAULT_PROFILE
) -> APIError | ResponseError:
    """Read an answer that is no success as an error: either envelope, or no JSON at all.

    Args:
        response: The answer.
        request: The request that was sent.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
        profile: The assumptions about the service.
    """
    request_id = response.request_id
    body = None if response.json is NOT_JSON else response.json
    kept = _kept(response.body, body)
    if response.status < 400:
        return ResponseError(
            "a redirect is not followed, since it could carry the key to another host; correct the base URL",
            method=request.method,
            path=request.path,
            status=response.status,
            request_id=request_id,
            body=kept,
        )
    error = body.get("error") if isinstance(body, Mapping) else None
    fields: dict[str, str] = {}
    sayings: list[str] = []
    details: Mapping[str, Any] = {}
    code = None
    if isinstance(error, Mapping):
        message = message_in(error) or "no message"
        code = str(error["code"]) if error.get("code") else None
        details = error["details"] if isinstance(error.get("details"), Mapping) else {}
    elif isinstance(body, Mapping) and isinstance(body.get("detail"), list):
        fields = _validation_fields(body["detail"])
        sayings = [f"{entry.get('loc')} {entry.get('type')} {entry.get('msg')}" for entry in objects(body["detail"])]
        message = "; ".join(f"{name}: {why}" for name, why in fields.items()) or "the request was refused"
    elif body is not None:
        message = message_in(body) or "no message"
        if isinstance(body, Mapping):
            given = body.get("code", body.get("error_code", body.get("errorCode")))
            code = str(given) if isinstance(given, str) and given else None
    else:
        message = f"no JSON in the answer ({_excerpt(response.body)!r})"
    sayings = sayings or [f"{code or ''} {message} {details or ''}"]
    kind = api_error_type(response.status)
    key = _sent_key(request)
    key_was_used = response.status in {400, 422} and says_key_was_used(sayings, key=key)
    if key is not None and response.status in profile.conflict_statuses:
        key_was_used = True
    if kind is not NotFoundError and request.point == "get" and response.status in profile.not_found_statuses:
        kind = NotFoundError
    retry_after = _retry_after(response, body, now=now)
    made = (ConflictError if key_was_used else kind)(
        redact_text(message[:_MOST_KEPT]),
        method=request.method,
        path=request.path,
        status=response.status,
        code=code,
        details=redact_json(details),
        fields={name: redact_text(why) for name, why in fields.items()},
        request_id=request_id,
        retry_after=retry_after,
        own_form=is_own_form(body, names=profile.own_error_names),
        body=kept,
    )
    # Of a create alone: that another action is refused while a job is processing is about the job's state.
    if isinstance(made, ConflictError) and _is_create(request) and (retry_after is not None or says_in_flight(sayings)):
        made.in_flight = made.retryable = True
    return made


def _is_create(request: Request) -> bool:
    return request.repeat is Repeat.KEYED or (request.method == "POST" and request.path == "/jobs")


def _sent_key(request: Request) -> str | None:
    key = (request.json or {}).get("idempotency_key")
    return str(key) if key else None


_MOST_KEPT = 4000


def _kept(content: bytes, body: Any) -> str:
    """Return what an error keeps of an answer: its beginning, without secrets."""
    if isinstance(body, Mapping | list) and len(content) <= 16 * _MOST_KEPT:
        return json.dumps(redact_json(body), ensure_ascii=False)[:_MOST_KEPT]
    return redact_text(content[:_MOST_KEPT].decode("utf-8", "replace"))


def _validation_fields(detail: list[Any]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for entry in detail:
        if isinstance(entry, Mapping):
            location = entry.get("loc")
            parts = [str(part) for part in location] if isinstance(location, list) else []
            name = ".".join(parts[1:] if parts[:1] == ["body"] else parts) or "request"
            why = str(entry.get("msg") or "refused")
            fields[name] = f"{fields[name]}; {why}" if name in fields else why
    return fields


_MOST_RETRY_AFTER = 31 * 86400.0
"""Seconds of the longest pause that is believed: longer ones cannot be waited for, or be added to a date."""


def _retry_after(response: Response, body: object, *, now: float) -> float | None:
    header = response.headers.get("retry-after")
    if header is not None:
        if (seconds := _seconds(header)) is not None:
            return seconds
        try:
            return min(_MOST_RETRY_AFTER, max(0.0, parsedate_to_datetime(header).timestamp() - now))
        except (TypeError, ValueError, OverflowError):
            pass
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    for place in (details, error, body):
        if isinstance(place, Mapping) and (seconds := _seconds(place.get("retry_after"))) is not None:
            return seconds
    return None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(number, _MOST_RETRY_AFTER) if number >= 0 else None


def _excerpt(body: bytes) -> str:
    return redact_text(" ".join(body[:200].decode("utf-8", "replace").split()))


def read_response(
    response: Response, endpoint: Endpoint[T], *, after_unclear: bool, profile: ServiceProfile = DEFAULT_PROFILE
) -> T:
    """Read a successful answer as its endpoint promises.

    Args:
        response: The answer.
        endpoint: The endpoint that was called.
        after_unclear: Whether an earlier attempt of the call may have taken effect, for the error.
        profile: The assumptions about the service.

    Raises:
        ResponseError: The body is not what the endpoint promises, or is about another job or order.
    """
    body = response.json
    located = _located_job(response, endpoint.request)
    if body is NOT_JSON and located is None:
        raise _unreadable_of(response, endpoint.request, "the body is not JSON", after_unclear)
    try:
        try:
            value = endpoint.parse(in_documented_form(body, endpoint.form, profile))
        except TypeError:
            if located is None:
                raise
            value = endpoint.parse(in_documented_form({"job_id": located}, endpoint.form, profile))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        refused = _unreadable_of(response, endpoint.request, _first_line(error), after_unclear)
        refused.wrong_subject = isinstance(error, WrongSubjectError)
        raise refused from None
    # A model keeps it; tuples and pages have nothing to keep it in.
    if (keep := getattr(value, "_keep_metadata", None)) is not None:
        keep(response.status, response.request_id, response.headers)
    return value


def _located_job(response: Response, request: Request) -> str | None:
    """Return the id of the job that a create made, from its `Location`; None where there is none."""
    if request.repeat is not Repeat.KEYED or not 200 <= response.status < 300:
        return None
    try:
        folder, _, last = urlsplit(response.headers.get("location", "")).path.rstrip("/").rpartition("/")
    except ValueError:
        return None
    return unquote(last) or None if folder.endswith(request.path) else None


def passing_error(response: Response, request: Request) -> ResponseError | None:
    """Return the error for a successful answer whose body did not arrive whole, or None where it is JSON.

    Only of reads and of creates with a key, which may be sent again. A page in the place of JSON is one as well; a
    wrong address answers so too, which is why the policy bears only a few in a row.
    """
    expects_json = request.method in {"GET", "POST"} and request.repeat is not Repeat.UNSAFE and response.status != 204
    content = response.body.strip()
    if not expects_json or (content and response.json is not NOT_JSON) or _located_job(response, request) is not None:
        return None
    why = "the body is not JSON" if content else "the body is empty"
    is_cut = not content or content[:1] in b"{["
    error = _unreadable(response, request, f"{why}, or ends early" if is_cut and content else why, False)
    error.cut_short = is_cut
    return error


def _first_line(error: Exception) -> str:
    if isinstance(error, WrongSubjectError):
        return str(error)
    if isinstance(error, EmbeddedError):
        return f"an error came with a status of success: {error}"
    return f"the JSON is not what this endpoint promises ({str(error).splitlines()[0] if str(error) else error!r})"


def _unreadable_of(response: Response, request: Request, why: str, after_unclear: bool) -> ResponseError:
    return complete_error(_unreadable(response, request, why, after_unclear), request)


def _unreadable(response: Response, request: Request, why: str, after_unclear: bool) -> ResponseError:
    error = ResponseError(
        redact_text(why),
        method=request.method,
        path=request.path,
        status=response.status,
        request_id=response.request_id,
        excerpt=_excerpt(response.body),
        body=_kept(response.body, response.json),
    )
    error.after_unclear = after_unclear
    return error


# Phrases of refusals about an idempotency key. Words only, since the service documents neither a code nor a status.

_KEY = re.compile(r"idempoten")
_USED = re.compile(
    r"\balready\b|\bre-?us(?:e|ed|ing)\b|\bin use\b|\b(?:been|was|were|is|once|only) used\b"
    r"|\bused (?:before|by|for|with|on|only|once)\b|\b(?:not|must be) unique\b"
    r"|\bconflict|\bduplicate|\bexists\b|\bbelongs\b|\btaken\b|(?<!pattern )\bmismatch"
    r"|\bsame (?:idempotency )?key\b|\bfirst (?:request|used)\b|\bprevious|\bearlier\b|\boriginal\b"
    r"|\b(?:different|other|another|new) (?:request|param|body|bodies|payload|job)"
    r"|\bnot match\w* (?:the )?(?:request|param|body|payload)"
    r"|\bin progress\b|\bin flight\b|\bprocessing\b|\bconcurrent|\bpending\b|\block"
)
_FORM = re.compile(
    r"\btoo (?:long|short|large|big)\b|\bat (?:most|least)\b|\bcharacters?\b|\blength\b|\blonger\b|\bshorter\b"
    r"|\bformat|\bpattern\b|\buuid\b|\bvalid\b|\binvalid\b|\bmalformed\b|\bmust be\b|\bshould be\b"
    r"|\bascii\b|\bempty\b|\bblank\b|\bmissing\b|\brequired\b|\bstring\b|\bunsupported\b"
    r"|\bnot (?:allowed|permitted|supported)\b|\bextra\b|\bunknown\b"
)
_IN_FLIGHT = re.compile(
    r"\bin[- ]progress\b|\bin[- ]flight\b|(?<!not )(?<!finished )\bprocessing\b|\bbeing processed\b"
    r"|\bconcurrent|\bpending\b|\bstill running\b|\block(?:ed)?\b|\btry again\b|\bretry later\b"
)


def words_of(value: object) -> str:
    """Return a text for comparison: lower case, with spaces for underscores and between joined words."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(value))
    return " ".join(text.replace("_", " ").lower().split())


def says_key_was_used(sayings: Iterable[str], *, key: str | None) -> bool:
    """Return whether a refusal says that an idempotency key was used already, and not that its form is wrong.

    A refusal that names the key and fits neither counts as *used*: the job is then searched for instead of bought.

    Args:
        sayings: The code, the message and each entry about a field.
        key: The key as sent; a quotation of it is not read as words.
    """
    for saying in sayings:
        words = words_of(saying.replace(key, "") if key else saying)
        if _KEY.search(words) and (_USED.search(words) or not _FORM.search(words)):
            return True
    return False


def says_in_flight(sayings: Iterable[str]) -> bool:
    """Return whether a conflict says that an earlier copy of the request has no answer yet."""
    return any(_IN_FLIGHT.search(words_of(saying)) for saying in sayings)


# The service's own form of an error.


def is_own_form(body: Any, *, names: tuple[str, ...] = ("error", "detail")) -> bool:
    """Return whether an error's JSON is one of the forms in which this API answers errors.

    `{"error": {"code": …, "message": …}}`, or `{"detail": […]}` and `{"detail": "…"}` of its framework. A gateway's
    `{"message": …}` is none, nor is a page.

    Args:
        body: The JSON of the answer.
        names: The fields by which the service's errors are known; one beyond `error` and `detail` was configured.
    """
    if not isinstance(body, Mapping):
        return False
    if any(isinstance(body.get(name), str) and body[name] for name in names if name not in {"error", "detail"}):
        return True
    error, detail = body.get("error"), body.get("detail")
    if isinstance(error, Mapping):
        return isinstance(error.get("code"), str) or isinstance(error.get("message"), str)
    if isinstance(detail, list):
        return bool(detail) and all(isinstance(entry, Mapping) and "msg" in entry for entry in detail)
    return isinstance(detail, str)


# Answers in their documented form.


Fields = dict[str, Any]


class EmbeddedError(ValueError):
    """An answer with a status of success describes an error; the client raises a `ResponseError` from it."""


def in_documented_form(body: Any, form: Form, profile: ServiceProfile) -> Any:
    """Return an answer as the documentation describes it.

    Args:
        body: The JSON of a successful answer; None for an empty one.
        form: What the endpoint promises.
        profile: The assumptions about the service.

    Raises:
        EmbeddedError: The answer is the description of an error, with a status of success.
        TypeError: The answer is not what the endpoint promises.
    """
    read = _READERS.get(form)
    return body if read is None else read(body, profile)


# Names.


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """Return a name in snake case.

    Examples:
        >>> [snake_case(name) for name in ("jobId", "jobID", "job-id", "FinalVideoURL", "job_id")]
        ['job_id', 'job_id', 'job_id', 'final_video_url', 'job_id']
    """
    if name.islower() and "-" not in name and " " not in name:
        return name
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[-\s]+", "_", text).lower()


def _snake(row: Mapping[str, Any]) -> Fields:
    """Return the fields under names in snake case; of two spellings of one name the one with a value counts."""
    found: Fields = {}
    for name, value in row.items():
        key = snake_case(name)
        if value is not None or key not in found:
            found[key] = value
    inner = found.get("attributes")
    if isinstance(inner, Mapping):  # JSON:API keeps all fields but the id apart
        return {**_snake(inner), **found}
    return found


def _first(found: Mapping[str, Any], names: Names) -> Any:
    return next((value for name in names if (value := found.get(name)) is not None), None)


# Envelopes.

_DEPTH = 3
_MESSAGES = ("message", "error", "errors", "msg", "detail", "error_message", "reason")


def _candidates(body: Any, profile: ServiceProfile, depth: int = 0, name: str = "") -> Iterator[tuple[str, Fields]]:
    """Yield the objects that an answer may mean, each with its field: itself, then what its envelopes hold."""
    if isinstance(body, list | tuple):
        if len(body) == 1 and depth <= _DEPTH:
            yield from _candidates(body[0], profile, depth + 1, name)
        return
    if not isinstance(body, Mapping) or depth > _DEPTH:
        return
    found = _snake(body)
    yield name, found
    for inner in profile.envelopes:
        if isinstance(found.get(inner), Mapping | list | tuple):
            yield from _candidates(found[inner], profile, depth + 1, inner)


def _unwrapped(body: Any, profile: ServiceProfile, score: Callable[[Fields], int]) -> Fields | None:
    """Return the object with the highest score above 0, outer ones first; None if there is none."""
    best: Fields | None = None
    most = 0
    for name, found in _candidates(body, profile):
        points = score(found)
        if points and name == "job":
            points += 1  # the id beside it is that of the request
        if points > most:
            best, most = found, points
    return best


def _refuse_error(body: Any) -> None:
    """Refuse the description of an error that came with a status of success."""
    if not isinstance(body, Mapping):
        return
    found = _snake(body)
    failed = (
        any(found.get(name) is False for name in ("success", "ok", "succeeded"))
        or bool(found.get("error"))
        or bool(found.get("errors"))
        or plain(found.get("status")) in {"error", "fail"}
        or (isinstance(found.get("code"), int) and found["code"] >= 400)
    )
    if failed:
        raise EmbeddedError(message_in(found) or "no message")


def plain(value: Any) -> str:
    """Return a value as text in lower case; empty for everything that is neither text nor a number."""
    return value.strip().lower() if isinstance(value, str) else ""


def message_in(body: Any, depth: int = 0) -> str:
    """Return the message of an error in any usual form; empty where there is none.

    Examples:
        >>> message_in({"error": {"message": "no such job"}}), message_in({"errors": [{"msg": "too long"}]})
        ('no such job', 'too long')
        >>> message_in({"title": "Forbidden", "detail": "no access"}), message_in({"email": ["is required"]})
        ('no access', 'email: is required')
    """
    if isinstance(body, str):
        return " ".join(body.split())
    if depth > _DEPTH:
        return ""
    if isinstance(body, list | tuple):
        return "; ".join(text for item in body if (text := message_in(item, depth + 1)))
    if not isinstance(body, Mapping):
        return ""
    found = _snake(body)
    for name in _TEXTS:
        value = found.get(name)
        if isinstance(value, str) and value.strip():
            return message_in(value)
    for name in ("error", "detail", "errors", "fault", "failure", "response", "data", "message"):
        if isinstance(found.get(name), Mapping | list | tuple) and (text := message_in(found[name], depth + 1)):
            return text
    for name in ("error", "detail", "title", "status_text", "code", "type"):
        value = found.get(name)
        if isinstance(value, str) and value.strip():
            return message_in(value)
    # Frameworks that name each field: {"product_name": ["This field is required."]}.
    fields = {name: value for name, value in found.items() if isinstance(value, list | tuple) and value}
    named = (f"{name}: {text}" for name, value in fields.items() if (text := message_in(value, depth + 1)))
    return "; ".join(named)


_TEXTS = (
    "message", "error_message", "error_description", "msg", "detail", "description", "reason", "faultstring",
    "failure_reason", "err_msg", "error_msg",
)  # fmt: skip


# Values.

_MOST = 2.0**53
"""A larger number is none of this API."""
_MOST_CREDITS = 2**31 - 1
"""More credits of one job do not fit where they are stored."""


def number_in(value: Any) -> float | None:
    """Return a number, also from text; None for everything else.

    Examples:
        >>> number_in("86"), number_in(12.5), number_in("1,200 credits"), number_in(True)
        (86.0, 12.5, 1200.0, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([+-]?[\d,]*\.?\d+)\s*(?:credits?|%)?\s*", value, re.IGNORECASE)
        value = found[1].replace(",", "") if found else None
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _MOST else None


def _cost(value: Any) -> int | None:
    """Return credits that are spent, rounded up: a budget must not count less than the service does."""
    number = number_in(value)
    if number is None or abs(number) > _MOST_CREDITS:
        return None
    return math.ceil(number) if number >= 0 else math.floor(number)


def _have(value: Any) -> int | None:
    """Return credits that can be spent, rounded down."""
    number = number_in(value)
    return None if number is None else math.floor(number)


def link_in(value: Any, depth: int = 0) -> str | None:
    """Return the first http(s) link in a value: text, a list, or an object with a link.

    Examples:
        >>> link_in(["https://cdn.example/a.mp4"]), link_in({"url": "https://cdn.example/b.mp4"}), link_in("no link")
        ('https://cdn.example/a.mp4', 'https://cdn.example/b.mp4', None)
    """
    if isinstance(value, str):
        text = value.strip()
        return text if text.lower().startswith(("http://", "https://")) else None
    if depth > 2:
        return None
    if isinstance(value, list | tuple):
        return next((link for item in value if (link := link_in(item, depth + 1))), None)
    if isinstance(value, Mapping):
        found = _snake(value)
        names = (
            "url", "video_url", "final_video_url", "video", "videos", "mp4", "href", "download_url", "src", "uri",
            "output",
        )  # fmt: skip
        return next((link for name in names if (link := link_in(found.get(name), depth + 1))), None)
    return None


_MEDIA = re.compile(r"\.(?:mp4|mov|webm|m4v)(?:[?#]|$)", re.IGNORECASE)


def is_media_link(link: str) -> bool:
    """Whether a link leads to a video by the end of its path."""
    return _MEDIA.search(link) is not None


# Jobs.

_MOST_ID = 200
"""Characters of the longest id that a ledger keeps."""


def _id_text(value: Any) -> str | None:
    """Return an id as text; None for what names no job: nothing, a control character, half a pair, a whole document."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    is_id = text.strip() and len(text) <= _MOST_ID and text.isprintable() and "\ufffd" not in text
    return text if is_id else None


_ERROR_NAMES = ("error_message", "failure_reason", "failed_reason", "fail_reason", "failure", "error", "reason")
_CODE_NAMES = ("error_code", "failure_code")
_STAGE_NAMES = ("current_stage", "stage", "current_step", "step")
_TIMES = {
    "created_at": ("created_at", "created", "create_time", "created_time", "submitted_at"),
    "updated_at": ("updated_at", "updated", "update_time", "modified_at"),
    "completed_at": ("completed_at", "finished_at", "ended_at", "completed", "finish_time", "completion_time"),
}


def _job_score(profile: ServiceProfile) -> Callable[[Fields], int]:
    first = profile.id_names[0]

    def score(found: Fields) -> int:
        named = next((name for name in profile.id_names if isinstance(found.get(name), str | int)), None)
        if named is None or _id_text(found[named]) is None:
            return 0
        has_status = any(name in found for name in profile.status_names)
        if not has_status and isinstance(found.get("error"), Mapping | str) and found["error"]:
            return 0  # the id is that of the error or of the request
        return 2 + 2 * (named in (first, "job_id")) + 2 * has_status

    return score


def _read_job(body: Any, profile: ServiceProfile) -> Fields:
    if isinstance(body, dict) and profile is DEFAULT_PROFILE and _is_documented(body):
        return body
    is_bare = isinstance(body, dict) and "job_id" in body and "status" in body
    found = body if is_bare else _unwrapped(body, profile, _job_score(profile))
    fields = None if found is None else job_fields(found, profile)
    if fields is None or "job_id" not in fields:
        _refuse_error(body)
        raise TypeError("no object with a job's id")
    return fields


_WORDS = frozenset({"pending", "processing", "paused", "completed", "failed", "cancelled"})


def _is_documented(body: Fields) -> bool:
    """Whether a job is in its documented form already, as nearly all are: then nothing is copied."""
    segments = body.get("segments")
    return (
        type(body.get("job_id")) is str
        and _id_text(body["job_id"]) is not None
        and type(body.get("status")) is str
        and body["status"] in _WORDS
        and "current_stage" in body
        and "progress_percent" in body
        and (body.get("final_video_url") is not None or body["status"] != "completed")
        and type(body.get("credits_reserved")) is int
        and type(body.get("credits_consumed")) is int
        and max(body["credits_reserved"], body["credits_consumed"]) <= _MOST_CREDITS
        and (body.get("error_message") is None or type(body["error_message"]) is str)
        and isinstance(segments, list)
        and all(type(segment) is dict and "video_url" in segment for segment in segments)
    )


def _read_job_or_none(body: Any, profile: ServiceProfile) -> Fields | None:
    found = _unwrapped(body, profile, _job_score(profile))
    if found is None:
        _refuse_error(body)
        return None
    return job_fields(found, profile)


def job_fields(row: Mapping[str, Any], profile: ServiceProfile) -> Fields:
    """Return the fields of a job under their documented names."""
    found = _snake(row)
    job_id = _first(found, profile.id_names)
    if (text := _id_text(job_id)) is not None:
        found["job_id"] = text
    else:
        found.pop("job_id", None)
    found["status"] = _status(found, profile)
    state = state_of(found["status"])
    found["final_video_url"] = _video(found, state, profile)
    if (thumbnail := link_in(_first(found, profile.thumbnail_names))) is not None:
        found["thumbnail_url"] = thumbnail
    if (stage := _first(found, _STAGE_NAMES)) is not None:
        found["current_stage"] = stage
    if (key := _first(found, profile.key_names)) is not None:
        found["idempotency_key"] = str(key) if isinstance(key, int) else key
    found["credits_reserved"] = _cost(_first(found, profile.reserved_names))
    found["credits_consumed"] = _cost(_first(found, profile.consumed_names))
    found["progress_percent"] = _progress(found)
    if (error := _first(found, _ERROR_NAMES)) is not None:
        found["error_message"] = message_in(error) or None
        code = error.get("code") if isinstance(error, Mapping) else None
        found.setdefault("error_code", str(code) if code is not None else _first(found, _CODE_NAMES))
    elif state is JobState.FAILED:
        found["error_message"] = message_in(found.get("message")) or None
    if profile.completed_without_video:
        found["may_lack_video"] = True
    for name, names in _TIMES.items():
        time = _first(found, names)
        found[name] = _time(time)
    for name, kind in (("segments", _segment), ("keyframes", _keyframe)):
        if isinstance(found.get(name), list | tuple):
            found[name] = [kind(item, number) for number, item in enumerate(found[name])]
    return found


def _status(found: Fields, profile: ServiceProfile) -> str:
    value = _first(found, profile.status_names)
    if isinstance(value, Mapping):
        inner = _snake(value)
        value = _first(inner, (*profile.status_names, "name", "value", "code"))
    if value is None or isinstance(value, bool | list) or not str(value).strip():
        return "unknown"
    word = str(value).strip()
    if profile.status_map and state_of(word) is not (meaning := profile.meaning(word)) and meaning is not None:
        found["service_status"] = word
        return "processing" if meaning is JobState.ACTIVE else meaning.value
    return word


def _video(found: Fields, state: JobState, profile: ServiceProfile) -> str | None:
    if (link := link_in(found.get("final_video_url"))) is not None:
        return link
    if state is not JobState.COMPLETED and is_known_word(found["status"]):
        return None  # other fields may hold a preview or a part until then
    for name in profile.video_names:
        if (link := link_in(found.get(name))) is not None:
            return link
    link = link_in(found.get("url"))
    return link if link is not None and _MEDIA.search(link) else None


def _progress(found: Fields) -> float | None:
    value = _first(found, ("progress_percent", "percent", "percentage", "percent_complete"))
    if value is not None:
        return number_in(value)
    value = found.get("progress")
    if isinstance(value, Mapping):
        value = _first(_snake(value), ("percent", "percentage", "value", "progress"))
    number = number_in(value)
    is_share = number is not None and 0 <= number <= 1 and not (isinstance(value, int) and value == 1)
    return number * 100 if number is not None and is_share else number


def _time(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{9,13}(?:\.\d+)?", value.strip()):
        return float(value)
    return None if isinstance(value, bool) else value


# Parts of a job.

_INDEX_NAMES = ("index", "position", "order", "sequence", "number", "segment_index", "keyframe_index")


def _part(item: Any, number: int, *, link: str, ids: Names, links: Names) -> Any:
    if isinstance(item, str):
        return {link: item, "index": number} if link_in(item) else item
    if not isinstance(item, Mapping):
        return item
    found = _snake(item)
    if (value := link_in(_first(found, (link, *links)))) is not None:
        found[link] = value
    if (one := _first(found, ids)) is not None:
        found[ids[0]] = str(one) if isinstance(one, int) else one
    index = number_in(_first(found, _INDEX_NAMES))
    found["index"] = None if index is None else int(index)
    found["qai_score"] = number_in(_first(found, ("qai_score", "score", "quality_score", "qa_score")))
    for name in ("attempts", "duration"):
        if name in found:
            found[name] = number_in(found[name])
    return found


def _keyframe(item: Any, number: int) -> Any:
    links = ("url", "image", "keyframe_url", "picture_url")
    return _part(item, number, link="image_url", ids=("keyframe_id", "id"), links=links)


def _segment(item: Any, number: int) -> Any:
    links = ("url", "video", "output_url", "segment_url")
    return _part(item, number, link="video_url", ids=("segment_id", "video_id", "id"), links=links)


# Lists.


def _listing(body: Any, profile: ServiceProfile, names: Names = ()) -> tuple[Fields | None, list[Any]]:
    """Return the envelope of a list, what its outer envelopes say included, and its entries.

    Raises:
        TypeError: There is no list.
    """
    if isinstance(body, list):
        return None, body
    facts: Fields = {}
    inner: Any = body
    for _ in range(_DEPTH):
        if not isinstance(inner, Mapping):
            break
        if isinstance(inner, Mapping):
            facts = {**facts, **inner}
        found = _snake(inner)
        for name in (*names, *profile.list_names):
            if isinstance(found.get(name), list):
                return facts, found[name]
        lists = [value for name, value in found.items() if name not in _NO_ENTRIES and _are_objects(value)]
        if len(lists) == 1:
            return facts, lists[0]
        envelope = next((name for name in (*profile.envelopes, "_embedded", *names) if name in found), None)
        inner = None if envelope is None else found[envelope]
        if isinstance(inner, list):
            return facts, inner
    _refuse_error(body)
    raise TypeError("a list was expected, as an array or as {'items': [...]}")


_NO_ENTRIES = frozenset({"error", "errors", "warnings", "messages", "links"})


def _are_objects(items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, Mapping) for item in items)


def _list_of(row: Callable[[Any, int, ServiceProfile], Any], *names: str) -> Callable[[Any, ServiceProfile], Any]:
    def read(body: Any, profile: ServiceProfile) -> Any:
        facts, entries = _listing(body, profile, names)
        items = [row(item, number, profile) for number, item in enumerate(entries)]
        if facts is None:
            return items
        rest = {name: value for name, value in facts.items() if value is not entries}
        return {**rest, "items": items}

    return read


def _job_row(item: Any, number: int, profile: ServiceProfile) -> Any:  # noqa: ARG001  one signature for all rows
    if not isinstance(item, Mapping):
        return None
    node = item.get("node")
    fields = job_fields(node if isinstance(node, Mapping) else item, profile)
    return fields if "job_id" in fields else None


def _transaction_row(item: Any, number: int, profile: ServiceProfile) -> Any:  # noqa: ARG001
    if not isinstance(item, Mapping):
        return None
    found = _snake(item)
    kind = _first(found, ("type", "transaction_type", "kind", "event"))
    amount = number_in(_first(found, ("amount", "credits", "credit_amount", "delta", "value")))
    if kind is None or amount is None:
        return None
    found["type"] = str(kind).lower()
    found["amount"] = _cost(amount)
    job_id = _first(found, ("job_id", "reference_id", "job"))
    if isinstance(job_id, str | int) and not isinstance(job_id, bool):
        found["job_id"] = str(job_id)
    if (one := _first(found, ("transaction_id", "id", "uuid"))) is not None:
        found["transaction_id"] = str(one)
    for name in ("balance_before", "balance_after"):
        found[name] = _have(found.get(name))
    found["created_at"] = _time(_first(found, _TIMES["created_at"]))
    return found


def _keyframe_row(item: Any, number: int, profile: ServiceProfile) -> Any:  # noqa: ARG001
    return _keyframe(item, number)


def _segment_row(item: Any, number: int, profile: ServiceProfile) -> Any:  # noqa: ARG001
    return _segment(item, number)


def _plain_row(item: Any, number: int, profile: ServiceProfile) -> Any:  # noqa: ARG001
    return _snake(item) if isinstance(item, Mapping) else item


# Credits.


def _read_balance(body: Any, profile: ServiceProfile) -> Fields:
    reserved_names = ("credit_reserved", "reserved_credits", "credits_reserved", "reserved", "held", "pending")
    names = (*profile.available_names, *profile.balance_names)
    if number_in(body) is not None and not isinstance(body, str):
        body = {"available_credits": body}
    if isinstance(body, Mapping):
        flat = _snake(body)
        for name in profile.envelopes:
            if number_in(flat.get(name)) is not None:
                body = {**body, "available_credits": flat[name]}
    found = _unwrapped(body, profile, lambda one: sum(number_in(one.get(name)) is not None for name in names))
    if found is None:
        nested = _nested(body, (*names, "credits", "wallet", "account", "quota"))
        found = None if nested is None else nested
    if found is None:
        _refuse_error(body)
        raise TypeError("no number of credits")
    available = _have(_first(found, profile.available_names))
    balance = _have(_first(found, profile.balance_names))
    reserved = _cost(_first(found, reserved_names))
    if available is None and balance is not None:
        available = balance - (reserved or 0)
    if balance is None and available is not None:
        balance = available + (reserved or 0)
    if available is None or balance is None:
        raise TypeError("no number of credits")
    if reserved is None:
        reserved = max(0, balance - available)
    return {**found, "available_credits": available, "credit_balance": balance, "credit_reserved": reserved}


def _nested(body: Any, names: Names) -> Fields | None:
    """Return the first object below a field of these names, as `{"credits": {"remaining": 5}}`."""
    if not isinstance(body, Mapping):
        return None
    found = _snake(body)
    return next((_snake(found[name]) for name in names if isinstance(found.get(name), Mapping)), None)


def _read_estimate(body: Any, profile: ServiceProfile) -> Fields:
    names = profile.estimate_names
    if number_in(body) is not None:
        body = {names[0]: body}
    found = _unwrapped(body, profile, lambda one: int(number_in(_first(one, names)) is not None))
    if found is None:
        nested = _nested(body, ("estimate", "cost", "credits", "total", *profile.envelopes))
        found = nested if nested is not None and number_in(_first(nested, (*names, "amount"))) is not None else None
    if found is None:
        _refuse_error(body)
        raise TypeError("no sum of credits")
    return {**found, "total_credits": _cost(_first(found, (*names, "amount")))}


# Other answers.


def _read_suggestion(body: Any, profile: ServiceProfile) -> Any:
    known = ("key_selling_points", "cta_text", "environment_description", "custom_script")
    wider = ServiceProfile(envelopes=("suggestions", "fields", "suggested_fields", *profile.envelopes))
    found = _unwrapped(body, wider, lambda one: sum(name in one for name in known))
    if found is None:
        _refuse_error(body)
        return body if body is not None else {}
    points = found.get("key_selling_points")
    if isinstance(points, str):
        found["key_selling_points"] = [line.strip("-• ").strip() for line in points.splitlines() if line.strip("-• ")]
    return found


def _read_object(body: Any, profile: ServiceProfile) -> Any:
    if not isinstance(body, Mapping):
        return body
    found = _snake(body)
    if len(found) <= 4:
        for name in profile.envelopes:
            if isinstance(found.get(name), Mapping):
                return _snake(found[name])
    if set(found) <= {"error", "errors", "message", "code", "success", "detail", "status", "request_id", "msg"}:
        _refuse_error(body)
    return found


_READERS: Mapping[Form, Callable[[Any, ServiceProfile], Any]] = {
    Form.JOB: _read_job,
    Form.JOB_OR_NONE: _read_job_or_none,
    Form.JOBS: _list_of(_job_row, "jobs"),
    Form.KEYFRAMES: _list_of(_keyframe_row, "keyframes", "images", "frames"),
    Form.SEGMENTS: _list_of(_segment_row, "videos", "segments", "clips"),
    Form.TRANSACTIONS: _list_of(_transaction_row, "transactions"),
    Form.BALANCE: _read_balance,
    Form.ESTIMATE: _read_estimate,
    Form.SUGGESTION: _read_suggestion,
    Form.OBJECT: _read_object,
    Form.LIST: _list_of(_plain_row),
}
