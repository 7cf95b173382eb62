# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at many moments of real processes: while they import, parse, wait for the network, and print. Always 130.

The signal is sent by the process itself, at a call of a function that is counted, so that each moment is one line of
code and not a point in time.
"""

import json
import os
import pty
import signal

import pytest

from ugen_provider.cli.demo.processes import wait_until

from .conftest import LAMP

pytestmark = pytest.mark.timeout(600)
MOMENTS = int(os.environ.get("UGEN_INTERRUPT_MOMENTS", "6"))
INTERRUPTER = """
import os, signal, sys

place = os.environ.get("INTERRUPT_AT")
counted = os.environ.get("INTERRUPT_COUNT")
state = {"begun": False, "calls": 0}


def profile(frame, event, arg):
    if event != "call":
        return
    if not state["begun"]:
        if frame.f_code.co_name != "run" or not frame.f_code.co_filename.endswith("ugen_provider/__main__.py"):
            return
        state["begun"] = True
    state["calls"] += 1
    if counted:
        return
    if state["calls"] == int(place) + 2:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)


sys.setprofile(profile)
if counted:
    import atexit
    atexit.register(lambda: open(counted, "w").write(str(state["calls"])))
"""


@pytest.fixture
def start(ugen, tmp_path):
    """Start a command that interrupts itself at a counted call."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTER)

    def begin(*arguments, **environ):
        ugen.environ.update({"PYTHONPATH": str(tmp_path), **environ})
        return ugen.process(*arguments, stdout=-1, stderr=-1)

    return begin


def calls_of(start, tmp_path, *arguments):
    """Return how many functions a command calls from its first line on."""
    file = tmp_path / "calls"
    process = start(*arguments, INTERRUPT_COUNT=str(file))
    _, said = process.communicate(timeout=120)
    assert process.returncode in {0, 1, 3}, said
    return int(file.read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "list", "--json"),
        ("ledger", "show", "--json"),
        ("help", "jobs"),
        ("jobs", "create", "--order", "a", *LAMP),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_interrupt_at_any_moment_ends_with_130(ugen, start, tmp_path, arguments):
    ugen.name_ledger()
    calls = calls_of(start, tmp_path, *arguments)
    places = sorted({60, calls * 98 // 100, *(calls * number // MOMENTS for number in range(1, MOMENTS))})
    del ugen.environ["INTERRUPT_COUNT"]
    for place in places:
        process = start(*arguments, INTERRUPT_AT=str(place))
        out, said = process.communicate(timeout=120)
        assert process.returncode == 130, (place, calls, said)
        if "Exception ignored in" in said:
            continue  # the moment was inside a destructor: Python itself writes what it cannot raise there
        assert "Traceback" not in said, (place, calls)
        if "--json" in arguments:
            errors = [line for line in map(json.loads, said.splitlines()) if "error" in line]
            assert all(error["exit_code"] == 130 for error in errors)
            assert out == "" or isinstance(json.loads(out), list)
            assert len(errors) == 1 or out
    assert len({purchase.job_id for purchase in ugen.purchases}) <= 1


def test_interrupt_while_the_network_is_slow(ugen, ugen_faults):
    ugen_faults.add("slow", method="GET", path="/api/v1/jobs", seconds=600.0)
    process = ugen.process("jobs", "list", "--json", stdout=-1, stderr=-1)
    journal = ugen.server.emulator.journal
    wait_until(lambda: bool(journal.find_requests(path="/api/v1/jobs")), what="the request", timeout=60)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert json.loads(said)["error"] == "KeyboardInterrupt"


def test_interrupt_while_the_reader_is_slow(ugen):
    for _ in range(3):
        ugen.create()
    read, write = os.pipe()
    os.set_blocking(write, False)
    while True:  # a full pipe: the command waits in its first line of output
        try:
            os.write(write, b"x" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(write, True)
    process = ugen.process("jobs", "list", "--json", stdout=write, stderr=-1)
    journal = ugen.server.emulator.journal
    wait_until(lambda: bool(journal.find_requests(method="GET", path="/api/v1/jobs")), what="the request", timeout=60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    os.close(read)
    os.close(write)
    assert process.returncode == 130
    assert json.loads(said)["exit_code"] == 130


def test_interrupt_at_the_prompt_of_login(ugen):
    leader, follower = pty.openpty()
    ugen.environ.pop("UGEN_API_KEY")
    process = ugen.process("login", stdin=follower, stdout=-1, stderr=follower)
    os.close(follower)
    seen = b""
    while b"U-Gen API key" not in seen:
        more = os.read(leader, 1000)
        assert more, seen
        seen += more
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (ugen.home / ".config").exists()
