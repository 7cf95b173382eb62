# SPDX-License-Identifier: Apache-2.0
"""Several runners on one PostgreSQL ledger: throughput of 1, 2 and 4, and what the database gave up for eight.

    python benchmarks/bench_runners.py            # the figures, about five minutes
    python benchmarks/bench_runners.py --smoke    # seconds, judging nothing

Each runner is a process of its own, the local U-Gen another one. Where the API is the limit, each runner has a fixed
number of jobs under way, and each job takes a fixed time: what is lost then is lost on the ledger. The PostgreSQL is
that of `UGEN_TEST_POSTGRES`, else the one on loopback; without one nothing is measured.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self

import sqlalchemy as sa

EMULATOR = """
import sys, time
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Pace, Settings
least, most = float(sys.argv[1]), float(sys.argv[2])
stages = ("prepare", "agents", "keyframe", "segment", "concat", "audio", "captions", "complete")
soon = dict.fromkeys(stages, (0.0, 0.0))
with EmulatorServer(Settings(speed=1, pace=Pace(queue=(least, most), **soon))) as server:
    print(server.base_url, flush=True)
    time.sleep(3600)
"""

RUNNER = """
import asyncio, json, sys, time
from ugen_provider import AsyncUGenClient
from ugen_provider.core.batch import Budget, FeedRun, FeedRunner
from ugen_provider.ledger import Ledger
order = json.loads(sys.argv[1])
async def work():
    spec = FeedRun(order["feed"], catalogue="shop", run_id="one", job_defaults={"segment_count": 1},
                   budget=Budget(credits=10**9, daily=10**9), in_flight=order["in_flight"], interval=1.0)
    async with AsyncUGenClient(api_key="ugen_sk_local", base_url=order["base_url"]) as client:
        with Ledger(order["ledger"]) as ledger:
            print("ready", flush=True)
            sys.stdin.readline()
            return await FeedRunner(client, ledger, spec).run()
