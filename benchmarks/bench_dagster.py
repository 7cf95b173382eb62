# SPDX-License-Identifier: Apache-2.0
"""dagster_ugen: imports, a thousand partitions in one run, a hundred thousand from a feed, one order among many.

    python benchmarks/bench_dagster.py                  # the figures: five minutes, and more on a busy machine
    python benchmarks/bench_dagster.py --only order    # one of imports, run, feed, order
    python benchmarks/bench_dagster.py --smoke          # a minute, judging nothing

The service is an emulator in a process of its own, on this machine's loopback. The imports are compared with those of
the real peers, in the environment that `make peers` makes; one that is not there is named.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import peers

KEY = "ugen_sk_local"
PEERS = ("dagster-hightouch", "dagster-fivetran", "dagster-openai")
IMPORT = """
import sys, time, dagster
before, began = len(sys.modules), time.perf_counter()
{what}
print(len(sys.modules) - before, (time.perf_counter() - began) * 1000)
"""


def imports(rounds, *, beside):
    """Milliseconds over `import dagster`, each in a process of its own, in turns; ours, and the peers' where asked."""
    there = peers.versions(PEERS if beside else ())
    ours, ours_with = "import dagster_ugen", "with resource and assets"
    asked = {
        ours: "import dagster_ugen",
        ours_with: "from dagster_ugen import UGenResource, FeedRequests, build_ugen_assets",
        "import httpx, for comparison": "import httpx",
        **{name: f"import {name.replace('-', '_')}" for name in PEERS if name in there},
    }
    taken = {name: [] for name in asked}
    for _ in range(rounds):
        for name, what in asked.items():
            command = [peers.python(alone=not beside), "-P", "-c", IMPORT.format(what=what)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken[name].append([float(each) for each in done.stdout.split()])
    found = {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in taken.items()}
    for name in list(asked)[:3]:
        print(f"{name}: {found[name][1]:.1f} ms over import dagster (median of {rounds})")
    rows = [[name, there[name], *found[name]] for name in PEERS if name in there]
    rows += [[f"{peers.ITSELF}: {what}", there[peers.ITSELF], *found[what]] for what in (ours, ours_with)]
    rows.sort(key=lambda row: row[3])
    table = peers.side_by_side(
        f"Importing beside the peers, medians of {rounds} processes",
        ["imports beyond `import dagster`", "version", "modules", "ms"],
        [[name, version, f"{modules:,.0f}", f"{ms:,.1f}"] for name, version, modules, ms in rows],
    )
    return found[ours][1], table


class Emulator:
    """An emulator in a process of its own."""

    def __init__(self, speed):
        command = [sys.executable, "-m", "ugen_provider.emulator", "--admin", "--json", "--speed", str(speed)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = json.loads(self._process.stdout.readline())["url"]

    def requests(self):
        with urllib.request.urlopen(f"{self.url}/_emulator/journal?limit=200000") as answer:
            return json.load(answer)["requests"]

    def stop(self):
        self._process.terminate()
        self._process.wait(20)


def many_partitions(count, seconds, interval):
    """One run over many partitions, in a process of its own; jobs of about `seconds`, polled every `interval`."""
    speed = 165.0 / seconds
    emulator = Emulator(speed)
    try:
        command = [sys.executable, __file__, "--one-run", str(count), str(interval)]
        env = os.environ | {"UGEN_API_KEY": KEY, "UGEN_BASE_URL": f"{emulator.url}/api/v1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr[-4000:])
        said = json.loads(done.stdout.splitlines()[-1])
        requests = emulator.requests()
    finally:
        emulator.stop()
    polls_of = {}
    pages = []
    created = {}
    for entry in requests:
        job = entry["path"].rpartition("/")[2]
        if entry["method"] == "GET" and entry["path"].startswith("/api/v1/jobs/") and entry["path"].count("/") == 4:
            polls_of.setdefault(job, []).append(entry["at"])
        if entry["method"] == "GET" and entry["path"] == "/api/v1/jobs":
            pages.append(entry["at"])
        if entry["method"] == "POST" and entry["path"] == "/api/v1/jobs":
            created[entry["number"]] = entry["at"]
    gets = sum(len(each) for each in polls_of.values())
    results = min(gets, count)
    waited = sum(times[-1] for times in polls_of.values()) - sum(created.values())
    polling_each = waited / speed / interval
    polls = len(pages) + gets - results
    # The last poll of a job reads its result; the others, and the pages, are the polling that must not be held up.
    polled = sorted([*pages, *(at for times in polls_of.values() for at in times[:-1])])
    pause = max((after - before for before, after in itertools.pairwise(polled)), default=0.0) / speed
    print(
        f"{count} partitions in one run: {said['seconds']:.0f} s, {said['events']} events, peak memory "
        f"{said['above']:.0f} MB above import dagster"
    )
    print(
        f"  polls: {len(pages)} pages and {gets - results} jobs = {polls}, {100 * polls / polling_each:.1f} % of the "
        f"{polling_each:.0f} that polling each would take; and one read of each result ({results})"
    )
    print(
        f"  while {said['events']} events and {2 * count} order records were written, the longest pause of the polling "
        f"was {pause:.1f} s, at an interval of {interval:g} s"
    )
    return {"share": polls / polling_each, "above": said["above"], "pause": pause / interval}


def one_run(count, interval):
    import dagster as dg

    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()  # the default ledger, away from the user's

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from dagster_ugen import UGenResource, build_ugen_assets

    def request_of(name):
        return {"product_name": name, "product_image_url": f"https://shop.example/{name}.jpg", "segment_count": 2}

    keys = [f"p{number:05}" for number in range(count)]
    assets = build_ugen_assets(
        requests=request_of,
        partitions_def=dg.StaticPartitionsDefinition(keys),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    account = UGenResource(api_key=KEY, base_url=os.environ["UGEN_BASE_URL"], poll_interval=interval)
    job = dg.Definitions(
        assets=assets,
        resources={"ugen": account},
        loggers={"console": dg.colored_console_logger.configured({"log_level": "ERROR"})},
    ).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    with dg.instance_for_test() as instance:
        began = time.perf_counter()
        result = job.execute_in_process(instance=instance, tags=tags)
        events = len(result.get_asset_materialization_events())
        assert events == 3 * count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - began, "events": events, "above": peak - base}))


def from_a_feed(count):
    """Dynamic partitions from a CSV feed, and what that costs in memory."""
    import dagster as dg

    from dagster_ugen import FeedRequests, sync_product_partitions

    with tempfile.TemporaryDirectory() as folder, dg.instance_for_test() as instance:
        feed = Path(folder) / "feed.csv"
        with feed.open("w") as file:
            file.write("id,title,image_link\n")
            file.writelines(f"p{n},Product {n},https://shop.example/{n}.jpg\n" for n in range(count))
        requests = FeedRequests(str(feed), job_defaults={"segment_count": 2})
        sync_product_partitions(instance, FeedRequests(str(feed), job_defaults={"segment_count": 2}), name="warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        made = sync_product_partitions(instance, requests, name="ugen_products")
        seconds = time.perf_counter() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        assert made.added == count
    print(f"{count} dynamic partitions from a feed: {seconds:.1f} s, {grown:.0f} MB more than the same before")
    return {"seconds": seconds, "grown": grown}


def one_order(count):
    """Reading the order of a partition among many, from a ledger on SQLite."""
    from ugen_provider.core.jobs.order import Order, partition_key
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.ledger import Ledger

    with tempfile.TemporaryDirectory() as folder, Ledger.init(f"{folder}/ledger.db", allow_ephemeral=True) as ledger:
        store, keys = LedgerOrderStore(ledger), []
        for number in range(count):
            body = {"product_name": f"p{number}", "product_image_url": "https://shop.example/p.jpg", "segment_count": 2}
            order = Order(key=partition_key(asset="final_video", partition=f"p{number}"), body=body, attempt="run:0")
            keys.append(store.write(order.record(purchase_number=0, written_at=0.0)).order_key)
        times = []
        for key in keys[:: max(1, count // 100)]:
            began = time.perf_counter()
            assert store.read(key) is not None
            times.append((time.perf_counter() - began) * 1000)
    median, worst = statistics.median(times), max(times)
    print(f"the order of one partition among {count}: {median:.1f} ms, {worst:.1f} ms at worst")
    return {"median": median, "worst": worst}


PARTS = ("imports", "run", "feed", "order")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="fewer of everything, judging nothing")
    parser.add_argument("--only", choices=PARTS, action="append", help="some of it; may be repeated")
    parser.add_argument("--one-run", nargs=2, metavar=("COUNT", "INTERVAL"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_run:
        one_run(int(asked.one_run[0]), float(asked.one_run[1]))
        return
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    limits, tables = [], []
    for part in asked.only or PARTS:
        limits += measure(part, smoke=asked.smoke, tables=tables)
    for name, value, most in limits:
        print(f"  {'ok ' if asked.smoke or value <= most else 'NO '} {name}: {value:.1f} (at most {most})")
    print(json.dumps({"tables": tables}))
    missed = [f"{name}: {value:.1f}, wanted at most {most}" for name, value, most in limits if value > most]
    if missed and not asked.smoke:
        raise SystemExit("missed: " + "; ".join(missed))


def measure(part, *, smoke, tables):
    """Measure a part; gives each figure with the most that it may be, and adds to the tables."""
    match part:
        case "imports":
            ms, table = imports(1 if smoke else 7, beside=not smoke)
            tables.append(table)
            return [("import dagster_ugen over import dagster, ms", ms, 60)]
        case "run":
            run = many_partitions(50, 10.0, 1.0) if smoke else many_partitions(1000, 120.0, 5.0)
            return [
                ("polls, share of polling each, %", 100 * run["share"], 3),
                ("memory of a run of 1,000, MB", run["above"], 200),
                ("longest pause of the polling, intervals", run["pause"], 2),
            ]
        case "feed":
            return [("100,000 partitions, s", from_a_feed(2_000 if smoke else 100_000)["seconds"], 60)]
        case _:
            return [("one order among 10,000, ms", one_order(100 if smoke else 10_000)["median"], 50)]


if __name__ == "__main__":
    main()
