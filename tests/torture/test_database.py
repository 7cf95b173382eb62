# SPDX-License-Identifier: Apache-2.0
"""The ledger's database crashes and comes back, again and again, under two runners of one plan."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.batch.test_kill import FEED_OF, check, emulator, feed, finished, start  # noqa: F401  fixtures
from tests.torture.postgres import OwnPostgres, own_postgres
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

pytestmark = pytest.mark.torture
LEASE = 61.0


@pytest.fixture
def database() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.mark.timeout(580)
@pytest.mark.parametrize("back_at_once", [True, False], ids=["back at once", "back when all runners have given up"])
def test_postgresql_crashes_under_two_runners(database, emulator, feed, back_at_once):  # noqa: F811  fixtures
    """A run may end early and say so; the next run buys nothing twice, and in the end each product has its video."""
    ledger = database.url("psycopg")
    journal = emulator.emulator.journal
    ahead = 0.0
    ends: list[subprocess.Popen] = []
    said: list[str] = []

    def created() -> int:
        return len(journal.find_purchases(kind="create"))

    for share in (0.05, 0.3, 0.6, 0.9):
        runners = [start(emulator, feed, ledger, ahead=ahead) for _ in range(2)]
        wait_until(lambda share=share: created() >= share * FEED_OF, what=f"{share:.0%} being bought", timeout=120.0)
        database.crash()
        if back_at_once:
            database.start()
        said += [runner.communicate(timeout=240)[1].strip() for runner in runners]
        if not back_at_once:
            database.start()
        ends += runners
        ahead += LEASE
    check(finished(start(emulator, feed, ledger, ahead=ahead)), emulator)
    # Else no crash hit a run, and nothing was shown.
    assert 1 in {runner.returncode for runner in ends} <= {0, 1}
    assert LOCAL_KEY not in "".join(said)
