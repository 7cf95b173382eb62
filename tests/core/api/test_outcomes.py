# SPDX-License-Identifier: Apache-2.0
"""Each status with each body: what a refusal proves, what may be repeated, and what an error carries."""

import importlib
import json
import pickle
import pkgutil
from pathlib import Path

import httpx
import pytest

import dagster_ugen
import ugen_provider
from ugen_provider import CreateJob, RetryPolicy, UGenError
from ugen_provider.core.api import errors
from ugen_provider.core.api.answers import error_of, says_key_was_used
from ugen_provider.core.api.endpoints import Repeat, Request, Response
from ugen_provider.core.api.errors import may_have_bought, status_may_have_bought
from ugen_provider.core.api.retrying import may_repeat
from ugen_provider.core.api.rules import Violation

KEY = "3f2a7c0e-0000-4000-8000-000000000001"
CREATE = Request(method="POST", path="/jobs", json={"idempotency_key": KEY}, repeat=Repeat.KEYED)
RETRY = Request(method="POST", path="/jobs/j/retry", json={}, repeat=Repeat.UNSAFE)
READ = Request(method="GET", path="/jobs/j")

OWN = {"error": {"code": "REFUSED", "message": "no"}}
FIELD = {"detail": [{"type": "missing", "loc": ["body", "segment_count"], "msg": "Field required"}]}
USED = {"error": {"code": "IDEMPOTENCY_CONFLICT", "message": "This idempotency_key was used with other parameters"}}
USED_FIELD = {"detail": [{"type": "value_error", "loc": ["body", "idempotency_key"], "msg": "Used before"}]}
FORM = {"error": {"code": "INVALID", "message": "idempotency_key must be at most 64 characters"}}
FORM_FIELD = {
    "detail": [{"type": "string_too_long", "loc": ["body", "idempotency_key"], "msg": "at most 64 characters"}]
}
BODIES = {
    "own": OWN,
    "field": FIELD,
    "detail": {"detail": "Not Found"},
    "key used": USED,
    "key used, by field": USED_FIELD,
    "key form": FORM,
    "key form, by field": FORM_FIELD,
    "gateway json": {"message": "Forbidden"},
    "array": [1],
    "page": b"<html>gateway</html>",
    "empty": b"",
    "cut": b'{"error": {"co',
}
OWN_FORMS = {"own", "field", "detail", "key used", "key used, by field", "key form", "key form, by field"}


def read(status, body, request=CREATE, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_of(Response(status, headers, content), request, now=0.0)


def refused(status, name):
    """Return what the protocol says, in section 3."""
    if status in {400, 422} and name.startswith("key used"):
        return False
    if 300 <= status < 400:
        return status != 303
    return 400 <= status < 500 and status not in {408, 409, 425, 460, 499}


@pytest.mark.parametrize("name", BODIES)
def test_each_status_is_judged_as_the_protocol_says(name):
    for status in (*range(100, 200), *range(300, 600)):
        error = read(status, BODIES[name])
        assert may_have_bought(error) is not refused(status, name), (status, error)
        if not (status in {400, 422} and name.startswith("key used")):
            assert status_may_have_bought(status) is may_have_bought(error), status


@pytest.mark.parametrize("name", BODIES)
def test_an_unclear_answer_is_never_repeated_without_a_key(name):
    for status in range(300, 600):
        error = read(status, BODIES[name], RETRY)
        assert not (may_have_bought(error) and may_repeat(error, RETRY)), status
        assert may_repeat(error, READ) is error.retryable


@pytest.mark.parametrize("name", BODIES)
def test_own_form_is_json_of_the_service(name):
    for status in (400, 402, 404, 409, 422, 500):
        assert read(status, BODIES[name]).own_form is (name in OWN_FORMS)


@pytest.mark.parametrize("name", BODIES)
def test_retryable_follows_the_status(name):
    for status in (*range(300, 600),):
        passing = status >= 500 or status in {408, 425, 429, 460, 499}
        assert read(status, BODIES[name]).retryable is passing, status


@pytest.mark.parametrize("status", range(200, 300))
def test_a_success_without_a_result_may_have_bought(status):
    assert status_may_have_bought(status)


@pytest.mark.parametrize("first", [408, 409, 502, "lost"])
@pytest.mark.parametrize("then", [400, 401, 402, 403, 404, 422, 429, "never sent"])
def test_a_refusal_after_an_unclear_answer_is_unclear(local, first, then):
    """The first copy may have bought, after any answer to the second."""
    fates = [first, then]

    def meddle(request, answer):
        fate = fates.pop(0) if fates else 402
        if fate == "lost":
            raise httpx.ReadTimeout("lost")
        if fate == "never sent":
            raise httpx.ConnectError("refused")
        headers = {"retry-after": "0"} if fate == 409 else {}
        return httpx.Response(fate, headers=headers, content=json.dumps(OWN).encode())

    local.transport.meddle = meddle
    with local.client(retries=RetryPolicy(attempts=2)) as client, pytest.raises(UGenError) as caught:
        client.jobs.create(LAMP)
    assert not fates
    assert caught.value.after_unclear
    assert may_have_bought(caught.value)


LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)


