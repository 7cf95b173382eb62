# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger settle`: the exits for a person, on each kind of ledger; the emulator's journal says what was bought."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger

from .conftest import LAMP

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.xml"
CREATE = ("jobs", "create", "--order", "lamp", *LAMP)
EXPENSIVE = (*LAMP[:-1], "2")


@pytest.fixture(autouse=True)
def ledger(ugen, address) -> str:
    ugen.name_ledger(address)
    return address


def record_of(ledger, order_key):
    with Ledger(ledger) as opened:
        return LedgerOrderStore(opened).read(order_key)


@pytest.fixture
def lose(ugen, ugen_faults):
    """Order a lamp whose answer is lost; returns the error as JSON."""

    def lost(*, bought: bool = True):
        kind = {"kind": "lost"} if bought else {"kind": "status", "status": 503}
        ugen_faults.add(kind.pop("kind"), method="POST", path="/api/v1/jobs", times=None, **kind)
        error = json.loads(ugen(*CREATE, "--json", code=6).stderr)
        ugen_faults.clear()
        return error

    return lost


@pytest.mark.parametrize("how", ["name", "key"])
def test_settle_job_gives_the_order_its_job(ugen, lose, ugen_faults, how):
    ugen_faults.job(slow=50.0)  # it still runs when the command gives up its repetitions
    key = lose()["idempotency_key"]
    (sold,) = ugen.purchases
    order = "lamp" if how == "name" else ugen.one("ledger", "show", "--order", "lamp")["order_key"]
    said = ugen.json("ledger", "settle", order, "--job", sold.job_id)
    assert (said["job_id"], said["key"]) == (sold.job_id, key)
    again = ugen.json(*CREATE, "--wait")
    assert (again["job_id"], again["outcome"]) == (sold.job_id, "reattached")
    assert len(ugen.purchases) == 1


def test_settle_job_of_another_order_is_refused(ugen, lose):
    lose()
    other = ugen.create("--order", "other")
    said = ugen("ledger", "settle", "lamp", "--job", other, code=3)
    assert "was created under the key" in said.stderr
    unknown = ugen("ledger", "settle", "lamp", "--job", "00000000-0000-4000-8000-000000000000", code=3)
    assert "nothing was changed" in unknown.stderr
    assert ugen.one("ledger", "show", "--order", "lamp")["job_id"] is None


def test_settle_absent_sends_the_new_request_under_the_key(ugen, lose):
    key = lose(bought=False)["idempotency_key"]
    assert not ugen.purchases
    assert key in ugen("ledger", "settle", "lamp", "--absent").stderr
    changed = ugen.json("jobs", "create", "--order", "lamp", *EXPENSIVE)
    assert (changed["outcome"], changed["key"], changed["segment_count"]) == ("created", key, 2)
    assert len(ugen.purchases) == 1


def test_settle_absent_by_mistake_finds_the_job_and_buys_nothing(ugen, lose):
    """The service knows the key after all: the job is found, and no purchase number rises."""
    lose()
    ugen("ledger", "settle", "lamp", "--absent")
    again = ugen.json(*CREATE)
    assert again["job_id"] == ugen.purchases[0].job_id
    assert len(ugen.purchases) == 1


@pytest.mark.parametrize("refused_before", [False, True])
def test_settle_absent_by_mistake_buys_nothing(ugen, ugen_faults, lose, refused_before):
    if refused_before:
        ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=422, times=1)
        ugen(*CREATE, code=3)
    lose()
    ugen("ledger", "settle", "lamp", "--absent")
    ugen("jobs", "create", "--order", "lamp", *EXPENSIVE)
    assert len(ugen.purchases) == 1


def test_settle_absent_of_an_order_with_a_job_is_refused(ugen):
    job_id = ugen.json(*CREATE)["job_id"]
    said = ugen("ledger", "settle", "lamp", "--absent", code=3)
    assert job_id in said.stderr
    assert "--deleted" in said.stderr
    assert ugen.json(*CREATE)["job_id"] == job_id


def test_settle_deleted_fails_until_regenerate_buys(ugen):
    ugen(*CREATE)
    ugen("ledger", "settle", "lamp", "--deleted")
    assert "settled as deleted" in ugen(*CREATE, code=1).stderr
    assert len(ugen.purchases) == 1
    ugen(*CREATE, "--regenerate", "tuesday")
    ugen(*CREATE, "--regenerate", "tuesday")
    assert len(ugen.purchases) == 2


def test_settle_deleted_settles_an_owed_cancel(ugen, ugen_faults):
    job_id = ugen.json(*CREATE)["job_id"]
    ugen_faults.add("status", method="DELETE", path="/api/v1/jobs/*", status=503, times=None)
    ugen("jobs", "cancel", job_id, code=6)
    settled = ugen.json("ledger", "settle", "lamp", "--deleted")
    assert [action["state"] for action in settled["actions"]] == ["confirmed"]
    assert ugen.json("reconcile")["owed"] == []


@pytest.mark.parametrize("exit_", [("--absent",), ("--deleted",)])
def test_settle_fences_the_attempt_that_still_runs(ugen, lose, ledger, exit_):
    lose()
    order_key = ugen.one("ledger", "show", "--order", "lamp")["order_key"]
    running = record_of(ledger, order_key)
    ugen("ledger", "settle", "lamp", *exit_)
    with Ledger(ledger) as opened, pytest.raises(AttemptSupersededError):
        LedgerOrderStore(opened).write(running)


def test_settle_product_by_its_id(ugen, ugen_faults):
    run = ("feed", "run", EXAMPLE, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1)
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=503, times=None)
    assert ugen.json(*run, "--run-id", "1", code=6)["postponed"] == 5
    ugen_faults.clear()
    settled = ugen.json("ledger", "settle", "LL-1001", "--catalogue", "shop", "--absent")
    assert (settled["kind"], settled["maybe_bought"]) == ("product", False)
    assert ugen.json(*run, "--run-id", "1")["completed"] == 5
    assert len(ugen.purchases) == 5
    assert "no order 'LL-9'" in ugen("ledger", "settle", "LL-9", "--catalogue", "shop", "--absent", code=2).stderr
    assert (
        "'other' is not in this ledger"
        in ugen("ledger", "settle", "x", "--catalogue", "other", "--absent", code=2).stderr
    )


@pytest.mark.parametrize("exits", [(), ("--absent", "--deleted"), ("--job", "x", "--absent")])
def test_settle_needs_exactly_one_exit(ugen, exits):
    ugen("ledger", "settle", "lamp", *exits, code=2)


def test_command_that_an_error_names_settles_the_order(ugen, ugen_faults, ugen_clock):
    """Past the key window, a search right after a send proves nothing; the printed command is run unchanged."""
    create = ("jobs", "create", "--order", "Anna's lamp", *LAMP)
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=503, times=None)
    ugen(*create, code=6)
    ugen_clock.advance(24 * 3600 - 300)
    ugen(*create, code=6)
    ugen_clock.advance(360)
    ugen_faults.clear()
    said = ugen(*create, code=3)
    (command,) = re.findall(r"ugen (ledger settle .*) --job ID, or --absent", said.stderr)
    ugen(*shlex.split(command), "--absent")
    assert ugen.json(*create)["outcome"] == "created"
    assert len(ugen.purchases) == 1
