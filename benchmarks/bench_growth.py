# SPDX-License-Identifier: Apache-2.0
"""How cost grows: requests and CPU for 10 to 10,000 waiting jobs, seconds and memory for 1,000 to 1,000,000 products.

    python benchmarks/bench_growth.py            # about two minutes
    python benchmarks/bench_growth.py --smoke    # seconds

Waiting runs in this process on the emulator's clock, which moves only when a waiter waits: requests are counted,
and only CPU is time. Each feed is read in a process of its own. Its last line is all of it as JSON.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from ugen_provider import AsyncUGenClient, CreateJob
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.emulator.transport import EmulatorTransport

INTERVAL = 5.0
READ = """
import json, sys, time
from ugen_provider.core.feeds import plan_feed
def peak():
    # Not ru_maxrss, which a child takes over from its parent.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
began, cpu = time.perf_counter(), time.process_time()
count = sum(1 for _ in plan_feed(sys.argv[1], job_defaults={"segment_count": 1}))
after = peak()
found = {"products": count, "cpu_s": round(time.process_time() - cpu, 3), "mb": round((after - before) / 1024, 1)}
print(json.dumps(found))
"""


class MovingClock:
    """A clock that moves only when all waiters have begun to wait: the first to wake moves it."""

    def __init__(self, world) -> None:
        self._world = world

    def now(self):
        return self._world.now()

    def tick(self):
        return self._world.now()

    def sleep(self, seconds):
        self._world.advance(seconds)

    async def asleep(self, seconds):
        for _ in range(3):
            await asyncio.sleep(0)
        self._world.advance(seconds)


async def waiting(count: int) -> dict[str, float]:
    """Requests and CPU that so many jobs cost from their order to the last one's end, buying not counted."""
    transport = EmulatorTransport(Settings(speed=0, admin=True))
    world = transport.emulator
    clock = MovingClock(world)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        AsyncUGenClient(
            api_key=LOCAL_KEY, base_url="http://127.0.0.1:1/api/v1", http_client=http, clock=clock
        ) as client,
    ):
        lamp = CreateJob(product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=1)
        jobs = [await client.jobs.create(lamp) for _ in range(count)]
        before, began, cpu = len(world.journal.find_requests(method="GET")), world.now(), time.process_time()
        watcher = JobWatcher(client, clock=clock)
        outcomes = await asyncio.gather(*(watcher.wait(job.job_id, interval=INTERVAL) for job in jobs))
        cpu = time.process_time() - cpu
        seconds = [outcome.job.completed_at.timestamp() - began for outcome in outcomes]
    requests = len(world.journal.find_requests(method="GET")) - before
    each = sum(max(1.0, spent / INTERVAL) for spent in seconds)
    return {"jobs": count, "requests": requests, "one_get_each": round(each), "cpu_s": round(cpu, 2)}


def reading(count: int, folder: Path) -> dict[str, float]:
    """CPU seconds and megabytes that planning a feed of so many products takes."""
    path = folder / f"{count}.csv"
    with path.open("w") as file:
        file.write("id,title,description,image_link\n")
        for number in range(count):
            file.write(f"p{number},Cup {number},Holds tea. Dishwasher safe.,https://s.example/{number}.jpg\n")
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    path.unlink()
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--jobs", type=int, default=10_000, help="the most jobs that wait at once")
    parser.add_argument("--products", type=int, default=1_000_000, help="the most products of a feed")
    asked = parser.parse_args()
    most_jobs, most_products = (100, 1_000) if asked.smoke else (asked.jobs, asked.products)
    found = {"waiting": [], "reading": []}
    for count in (each for each in (10, 100, 1_000, 10_000) if each <= most_jobs):
        found["waiting"].append(asyncio.run(waiting(count)))
        print(f"  {found['waiting'][-1]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ugen-bench-") as folder:
        for count in (each for each in (1_000, 10_000, 100_000, 1_000_000) if each <= most_products):
            found["reading"].append(reading(count, Path(folder)))
            print(f"  {found['reading'][-1]}", flush=True)
    print(f"  (this process used {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
