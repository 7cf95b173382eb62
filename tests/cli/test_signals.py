# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM in real processes: a request in flight is recorded, nothing more is bought, and waits end."""

import signal

import pytest

from ugen_provider.cli.demo.processes import wait_until

from .conftest import LAMP
from .test_feed import EXAMPLE, RUN

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
CREATE = ("jobs", "create", "--order", "lamp", *LAMP)


def begin(ugen, *arguments):
    return ugen.process(*arguments, stdout=-1, stderr=-1)


def end(process):
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert out == ""
    return said


def wait_for_request(ugen, method, path):
    journal = ugen.server.emulator.journal
    wait_until(lambda: bool(journal.find_requests(method=method, path=path)), what=f"{method} {path}", timeout=60)


@SIGNALS
@pytest.mark.parametrize("wait", [(), ("--wait",)], ids=["create", "create and wait"])
def test_signal_while_a_create_is_in_flight_records_its_answer(ugen, ugen_faults, ugen_clock, number, wait):
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=5.0)
    process = begin(ugen, *CREATE, *wait)
    wait_for_request(ugen, "POST", "/api/v1/jobs")
    process.send_signal(number)
    ugen_clock.advance(5)
    if wait:
        said = end(process)
        job_id = ugen.purchases[0].job_id
        assert f"1 job still runs and nothing is lost: {job_id}" in said
        assert f"to continue: ugen jobs wait {job_id}" in said
    else:
        process.communicate(timeout=60)
    assert ugen.one("ledger", "show", "--order", "lamp")["job_id"] == ugen.purchases[0].job_id
    assert ugen.json(*CREATE)["outcome"] == "reattached"
    assert len(ugen.purchases) == 1


@SIGNALS
def test_a_second_signal_ends_and_the_next_call_finds_the_job(ugen, ugen_faults, ugen_clock, number):
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=5.0)
    process = begin(ugen, *CREATE, "--wait")
    wait_for_request(ugen, "POST", "/api/v1/jobs")
    process.send_signal(number)
    while "press Ctrl-C again to end at once" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(number)
    said = end(process)
    assert "--order lamp" in said
    ugen_clock.advance(5)
    assert ugen.json(*CREATE)["status"] in {"pending", "processing"}
    assert len(ugen.purchases) == 1


@SIGNALS
def test_signal_while_the_account_is_full_buys_nothing(ugen, ugen_faults, number):
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=429, retry_after=600.0, times=None)
    process = begin(ugen, *CREATE, "--wait")
    wait_for_request(ugen, "POST", "/api/v1/jobs")
    process.send_signal(number)
    assert "stopped; nothing was bought" in end(process)
    ugen_faults.clear()
    assert ugen.json(*CREATE)["outcome"] == "created"
    assert len(ugen.purchases) == 1


@SIGNALS
@pytest.mark.parametrize("command", ["wait", "watch", "resume", "retry"])
def test_signal_while_waiting_leaves_the_job(ugen, ugen_faults, ugen_clock, number, command):
    if command == "retry":
        ugen_faults.job(fail_at="generation", times=1)
    job_id = ugen.create()
    if command == "retry":
        ugen("jobs", "wait", job_id, code=1)
    if command == "resume":
        ugen_clock.advance(10)
        ugen("jobs", "pause", job_id)
        ugen("jobs", "wait", job_id, code=1)
    wait = ("--wait",) if command in {"resume", "retry"} else ()
    process = begin(ugen, "jobs", command, job_id, *wait, "--interval", 600)
    line = process.stderr.readline()
    while " processing" not in line and " pending" not in line:
        line = process.stderr.readline()
        assert line
    process.send_signal(number)
    assert f"ugen jobs wait {job_id}" in end(process)
    assert not ugen.server.emulator.journal.find_requests(method="DELETE")
    assert ugen.one("jobs", "wait", job_id)["status"] == "completed"


def test_sigterm_stops_a_feed_run_in_order(ugen, tmp_path):
    ugen.name_ledger()
    run = ("feed", "run", EXAMPLE, *RUN, "--run-id", "monday")
    process = begin(ugen, *run, "--interval", 600)
    lines = []
    while sum("under way" in line for line in lines) < 5:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGTERM)
    assert "5 jobs still run and nothing is lost" in end(process)
    assert ugen.json(*run)["completed"] == 5
    assert len(ugen.purchases) == 5


def test_cancel_at_interrupt_says_what_became_of_each_job(ugen):
    ugen.name_ledger()
    run = ("feed", "run", EXAMPLE, *RUN, "--run-id", "monday", "--on-interrupt", "cancel", "--interval", 600)
    process = begin(ugen, *run)
    lines = []
    while sum("under way" in line for line in lines) < 5:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    said = end(process)
    jobs = [job["status"] for job in ugen.json("jobs", "list")]
    assert jobs == ["cancelled"] * 5
    assert "5 jobs were cancelled" in said
    assert "still run" not in said
    assert "buys the cancelled ones again" in said
