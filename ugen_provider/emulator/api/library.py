# SPDX-License-Identifier: Apache-2.0
"""Uploads, templates, music and models."""

from typing import Any

from ugen_provider.emulator.api import bodies, forms
from ugen_provider.emulator.api.call import Call, whole_number
from ugen_provider.emulator.api.http import Reply, json_reply
from ugen_provider.emulator.world.catalog import ALL_MODELS, KLING_ONLY, TRACKS
from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.library import TEMPLATES_MOST, TRY_SECONDS, Template, Track, Upload
from ugen_provider.emulator.world.refusals import Invalid, Refusal, not_found


def check_music(call: Call, music_id: str | None) -> None:
    """Refuse a track that a job cannot use.

    Raises:
        Invalid: 422, where the readings say so.
        Refusal: 404, where they say that.
    """
    reading = call.readings.unknown_music
    if music_id is None or reading == "ignored" or call.world.library.knows_music(call.tenant.name, music_id):
        return
    if reading == "404":
        raise not_found("Track")
    raise Invalid.one("unknown", ("body", "custom_music_id"), "There is no such active track", music_id)


def _keep(call: Call, purpose: str) -> Upload:
    content = forms.file_of(call.request)
    too_large = int(call.readings.upload_over)
    return call.world.library.upload(call.tenant.name, purpose, content, call.now, too_large=too_large)


def _kept(call: Call, purpose: str) -> Reply:
    return json_reply(201, {"url": call.world.library.url(_keep(call, purpose))})


def product_image(call: Call) -> Reply:
    """`POST /uploads/product-image`."""
    return _kept(call, "product-image")


def avatar(call: Call) -> Reply:
    """`POST /tenants/me/avatar`."""
    return _kept(call, "avatar")


def logo(call: Call) -> Reply:
    """`POST /tenants/me/brand-kit/logo`."""
    return _kept(call, "logo")


def _limit(call: Call) -> int:
    return whole_number(call.request.params(), "limit", default=50, least=1, most=100)


def _template(call: Call, item: Template) -> dict[str, Any]:
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
    """`GET /templates`."""
    items = call.world.library.templates_of(call.tenant.name)[: _limit(call)]
    return json_reply(200, [_template(call, item) for item in items])


def add_template(call: Call) -> Reply:
    """`POST /templates`."""
    body = call.body(bodies.Template)
    if len(call.world.library.templates_of(call.tenant.name)) >= TEMPLATES_MOST:
        status = int(call.readings.template_limit)
        raise Refusal(status, "TEMPLATE_LIMIT", f"An account has at most {TEMPLATES_MOST} templates")
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
    """`PUT /templates/{id}` and `PATCH`."""
    body = call.body(bodies.TemplateChange)
    item = call.world.library.template(call.tenant.name, call.args[0])
    changes = {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}
    call.world.library.change_template(item, changes, call.now)
    return json_reply(200, _template(call, item))


def remove_template(call: Call) -> Reply:
    """`DELETE /templates/{id}`."""
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
    """`GET /music/catalog`."""
    asked = call.request.params()
    found = [
        track
        for track in TRACKS
        if asked.get("mood") in (None, track["mood"]) and asked.get("tempo") in (None, track["tempo"])
    ]
    return json_reply(200, found[: _limit(call)])


def tracks(call: Call) -> Reply:
    """`GET /music/custom`."""
    return json_reply(200, [_track(call, item) for item in call.world.library.tracks_of(call.tenant.name)])


def add_track(call: Call) -> Reply:
    """`POST /music/custom`."""
    title = forms.parts(call.request).get("title", b"").decode("utf-8", "replace").strip()
    if not title:
        raise Invalid.one("missing", ("body", "title"), "Field required", None)
    upload = _keep(call, "music")
    return json_reply(201, _track(call, call.world.library.add_track(call.tenant.name, title, upload, call.now)))


def remove_track(call: Call) -> Reply:
    """`DELETE /music/custom/{music_id}`."""
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
    """`GET /models`."""
    return json_reply(200, _models(call))


def model(call: Call) -> Reply:
    """`GET /models/{model_id}`."""
    return json_reply(200, _model(call))


def try_model(call: Call) -> Reply:
    """`POST /models/{id}/try`."""
    call.optional_body(bodies.TryModel)
    task = call.world.library.try_model(call.tenant.name, _model(call)["id"], call.now)
    return json_reply(202, {"task_id": task, "status": "processing"})


def task(call: Call) -> Reply:
    """`GET /models/tasks/{task_id}`: a path that nobody documents."""
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
