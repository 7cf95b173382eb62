# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.databases import empty_database, postgres_url

REAL = "tests/real/"

# Time is judged in benchmarks/, never in a test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_configure() -> None:
    """Let processes be interrupted although a shell ignores SIGINT for what it starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what starts real systems first: it takes longest, and the other tests fill the other cores."""
    items.sort(key=lambda item: not item.nodeid.startswith(REAL))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replace the scheduler of `--dist loadscope`."""
    from xdist.scheduler import LoadScopeScheduling  # the matrix of versions runs without it

    class OneRealSystemAtATime(LoadScopeScheduling):
        """Gives whole files to the processes of pytest-xdist, and all that start real systems to one of them."""

        def _split_scope(self, nodeid: str) -> str:
            return REAL if nodeid.startswith(REAL) else nodeid.partition("::")[0]

    return OneRealSystemAtATime(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no chromium")
    return found


@pytest.fixture
def postgres() -> Iterator[str]:
    """An empty database, gone afterwards."""
    url = postgres_url()
    if url is None:
        pytest.skip("no PostgreSQL answers on loopback")
    with empty_database(url) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path) -> str:
    """Where a ledger is, on each kind of database."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """A migrated database, for `dag.test()`."""
    subprocess.run([sys.executable, "-P", "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
