# SPDX-License-Identifier: Apache-2.0
"""Answers that were refused, lost, or came from a gateway: what may have bought is never bought again.

Each case is one row of a matrix: what the network did to the first attempt, and what the list of jobs looks like. The
oracle is the emulator's journal, one key window later.
"""

from contextlib import suppress
from datetime import datetime

import httpx
import pytest

from tests.core.jobs.test_purchase import BODY, order
from tests.core.local import Attempts, Local, ledger_store
from ugen_provider import PurchaseError, RetryPolicy, UGenError
from ugen_provider.core.api.client import call_endpoint
from ugen_provider.emulator.settings import Settings

DAY = 24 * 3600
CORRECTED = {**BODY, "segment_count": 3}
OWN_FORM = {"error": {"code": "REFUSED", "message": "refused"}}
USED = {"error": {"code": "IDEMPOTENCY_KEY_REUSED", "message": "this idempotency key was used with other parameters"}}


@pytest.fixture
def local():
    return Local(Settings(speed=0, admin=True))


@pytest.fixture
def attempts(local, tmp_path):
    with local.client(retries=RetryPolicy(attempts=2)) as client:
        yield Attempts(client, ledger_store(tmp_path))


def is_create(request):
    return request.method == "POST" and request.path.endswith("/api/v1/jobs")


def meddle_creates(local, with_create):
    local.transport.meddle = lambda request, answer: with_create(answer) if is_create(request) else answer()


def quiet(local):
    local.transport.meddle = lambda _, answer: answer()


def answer_with(status, *, body=OWN_FORM, headers=None, forwards=False):
    """An answer to a create; `forwards` lets it reach the service first, as a gateway does that gives up afterwards."""

    def with_create(answer):
        if forwards:
            answer()
        if status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, json=body, headers=headers or {})

    return with_create


REFUSALS = [(status, OWN_FORM) for status in (400, 401, 402, 403, 404, 405, 413, 422, 429)]
REFUSALS += [(301, None), (307, None), (308, None), (403, "<html>proxy</html>"), (None, None)]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
@pytest.mark.parametrize("times", [1, 3])
def test_purchase_refused_buys_the_corrected_request_once(attempts, local, status, body, times):
    headers = {"Location": "https://elsewhere.example/"} if status in {301, 307, 308} else {}
    meddle_creates(local, answer_with(status, body=body, headers=headers))
    for _ in range(times):
        with pytest.raises(UGenError):
            attempts.buy(order())
    quiet(local)
    assert local.created == 0
    bought = attempts.obtain(order(body=CORRECTED))
    assert not bought.request_changed
    assert bought.record.body["segment_count"] == 3
    assert bought.record.purchase_number == 0
    local.world.advance(2 * DAY)
    assert attempts.obtain(order(body=CORRECTED)).job.job_id == bought.job.job_id
    assert local.created == 1


UNCLEAR = [303, 408, 409, 425, 460, 499, 500, 502, 503, 504, 599]


@pytest.mark.parametrize("status", UNCLEAR)
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("later", [0, 2 * DAY], ids=["at once", "after the key window"])
def test_purchase_unclear_answer_finds_the_job_that_was_bought(attempts, local, status, changed, later):
    meddle_creates(local, answer_with(status, forwards=True))
    with suppress(UGenError):  # after a 409 the attempt itself finds the job
        attempts.buy(order())
    quiet(local)
    local.world.advance(later)
    bought = attempts.obtain(order(body=CORRECTED if changed else BODY))
    assert bought.request_changed is changed
    assert local.created == 1


@pytest.mark.parametrize("status", UNCLEAR)
@pytest.mark.parametrize("later", [0, 2 * DAY], ids=["at once", "after the key window"])
def test_purchase_unclear_answer_that_bought_nothing_buys_once(attempts, local, status, later):
    meddle_creates(local, answer_with(status))
    with pytest.raises(UGenError):
        attempts.buy(order())
    quiet(local)
    local.world.advance(later)
    assert attempts.obtain(order()).job.final_video_url
    assert local.created == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413, 429, 301, 307])
@pytest.mark.parametrize("changed", [False, True])
def test_purchase_gateway_that_forwarded_and_refused_buys_once(attempts, local, status, changed):
    meddle_creates(local, answer_with(status, forwards=True, headers={"Location": "https://x.example/"}))
    with pytest.raises(UGenError):
        attempts.buy(order())
    quiet(local)
    local.world.advance(700)
    assert attempts.obtain(order(body=CORRECTED if changed else BODY)).job.final_video_url
    assert local.created == 1


def test_purchase_refused_after_an_unclear_answer_stays_unclear(attempts, local):
    answers = [answer_with(502, forwards=True), answer_with(403)]
    meddle_creates(local, lambda answer: answers.pop(0)(answer) if answers else answer())
    with pytest.raises(UGenError):
        attempts.buy(order())
    quiet(local)
    bought = attempts.obtain(order(body=CORRECTED))
    assert bought.request_changed
    assert local.created == 1


