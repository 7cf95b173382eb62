# SPDX-License-Identifier: Apache-2.0
"""The money protocol under every other reading of the documentation.

Each switch of the emulator is flipped alone, and then in three seeded mixes: client and emulator must not agree only
because the same people wrote both. Under every reading of the service, nothing is paid twice and nothing is lost;
where a reading takes something away that the protocol needs, it says so instead of guessing.
"""

import random
import typing

import httpx
import pytest

from tests.core.jobs.test_purchase import order
from tests.core.local import Attempts, Local, ledger_store
from ugen_provider import APIError, JobFailedError, PurchaseError, TransportError, UGenError
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.readings import Readings

BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 2}

SECONDS = {"list_lag": (10.0,), "url_lifetime": (60.0,), "get_lag": (5.0,), "in_flight": (5.0,), "video_lag": (5.0,)}


def flips():
    hints = typing.get_type_hints(Readings)
    default = Readings()
    for name, kind in hints.items():
        choices = typing.get_args(kind) or SECONDS[name]
        for value in choices:
            if value != getattr(default, name):
                yield {name: value}


def mixes():
    every = list(flips())
    for seed in (1, 2, 3):
        draw = random.Random(seed)
        mixed = {}
        for flip in draw.sample(every, len(every) // 2):
            mixed.update(flip)
        # These two leave a service under which nothing at all could be found again after a lost answer.
        mixed.pop("replay_ended", None)
        yield mixed


WORLDS = [*flips(), *mixes()]
IDS = [",".join(f"{name}={value}" for name, value in world.items())[:60] for world in WORLDS]


@pytest.fixture(params=WORLDS, ids=IDS)
def world(request):
    return request.param


@pytest.fixture
def local(world):
    return Local(Settings(speed=0, admin=True, readings=Readings().with_values(world)))


@pytest.fixture
def attempts(local, world, tmp_path):
    with local.client(video_model="kling3_std" if world.get("models") == "kling_only" else None) as client:
        yield Attempts(client, ledger_store(tmp_path))


def what(attempts, **policy):
    model = attempts.client.config.video_model
    return order(body={**BODY, **({"video_model": model} if model else {})}, **policy)


def lose_the_answer_of(local, path):
    left = [True]

    def meddle(request, answer):
        response = answer()
        if left[0] and request.method == "POST" and request.path.endswith(path):
            left[0] = False
            raise httpx.ReadTimeout("lost")
        return response

    local.transport.meddle = meddle


def conserved(local):
    books = local.world.accounts.by_name["local"].credits
    assert books.reserved >= 0
    assert books.available == books.balance - books.reserved


def test_bought_once_then_taken(attempts, local):
    first = attempts.obtain(what(attempts))
    again = attempts.obtain(what(attempts))
    assert first.job.job_id == again.job.job_id
    assert again.job.state.value == "completed"
    assert again.job.final_video_url
    assert local.created == 1
    conserved(local)


def test_a_lost_answer_to_create_costs_nothing(attempts, local):
    lose_the_answer_of(local, "/jobs")
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert local.created == 1


def test_an_attempt_killed_before_it_knew_its_job_costs_nothing(attempts, local):
    def lose(request, answer):
        response = answer()
        if request.method == "POST":
            raise httpx.ReadTimeout("lost")
        return response

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy(what(attempts))
    local.transport.meddle = lambda _, answer: answer()
    local.world.advance(30)
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert local.created == 1


def test_a_failure_is_repaired_at_its_stage(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain(what(attempts))
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert (local.created, local.retried) == (1, 1)
    conserved(local)


def test_a_lost_answer_to_retry_reserves_once(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain(what(attempts))
    lose_the_answer_of(local, "/retry")
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert (local.created, local.retried) == (1, 1)


def test_after_our_kill_the_next_generation_is_bought_once(attempts, local):
    attempts.buy(what(attempts))
    local.world.advance(20)
    outcome = attempts.cancel(what(attempts))
    assert outcome.confirmed
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert attempts.obtain(what(attempts)).job.final_video_url
    assert local.created == 2
    conserved(local)


def test_a_pause_on_interrupt_is_resumed(attempts, local):
    job_id = attempts.buy(what(attempts)).job.job_id
    local.world.advance(20)
    attempts.pause(what(attempts))
    local.world.advance(600)
    delivered = attempts.obtain(what(attempts))
    assert delivered.job.job_id == job_id
    assert delivered.job.final_video_url
    assert local.created == 1


def test_regenerate_leaves_one_live_job(attempts, local):
    attempts.buy(what(attempts))
    local.world.advance(20)
    assert attempts.obtain(what(attempts, regenerate="a")).job.final_video_url
    assert attempts.obtain(what(attempts, regenerate="a")).job.final_video_url
    assert local.created == 2
    local.world.advance(60)  # lists may lag
    active = [job for job in attempts.client.jobs.list() if not job.ended]
    assert active == []


def test_a_gate_holds_and_is_not_mistaken(attempts, local, world):
    gated = what(attempts)
    gated = order(body={**gated.body, "stop_at_stage": "init"})
    stopped = attempts.obtain(gated)
    assert stopped.job.final_video_url is None
    assert attempts.obtain(gated).job.job_id == stopped.job.job_id
    assert local.created == 1


def test_an_unknown_job_is_reported_or_left_never_bought_again(attempts, local):
    from dataclasses import replace

    first = attempts.buy(what(attempts))
    attempts.store.write(replace(first.record, job_id="550e8400-e29b-41d4-a716-446655440000"))
    with pytest.raises((PurchaseError, APIError)):
        attempts.obtain(what(attempts))
    assert local.created == 1


def test_lists_are_whole(attempts, local):
    from ugen_provider import CreateJob

    ids = {attempts.client.jobs.create(CreateJob(**what(attempts).body)).job_id for _ in range(130)}
    local.world.advance(30)
    listed = [job.job_id.lower() for job in attempts.client.jobs.list()]  # one reading lists ids in capitals
    assert len(listed) == len(set(listed)) == 130
    assert set(listed) == ids


def test_diagnosis_never_fails_and_never_spends(attempts, local):
    try:
        attempts.client.diagnose()
    except UGenError as error:
        pytest.fail(f"diagnose raised {error!r}")
    assert local.created == 0
