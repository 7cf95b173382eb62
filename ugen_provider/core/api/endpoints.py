# SPDX-License-Identifier: Apache-2.0
"""Every endpoint of the API: the request to send and how to parse the answer. No I/O, no retries.

One request and its answer are values here; an answer about another job or order than the request is refused. Files to
upload are refused before they are sent where the service would refuse them.
"""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar
from urllib.parse import quote

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.api.pagination import Page, Params, read_items, read_page
from ugen_provider.core.api.rules import Violation
from ugen_provider.core.lazily import LazyModule
from ugen_provider.core.text import get_logger

if TYPE_CHECKING:
    from ugen_provider.core.api import models
    from ugen_provider.core.api.models import (
        Balance,
        Estimate,
        Job,
        Keyframe,
        Model,
        MusicTrack,
        Segment,
        Suggestion,
        Template,
        Transaction,
        UploadedImage,
        WebhookSettings,
    )
else:  # loaded with the first answer, so that creating a client does not import pydantic
    models = LazyModule("ugen_provider.core.api.models")

# A request and its answer.


class _NotJSON:
    def __repr__(self) -> str:
        return "NOT_JSON"


NOT_JSON: Any = _NotJSON()
"""The JSON of a body that is none."""


class Repeat(Enum):
    """When a request may be sent again without an answer to the first."""

    SAFE = "safe"
    """It changes nothing, or its repetition changes nothing further."""
    KEYED = "keyed"
    """It carries an idempotency key, so that the service answers a second one with the first's result."""
    UNSAFE = "unsafe"
    """A second one may act a second time: its effect has to be verified first."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart request."""

    name: str
    content: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without host and without API key; the transport adds both.

    Attributes:
        point: The name of this step, for logs, spans and tests.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    upload: Upload | None = None
    form: tuple[tuple[str, str], ...] = ()
    repeat: Repeat = Repeat.SAFE
    point: str = ""

    @property
    def idempotency_key(self) -> str | None:
        """The idempotency key of a create; None for every other request."""
        key = (self.json or {}).get("idempotency_key") if self.repeat is Repeat.KEYED else None
        return str(key) if key else None


@dataclass(frozen=True)
class Response:
    """One HTTP answer: header names in lower case, the whole body unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The id that the service gave this request, from the first header that holds one."""
        for name in ("x-request-id", "request-id", "x-correlation-id"):
            if value := self.headers.get(name):
                return value
        return None

    @cached_property
    def json(self) -> Any:
        """The body as JSON, parsed once; None for an empty body, `NOT_JSON` where it is none.

        Characters that no database stores are replaced: NUL and halves of surrogate pairs.
        """
        if not self.body.strip():
            return None
        try:
            parsed = json.loads(self.body)
            return _storable(parsed) if _MAY_NEED_REPLACING.search(self.body) else parsed
        except (ValueError, RecursionError):
            return NOT_JSON


_MAY_NEED_REPLACING = re.compile(rb"\\u|\xed|\x00")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_storable(name): _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


class Form(Enum):
    """The kind of an answer."""

    PLAIN = "plain"
    JOB = "job"
    JOB_OR_NONE = "job or none"
    """Of an action: what it answers is not believed, and the job is read again."""
    JOBS = "jobs"
    KEYFRAMES = "keyframes"
    SEGMENTS = "segments"
    BALANCE = "balance"
    ESTIMATE = "estimate"
    TRANSACTIONS = "transactions"
    SUGGESTION = "suggestion"
    OBJECT = "object"
    """Any other single object."""
    LIST = "list"
    """Any other list."""


# Whether an answer is about the job, or the order, of its request.


class WrongSubjectError(ValueError):
    """An answer is about another job or order than the request; the client raises a `ResponseError` from it."""


def canonical_id(job_id: str) -> str:
    """Return the one spelling of an id: a UUID in lower case with hyphens, every other id unchanged.

    Examples:
        >>> canonical_id("550E8400-E29B-41D4-A716-446655440000"), canonical_id("job_Xm2nKp7q")
        ('550e8400-e29b-41d4-a716-446655440000', 'job_Xm2nKp7q')
    """
    try:
        return str(uuid.UUID(job_id))
    except (ValueError, AttributeError, TypeError):
        return job_id


