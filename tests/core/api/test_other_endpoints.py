# SPDX-License-Identifier: Apache-2.0
"""Webhook settings, uploads, templates, music and models, with both clients."""

import io

import pytest

from tests.core.api.test_client import Both
from ugen_provider import CreateJob, InvalidRequestError, NotFoundError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


def test_the_webhook_is_set_read_and_removed_without_its_secret(call):
    assert not call("webhook.get").webhook_configured
    call("webhook.set", webhook_url="https://shop.example/hook", webhook_secret="s" * 64)
    seen = call("webhook.get")
    assert seen.webhook_configured
    assert "s" * 64 not in repr(seen)
    call("webhook.delete")
    assert not call("webhook.get").webhook_configured
    with pytest.raises(InvalidRequestError, match="webhook_url"):
        call("webhook.set", webhook_url="shop.example/hook")


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file"])
def test_a_picture_is_uploaded_from_a_path_bytes_or_a_file(call, tmp_path, kind):
    path = tmp_path / "lamp.png"
    path.write_bytes(PNG)
    image = {"path": path, "text": str(path), "bytes": PNG, "file": io.BytesIO(PNG)}[kind]
    url = call("uploads.create_product_image", image, filename="lamp.png").url
    assert url.startswith("http")
    job = call("jobs.create", CreateJob(product_name="Lamp", product_image_url=url, segment_count=1))
    assert job.job_id


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (b"", "not be empty"),
        (b"%PDF-1.7", "JPEG, PNG, WebP or GIF"),
        (b"RIFF0000WAVE", "JPEG, PNG, WebP or GIF"),
        (PNG + bytes(10 * 1024 * 1024), "at most 10 MB"),
        ("/nowhere/lamp.png", "cannot be read"),
    ],
    ids=["empty", "pdf", "wav", "large", "missing"],
)
def test_invalid_requests_are_refused_before_they_are_sent(call, local, image, rule):
    with pytest.raises(InvalidRequestError, match=rule):
        call("uploads.create_product_image", image)
    assert local.requests() == 0


def test_templates_are_kept_listed_replaced_and_expanded(call):
    made = call("templates.create", name="Tall", config={"aspect_ratio": "9:16", "segment_count": 2}, is_default=True)
    assert made.config["output_aspect_ratio"] == "9:16"
    assert [t.name for t in call("templates.list")] == ["Tall"]
    call("templates.update", made.template_id, name="Wide", config={"aspect_ratio": "16:9", "segment_count": 3})
    (template,) = call("templates.list")
    assert template.name == "Wide"
    job = template.expand(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
    assert job.body()["aspect_ratio"] == "16:9"
    assert job.segment_count == 1
    assert template.expand(product_name="Lamp", product_image_url="https://shop.example/l.jpg").segment_count == 3


def test_music_is_listed_uploaded_and_deleted(call):
    assert all(track.mood == "upbeat" for track in call("music.catalog", mood="upbeat"))
    assert call("music.list_custom") == ()
    track = call("music.upload", b"ID3" + bytes(100), title="Jingle", filename="jingle.mp3")
    assert [t.title for t in call("music.list_custom")] == ["Jingle"]
    call("music.delete", track.music_id)
    assert call("music.list_custom") == ()
    with pytest.raises(InvalidRequestError, match="MP3"):
        call("music.upload", b"text", title="x", filename="x.txt")


def test_models_are_listed_and_read(call):
    models = call("models.list")
    assert "kling3_std" in [model.model_id for model in models]
    assert call("models.get", "kling3_std").capabilities
    with pytest.raises(NotFoundError):
        call("models.get", "no_such_model")