report = asyncio.run(work())
print(json.dumps({"completed": report.completed, "adds_up": report.adds_up, "cpu": time.process_time()}))
"""


def postgres_url() -> str | None:
    """A PostgreSQL that answers."""
    url = os.environ.get("UGEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 2}).connect():
            return url
    except sa.exc.OperationalError:
        return None


class Database:
    """A database of its own, with its count of deadlocks and commits."""

    def __init__(self, url: str) -> None:
        self.admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self.name = f"ugen_bench_{uuid.uuid4().hex[:12]}"
        self.url = sa.engine.make_url(url).set(database=self.name).render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        with self.admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {self.name}"))
        return self

    def counts(self) -> tuple[int, int]:
        """Deadlocks that the database ended, and transactions that it committed."""
        time.sleep(1.0)  # PostgreSQL's own statistics come late
        query = sa.text("SELECT deadlocks, xact_commit FROM pg_stat_database WHERE datname = :name")
        with self.admin.connect() as connection:
            row = connection.execute(query, {"name": self.name}).one()
        return int(row[0]), int(row[1])

    def __exit__(self, *exc_info: object) -> None:
        with self.admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {self.name} WITH (FORCE)"))
        self.admin.dispose()


def planned(folder: Path, database: str, products: int, *, base_url: str) -> Path:
    """Write a feed, and its plan: the time to plan is not part of what is measured."""
    import asyncio

    from ugen_provider import AsyncUGenClient
    from ugen_provider.core.batch import Budget, FeedRun, FeedRunner
    from ugen_provider.ledger import Ledger

    feed = folder / f"{uuid.uuid4().hex}.csv"
    lines = (f"p{number},Cup {number},https://img.example/{number}/front.jpg\n" for number in range(products))
    feed.write_text("id,title,image_link\n" + "".join(lines))

    async def plan() -> None:
        def stop(point: str) -> None:
            if point == "planned":
                raise asyncio.CancelledError

        async with AsyncUGenClient(api_key="ugen_sk_local", base_url=base_url) as client:
            with Ledger.init(database) as ledger:
                spec = FeedRun(
                    feed,
                    catalogue="shop",
                    run_id="one",
                    job_defaults={"segment_count": 1},
                    budget=Budget(credits=10**9),
                )
                with contextlib.suppress(asyncio.CancelledError):
                    await FeedRunner(client, ledger, spec, probe=stop).run()

    asyncio.run(plan())
    return feed


def measure(
    folder: Path, url: str, *, runners: int, products: int, in_flight: int, lasts: tuple[float, float]
) -> dict[str, float]:
    """Let several runners buy one plan; return products a second and the database's counts."""
    command = [sys.executable, "-c", EMULATOR, str(lasts[0]), str(lasts[1])]
    emulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        base_url = emulator.stdout.readline().strip()
        with Database(url) as database:
            feed = planned(folder, database.url, products, base_url=base_url)
            order = {"feed": str(feed), "ledger": database.url, "base_url": base_url, "in_flight": in_flight}
            before = database.counts()
            children = [
                subprocess.Popen(
                    [sys.executable, "-c", RUNNER, json.dumps(order)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for _ in range(runners)
            ]
            for child in children:
                child.stdout.readline()  # all begin together: what their imports take is not measured here
            began = time.perf_counter()
            for child in children:
                child.stdin.write("\n")
                child.stdin.flush()
            answers = [child.communicate() for child in children]
            took = time.perf_counter() - began
            after = database.counts()
    finally:
        emulator.kill()
        emulator.wait()
    failed = [err[-2000:] for child, (_, err) in zip(children, answers, strict=True) if child.returncode]
    for text in failed:
        print(text, file=sys.stderr)
    reports = [json.loads(out) for child, (out, _) in zip(children, answers, strict=True) if not child.returncode]
    return {
        "rate": products / took,
        "failed": len(failed),
        "completed": max((report["completed"] for report in reports), default=0),
        "cpu": sum(report["cpu"] for report in reports) / products,
        "deadlocks": after[0] - before[0],
        "commits": after[1] - before[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only show that it works")
    smoke = parser.parse_args().smoke
    url = postgres_url()
    if url is None:
        print("  no PostgreSQL answers; nothing was measured")
        return 0
    missed = False

    def tell(name: str, value: str, target: str, good: bool) -> None:
        nonlocal missed
        missed = missed or not (good or smoke)
        print(f"  {name:<58} {value:>14}   target {target}{'' if good or smoke else '  MISSED'}", flush=True)

    with tempfile.TemporaryDirectory(prefix="ugen-bench-") as name:
        folder = Path(name)
        # Eight jobs of two seconds under way: a runner cannot do more than four products a second.
        alone = 0.0
        for runners in (1, 2, 4):
            count = 20 if smoke else 240 * runners
            lasts = (0.1, 0.2) if smoke else (2.0, 2.0)
            found = measure(folder, url, runners=runners, products=count, in_flight=8, lasts=lasts)
            alone = alone or found["rate"]
            share = found["rate"] / alone / runners
            label = f"{runners} runners, API the limit ({found['rate']:.1f}/s): of {runners} x one"
            good = share >= 0.9 and not found["failed"]
            tell(label, f"{share:.2f}", ">= 0.9 and no runner fails" if runners > 1 else "-", good)
        count = 40 if smoke else 12_000
        found = measure(folder, url, runners=8, products=count, in_flight=100, lasts=(0.0, 0.2))
        label = f"8 runners, {count:,} products, {found['commits']:,.0f} commits: runners that failed"
        tell(label, f"{found['failed']}", "0", not found["failed"] and found["completed"] == count)
        tell("of these, transactions that a deadlock ended", f"{found['deadlocks']}", "0", not found["deadlocks"])
        tell("8 runners: CPU a product", f"{found['cpu'] * 1000:.1f} ms", "-", True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
