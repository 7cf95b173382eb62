# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: list the project's files whose functions a test calls; imports and the emulator do not count.

.venv/bin/pytest -n0 -q -p files_entered tests/dagster/test_buying.py -k three_assets
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(f"{ROOT / name}/" for name in ("ugen_provider", "dagster_ugen"))
EMULATOR = f"{ROOT / 'ugen_provider' / 'emulator'}/"
_entered: set[str] = set()


def _profile(frame: FrameType, event: str, _argument: object) -> None:
    name = frame.f_code.co_filename
    if event != "call" or name in _entered or not name.startswith(PACKAGES) or name.startswith(EMULATOR):
        return
    above: FrameType | None = frame
    while above is not None and not above.f_code.co_filename.startswith("<frozen importlib"):
        above = above.f_back
    if above is None:
        _entered.add(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Trace the test itself, without its fixtures."""
    threading.setprofile(_profile)
    sys.setprofile(_profile)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files."""
    for name in sorted(_entered):
        terminalreporter.write_line(str(Path(name).relative_to(ROOT)))
    terminalreporter.write_line(f"{len(_entered)} files entered")