@pytest.mark.parametrize("status", [400, 409, 422])
def test_purchase_lost_record_and_used_key_takes_the_job(attempts, local, tmp_path, status):
    first = attempts.buy(order())
    meddle_creates(local, answer_with(status, body=USED))
    with local.client() as client:
        fresh = Attempts(client, ledger_store(tmp_path / "fresh"))
        for body in (CORRECTED, {**BODY, "segment_count": 4}):
            assert fresh.obtain(order(body=body)).job.job_id == first.job.job_id
    assert local.created == 1


def test_purchase_key_in_flight_is_repeated_until_it_is_answered(attempts, local):
    in_flight = [answer_with(409, body={"error": {"code": "IN_FLIGHT", "message": "request is in progress"}})] * 3
    meddle_creates(local, lambda answer: in_flight.pop()(answer) if in_flight else answer())
    assert attempts.obtain(order()).job.final_video_url
    assert local.created == 1


# The list of jobs, as other services shape it. The service has forgotten the key, and the answer was lost.


def _without_totals(body):
    return {"items": body["items"]}


def _bare(body):
    return body["items"]


def _smaller_pages(body):
    return {"items": body["items"][:3]}


def _first_page_only(body):
    return {**body, "items": body["items"][:2], "total": 13, "total_pages": None}


def _without_keys(body):
    return {**body, "items": [{k: v for k, v in item.items() if k != "idempotency_key"} for item in body["items"]]}


LISTS = {
    "as documented": None,
    "without totals": _without_totals,
    "bare array": _bare,
    "smaller pages": _smaller_pages,
    "without keys": _without_keys,
    "first page only": _first_page_only,
}


def shape_lists(local, shaped):
    """Let the list of jobs look so from now on."""

    def meddle(request, answer):
        response = answer()
        if shaped is not None and request.method == "GET" and request.path.endswith("/api/v1/jobs"):
            return httpx.Response(200, json=shaped(response.json()))
        return response

    local.transport.meddle = meddle


@pytest.mark.parametrize("shape", LISTS)
def test_purchase_with_lost_answer_after_the_key_window_is_safe(attempts, local, shape):
    with local.client() as other:
        for number in range(12):
            call_endpoint(
                other, _create({**BODY, "product_name": f"Other {number}", "idempotency_key": f"other-{number}"})
            )
    meddle_creates(local, answer_with(502, forwards=True))
    with pytest.raises(UGenError):
        attempts.buy(order())
    created = local.created
    local.world.advance(2 * DAY)
    shape_lists(local, LISTS[shape])
    for _ in range(3):
        with suppress(PurchaseError, UGenError):
            assert attempts.obtain(order()).job.final_video_url
    assert local.created == created


@pytest.mark.parametrize("shape", LISTS)
@pytest.mark.parametrize(("status", "body"), [(401, OWN_FORM), (403, "<html>proxy</html>"), (None, None)])
def test_purchase_refused_then_corrected_a_day_later_buys_once(attempts, local, shape, status, body):
    """Every send was surely refused, so nothing is searched, and a list that proves nothing stops nobody."""
    with local.client() as other:
        call_endpoint(other, _create({**BODY, "product_name": "Other", "idempotency_key": "other"}))
    meddle_creates(local, answer_with(status, body=body))
    with pytest.raises(UGenError):
        attempts.buy(order())
    local.world.advance(2 * DAY)
    shape_lists(local, LISTS[shape])
    bought = attempts.obtain(order(body=CORRECTED))
    assert (bought.record.body["segment_count"], bought.record.purchase_number) == (3, 0)
    assert local.created == 2


@pytest.mark.parametrize("pages", [1, 2], ids=["one page", "two pages"])
@pytest.mark.parametrize("total", [False, True], ids=["bare", "total of the page"])
def test_purchase_lost_on_a_list_from_page_zero_is_found(attempts, local, pages, total):
    """Page 1 is then the second one, and the newest job is on the page that comes without a number."""
    _buy_others(local, 4 * pages - 2)
    _lose_the_answer(attempts, local)
    created = local.created
    local.world.advance(2 * DAY)

    local.transport.meddle = _paged_from_zero(total=total)
    with suppress(PurchaseError):
        assert attempts.obtain(order()).job.final_video_url
    assert local.created == created


@pytest.mark.parametrize("kept", [None, 30], ids=["whole list", "thirty days"])
def test_purchase_lost_on_a_list_that_forgets_is_not_repeated(attempts, local, kept):
    """A list without a job from before the order may not go back so far: it proves nothing about a lost one."""
    _lose_the_answer(attempts, local)
    local.world.advance(31 * DAY)
    _buy_others(local, 2)
    created = local.created

    def forgetful(body):
        since = local.world.now() - kept * DAY
        rows = [row for row in body["items"] if datetime.fromisoformat(row["created_at"]).timestamp() > since]
        return {**body, "items": rows, "total": len(rows), "total_pages": 1}

    shape_lists(local, forgetful if kept else None)
    if kept:
        with pytest.raises(PurchaseError, match="go back so far"):
            attempts.obtain(order())
    else:
        assert attempts.obtain(order()).job.final_video_url
    assert local.created == created


