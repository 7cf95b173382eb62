# SPDX-License-Identifier: Apache-2.0
"""Errors carry what a handler needs, survive pickling, and never show a key."""

import copy
import json
import pickle
import traceback

import pytest

from ugen_provider import InsufficientCreditsError, Job, JobFailedError, PurchaseError, TransportTimeoutError, UGenError
from ugen_provider.core.api import errors
from ugen_provider.core.api.answers import error_of
from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.endpoints import Request, Response
from ugen_provider.core.api.rules import Violation

REQUEST = Request(method="POST", path="/jobs")


def answer(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def read(status, body, **headers):
    return error_of(answer(status, body, **headers), REQUEST, now=1_000.0)


def test_the_documented_402_carries_required_and_available():
    error = read(
        402,
        {
            "error": {
                "code": "INSUFFICIENT_CREDITS",
                "message": "Insufficient credits",
                "details": {"required": 86, "available": 12},
            }
        },
        x_request_id="req_7",
    )
    assert isinstance(error, InsufficientCreditsError)
    assert (error.required, error.available, error.code, error.request_id) == (86, 12, "INSUFFICIENT_CREDITS", "req_7")
    assert "req_7" in str(error)


def test_the_documented_422_carries_its_fields():
    detail = [
        {
            "type": "missing",
            "loc": ["body", "product_image_url"],
            "msg": "Field required",
            "input": {"product_name": "test"},
        }
    ]
    error = read(422, {"detail": detail})
    assert isinstance(error, errors.RequestValidationError)
    assert error.fields == {"product_image_url": "Field required"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (429, "RateLimitError"),
        (500, "ServerError"),
        (503, "ServerError"),
        (418, "APIError"),
    ],
)
def test_each_status_has_its_class(status, kind):
    assert type(read(status, {"error": {"message": "no"}})).__name__ == kind


def test_a_gateway_page_without_json_is_still_the_status_it_is():
    error = read(502, b"<html>Bad gateway</html>")
    assert isinstance(error, errors.ServerError)
    assert "Bad gateway" in str(error)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"error": {"message": "slow"}}, {"retry_after": "7"}),
        ({"error": {"message": "slow", "details": {"retry_after": 7}}}, {}),
        ({"error": {"message": "slow", "retry_after": 7}}, {}),
        ({"error": {"message": "slow"}, "retry_after": "7"}, {}),
        ({"error": {"message": "slow"}}, {"retry_after": "Thu, 01 Jan 1970 00:16:47 GMT"}),
    ],
)
def test_retry_after_is_read_from_each_possible_source(body, headers):
    assert read(429, body, **headers).retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("-5", None),
        ("nan", None),
        ("1e308", 31 * 86400),
        ("1" + "0" * 400, 31 * 86400),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", None),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 31 * 86400),
        ("Thu, 01 Jan 1970 00:00:07 GMT", 0),
    ],
)
def test_no_retry_after_ends_outside_the_error_tree(value, seconds):
    """A pause longer than a month could not be waited for, nor be added to a date."""
    assert read(429, {"error": {"message": "slow"}}, retry_after=value).retry_after == seconds


def test_a_redirect_is_an_error_that_says_why():
    error = read(302, b"", location="https://elsewhere.example")
    assert isinstance(error, errors.ResponseError)
    assert "not followed" in str(error)


SAMPLES = [
    read(402, {"error": {"message": "no", "details": {"required": 3, "available": 1}}}),
    JobFailedError("failed", job_id="j", job=Job(job_id="j", status="failed"), retryable=False),
    PurchaseError("no", scope="s", reason="key_conflict", job_id="j"),
    TransportTimeoutError("late", method="GET", path="/jobs", maybe_sent=True),
    errors.InvalidRequestError([Violation("segment_count", "is required")]),
    errors.ResponseError("no JSON", method="GET", path="/", status=200, request_id="r", excerpt="<html>"),
    errors.SignatureMismatchError("no signature matches"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(again, UGenError)


def test_a_timeout_is_also_a_builtin_timeout():
    assert isinstance(SAMPLES[3], TimeoutError)


def test_a_secret_is_never_shown():
    secret = Secret("ugen_sk_hidden")
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), "".join(traceback.format_list([]))):
        assert "hidden" not in shown
    assert copy.deepcopy(secret) == secret
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(secret)
    assert "hidden" not in json.dumps({"secret": secret}, default=str)
