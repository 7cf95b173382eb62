# SPDX-License-Identifier: Apache-2.0
"""A person at a terminal, in tmux: help, a feed run with live progress, Ctrl-C, resuming. The documents show the same.

`UGEN_WRITE_DOCS=1` writes what is seen into docs/cli.md; otherwise the page is compared with it.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
BEGIN, END = "<!-- session: written by tests/cli/test_terminal.py -->\n", "<!-- end of session -->"
RUN = (
    "ugen feed run feed.xml --catalogue shop --budget 5000 --segment-count 2 --to videos --run-id monday --interval 0.5"
)


class Terminal:
    """A shell in tmux, on a server of its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._socket = str(folder / "tmux")
        shell = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), "bash", "--norc", "--noprofile"]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "400", "-c", str(folder), *shell)
        self.wait_for(r"\$ $")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @property
    def text(self) -> str:
        """Everything on the screen."""
        return self._tmux("capture-pane", "-p", "-J").rstrip() + " "

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen shows something."""
        return self._wait(lambda text: re.search(pattern, text, re.MULTILINE) is not None, pattern)

    def finished(self, commands: int) -> str:
        """Wait for the prompt after so many commands."""

        def at_the_prompt(text: str) -> bool:
            return text.endswith("\n$ ") and len(re.findall(r"^\$ ", text, re.MULTILINE)) == commands + 1

        return self._wait(at_the_prompt, f"the prompt after {commands} commands")

    def _wait(self, is_there: Callable[[str], bool], what: str) -> str:
        end = time.monotonic() + 120  # a bound for a test that hangs, not a judgement
        while not is_there(text := self.text):
            assert time.monotonic() < end, f"in vain for {what}:\n{text}"
            time.sleep(0.05)
        return text

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path, ugen):
    if shutil.which("tmux") is None or shutil.which("bash") is None:
        pytest.skip("tmux or bash is not installed")
    shutil.copy(ROOT / "examples" / "feed.xml", tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ugen.name_ledger()
    env = {**ugen.environ, "PATH": path, "PS1": "$ ", "LANG": "C.UTF-8", "TERM": "tmux-256color"}
    opened = Terminal(tmp_path, env)
    yield opened
    opened.close()


def test_a_session_at_a_terminal(ugen, ugen_clock, terminal, tmp_path):
    terminal.type("ugen --help")
    terminal.finished(1)
    terminal.type("ugen feed check feed.xml --segment-count 2")
    terminal.finished(2)
    terminal.type(RUN)
    terminal.wait_for("0/5 5 in flight")
    while len(completed(ugen)) < 2:
        assert ugen_clock.advance_to_next_change()
    terminal.wait_for("2/5 3 in flight")
    terminal.press("C-c")
    seen = terminal.finished(3)
    # A bar that moves, not a line per product.
    assert "━━━" in seen
    assert "submitted" not in seen
    assert "stopped; 3 jobs still run and nothing is lost" in seen
    assert "Next: to continue: ugen feed run feed.xml" in seen
    terminal.type("echo $?")
    assert "\n130\n" in terminal.finished(4)
    terminal.type("ugen jobs list")
    listed = terminal.finished(5)
    assert len(re.findall(r"^[0-9a-f-]{36}  processing ", listed, re.MULTILINE)) == 3
    terminal.type(RUN)
    terminal.wait_for("(?s)monday.*monday.*0/3 3 in flight")
    ugen_clock.advance_until_idle()
    session = terminal.finished(6)
    assert "completed            5" in session
    terminal.type("ugen ledger export shop --to videos.jsonl --format jsonl")
    session = terminal.finished(7)
    assert "videos.jsonl: 5 products" in session
    assert len(ugen.purchases) == 5
    assert len(list((tmp_path / "videos").rglob("final.mp4"))) == 5
    agrees_with_the_page(session)


def completed(ugen) -> list:
    return [job for job in ugen.json("jobs", "list", "--all") if job["status"] == "completed"]


def agrees_with_the_page(session: str) -> None:
    shown = (
        "```{ .text .no-copy }\n" + "\n".join(line.rstrip() for line in session.splitlines()[:-1]).rstrip() + "\n```\n"
    )
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    written, end, after = rest.partition(END)
    assert end, f"{PAGE} has no place for the session"
    if os.environ.get("UGEN_WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + shown + END + after, "utf-8")
    else:
        assert masked(written) == masked(shown)


def masked(session: str) -> list[str]:
    """A session without what differs from time to time: ids, numbers, how far bars were drawn, which job came first."""
    session = re.sub(r"(?ms)^(\$ ugen jobs list\nJOB[^\n]*\n).*?^\$ ", r"\1$ ", session)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "JOB", session)
    text = re.sub(r"[━╸╺]+", "━", text)
    text = re.sub(r"\d+", "0", text)
    return [" ".join(line.split()) for line in text.splitlines()]