def is_same_id(left: str, right: str) -> bool:
    """Return whether two ids name the same job: compared as UUIDs where both are, else exactly.

    Examples:
        >>> is_same_id("550E8400-E29B-41D4-A716-446655440000", "550e8400-e29b-41d4-a716-446655440000")
        True
        >>> is_same_id("job_Xm2nKp7q", "job_xm2nkp7q")
        False
    """
    return left == right or canonical_id(left) == canonical_id(right)


def check_subject(answered: str | None, *, asked: str) -> None:
    """Refuse an answer that names another job than the one asked for.

    Raises:
        WrongSubjectError: It does.
    """
    if answered is not None and not is_same_id(answered, asked):
        raise WrongSubjectError(f"the answer is about job {answered}, and job {asked} was asked for")


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A UUID with its hyphens. 32 digits without them can as well be a digest in which a service shows its keys."""

_MOST_KEYS = 20_000
_sent_keys: dict[str, None] = {}
_sent_keys_lock = threading.Lock()


def remember_key(key: str) -> None:
    """Remember an idempotency key that this process sends; the newest 20,000 are kept."""
    key = canonical_id(key)
    with _sent_keys_lock:
        _sent_keys.pop(key, None)
        _sent_keys[key] = None
        if len(_sent_keys) > _MOST_KEYS:
            del _sent_keys[next(iter(_sent_keys))]


def check_key(answered: str | None, *, sent: str, job_id: str) -> None:
    """Refuse the answer of a create that is about another order.

    Accepting another order's job would deliver the wrong video and lose the right one; refusing the right job would
    lose it until a person reads the error, which names it. Neither pays twice, since the same key is sent again. So an
    answer is refused only where its key cannot be another form of the key that was sent:

    - It is another key that this process sent.
    - It is a UUID, which is how this package writes keys, and not the one that was sent.

    Every other text is accepted: a service may show keys shortened, prefixed or as a digest.

    Args:
        answered: The key in the answer; None where it names none, which proves nothing.
        sent: The key that was sent.
        job_id: The job in the answer, for the error.

    Raises:
        WrongSubjectError: The answer is about another order.

    Examples:
        >>> check_key("acct_7/order-7", sent="order-7", job_id="job_1")
    """
    if answered is None or is_same_id(answered, sent):
        return
    if _UUID.fullmatch(answered) or canonical_id(answered) in _sent_keys:
        raise WrongSubjectError(
            f"the answer is about job {job_id} of another order: its idempotency key is {answered}, and {sent} was sent"
        )


# The endpoints.

T = TypeVar("T")
_log = get_logger("ugen_provider.api")

PAGE_SIZE = 100
"""The largest page that the service gives."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[T]):
    """One endpoint with its arguments.

    Attributes:
        request: The request to send.
        parse: Turns the JSON of a successful answer, in its documented form, into a `T`; a `ValueError` says that it
            cannot be parsed.
        form: What the answer is, so that `answers` can bring it into its documented form first.
    """

    request: Request
    parse: Callable[[Any], T]
    form: Form = Form.PLAIN


def _job_path(job_id: str, *rest: str) -> str:
    if not job_id or not job_id.strip():
        raise InvalidRequestError([rules.Violation("job_id", "must not be empty")])
    return "/".join(("/jobs", quote(job_id, safe=""), *rest))


def _read_job(body: Any) -> Job:
    return models.Job.model_validate(body)


def _read_job_or_none(body: Any) -> Job | None:
    return None if body is None else models.Job.model_validate(body)


def _read_job_of(job_id: str) -> Callable[[Any], Job]:
    """Read an answer that must be about this job."""

    def read(body: Any) -> Job:
        job = _read_job(body)
        check_subject(job.job_id, asked=job_id)
        return job

    return read


