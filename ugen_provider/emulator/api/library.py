# SPDX-License-Identifier: Apache-2.0
"""Uploads, templates, music and models."""

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.http import Call, HttpRequest, Reply, json_reply, whole_number
from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.errors import ErrorReply, Invalid, not_found
from ugen_provider.emulator.world.library import (
    ALL_MODELS,
    KLING_ONLY,
    TEMPLATES_MOST,
    TRACKS,
    TRY_SECONDS,
    StoredTemplate,
    StoredUpload,
    Track,
)
from ugen_provider.emulator.world.webhooks import may_be_called


class _Reader:
    """Collects the parts as the parser comes upon them."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self._headers: dict[str, bytes] = {}
        self._name = self._value = self._data = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts[name] = self._data
        self._headers, self._data = {}, b""


def parts(request: HttpRequest) -> dict[str, bytes]:
    """Return the fields and files of a form by name.

    Raises:
        Invalid: The body is no such form.
    """
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        return {}
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_part_data": reader.part_data,
                "on_part_end": reader.part_end,
            },
        )
        parser.write(request.body)
        parser.finalize()
    except FormParserError as error:
        raise Invalid.one("multipart_invalid", ("body",), f"The form cannot be read: {error}", None) from None
    return reader.parts


def file_of(request: HttpRequest) -> bytes:
    """Return the content of the field `file`.

    Raises:
        Invalid: There is none.
    """
    content = parts(request).get("file")
    if content is None:
        raise Invalid.one("missing", ("body", "file"), "Field required", None)
    return content


def check_music(call: Call, music_id: str | None) -> None:
    """Refuse a track that a job cannot use.

    Raises:
        Invalid: 422, where the readings say so.
        ErrorReply: 404, where they say that.
    """
    reading = call.readings.unknown_music
    if music_id is None or reading == "ignored" or call.world.library.knows_music(call.tenant.name, music_id):
        return
    if reading == "404":
        raise not_found("Track")
    raise Invalid.one("unknown", ("body", "custom_music_id"), "There is no such active track", music_id)


def _keep(call: Call, purpose: str) -> StoredUpload:
    content = file_of(call.request)
    too_large = int(call.readings.upload_over)
    return call.world.library.upload(call.tenant.name, purpose, content, call.now, too_large=too_large)


def _kept(call: Call, purpose: str) -> Reply:
    return json_reply(201, {"url": call.world.library.url(_keep(call, purpose))})


def product_image(call: Call) -> Reply:
    """Answer a request to `POST /uploads/product-image`."""
    return _kept(call, "product-image")


def avatar(call: Call) -> Reply:
    """Answer a request to `POST /tenants/me/avatar`."""
    return _kept(call, "avatar")


def logo(call: Call) -> Reply:
    """Answer a request to `POST /tenants/me/brand-kit/logo`."""
    return _kept(call, "logo")


def _limit(call: Call) -> int:
    return whole_number(call.request.params(), "limit", default=50, least=1, most=100)


def _template(call: Call, item: StoredTemplate) -> dict[str, Any]:
    form = call.readings.timestamps
    return {
        "id": item.id,
        "name": item.name,
        "description": item.description,
        "config": item.config,
        "is_default": item.is_default,
        "use_count": item.use_count,
        "created_at": iso(item.created_at, form=form),
        "updated_at": iso(item.updated_at, form=form),
    }


def templates(call: Call) -> Reply:
    """Answer a request to `GET /templates`."""
    items = call.world.library.templates_of(call.tenant.name)[: _limit(call)]
    return json_reply(200, [_template(call, item) for item in items])


def add_template(call: Call) -> Reply:
    """Answer a request to `POST /templates`."""
    body = call.body(bodies.TemplateBody)
    if len(call.world.library.templates_of(call.tenant.name)) >= TEMPLATES_MOST:
        status = int(call.readings.template_limit)
        raise ErrorReply(status, "TEMPLATE_LIMIT", f"An account has at most {TEMPLATES_MOST} templates")
    made = call.world.library.add_template(
        call.tenant.name,
        name=body.name,
        description=body.description,
        config=body.config,
        is_default=body.is_default,
        at=call.now,
    )
    return json_reply(201, _template(call, made))


def change_template(call: Call) -> Reply:
    """Answer a request to `PUT /templates/{id}` and `PATCH`."""
    body = call.body(bodies.TemplateChange)
    item = call.world.library.template(call.tenant.name, call.args[0])
    changes = {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}
    call.world.library.change_template(item, changes, call.now)
    return json_reply(200, _template(call, item))


def remove_template(call: Call) -> Reply:
    """Answer a request to `DELETE /templates/{id}`."""
    call.world.library.remove_template(call.world.library.template(call.tenant.name, call.args[0]))
    return Reply(204)


def _track(call: Call, item: Track) -> dict[str, Any]:
    library = call.world.library
    return {
        "id": item.id,
        "title": item.title,
        "url": library.url(library.uploads[item.upload]),
        "is_active": item.is_active,
        "created_at": iso(item.created_at, form=call.readings.timestamps),
    }


def catalog(call: Call) -> Reply:
    """Answer a request to `GET /music/catalog`."""
    asked = call.request.params()
    found = [
        track
        for track in TRACKS
        if asked.get("mood") in (None, track["mood"]) and asked.get("tempo") in (None, track["tempo"])
    ]
    return json_reply(200, found[: _limit(call)])


def tracks(call: Call) -> Reply:
    """Answer a request to `GET /music/custom`."""
    return json_reply(200, [_track(call, item) for item in call.world.library.tracks_of(call.tenant.name)])


def add_track(call: Call) -> Reply:
    """Answer a request to `POST /music/custom`."""
    title = parts(call.request).get("title", b"").decode("utf-8", "replace").strip()
    if not title:
        raise Invalid.one("missing", ("body", "title"), "Field required", None)
    upload = _keep(call, "music")
    return json_reply(201, _track(call, call.world.library.add_track(call.tenant.name, title, upload, call.now)))


def remove_track(call: Call) -> Reply:
    """Answer a request to `DELETE /music/custom/{music_id}`."""
    call.world.library.remove_track(call.tenant.name, call.args[0])
    return Reply(204)


def _models(call: Call) -> tuple[dict[str, Any], ...]:
    return KLING_ONLY if call.readings.models == "kling_only" else ALL_MODELS


def _model(call: Call) -> dict[str, Any]:
    for model in _models(call):
        if model["id"] == call.args[0]:
            return model
    raise not_found("Model")


def models(call: Call) -> Reply:
    """Answer a request to `GET /models`."""
    return json_reply(200, _models(call))


def model(call: Call) -> Reply:
    """Answer a request to `GET /models/{model_id}`."""
    return json_reply(200, _model(call))


def try_model(call: Call) -> Reply:
    """Answer a request to `POST /models/{id}/try`."""
    call.optional_body(bodies.TryModel)
    task = call.world.library.try_model(call.tenant.name, _model(call)["id"], call.now)
    return json_reply(202, {"task_id": task, "status": "processing"})


def task(call: Call) -> Reply:
    """Answer a request to `GET /models/tasks/{task_id}`: an undocumented path."""
    found = call.world.library.tries.get(call.args[0])
    if found is None or found["tenant"] != call.tenant.name:
        raise not_found("Task")
    done = call.now - found["at"] >= TRY_SECONDS
    return json_reply(
        200,
        {
            "task_id": call.args[0],
            "model_id": found["model_id"],
            "status": "completed" if done else "processing",
        },
    )


def check_webhook_url(call: Call, url: str | None) -> None:
    """Refuse a URL that webhooks may not go to.

    Raises:
        Invalid: Plain http to anything but loopback.
    """
    if url is not None and not may_be_called(url, anywhere=call.world.settings.insecure_webhooks):
        raise Invalid.one("url_scheme", ("body", "webhook_url"), "URL scheme should be 'https'", url)


def me(call: Call) -> Reply:
    """Answer a request to `GET /tenants/me`."""
    library = call.world.library
    return json_reply(
        200,
        {
            "name": call.tenant.name,
            "avatar_url": library.tenant_file(call.tenant.name, "avatar"),
            "logo_url": library.tenant_file(call.tenant.name, "logo"),
            "webhook_configured": call.tenant.name in call.world.webhooks.hooks,
        },
    )


def _configured(call: Call) -> Reply:
    hook = call.world.webhooks.hooks.get(call.tenant.name)
    shown = {"webhook_url": hook[0] if hook else None} if call.readings.webhook_url_shown == "yes" else {}
    return json_reply(200, {"webhook_configured": hook is not None, **shown})


def webhook(call: Call) -> Reply:
    """Answer a request to `GET /tenants/me/webhook`: never the secret."""
    return _configured(call)


def set_webhook(call: Call) -> Reply:
    """Answer a request to `PUT /tenants/me/webhook`."""
    body = call.body(bodies.WebhookBody)
    check_webhook_url(call, body.webhook_url)
    call.world.webhooks.configure(call.tenant.name, body.webhook_url, body.webhook_secret)
    return _configured(call)


def clear_webhook(call: Call) -> Reply:
    """Answer a request to `DELETE /tenants/me/webhook`."""
    call.world.webhooks.forget(call.tenant.name)
    return Reply(204)
