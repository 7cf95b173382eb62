# SPDX-License-Identifier: Apache-2.0
"""The client core: imports, one call against bare httpx, and thousands of waiters on one watcher.

    python benchmarks/bench_core.py            # the figures, about four minutes
    python benchmarks/bench_core.py --smoke    # seconds, judging nothing

Each figure is a ratio, or a count, within one run. The service is a stub in a process of its own, so that what is
measured is the client.
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc

import httpx

from ugen_provider import AsyncUGenClient, UGenClient
from ugen_provider.core.jobs.watcher import JobWatcher

STUB = """
import json, socket, sys, time, uvicorn
from urllib.parse import parse_qs
count, lasts, spread = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
began = time.time()
ends = {f"job-{i:06d}": began + lasts + spread * ((i * 7919) % count) / count for i in range(count)}
requests = 0
def job(job_id, now):
    done = now >= ends[job_id]
    return {"job_id": job_id, "status": "completed" if done else "processing", "current_stage": "complete" if done
            else "generation", "progress_percent": 100 if done else 40, "product_name": "Lamp",
            "final_video_url": "https://storage.example/" + job_id if done else None, "credits_reserved": 86,
            "created_at": "2026-04-09T14:30:00Z", "updated_at": "2026-04-09T14:30:00Z", "segments": [
            {"index": i, "status": "processing", "qai_score": 0.8, "duration": 8} for i in range(3)]}