@pytest.mark.parametrize("with_keys", [True, False], ids=["keys shown", "no keys shown"])
def test_purchase_recorded_by_a_clock_ahead_is_searched(attempts, local, monkeypatch, with_keys):
    """The record seems fresh, and the service has forgotten its key."""
    monkeypatch.setattr(type(local.clock), "now", lambda clock: clock.world.now() + 3 * DAY)
    _lose_the_answer(attempts, local)
    monkeypatch.undo()
    local.world.advance(2 * DAY)
    shape_lists(local, None if with_keys else _without_keys)
    with suppress(PurchaseError):
        assert attempts.obtain(order()).job.final_video_url
    assert local.created == 1


UNREADABLE = {
    "empty": b"",
    "a page": b"<html>accepted</html>",
    "another envelope": b'{"payload": {"entity": {"job_id": "j"}}}',
    "an id that is none": b'{"job_id": "a\\u0000b", "status": "pending"}',
    "half a pair for an id": b'{"job_id": "\\ud800", "status": "pending"}',
    "a document for an id": b'{"job_id": "' + b"a" * 5000 + b'", "status": "pending"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_purchase_whose_answer_stays_unreadable_is_found(attempts, local, content):
    """No repetition makes it readable; the list shows the job that was paid."""

    def unreadable(answer):
        answer()
        return httpx.Response(200, content=content)

    meddle_creates(local, unreadable)
    assert attempts.obtain(order()).job.final_video_url
    assert local.created == 1


def test_purchase_conflict_of_another_kind_is_quoted(attempts, local):
    short = {"error": {"code": "INSUFFICIENT_CREDITS", "message": "9 credits are missing"}}
    meddle_creates(local, answer_with(409, body=short))
    with pytest.raises(PurchaseError, match="9 credits are missing"):
        attempts.obtain(order())
    assert local.created == 0


def test_purchase_that_waits_for_anything_is_never_silent(attempts, local, caplog):
    """The pause that the service asks for may be as long as it likes."""
    limited = [answer_with(429, headers={"Retry-After": "1e308"})]
    meddle_creates(local, lambda answer: limited.pop()(answer) if limited else answer())
    said = []
    caplog.set_level("WARNING")
    sleep = local.clock.sleep
    local.clock.sleep = lambda seconds: (said.append((seconds, len(caplog.records))), sleep(seconds))
    assert attempts.obtain(order()).job.final_video_url
    silent = [seconds for seconds, lines in said if not lines or seconds > 300]
    assert not silent
    assert "job limit is reached" in caplog.text
    assert local.created == 1


def _buy_others(local, count):
    with local.client() as other:
        for number in range(count):
            key = f"other-{local.world.now()}-{number}"
            call_endpoint(other, _create({**BODY, "product_name": f"Other {number}", "idempotency_key": key}))


def _lose_the_answer(attempts, local):
    meddle_creates(local, answer_with(502, forwards=True))
    with pytest.raises(UGenError):
        attempts.buy(order())
    quiet(local)


def _paged_from_zero(*, total):
    """Shape the list into pages of three that count from 0."""

    def meddle(request, answer):
        if request.method != "GET" or not request.path.endswith("/api/v1/jobs"):
            return answer()
        page = int(httpx.QueryParams(request.query).get("page", 0))
        request.query = "page_size=100"
        part = answer().json()["items"][page * 3 :][:3]
        return httpx.Response(200, json={"items": part, "total": len(part)} if total else part)

    return meddle


def _create(body):
    from ugen_provider.core.api import endpoints

    return endpoints.create_job(body)


@pytest.mark.parametrize("settled", ["job", "absent", "deleted"])
def test_purchase_after_a_person_settled_the_order(attempts, local, settled):
    from dataclasses import replace

    meddle_creates(local, answer_with(502, forwards=settled == "job"))
    with pytest.raises(UGenError):
        attempts.buy(order())
    quiet(local)
    key = order().record_key
    if settled == "job":
        (job,) = attempts.client.jobs.list()
        attempts.store.settle(key, lambda record: replace(record, job_id=job.job_id))
        assert attempts.obtain(order(body=CORRECTED)).job.job_id == job.job_id
    elif settled == "absent":
        attempts.store.settle(key, lambda record: replace(record, maybe_bought=False))
        assert attempts.obtain(order(body=CORRECTED)).record.body["segment_count"] == 3
    else:
        attempts.store.settle(key, lambda record: replace(record, job_id="gone", deleted=True))
        with pytest.raises(PurchaseError, match="regenerate"):
            attempts.obtain(order())
        assert attempts.obtain(order(regenerate="again")).job.final_video_url
    assert local.created == 1
