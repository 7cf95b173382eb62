# SPDX-License-Identifier: Apache-2.0
"""Nights on which the service, the account or the network was wrong: no paid video is given up for it."""

import asyncio

import httpx
import pytest

from tests.batch.test_runs import _interrupted
from tests.core.local import Local
from ugen_provider import UGenError
from ugen_provider.emulator.settings import LOCAL_KEY, Settings, TenantSettings

OLD_KEY, NEW_KEY = LOCAL_KEY, "ugen_sk_rotated"
NOT_FOUND = {"error": {"code": "NOT_FOUND", "message": "no such job"}}


def jobs_running(shop):
    """Three products are bought, and the runner is gone before their jobs have ended."""
    shop.sells("a", "b", "c")
    for name in "abc":
        shop.local.outcome(product_name=f"Cup {name}", slow=100)
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, "before.wait", count=3)
    assert shop.local.created == 3


def answer_gets(shop, with_get):
    def meddle(request, answer):
        is_get = request.method == "GET" and "/api/v1/jobs/" in request.path
        return with_get(answer) if is_get else answer()

    shop.local.transport.meddle = meddle


def quiet(shop):
    shop.local.transport.meddle = lambda _, answer: answer()


@pytest.mark.parametrize("nights", [1, 2])
def test_run_with_another_accounts_key_gives_no_video_up(shop, nights):
    jobs_running(shop)
    answer_gets(shop, lambda _: httpx.Response(404, json=NOT_FOUND))
    for night in range(nights):
        report = shop.run(f"wrong {night}")
        assert report.postponed_by == {"job_not_found": 3}
    quiet(shop)
    assert shop.run("corrected").completed == 3
    assert shop.local.created == 3


@pytest.mark.parametrize("body", [NOT_FOUND, None], ids=["own form", "a page"])
def test_run_with_a_single_404_delivers_every_video(shop, body):
    jobs_running(shop)
    left = [3]

    def once(answer):
        if not left[0]:
            return answer()
        left[0] -= 1
        return httpx.Response(404, json=body) if body else httpx.Response(404, text="<html>gateway</html>")

    answer_gets(shop, once)
    assert shop.run("tuesday").completed == 3
    assert shop.local.created == 3


def test_interrupt_with_cancel_that_is_refused_is_settled_later(shop):
    """`--on-interrupt cancel` while DELETE answers 409: the job runs on, is collected, or is cancelled for good."""
    shop.sells("a", "b", "c")

    def refuse(request, answer):
        if request.method == "DELETE":
            return httpx.Response(409, json={"error": {"code": "BUSY", "message": "the job cannot be cancelled now"}})
        return answer()

    shop.local.transport.meddle = refuse
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, "before.wait", count=3, on_interrupt="cancel")
    quiet(shop)
    report = shop.run("monday")
    assert report.completed == 3
    videos = [entry for entry in shop.ledger.entries("shop") if entry.video]
    assert len(videos) == 3
    live = [job for job in shop.jobs() if not job.ended]
    assert live == []
    completed = [job for job in shop.jobs() if job.status == "completed"]
    assert len(completed) == 3


@pytest.fixture
def local():
    """An account with two keys, of which the second replaces the first."""
    return Local(Settings(speed=0, admin=True, tenants=(TenantSettings(api_keys=(OLD_KEY, NEW_KEY)),)))


def rotate(shop):
    """From now on the service refuses the old key; returns a client with the new one."""

    def refuse_old(request, answer):
        if OLD_KEY in request.headers.values():
            return httpx.Response(401, json={"error": {"code": "UNAUTHORIZED", "message": "unknown key"}})
        return answer()

    shop.local.transport.meddle = refuse_old
    return shop.local.async_client(api_key=NEW_KEY)


@pytest.mark.parametrize("under_way", [False, True], ids=["delivered", "under way"])
def test_rotated_key_before_an_unchanged_night_creates_nothing(shop, under_way):
    """The records are signed by nothing that the feed run needs: orders of products are the ledger's own."""
    if under_way:
        jobs_running(shop)
    else:
        shop.sells("a", "b", "c")
        shop.run("monday")
    posts = shop.posts
    report = asyncio.run(shop.runner("tuesday", client=rotate(shop)).run())
    assert (report.unchanged, report.completed) == ((0, 3) if under_way else (3, 0))
    assert (shop.posts - posts, shop.local.created) == (0, 3)


@pytest.fixture
def other_account(shop):
    return Local(Settings(speed=0, admin=True, tenants=(TenantSettings(),)))


def test_run_on_a_second_emulator_is_a_run_of_its_own(shop, other_account):
    shop.sells("a", "b")
    assert shop.run("monday").completed == 2
    client = other_account.async_client(base_url="http://127.0.0.1:2/api/v1")
    report = asyncio.run(shop.runner("tuesday", client=client).run())
    assert (report.completed, other_account.created) == (2, 2)
    assert shop.run("wednesday").unchanged == 2
    assert shop.local.created == 2


def test_refused_key_is_never_a_verdict_on_a_product(shop):
    shop.sells("a")

    def refuse(request, answer):
        return httpx.Response(401, json={"error": {"code": "UNAUTHORIZED", "message": "unknown key"}})

    shop.local.transport.meddle = refuse
    with pytest.raises(UGenError):
        shop.run("monday")
    quiet(shop)
    shop.local.world.advance(3 * 24 * 3600)
    assert shop.run("tuesday").completed == 1
    assert shop.local.created == 1