def test_refusals_in_a_row_stay_a_refusal(local):
    def meddle(request, answer):
        raise httpx.ConnectError("refused")

    local.transport.meddle = meddle
    with local.client() as client, pytest.raises(errors.TransportError) as caught:
        client.jobs.create(LAMP)
    assert not may_have_bought(caught.value)


# Phrases about a key.


@pytest.mark.parametrize(
    "said",
    [
        "Keys for idempotent requests can only be used with the same parameters they were first used with.",
        "Idempotency-Key has already been used",
        "idempotency_key: Used before with other parameters",
        "This idempotency key belongs to another request",
        "IDEMPOTENCY_KEY_REUSED",
        "IdempotencyKeyConflict",
        "Duplicate idempotency_key",
        "Parameters do not match the request that idempotency key was first seen with",
        "idempotency_key must be unique",
        "idempotency_payload_mismatch",
        "idempotency_key is invalid: a job with this key already exists",
        "The idempotency key was refused",
        f"A job with idempotency_key {KEY} exists",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_key_that_is_used_is_a_conflict(said, status):
    error = read(status, {"error": {"code": "X", "message": said}})
    assert isinstance(error, errors.ConflictError)
    assert (error.status, may_have_bought(error)) == (status, True)


@pytest.mark.parametrize(
    "said",
    [
        "idempotency_key must be at most 64 characters",
        "idempotency_key: String should match pattern '^[A-Za-z0-9_-]+$'",
        "Invalid idempotency key: a UUID is required",
        "idempotency_key: Input should be a valid UUID, invalid character",
        "body.idempotency_key string_pattern_mismatch",
        "Idempotency-Key header is missing",
        "segment_count was used before",
        "the product name already exists",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_key_of_the_wrong_form_is_a_refusal(said, status):
    error = read(status, {"error": {"code": "X", "message": said}})
    assert not isinstance(error, errors.ConflictError)
    assert not may_have_bought(error)


def test_a_quoted_key_is_not_read_as_words():
    key = "already-used-conflict"
    assert not says_key_was_used([f"idempotency_key {key} is too long"], key=key)


@pytest.mark.parametrize(
    ("said", "headers", "in_flight"),
    [
        ("A request with this idempotency key is in progress", {}, True),
        ("REQUEST_IN_PROGRESS", {}, True),
        ("the first request is still being processed", {}, True),
        ("a concurrent request holds this key", {}, True),
        ("processing", {}, True),
        ("used before with other parameters", {"retry-after": "3"}, True),
        ("used before with other parameters", {}, False),
        ("This key belongs to another request", {}, False),
    ],
)
@pytest.mark.parametrize("status", [409, 422])
def test_a_conflict_in_flight_is_distinguished_from_a_final_one(said, headers, in_flight, status):
    error = read(status, {"error": {"code": "IDEMPOTENCY", "message": f"{said} (idempotency)"}}, **headers)
    assert isinstance(error, errors.ConflictError)
    assert error.in_flight is error.retryable is in_flight
    assert may_repeat(error, CREATE) is in_flight


def test_a_job_that_is_processing_is_no_request_in_flight():
    error = read(409, {"error": {"code": "CONFLICT", "message": "A job that is processing cannot be resumed"}}, RETRY)
    assert (error.in_flight, error.retryable) == (False, False)


def test_a_create_in_flight_is_repeated_until_it_is_answered(local):
    left = [2]

    def meddle(request, answer):
        if left[0]:
            left[0] -= 1
            return httpx.Response(409, json={"error": {"code": "IN_PROGRESS", "message": "still processing"}})
        return answer()

    local.transport.meddle = meddle
    with local.client() as client:
        assert client.jobs.create(LAMP).job_id
    assert local.created == 1


# Contents of an error.


@pytest.mark.parametrize("fate", ["lost", 502, 408, 499, 200, 303])
def test_a_create_whose_answer_is_lost_names_its_key(local, fate):
    def meddle(request, answer):
        answer()
        if fate == "lost":
            raise httpx.ReadTimeout("lost")
        return httpx.Response(fate, content=b"<html>")

    local.transport.meddle = meddle
    with local.client() as client:
        with pytest.raises(UGenError, match="cannot buy twice") as caught:
            client.jobs.create(LAMP)
        key = caught.value.idempotency_key
        assert key
        assert key in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).idempotency_key == key
        local.transport.meddle = lambda _, answer: answer()
        client.jobs.create(LAMP, idempotency_key=key)
    assert local.created == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 422])
def test_a_refused_create_names_its_key_without_advice(local, status):
    local.transport.meddle = lambda request, answer: httpx.Response(status, json=OWN)
    with local.client() as client, pytest.raises(UGenError) as caught:
        client.jobs.create(LAMP, idempotency_key="order-7")
    assert caught.value.idempotency_key == "order-7"
    assert "cannot buy twice" not in str(caught.value)


def test_a_read_names_no_key(local):
    local.transport.meddle = lambda request, answer: httpx.Response(404, json=OWN)
    with local.client() as client, pytest.raises(UGenError) as caught:
        client.jobs.get("j")
    assert caught.value.idempotency_key is None


SECRETS = {
    "echoed key": {"error": {"message": "key ugen_sk_live_abc is revoked"}},
    "echoed header": {"error": {"message": "no", "details": {"X-API-Key": "ugen_sk_live_abc"}}},
    "own name": {"error": {"message": "no"}, "webhook_secret": "ugen_sk_live_abc"},
    "bearer": {"message": "Authorization: Bearer abc.ugen_sk_live_abc.def"},
    "input": {
        "detail": [{"loc": ["body", "webhook_secret"], "msg": "too short", "input": {"secret": "ugen_sk_live_abc"}}]
    },
    "page": b"<p>token=ugen_sk_live_abc&x=1</p>",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("status", [302, 401, 422, 502])
def test_the_service_s_own_body_is_kept_without_secrets(name, status):
    error = read(status, SECRETS[name], **{"x-request-id": "req_7"})
    assert error.body
    assert error.request_id == "req_7"
    assert "live_abc" not in f"{error} {vars(error)}"


def test_a_body_is_kept_as_the_service_wrote_it():
    error = read(402, {"error": {"code": "X", "message": "no", "details": {"required": 86}}, "trace": "t-1"})
    assert json.loads(error.body) == {
        "error": {"code": "X", "message": "no", "details": {"required": 86}},
        "trace": "t-1",
    }


# Each class of error, judged in one table.

API = {"method": "GET", "path": "/", "status": 418}
NET = {"method": "GET", "path": "/", "maybe_sent": True}
JOB = {"job_id": "j"}
TABLE = {
    "UGenError": [(("x",), {}, False)],
    "ConfigError": [(("x",), {}, False)],
    "MappingError": [(("x",), {}, False)],
    "InvalidRequestError": [(([Violation("a", "b")],), {}, False)],
    "TransportError": [(("x",), NET, True), (("x",), {**NET, "maybe_sent": False}, True)],
    "TransportTimeoutError": [(("x",), NET, True)],
    "ResponseError": [(("x",), {**API, "status": 200}, True), (("x",), {**API, "status": 302}, False)],
    "APIError": [(("x",), API, False), (("x",), {**API, "status": 408}, True), (("x",), {**API, "status": 425}, True)],
    "BadRequestError": [(("x",), {**API, "status": 400}, False)],
    "AuthenticationError": [(("x",), {**API, "status": 401}, False)],
    "InsufficientCreditsError": [(("x",), {**API, "status": 402}, False)],
    "PermissionDeniedError": [(("x",), {**API, "status": 403}, False)],
    "NotFoundError": [(("x",), {**API, "status": 404}, False)],
    "ConflictError": [(("x",), {**API, "status": 409}, False)],
    "RequestValidationError": [(("x",), {**API, "status": 422}, False)],
    "RateLimitError": [(("x",), {**API, "status": 429}, True)],
    "ServerError": [(("x",), {**API, "status": status}, True) for status in (500, 501, 502, 503, 504, 599)],
    "JobError": [(("x",), JOB, False)],
    "JobFailedError": [(("x",), JOB, True), (("x",), {**JOB, "retryable": False}, False)],
    "JobCancelledError": [(("x",), JOB, False)],
    "JobPausedError": [(("x",), JOB, True)],
    "JobTimeoutError": [(("x",), JOB, True)],
    "JobStatusError": [(("x",), JOB, False)],
    "WatcherDiedError": [(("x",), {}, True)],
    "LowQualityError": [(("x",), JOB, False)],
    "PurchaseError": [
        *(
            (("x",), {"scope": "s", "reason": reason}, True)
            for reason in ("cancel_pending", "job_not_found", "in_flight", "undecidable", "key_conflict")
        ),
        (("x",), {"scope": "s", "reason": "moderation"}, False),
        (("x",), {"scope": "s", "reason": "spending_off"}, False),
        (("x",), {"scope": "s", "reason": "undecidable", "retryable": False}, False),
        (("x",), {"scope": "s", "reason": "anything", "retryable": True}, True),
    ],
    "WebhookError": [(("x",), {}, False)],
    "SignatureMismatchError": [(("x",), {}, False)],
    "TimestampToleranceError": [(("x",), {}, False)],
    "MalformedWebhookError": [(("x",), {}, False)],
    "FeedError": [(("x",), {"source": "s"}, False), (("x",), {"source": "s", "retryable": True}, True)],
    "DownloadError": [
        *((("x",), {"reason": reason}, True) for reason in ("expired", "cut_short", "network", "storage")),
        *((("x",), {"reason": reason}, False) for reason in ("refused", "wrong_type", "too_large", "private_address")),
    ],
    "EmulatorClockError": [((10.0,), {}, False)],
    "ExportRefusedError": [(("x",), {"reason": "empty"}, False)],
    "RunRefusedError": [(("x",), {"reason": "budget"}, False)],
    "LeaseLostError": [(("x",), {}, True)],
    "NoSuggestionError": [(("x",), {}, True)],
    "LedgerUnavailableError": [(("x",), {"ledger": "l"}, True)],
    "AttemptSupersededError": [((), {"order_key": "o", "attempt": "a", "newest": "b"}, False)],
    "BudgetUsedUpError": [(("x",), {"which": "day"}, False)],
    "ConnectionUnreadableError": [(("x",), {}, True)],
    "OriginError": [(("x",), {"address": "a"}, False)],
    "PrivateAddressError": [(("x",), {"address": "a"}, False)],
    "StorageUnavailableError": [(("x",), {}, True)],
    "StoppedError": [(("x",), {}, True)],
}


def every_error():
    for package in (ugen_provider, dagster_ugen):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            origin = module.module_finder.find_spec(module.name).origin
            if "Error(" in Path(origin).read_text():
                importlib.import_module(module.name)
    found, waiting = {}, [UGenError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.startswith(("ugen_provider", "dagster_ugen")):
            found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def test_each_class_of_error_has_a_row():
    assert sorted(every_error()) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_each_error_says_whether_it_is_retryable(name):
    kind = every_error()[name]
    for args, kwargs, retryable in TABLE[name]:
        error = kind(*args, **kwargs)
        again = pickle.loads(pickle.dumps(error))
        assert error.retryable is again.retryable is retryable, (args, kwargs)
        assert (str(again), vars(again)) == (str(error), vars(error))