def answer(path, query):
    now = time.time()
    if path == "/requests":
        return {"requests": requests}
    if path == "/jobs":
        asked = parse_qs(query)
        status, page = asked.get("status", [""])[0], int(asked.get("page", ["1"])[0])
        ids = [j for j, end in ends.items() if status == ("completed" if now >= end else "processing")]
        items = [job(j, now) for j in ids[100 * (page - 1) : 100 * page]]
        return {"items": items, "total": len(ids), "page": page, "page_size": 100, "total_pages": -(-len(ids) // 100)}
    return job(path.rpartition("/")[2], now)
async def app(scope, receive, send):
    global requests
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    requests += scope["path"] != "/requests"
    body = json.dumps(answer(scope["path"], scope["query_string"].decode())).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"),
               (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
sock = socket.socket(); sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
sock.bind(("127.0.0.1", 0)); sock.listen(256)
print(sock.getsockname()[1], began, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[sock])
"""


class Stub:
    """A service with so many jobs, all ending after `lasts` seconds within `spread`."""

    def __init__(self, count, lasts, spread):
        command = [sys.executable, "-c", STUB, str(count), str(lasts), str(spread)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        port, began = self._process.stdout.readline().split()
        self.url, self.began, self.lasts, self.spread, self.count = (
            f"http://127.0.0.1:{port}", float(began), lasts, spread, count,
        )  # fmt: skip
        for _ in range(100):
            try:
                httpx.get(f"{self.url}/requests")
                break
            except httpx.HTTPError:
                time.sleep(0.05)

    def end_of(self, number):
        return self.began + self.lasts + self.spread * ((number * 7919) % self.count) / self.count

    @property
    def requests(self):
        return httpx.get(f"{self.url}/requests").json()["requests"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)


ROWS = []


def row(name, value, target, *, unit="", good=None):
    met = "" if good is None else ("met" if good else "MISSED")
    ROWS.append((name, value, target, met))
    print(f"  {name:58} {value:>10}{unit:3} target {target:14} {met}", flush=True)


def imports(runs):
    codes = {
        "bare": "",
        "package": "import ugen_provider",
        "peers": "import httpx, pydantic; httpx.Client()",
        "client": "from ugen_provider import UGenClient; UGenClient(api_key='k')",
    }
    times = {name: [] for name in codes}
    for _ in range(runs):
        for name, code in codes.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - begun)
    median = {name: statistics.median(all_) for name, all_ in times.items()}
    added = (median["package"] - median["bare"]) * 1000
    row("import ugen_provider over bare Python", f"{added:.1f}", "<= 25 ms", unit="ms", good=added <= 25)
    ratio = (median["client"] - median["bare"]) / (median["peers"] - median["bare"])
    row("first client / (httpx + pydantic + bare httpx.Client())", f"{ratio:.2f}", "<= 1.3", good=ratio <= 1.3)


def calls(count):
    with Stub(1, 3600, 1) as stub:
        url = f"{stub.url}/jobs/job-000000"

        def bare_sync(client):
            json.loads(client.get(url, headers={"X-API-Key": "k"}).content)

        async def bare_async(client):
            json.loads((await client.get(url, headers={"X-API-Key": "k"})).content)

        with httpx.Client() as bare, UGenClient(api_key="k", base_url=stub.url) as ours:
            ratio = paired(lambda: bare_sync(bare), lambda: ours.jobs.get("job-000000"), count)
        row("sync jobs.get / bare httpx GET and json.loads", f"{ratio:.2f}", "<= 1.25", good=ratio <= 1.25)

        async def run():
            async with httpx.AsyncClient() as bare, AsyncUGenClient(api_key="k", base_url=stub.url) as ours:
                a, b = [], []
                for _ in range(count):
                    begun = time.perf_counter()
                    await bare_async(bare)
                    middle = time.perf_counter()
                    await ours.jobs.get("job-000000")
                    a.append(middle - begun)
                    b.append(time.perf_counter() - middle)
                return statistics.median(b) / statistics.median(a)

        ratio = asyncio.run(run())
        row("async jobs.get / bare httpx GET and json.loads", f"{ratio:.2f}", "<= 1.25", good=ratio <= 1.25)


def paired(first, second, count):
    a, b = [], []
    for _ in range(count):
        begun = time.perf_counter()
        first()
        middle = time.perf_counter()
        second()
        a.append(middle - begun)
        b.append(time.perf_counter() - middle)
    return statistics.median(b) / statistics.median(a)


def watch(count, lasts, spread, most_requests, interval=5.0):
    with Stub(count, lasts, spread) as stub:

        async def run():
            lags = []

            async def watchdog():
                while True:
                    begun = time.perf_counter()
                    await asyncio.sleep(0.05)
                    lags.append((time.perf_counter() - begun - 0.05) * 1000)

            async with AsyncUGenClient(api_key="k", base_url=stub.url) as client:
                watcher = JobWatcher(client)
                noticed = {}

                async def one(number):
                    outcome = await watcher.wait(f"job-{number:06d}", interval=interval)
                    noticed[number] = time.time()
                    assert outcome.job.status == "completed"

                waits = []
                for begin in range(0, count, 200):
                    waits += [asyncio.create_task(one(n)) for n in range(begin, min(begin + 200, count))]
                    await asyncio.sleep(0.01)
                guard = asyncio.create_task(watchdog())
                before = stub.requests
                cpu = time.process_time()
                await asyncio.gather(*waits)
                cpu = time.process_time() - cpu
                guard.cancel()
                late = sorted(noticed[n] - stub.end_of(n) for n in range(count))
                return stub.requests - before, cpu, sorted(lags), late

        requests, cpu, lags, late = asyncio.run(run())
    label = f"{count:,} waiters, jobs of {lasts:g} s, every {interval:g} s"
    row(f"{label}: requests", f"{requests:,}", f"<= {most_requests:,}", good=requests <= most_requests)
    row(f"{label}: loop lag p99", f"{at(lags, 0.99):.1f}", "<= 10 ms", unit="ms", good=at(lags, 0.99) <= 10)
    row(
        f"{label}: noticed p99",
        f"{at(late, 0.99):.1f}",
        f"<= {interval + 1:g} s",
        unit="s",
        good=at(late, 0.99) <= interval + 1,
    )
    row(f"{label}: CPU", f"{cpu:.2f}", "-", unit="s")


def at(values, share):
    return values[min(len(values) - 1, int(len(values) * share))]


def memory(count):
    async def run():
        async with AsyncUGenClient(api_key="k", base_url="http://127.0.0.1:9") as client:
            watcher = JobWatcher(client)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            waits = [asyncio.create_task(watcher.wait(f"job-{n:06d}")) for n in range(count)]
            await asyncio.sleep(0)
            used = (tracemalloc.get_traced_memory()[0] - before) / count / 1024
            tracemalloc.stop()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            return used

    used = asyncio.run(run())
    row("memory of a waiter, its task included", f"{used:.1f}", "<= 6 KB", unit="KB", good=used <= 6)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="show that it works, in seconds")
    smoke = parser.parse_args().smoke
    imports(2 if smoke else 21)
    calls(20 if smoke else 2000)
    memory(200 if smoke else 5000)
    if smoke:
        watch(50, 1, 1, 60, interval=1.0)
    else:
        watch(1_000, 60, 5, 240)
        watch(10_000, 60, 5, 3_000)


if __name__ == "__main__":
    main()
