# SPDX-License-Identifier: Apache-2.0
"""Output on a terminal, which text of a feed cannot control."""

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from ugen_provider.cli.printer import Listing, Sheet, clean, lines_of
from ugen_provider.emulator.settings import LOCAL_KEY


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand tabs", "two lines and tabs"),
        ("\x1b]0;title\x07red \x1b[31m", "]0;titlered [31m"),
        ("right\u202eleft", "rightleft"),
        ("Solène 🕯", "Solène 🕯"),
    ],
)
def test_a_text_cannot_steer_a_terminal(text, shown):
    assert clean(text) == shown


def test_plain_lines():
    assert lines_of(Listing(("A", "B"), [("x\ty", "")], data=[])) == ["x y\t"]
    assert lines_of(Sheet([("a", "1"), ("b", "")], data={})) == ["a: 1"]


def at_a_terminal(ugen, *arguments, columns: int = 80, types: str = "", code: int = 0) -> str:
    """Return what a person sees in a window of a width, who types when something is asked."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = ugen.process(*arguments, stdout=theirs, stderr=theirs, stdin=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side is gone
            break
        if not piece:
            break
        seen += piece
        if types and seen.endswith(b": "):
            os.write(ours, types.encode())
            types = ""
    os.close(ours)
    assert process.wait(timeout=60) == code, seen
    return seen.decode()


def test_narrow_terminal_gets_a_block_for_each_row(ugen):
    ugen.environ["TERM"] = "xterm-256color"
    job_id = ugen.create(name="A lamp with a name that is long enough to be broken")
    wide = at_a_terminal(ugen, "jobs", "list", columns=120)
    assert "PRODUCT" in wide
    assert job_id in wide
    assert "\x1b[36m" in wide  # a status has its colour
    narrow = at_a_terminal(ugen, "jobs", "list", columns=60)
    assert job_id in narrow
    assert "PRODUCT" in narrow
    assert all(len(line) <= 60 for line in re.sub(r"\x1b\[[0-9;]*m", "", narrow).splitlines())
    sheet = at_a_terminal(ugen, "jobs", "get", job_id, columns=80)
    assert "\x1b[1m" in sheet
    assert job_id in sheet


def test_a_key_that_is_nowhere_is_asked_for_and_never_shown(ugen):
    del ugen.environ["UGEN_API_KEY"]
    seen = at_a_terminal(ugen, "credits", "balance", types=f"{LOCAL_KEY}\n")
    assert "U-Gen API key: " in seen
    assert "available" in seen
    assert LOCAL_KEY not in seen
    stopped = at_a_terminal(ugen, "credits", "balance", types="\x04", code=130)
    assert "Error: stopped" in stopped


def test_waiting_and_downloading_show_progress(ugen, tmp_path):
    ugen.environ["TERM"] = "xterm-256color"
    job_id = ugen.create()
    ugen("jobs", "wait", job_id)
    waited = at_a_terminal(ugen, "jobs", "wait", job_id, columns=120)
    assert "━━━━━━━━━━━━━━━━━━━━" in waited
    fetched = at_a_terminal(ugen, "jobs", "download", job_id, "--to", tmp_path / "videos", columns=120)
    assert f"downloading {job_id} (1/1)" in fetched
    assert "final.mp4" in fetched
