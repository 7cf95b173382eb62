# SPDX-License-Identifier: Apache-2.0
"""Every endpoint as an `Operation`: what to send and how to read the answer. No I/O, no retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ugen_provider.core.api import rules
from ugen_provider.core.api.effects import Repeat, Request, Upload
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.api.flows import Operation
from ugen_provider.core.api.pages import Page, read_items, read_page
from ugen_provider.core.lazily import LazyModule

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
else:  # with the first answer: a client is made without them, and without pydantic
    models = LazyModule("ugen_provider.core.api.models")

PAGE_SIZE = 100
"""The largest page that the service gives."""


def _job_path(job_id: str, *rest: str) -> str:
    if not job_id or not job_id.strip():
        raise InvalidRequestError([rules.Violation("job_id", "must not be empty")])
    return "/".join(("/jobs", quote(job_id, safe=""), *rest))


def _unwrap(body: Any) -> Any:
    if isinstance(body, Mapping) and "job_id" not in body and "id" not in body:
        for name in ("job", "data"):
            if isinstance(body.get(name), Mapping):
                return body[name]
    return body


def _read_job(body: Any) -> Job:
    return models.Job.model_validate(_unwrap(body))


def _read_job_or_none(body: Any) -> Job | None:
    unwrapped = _unwrap(body)
    if isinstance(unwrapped, Mapping) and ("job_id" in unwrapped or "id" in unwrapped):
        return models.Job.model_validate(unwrapped)
    return None


def _params(**values: str | int | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def create_job(body: Mapping[str, Any]) -> Operation[Job]:
    """`POST /jobs`. The body must carry its `idempotency_key`: that is what makes it safe to repeat."""
    if not body.get("idempotency_key"):
        raise InvalidRequestError(
            [rules.Violation("idempotency_key", "is always sent, so that a lost answer costs nothing")]
        )
    request = Request(method="POST", path="/jobs", json=dict(body), repeat=Repeat.KEYED, point="create")
    return Operation(request, _read_job)


def get_job(job_id: str) -> Operation[Job]:
    """`GET /jobs/{jobId}`."""
    return Operation(Request(method="GET", path=_job_path(job_id), point="get"), _read_job)


def list_jobs(*, status: str | None = None, page: int = 1, page_size: int = PAGE_SIZE) -> Operation[Page]:
    """`GET /jobs`, one page of it."""
    params = _params(status=status, page=page, page_size=page_size)
    request = Request(method="GET", path="/jobs", params=params, point="list")
    return Operation(request, lambda body: read_page(body, page=page, page_size=page_size))


def cancel_job(job_id: str) -> Operation[Job | None]:
    """`DELETE /jobs/{jobId}`. Repeating it cancels nothing further."""
    return Operation(Request(method="DELETE", path=_job_path(job_id), point="cancel"), _read_job_or_none)


def pause_job(job_id: str) -> Operation[Job | None]:
    """`POST /jobs/{jobId}/pause`."""
    request = Request(method="POST", path=_job_path(job_id, "pause"), repeat=Repeat.UNSAFE, point="pause")
    return Operation(request, _read_job_or_none)


def resume_job(job_id: str) -> Operation[Job | None]:
    """`POST /jobs/{jobId}/resume`."""
    request = Request(method="POST", path=_job_path(job_id, "resume"), repeat=Repeat.UNSAFE, point="resume")
    return Operation(request, _read_job_or_none)


def retry_job(job_id: str, *, restart_from_stage: str | None = None) -> Operation[Job | None]:
    """`POST /jobs/{jobId}/retry`. Never repeated blindly: it reserves credits and carries no key."""
    if restart_from_stage is not None and (violations := rules.check_stage(restart_from_stage)):
        raise InvalidRequestError(violations)
    request = Request(
        method="POST",
        path=_job_path(job_id, "retry"),
        json={"restart_from_stage": restart_from_stage} if restart_from_stage else {},
        repeat=Repeat.UNSAFE,
        point="retry",
    )
    return Operation(request, _read_job_or_none)


def list_keyframes(job_id: str) -> Operation[tuple[Keyframe, ...]]:
    """`GET /jobs/{jobId}/keyframes`, in the order of their index."""
    request = Request(method="GET", path=_job_path(job_id, "keyframes"), point="keyframes")
    return Operation(
        request, lambda body: _by_index(tuple(map(models.Keyframe.model_validate, _listed(body, "keyframes"))))
    )


def list_videos(job_id: str) -> Operation[tuple[Segment, ...]]:
    """`GET /jobs/{jobId}/videos`, in the order of their index."""
    request = Request(method="GET", path=_job_path(job_id, "videos"), point="videos")
    return Operation(
        request, lambda body: _by_index(tuple(map(models.Segment.model_validate, _listed(body, "videos"))))
    )


def _listed(body: Any, name: str) -> tuple[dict[str, Any], ...]:
    if isinstance(body, Mapping) and isinstance(body.get(name), list):
        return read_items(body[name])
    return read_items(body)


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
) -> Operation[Suggestion]:
    """`POST /jobs/suggest-fields`; free."""
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
    return Operation(request, lambda answer: models.Suggestion.model_validate(_unwrap_suggestion(answer)))


def _unwrap_suggestion(body: Any) -> Any:
    known = set(models.Suggestion.model_fields)
    if isinstance(body, Mapping) and not known & set(body):
        for name in ("suggestions", "fields", "data"):
            if isinstance(body.get(name), Mapping):
                return body[name]
    return body


def get_balance() -> Operation[Balance]:
    """`GET /credits/balance`."""
    return Operation(Request(method="GET", path="/credits/balance", point="balance"), models.Balance.model_validate)


def list_transactions(*, job_id: str | None = None, page: int = 1, page_size: int = PAGE_SIZE) -> Operation[Page]:
    """`GET /credits/transactions`, one page of it."""
    params = _params(job_id=job_id, page=page, page_size=page_size)
    request = Request(method="GET", path="/credits/transactions", params=params, point="transactions")
    return Operation(request, lambda body: read_page(body, page=page, page_size=page_size))


def read_transaction(item: Mapping[str, Any]) -> Transaction:
    """One row of the transactions."""
    return models.Transaction.model_validate(item)


def read_listed_job(item: Mapping[str, Any]) -> Job:
    """One row of the list of jobs."""
    return models.Job.model_validate(item)


def estimate(body: Mapping[str, Any]) -> Operation[Estimate]:
    """`POST /credits/estimate`; free. The method is an assumption, held here alone."""
    sent = {name: value for name, value in body.items() if name != "idempotency_key"}
    request = Request(method="POST", path="/credits/estimate", json=sent, repeat=Repeat.SAFE, point="estimate")
    return Operation(request, models.Estimate.model_validate)


def get_webhook() -> Operation[WebhookSettings]:
    """`GET /tenants/me/webhook`."""
    return Operation(
        Request(method="GET", path="/tenants/me/webhook", point="webhook"), models.WebhookSettings.model_validate
    )


def set_webhook(*, webhook_url: str, webhook_secret: str | None = None) -> Operation[WebhookSettings]:
    """`PUT /tenants/me/webhook`; it replaces the former setting."""
    if not rules.is_http_url(webhook_url):
        raise InvalidRequestError([rules.Violation("webhook_url", "must be an http(s) URL")])
    body = {"webhook_url": webhook_url}
    if webhook_secret is not None:
        body["webhook_secret"] = webhook_secret
    request = Request(method="PUT", path="/tenants/me/webhook", json=body, repeat=Repeat.SAFE, point="webhook")
    fallback = {"webhook_configured": True, "webhook_url": webhook_url}
    return Operation(request, lambda answer: models.WebhookSettings.model_validate({**fallback, **(answer or {})}))


def delete_webhook() -> Operation[None]:
    """`DELETE /tenants/me/webhook`."""
    return Operation(Request(method="DELETE", path="/tenants/me/webhook", point="webhook"), lambda _: None)


def create_product_image(*, name: str, content: bytes, content_type: str) -> Operation[UploadedImage]:
    """`POST /uploads/product-image`; free. Repeating it stores the picture twice and costs nothing."""
    upload = Upload(name=name, content=content, content_type=content_type)
    request = Request(method="POST", path="/uploads/product-image", upload=upload, repeat=Repeat.SAFE, point="upload")
    return Operation(request, models.UploadedImage.model_validate)


def list_templates(*, limit: int = 50) -> Operation[tuple[Template, ...]]:
    """`GET /templates`."""
    request = Request(method="GET", path="/templates", params=_params(limit=limit), point="templates")
    return Operation(request, lambda body: tuple(map(models.Template.model_validate, read_items(body))))


def create_template(body: Mapping[str, Any]) -> Operation[Template]:
    """`POST /templates`. Repeating it would make a second template."""
    request = Request(method="POST", path="/templates", json=dict(body), repeat=Repeat.UNSAFE, point="template")
    return Operation(request, models.Template.model_validate)


def update_template(template_id: str, body: Mapping[str, Any]) -> Operation[Template]:
    """`PUT /templates/{id}`. The method is an assumption, held here alone."""
    path = f"/templates/{quote(template_id, safe='')}"
    request = Request(method="PUT", path=path, json=dict(body), repeat=Repeat.SAFE, point="template")
    return Operation(request, models.Template.model_validate)


def list_music_catalog(
    *, mood: str | None = None, tempo: str | None = None, limit: int = 50
) -> Operation[tuple[MusicTrack, ...]]:
    """`GET /music/catalog`."""
    params = _params(mood=mood, tempo=tempo, limit=limit)
    request = Request(method="GET", path="/music/catalog", params=params, point="music")
    return Operation(request, lambda body: tuple(map(models.MusicTrack.model_validate, read_items(body))))


def list_custom_music() -> Operation[tuple[MusicTrack, ...]]:
    """`GET /music/custom`."""
    request = Request(method="GET", path="/music/custom", point="music")
    return Operation(request, lambda body: tuple(map(models.MusicTrack.model_validate, read_items(body))))


def create_custom_music(*, title: str, name: str, content: bytes, content_type: str) -> Operation[MusicTrack]:
    """`POST /music/custom`. Repeating it would store the track twice."""
    request = Request(
        method="POST",
        path="/music/custom",
        upload=Upload(name=name, content=content, content_type=content_type),
        form=(("title", title),),
        repeat=Repeat.UNSAFE,
        point="music",
    )
    return Operation(request, models.MusicTrack.model_validate)


def delete_custom_music(music_id: str) -> Operation[None]:
    """`DELETE /music/custom/{music_id}`."""
    request = Request(method="DELETE", path=f"/music/custom/{quote(music_id, safe='')}", point="music")
    return Operation(request, lambda _: None)


def list_models() -> Operation[tuple[Model, ...]]:
    """`GET /models`."""
    request = Request(method="GET", path="/models", point="models")
    return Operation(request, lambda body: tuple(map(models.Model.model_validate, read_items(body))))


def get_model(model_id: str) -> Operation[Model]:
    """`GET /models/{model_id}`."""
    request = Request(method="GET", path=f"/models/{quote(model_id, safe='')}", point="models")
    return Operation(request, models.Model.model_validate)
