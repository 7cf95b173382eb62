# SPDX-License-Identifier: Apache-2.0
"""How fast the emulator answers, against bare Starlette in the same run, and how that holds with many jobs.

    python benchmarks/bench_emulator.py            # the figures
    python benchmarks/bench_emulator.py --smoke    # a minute's work in seconds, judging nothing

Both servers run in processes of their own; one client, over kept-alive sockets, asks them in turns. Each job has been
polled once before it counts, as by any client that polls: the speed of that first poll has its own line.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time

BARE = """
import socket, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = open(sys.argv[1], "rb").read()
async def job(request):
    request.path_params["job_id"]
    return Response(body, media_type="application/json")
app = Starlette(routes=[Route("/api/v1/jobs/{job_id}", job)])
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
sock.bind(("127.0.0.1", 0))
sock.listen(128)
print(f"listening on http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])
"""
KEY = "ugen_sk_local"


class Server:
    """A process that says on its first line where it listens."""

    def __init__(self, *command):
        begun = time.perf_counter()
        self._process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        words = self._process.stdout.readline().split()
        url = next(word for word in words if word.startswith("http://"))
        self.started_in = time.perf_counter() - begun
        self.port = int(url.rpartition(":")[2])

    def stop(self):
        self._process.terminate()
        self._process.wait(20)


def emulator(*options):
    return Server("-m", "ugen_provider.emulator", "--admin", *options)


async def ask(reader, writer, request):
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    assert head[9] == 0x32, head + body  # a 2xx
    return body


def get(path):
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n".encode()


def post(path, data):
    body = json.dumps(data).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def rate(port, requests, connections=8):
    """Requests a second over some connections."""
    waiting = iter(requests)

    async def work():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            await ask(reader, writer, request)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return len(requests) / (time.perf_counter() - begun)


async def fill(port, count, offset=0):
    """Create jobs; returns how many a second."""
    bodies = [
        {
            "product_name": f"Product {offset + number}",
            "product_image_url": "https://example.com/p.jpg",
            "segment_count": 3,
            "idempotency_key": f"k{offset + number}",
        }
        for number in range(count)
    ]
    return await rate(port, [post("/api/v1/jobs", body) for body in bodies])


async def job_ids(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    journal = json.loads(await ask(reader, writer, get("/_emulator/journal?limit=0")))
    writer.close()
    return [entry["job_id"] for entry in journal["purchases"]]


async def polls(port, ids, count):
    chosen = random.Random(1)
    return await rate(port, [get(f"/api/v1/jobs/{chosen.choice(ids)}") for _ in range(count)])


async def measure(smoke):
    few, many, lots = (50, 200, 500) if smoke else (1_000, 10_000, 100_000)
    count, rounds = (200, 2) if smoke else (3_000, 14)
    figures = {}
    starts = []
    for _ in range(2 if smoke else 5):
        server = emulator()
        starts.append(server.started_in)
        server.stop()
    figures["start, s"] = statistics.median(starts)

    # By hand, so that jobs neither begin nor end in the middle of the measurement; half way, so that they have content.
    small, middle, large = (emulator("--speed", "0", "--credits", "1000000000") for _ in range(3))
    for server, jobs in ((small, few), (middle, many), (large, lots)):
        figures[f"create, with {jobs:,} jobs in the end, 1/s"] = await fill(server.port, jobs)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await ask(reader, writer, post("/_emulator/clock/advance", {"seconds": 60}))
        writer.close()
    ids = {server: await job_ids(server.port) for server in (small, middle, large)}
    for server in (small, middle, large):
        first = await rate(server.port, [get(f"/api/v1/jobs/{job_id}") for job_id in ids[server]])
    figures["first poll of each job, 1/s"] = first
    import tempfile

    with tempfile.NamedTemporaryFile() as sample:
        reader, writer = await asyncio.open_connection("127.0.0.1", middle.port)
        sample.write(await ask(reader, writer, get(f"/api/v1/jobs/{ids[middle][0]}")))
        sample.flush()
        writer.close()
        bare = Server("-c", BARE, sample.name)
        results = {name: [] for name in ("bare", "small", "middle", "large")}
        for turn in range(rounds + 1):
            asked = [
                ("bare", bare, ids[middle]),
                ("small", small, ids[small]),
                ("middle", middle, ids[middle]),
                ("large", large, ids[large]),
            ]
            # There and back, so that none is always the one before or after another.
            for name, server, known in asked if turn % 2 else reversed(asked):
                got = await polls(server.port, known, count)
                if turn:  # the first round warms up
                    results[name].append(got)
        bare.stop()
    page = [get("/api/v1/jobs?status=processing&page_size=100&page=3")] * (20 if smoke else 400)
    figures[f"list page of 100 with {lots:,} jobs, 1/s"] = await rate(large.port, page)
    for server in (small, middle, large):
        server.stop()
    median = {name: statistics.median(values) for name, values in results.items()}
    figures["bare Starlette route, 1/s"] = median["bare"]
    figures[f"GET job with {many:,} jobs, 1/s"] = median["middle"]
    figures["ratio to bare (target 0.60)"] = statistics.median(
        middle / bare for middle, bare in zip(results["middle"], results["bare"], strict=True)
    )
    figures[f"ratio of {lots:,} jobs to {few:,} (target 0.90)"] = statistics.median(
        large / small for large, small in zip(results["large"], results["small"], strict=True)
    )
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small numbers, no judgement")
    smoke = parser.parse_args().smoke
    for name, value in asyncio.run(measure(smoke)).items():
        print(f"{name:55} {value:10,.2f}")


if __name__ == "__main__":
    main()
