# SPDX-License-Identifier: Apache-2.0
"""Ten thousand jobs through one triggerer's loop: what it holds stays as it was, and every job is delivered.

`UGEN_SOAK_MINUTES` says how long (default 3; the long form is 30), `UGEN_SOAK_JOBS` how many. The triggers run in a
process of their own, so that what is measured is what they hold; the emulator is on a socket in this one.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ugen_provider import UGenClient
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Pace, Settings

MINUTES = float(os.environ.get("UGEN_SOAK_MINUTES", "3"))
JOBS = int(os.environ.get("UGEN_SOAK_JOBS", "10000"))
AT_ONCE = max(1, JOBS // 5)
CHILD = Path(__file__).with_name("soaking.py")
SOON = (0.2, 1.0)


def settings() -> Settings:
    """Jobs that last so long that all of them take the minutes asked for, `AT_ONCE` at a time."""
    lasts = MINUTES * 60 * AT_ONCE / JOBS
    fast = dict.fromkeys(("prepare", "agents", "keyframe", "segment", "concat", "audio", "captions", "complete"), SOON)
    return Settings(speed=1, admin=True, pace=Pace(queue=(0.5 * lasts, 1.2 * lasts), **fast))


def soak(server: EmulatorServer) -> tuple[list[dict], list[str]]:
    """Run the child to its end: what it held while it was full, and which jobs it delivered."""
    connection = {"conn_type": "ugen", "password": LOCAL_KEY, "extra": {"base_url": server.base_url}}
    env = {
        **os.environ,
        "AIRFLOW_HOME": tempfile.mkdtemp(prefix="ugen-soak-"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW_CONN_UGEN_DEFAULT": json.dumps(connection),
        "PYTHONPATH": str(CHILD.parents[2]),
        "NO_PROXY": "127.0.0.1",
    }
    order = json.dumps({"base_url": server.base_url, "jobs": JOBS, "at_once": AT_ONCE})
    done = subprocess.run(
        [sys.executable, "-P", str(CHILD), order],
        env=env,
        capture_output=True,
        text=True,
        timeout=MINUTES * 60 * 4 + 600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    *samples, last = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    # From when each has waited for one job to when the first has nothing left to begin.
    full = [each for each in samples if AT_ONCE <= each["delivered"] <= JOBS - AT_ONCE]
    return full, last["jobs"]


@pytest.mark.torture
@pytest.mark.timeout(int(MINUTES * 60 * 4 + 900))
def test_ten_thousand_jobs_through_one_loop(record_property):
    with EmulatorServer(settings()) as server:
        full, delivered = soak(server)
        third = max(1, len(full) // 3)
        early, late = full[:third], full[-third:]
        for what, slack in (("mb", 0.05 * early[0]["mb"] + 8), ("files", 10), ("tasks", 0.02 * AT_ONCE + 10)):
            most = [max(sample[what] for sample in part) for part in (early, late)]
            record_property(what, f"{most[0]:.0f} early, {most[1]:.0f} late")
            assert most[1] <= most[0] + slack, (what, most)
        journal = server.emulator.journal
        bought = [entry.job_id for entry in journal.find_purchases(kind="create")]
        assert (len(bought), len(delivered), set(delivered)) == (JOBS, JOBS, set(bought))
        with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
            jobs = [client.jobs.get(job_id) for job_id in bought]
            balance = client.credits.balance()
        assert {job.status for job in jobs} == {"completed"}
        # To the unit: nothing is left reserved, and what is gone is what the jobs cost.
        assert server.emulator.accounts.by_name["local"].credits.reserved == 0
        assert balance.available_credits == balance.credit_balance
        assert settings().tenants[0].credits - balance.credit_balance == sum(job.credits_consumed for job in jobs)
