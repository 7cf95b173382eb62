# SPDX-License-Identifier: Apache-2.0
"""The ledger's work as it grows: claims, plans and the end of a budget, on SQLite and on PostgreSQL.

    python benchmarks/bench_ledger.py            # the figures, about ten minutes
    python benchmarks/bench_ledger.py --smoke    # seconds, judging nothing

Each step runs in a process of its own, whose peak memory is reported. The PostgreSQL is that of `UGEN_TEST_POSTGRES`,
else the one on loopback; its databases are new, so that no statistics exist when a plan begins.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_runners import Database, postgres_url

STEP = """
import json, resource, statistics, sys, time
order = json.loads(sys.argv[1])
import sqlalchemy as sa
from ugen_provider.core.batch import runs
from ugen_provider.core.batch.leases import claim
from ugen_provider.core.batch.planner import Planner
from ugen_provider.core.batch.runs import Run
from ugen_provider.core.batch.spec import PlanOptions
from ugen_provider.core.ledger import schema
from ugen_provider.ledger import Ledger
found = {}
with Ledger.init(order["ledger"], allow_ephemeral=True) as ledger:
    catalogue = ledger.catalogue("shop")
    run, _ = runs.join(ledger, catalogue, "one", owner="me", budget=None)
    began = time.perf_counter()
    if order["step"] == "plan":
        Planner(ledger, run, PlanOptions()).plan(order["feed"], job_defaults={"segment_count": 1})
    elif order["step"] == "claim":
        times = []
        for _ in range(order["times"]):
            begun = time.perf_counter()
            assert len(claim(ledger, run, most=64)) == 64
            times.append(time.perf_counter() - begun)
        found["median"], found["worst"] = statistics.median(times), max(times)
    elif order["step"] == "postpone":
        found["count"] = runs.postpone_rest(ledger, run, reason="budget")
    elif order["step"] == "reopen":
        runs.reopen(ledger, run)
    found["took"] = time.perf_counter() - began
    found["items"] = ledger.read(
        lambda connection: connection.execute(sa.select(sa.func.count()).select_from(schema.item)).scalar()
    )
found["cpu"] = time.process_time()
found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(found))
"""


def step(name: str, ledger: str, **order: object) -> dict[str, float]:
    """Do one step in a process of its own."""
    command = [sys.executable, "-c", STEP, json.dumps({"step": name, "ledger": ledger, **order})]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only show that it works")
    parser.add_argument("--products", type=int, help="products of the large plan")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    small, large = (200, 1_000) if smoke else (10_000, arguments.products or 1_000_000)
    url = postgres_url()
    missed = False

    def tell(name: str, value: str, target: str, good: bool) -> None:
        nonlocal missed
        missed = missed or not (good or smoke)
        print(f"  {name:<58} {value:>14}   target {target}{'' if good or smoke else '  MISSED'}", flush=True)

    with tempfile.TemporaryDirectory(prefix="ugen-bench-") as name:
        folder = Path(name)
        feeds = {}
        for count in (small, large):
            feeds[count] = folder / f"{count}.csv"
            with feeds[count].open("w") as file:
                file.write("id,title,image_link\n")
                file.writelines(f"p{n},Cup {n},https://img.example/{n}/front.jpg\n" for n in range(count))
        plans: dict[str, float] = {}
        for kind in ("SQLite", *(["PostgreSQL"] if url else [])):
            peaks: dict[int, float] = {}
            for count in (small, large):
                database = Database(url).__enter__() if kind == "PostgreSQL" and url else None
                try:
                    ledger = database.url if database else str(folder / f"{count}.db")
                    plan = step("plan", ledger, feed=str(feeds[count]))
                    assert plan["items"] == count
                    claims = step("claim", ledger, times=3 if smoke else 30)
                    postponed = step("postpone", ledger)
                    reopened = step("reopen", ledger)
                finally:
                    if database:
                        database.__exit__()
                peaks[count] = postponed["peak"]
                good = claims["median"] <= 0.010
                median = claims["median"] * 1000
                tell(f"{kind}: claim 64 of {count:,}, median of 30", f"{median:.1f} ms", "<= 10 ms", good)
                tell(f"{kind}: postpone {count:,}", f"{postponed['took']:.1f} s", "-", True)
                tell(f"{kind}: reopen {count:,}", f"{reopened['took']:.1f} s", "-", True)
                if count == large:
                    plans[kind] = plan["took"]
                    target, good = ("-", True)
                    if kind == "PostgreSQL":
                        target, good = "<= 3 x SQLite", plan["took"] <= 3 * plans["SQLite"]
                    tell(f"{kind}: plan {count:,} in a new ledger", f"{plan['took']:.1f} s", target, good)
            grown = peaks[large] - peaks[small]
            label = f"{kind}: memory to postpone, from {small:,} to {large:,}"
            tell(label, f"{grown:+.1f} MB", "<= 10 MB", grown <= 10)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
