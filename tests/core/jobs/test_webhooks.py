# SPDX-License-Identifier: Apache-2.0
"""A delivery is believed only if it is signed, recent and whole."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import (
    MalformedWebhookError,
    SignatureMismatchError,
    TimestampToleranceError,
    WebhookError,
)
from ugen_provider.core.jobs.webhooks import sign, verify

NOW = 1_775_745_000
BODY = json.dumps(
    {
        "event": "job.completed",
        "job_id": "job_Xm2nKp7q",
        "status": "completed",
        "final_video_url": "https://storage.u-gen.ai/videos/x",
        "credits_consumed": 15,
        "error_message": None,
        "timestamp": "2026-04-09T14:30:00Z",
    }
).encode()


def check(body=BODY, headers=None, secrets="s3cret", **more):
    return verify(
        body, sign(body, "s3cret", timestamp=NOW) if headers is None else headers, secrets, now=lambda: NOW, **more
    )


def signed_at(stamp):
    digest = hmac.new(b"s3cret", stamp.encode() + b"." + BODY, hashlib.sha256).hexdigest()
    return {"x-ugen-signature": digest, "x-ugen-timestamp": stamp}


def test_the_documented_delivery_becomes_a_typed_event():
    event = check()
    assert (event.event, event.job_id, event.status) == ("job.completed", "job_Xm2nKp7q", "completed")
    assert event.data["credits_consumed"] == 15
    assert event.identity == ("job_Xm2nKp7q", "job.completed", "2026-04-09T14:30:00Z")


@pytest.mark.parametrize(
    "stamp", [str(NOW), f"{NOW}.5", str(NOW * 1000), "2026-04-09T14:30:00Z", "2026-04-09T16:30:00+02:00"]
)
def test_the_timestamp_is_read_as_seconds_milliseconds_or_iso(stamp):
    assert verify(BODY, signed_at(stamp), "s3cret", now=lambda: NOW).job_id


def test_a_prefix_and_capitals_in_the_signature_are_tolerated():
    headers = sign(BODY, "s3cret", timestamp=NOW)
    headers["X-UGen-Signature"] = "sha256=" + headers["X-UGen-Signature"].upper()
    assert check(headers=headers)


def test_while_a_secret_is_replaced_both_are_good():
    assert check(secrets=["new", "s3cret"])
    assert check(secrets=(Secret("s3cret"), Secret("new")))
    with pytest.raises(SignatureMismatchError):
        check(secrets=["new"])


@pytest.mark.parametrize("age", [-301, 301, 86_400])
def test_old_and_future_deliveries_are_refused(age):
    with pytest.raises(TimestampToleranceError):
        verify(BODY, signed_at(str(NOW)), "s3cret", now=lambda: NOW + age)


@pytest.mark.parametrize("stamp", ["nan", "inf", "-inf", "soon", "1e400"])
def test_a_timestamp_that_is_no_time_is_refused(stamp):
    with pytest.raises(WebhookError):
        verify(BODY, signed_at(stamp), "s3cret", now=lambda: NOW)


@pytest.mark.parametrize("missing", ["X-UGen-Signature", "X-UGen-Timestamp"])
def test_a_missing_header_is_refused(missing):
    headers = sign(BODY, "s3cret", timestamp=NOW)
    del headers[missing]
    with pytest.raises(MalformedWebhookError, match=missing):
        check(headers=headers)


def test_a_repeated_header_is_refused():
    pairs = [*sign(BODY, "s3cret", timestamp=NOW).items(), ("x-ugen-signature", "00")]
    with pytest.raises(MalformedWebhookError, match="is repeated"):
        check(headers=pairs)


def test_a_body_that_is_too_large_is_refused_unparsed():
    with pytest.raises(MalformedWebhookError, match="bytes"):
        check(body=b"x" * 11, most_bytes=10)


@pytest.mark.parametrize("secrets", ["", [], [""], ["s3cret", ""]])
def test_without_a_secret_nothing_is_believed(secrets):
    with pytest.raises(MalformedWebhookError, match="secret"):
        check(secrets=secrets)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"event": 1, "job_id": "j"}',
        b'{"event": "e", "job_id": ""}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_signed_body_that_is_no_event_is_refused(body):
    with pytest.raises(MalformedWebhookError):
        check(body=body)


@given(st.data())
def test_no_changed_delivery_is_accepted(data):
    headers = sign(BODY, "s3cret", timestamp=NOW)
    mutable = {
        "body": BODY,
        "signature": headers["X-UGen-Signature"].encode(),
        "stamp": headers["X-UGen-Timestamp"].encode(),
    }
    which = data.draw(st.sampled_from(sorted(mutable)))
    raw = bytearray(mutable[which])
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255).filter(lambda b: bytes([b]).lower() != bytes([raw[place]]).lower()))
    changed = {**mutable, which: bytes(raw)}
    with pytest.raises(WebhookError):
        verify(
            changed["body"],
            {
                "X-UGen-Signature": changed["signature"].decode("latin-1"),
                "X-UGen-Timestamp": changed["stamp"].decode("latin-1"),
            },
            "s3cret",
            now=lambda: NOW,
        )