def _read_job_of_or_none(job_id: str) -> Callable[[Any], Job | None]:
    """Read an answer that may be empty and must otherwise be about this job."""

    def read(body: Any) -> Job | None:
        job = _read_job_or_none(body)
        if job is not None:
            check_subject(job.job_id, asked=job_id)
        return job

    return read


def _params(**values: str | int | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _read_created_job(key: str) -> Callable[[Any], Job]:
    """Read the answer of a create, which must not be about another order."""

    def read(body: Any) -> Job:
        job = _read_job(body)
        check_key(job.idempotency_key, sent=key, job_id=job.job_id)
        return job

    return read


def create_job(body: Mapping[str, Any]) -> Endpoint[Job]:
    """`POST /jobs`. The body must carry its `idempotency_key`, which makes the request safe to repeat."""
    if not body.get("idempotency_key"):
        raise InvalidRequestError(
            [rules.Violation("idempotency_key", "is required, so that a repeated request buys nothing twice")]
        )
    request = Request(method="POST", path="/jobs", json=dict(body), repeat=Repeat.KEYED, point="create")
    return Endpoint(request, _read_created_job(str(body["idempotency_key"])), Form.JOB)


def get_job(job_id: str) -> Endpoint[Job]:
    """Build the endpoint `GET /jobs/{jobId}`."""
    return Endpoint(Request(method="GET", path=_job_path(job_id), point="get"), _read_job_of(job_id), Form.JOB)


def list_jobs(
    *, status: str | None = None, page: int = 1, page_size: int = PAGE_SIZE, onward: Params = ()
) -> Endpoint[Page]:
    """Build the endpoint `GET /jobs`, one page of it.

    Args:
        status: Only jobs of this status, in the service's words.
        page: Which page, from 1; 0 for the one that the service gives without a number.
        page_size: Jobs per page, at most 100.
        onward: Parameters that the previous page named for this one, instead of its number; see `Page.onward`.
    """
    params = _params(status=status, page=None if onward or page == 0 else page, page_size=page_size)
    request = Request(method="GET", path="/jobs", params=_merged(params, onward), point="list")
    return Endpoint(request, lambda body: read_page(body, page=page, page_size=page_size), Form.JOBS)


def _merged(params: Params, onward: Params) -> Params:
    return tuple({**dict(params), **dict(onward)}.items())


def cancel_job(job_id: str) -> Endpoint[Job | None]:
    """Build the endpoint `DELETE /jobs/{jobId}`. Repeating it cancels nothing further."""
    return Endpoint(
        Request(method="DELETE", path=_job_path(job_id), point="cancel"), _read_job_of_or_none(job_id), Form.JOB_OR_NONE
    )


def pause_job(job_id: str) -> Endpoint[Job | None]:
    """Build the endpoint `POST /jobs/{jobId}/pause`."""
    request = Request(method="POST", path=_job_path(job_id, "pause"), repeat=Repeat.UNSAFE, point="pause")
    return Endpoint(request, _read_job_of_or_none(job_id), Form.JOB_OR_NONE)


def resume_job(job_id: str) -> Endpoint[Job | None]:
    """Build the endpoint `POST /jobs/{jobId}/resume`."""
    request = Request(method="POST", path=_job_path(job_id, "resume"), repeat=Repeat.UNSAFE, point="resume")
    return Endpoint(request, _read_job_of_or_none(job_id), Form.JOB_OR_NONE)


def retry_job(job_id: str, *, restart_from_stage: str | None = None) -> Endpoint[Job | None]:
    """Build the endpoint `POST /jobs/{jobId}/retry`. Never repeated blindly: it reserves credits and carries no key."""
    if restart_from_stage is not None and (violations := rules.check_stage(restart_from_stage)):
        raise InvalidRequestError(violations)
    request = Request(
        method="POST",
        path=_job_path(job_id, "retry"),
        json={"restart_from_stage": restart_from_stage} if restart_from_stage else {},
        repeat=Repeat.UNSAFE,
        point="retry",
    )
    return Endpoint(request, _read_job_of_or_none(job_id), Form.JOB_OR_NONE)


def list_keyframes(job_id: str) -> Endpoint[tuple[Keyframe, ...]]:
    """Build the endpoint `GET /jobs/{jobId}/keyframes`, in the order of their index."""
    request = Request(method="GET", path=_job_path(job_id, "keyframes"), point="keyframes")
    return Endpoint(
        request,
        lambda body: _by_index(tuple(map(models.Keyframe.model_validate, _listed(body, job_id)))),
        Form.KEYFRAMES,
    )


def list_videos(job_id: str) -> Endpoint[tuple[Segment, ...]]:
    """Build the endpoint `GET /jobs/{jobId}/videos`, in the order of their index."""
    request = Request(method="GET", path=_job_path(job_id, "videos"), point="videos")
    return Endpoint(
        request,
        lambda body: _by_index(tuple(map(models.Segment.model_validate, _listed(body, job_id)))),
        Form.SEGMENTS,
    )


def _listed(body: Any, job_id: str) -> tuple[dict[str, Any], ...]:
    items = read_items(body)
    for answer in (body, *items):
        if isinstance(answer, Mapping) and isinstance(answer.get("job_id"), str):
            check_subject(answer["job_id"], asked=job_id)
    return items


def _read_rows(model: Any, body: Any) -> tuple[Any, ...]:
    """Read the entries of a list; one that cannot be read is left out and reported."""
    found: list[Any] = []
    for item in read_items(body):
        try:
            found.append(model.model_validate(item))
        except ValueError as error:
            _log.warning("an entry of a list of %s cannot be read: %s", model.__name__, str(error).splitlines()[0])
    return tuple(found)


def _by_index(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(item.index is None for item in items):
        return items
    return tuple(sorted(items, key=lambda item: item.index))


def suggest_fields(
    *,
    product_name: str,
    product_image_url: str,
    persona_id: str | None = None,
    interaction_mode: str | None = None,
    segment_count: int | None = None,
) -> Endpoint[Suggestion]:
    """Build the endpoint `POST /jobs/suggest-fields`; free."""
    body: dict[str, Any] = {"product_name": product_name, "product_image_url": product_image_url}
    optional = {
        "persona_id": persona_id,
        "interaction_mode": interaction_mode,
        "segment_count": segment_count,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    if violations := rules.check(body, pending=("segment_count",) if segment_count is None else ()):
        raise InvalidRequestError(violations)
    request = Request(method="POST", path="/jobs/suggest-fields", json=body, repeat=Repeat.SAFE, point="suggest")
    return Endpoint(request, models.Suggestion.model_validate, Form.SUGGESTION)


def get_balance() -> Endpoint[Balance]:
    """Build the endpoint `GET /credits/balance`."""
    return Endpoint(
        Request(method="GET", path="/credits/balance", point="balance"), models.Balance.model_validate, Form.BALANCE
    )


def list_transactions(
    *, job_id: str | None = None, page: int = 1, page_size: int = PAGE_SIZE, onward: Params = ()
) -> Endpoint[Page]:
    """Build the endpoint `GET /credits/transactions`, one page of it; `page` and `onward` as for `list_jobs`."""
    number = None if onward or page == 0 else page
    params = _merged(_params(job_id=job_id, page=number, page_size=page_size), onward)
    request = Request(method="GET", path="/credits/transactions", params=params, point="transactions")
    return Endpoint(request, lambda body: read_page(body, page=page, page_size=page_size), Form.TRANSACTIONS)


def read_transaction(item: Mapping[str, Any]) -> Transaction:
    """Parse one row of the transactions."""
    return models.Transaction.model_validate(item)


def read_listed_job(item: Mapping[str, Any]) -> Job:
    """Parse one row of the list of jobs."""
    return models.Job.model_validate(item)


def estimate(body: Mapping[str, Any]) -> Endpoint[Estimate]:
    """Build the endpoint `POST /credits/estimate`; free. The method is an assumption, held here alone."""
    sent = {name: value for name, value in body.items() if name != "idempotency_key"}
    request = Request(method="POST", path="/credits/estimate", json=sent, repeat=Repeat.SAFE, point="estimate")
    return Endpoint(request, models.Estimate.model_validate, Form.ESTIMATE)


def get_webhook() -> Endpoint[WebhookSettings]:
    """Build the endpoint `GET /tenants/me/webhook`."""
    return Endpoint(
        Request(method="GET", path="/tenants/me/webhook", point="webhook"),
        models.WebhookSettings.model_validate,
        Form.OBJECT,
    )


def set_webhook(*, webhook_url: str, webhook_secret: str | None = None) -> Endpoint[WebhookSettings]:
    """Build the endpoint `PUT /tenants/me/webhook`; it replaces the previous setting."""
    if not rules.is_http_url(webhook_url):
        raise InvalidRequestError([rules.Violation("webhook_url", "must be an http(s) URL")])
    body = {"webhook_url": webhook_url}
    if webhook_secret is not None:
        body["webhook_secret"] = webhook_secret
    request = Request(method="PUT", path="/tenants/me/webhook", json=body, repeat=Repeat.SAFE, point="webhook")
    fallback = {"webhook_configured": True, "webhook_url": webhook_url}
    return Endpoint(
        request, lambda answer: models.WebhookSettings.model_validate({**fallback, **(answer or {})}), Form.OBJECT
    )


def delete_webhook() -> Endpoint[None]:
    """Build the endpoint `DELETE /tenants/me/webhook`."""
    return Endpoint(Request(method="DELETE", path="/tenants/me/webhook", point="webhook"), lambda _: None)


def create_product_image(*, name: str, content: bytes, content_type: str) -> Endpoint[UploadedImage]:
    """`POST /uploads/product-image`; free. Repeating it stores the picture twice and costs nothing."""
    upload = Upload(name=name, content=content, content_type=content_type)
    request = Request(method="POST", path="/uploads/product-image", upload=upload, repeat=Repeat.SAFE, point="upload")
    return Endpoint(request, models.UploadedImage.model_validate, Form.OBJECT)


def list_templates(*, limit: int = 50) -> Endpoint[tuple[Template, ...]]:
    """Build the endpoint `GET /templates`."""
    request = Request(method="GET", path="/templates", params=_params(limit=limit), point="templates")
    return Endpoint(request, lambda body: _read_rows(models.Template, body), Form.LIST)


def create_template(body: Mapping[str, Any]) -> Endpoint[Template]:
    """Build the endpoint `POST /templates`. Repeating it would make a second template."""
    request = Request(method="POST", path="/templates", json=dict(body), repeat=Repeat.UNSAFE, point="template")
    return Endpoint(request, models.Template.model_validate, Form.OBJECT)


def update_template(template_id: str, body: Mapping[str, Any]) -> Endpoint[Template]:
    """Build the endpoint `PUT /templates/{id}`. The method is an assumption, held here alone."""
    path = f"/templates/{quote(template_id, safe='')}"
    request = Request(method="PUT", path=path, json=dict(body), repeat=Repeat.SAFE, point="template")
    return Endpoint(request, models.Template.model_validate, Form.OBJECT)


def list_music_catalog(
    *, mood: str | None = None, tempo: str | None = None, limit: int = 50
) -> Endpoint[tuple[MusicTrack, ...]]:
    """Build the endpoint `GET /music/catalog`."""
    params = _params(mood=mood, tempo=tempo, limit=limit)
    request = Request(method="GET", path="/music/catalog", params=params, point="music")
    return Endpoint(request, lambda body: _read_rows(models.MusicTrack, body), Form.LIST)


def list_custom_music() -> Endpoint[tuple[MusicTrack, ...]]:
    """Build the endpoint `GET /music/custom`."""
    request = Request(method="GET", path="/music/custom", point="music")
    return Endpoint(request, lambda body: _read_rows(models.MusicTrack, body), Form.LIST)


def create_custom_music(*, title: str, name: str, content: bytes, content_type: str) -> Endpoint[MusicTrack]:
    """Build the endpoint `POST /music/custom`. Repeating it would store the track twice."""
    request = Request(
        method="POST",
        path="/music/custom",
        upload=Upload(name=name, content=content, content_type=content_type),
        form=(("title", title),),
        repeat=Repeat.UNSAFE,
        point="music",
    )
    return Endpoint(request, models.MusicTrack.model_validate, Form.OBJECT)


def delete_custom_music(music_id: str) -> Endpoint[None]:
    """Build the endpoint `DELETE /music/custom/{music_id}`."""
    request = Request(method="DELETE", path=f"/music/custom/{quote(music_id, safe='')}", point="music")
    return Endpoint(request, lambda _: None)


def list_models() -> Endpoint[tuple[Model, ...]]:
    """Build the endpoint `GET /models`."""
    request = Request(method="GET", path="/models", point="models")
    return Endpoint(request, lambda body: _read_rows(models.Model, body), Form.LIST)


def get_model(model_id: str) -> Endpoint[Model]:
    """Build the endpoint `GET /models/{model_id}`."""
    request = Request(method="GET", path=f"/models/{quote(model_id, safe='')}", point="models")
    return Endpoint(request, models.Model.model_validate, Form.OBJECT)


# Files to upload.


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The limits of an upload. A type is recognised by its first bytes, else by the ending of the file name."""

    field: str
    most_bytes: int
    kinds: str
    by_start: tuple[tuple[bytes, str], ...]
    by_ending: Mapping[str, str]


PRODUCT_IMAGE = UploadLimits(
    field="image",
    most_bytes=10 * 1024 * 1024,
    kinds="JPEG, PNG, WebP or GIF",
    by_start=(
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
    ),
    by_ending={},
)
MUSIC = UploadLimits(
    field="track",
    most_bytes=20 * 1024 * 1024,
    kinds="MP3, WAV, OGG, AAC or M4A",
    by_start=(
        (b"ID3", "audio/mpeg"),
        (b"OggS", "audio/ogg"),
        (b"\xff\xfb", "audio/mpeg"),
        (b"\xff\xf1", "audio/aac"),
    ),
    by_ending={
        ".mp3": "audio/mpeg",
        ".wav": "audio/wav",
        ".ogg": "audio/ogg",
        ".aac": "audio/aac",
        ".m4a": "audio/mp4",
    },
)


def read_upload(
    source: str | os.PathLike[str] | bytes | BinaryIO, *, filename: str | None, limits: UploadLimits
) -> Upload:
    """Read a file for an upload.

    Raises:
        InvalidRequestError: It is empty, too large, unreadable or of a kind that the service refuses.
    """
    name = filename or "upload"
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        name = filename or path.name
        try:
            with path.open("rb") as file:
                content = file.read(limits.most_bytes + 1)
        except OSError as error:
            raise _refused(limits, f"cannot be read: {error.strerror or error}", name) from None
    else:
        opened = getattr(source, "name", None)
        name = filename or (Path(opened).name if isinstance(opened, str) else name)
        content = source.read(limits.most_bytes + 1)
    if not content:
        raise _refused(limits, "must not be empty", name)
    if len(content) > limits.most_bytes:
        raise _refused(limits, f"must be at most {limits.most_bytes // 1024 // 1024} MB", name)
    content_type = _type_of(content, name, limits)
    if content_type is None:
        raise _refused(limits, f"must be {limits.kinds}", name)
    return Upload(name=name, content=content, content_type=content_type)


def _type_of(content: bytes, name: str, limits: UploadLimits) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp" if limits is PRODUCT_IMAGE else None
    for start, content_type in limits.by_start:
        if content.startswith(start):
            return content_type
    return limits.by_ending.get(Path(name).suffix.lower())


def _refused(limits: UploadLimits, rule: str, name: str) -> InvalidRequestError:
    return InvalidRequestError([Violation(limits.field, rule, repr(name))])
