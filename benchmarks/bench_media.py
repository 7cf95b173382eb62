# SPDX-License-Identifier: Apache-2.0
"""Downloads: many files from loopback against `curl --parallel`, and the memory that a large one needs.

python benchmarks/bench_media.py            # the figures, about a minute
python benchmarks/bench_media.py --smoke    # seconds, judging nothing
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

PARALLEL = 8
SERVER = """
import asyncio, sys
size = int(sys.argv[1])
ftyp = (24).to_bytes(4, "big") + b"ftypisom" + bytes(12)
moov = (8).to_bytes(4, "big") + b"moov"
body = ftyp + moov + (size - 32).to_bytes(4, "big") + b"mdat" + bytes(size - 40)
lines = ["HTTP/1.1 200 OK", "Content-Type: video/mp4", f"Content-Length: {size}", "ETag: \\"v1\\"", "", ""]
head = "\\r\\n".join(lines).encode()
async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            writer.write(head)
            for begin in range(0, size, 1 << 18):
                writer.write(body[begin:begin + (1 << 18)])
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
OURS = """
import json, resource, sys, time
from ugen_provider.core.api.models import Job
from ugen_provider.core.media.outputs import download_outputs
from ugen_provider.core.media import stores
from ugen_provider.core.media.http import MediaClient
import httpx, av, PIL.Image
url, folder, jobs, files, parallel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
client = MediaClient()
Job.model_validate({"job_id": "x"})
before, began = peak(), time.perf_counter()
for number in range(jobs):
    segments = [{"index": n, "video_url": f"{url}/{number}/{n}"} for n in range(files)]
    job = Job.model_validate({"job_id": f"job-{number}", "status": "completed", "segments": segments})
    download_outputs(job, folder, client=client, parallel=parallel, allow_private=True)
print(json.dumps({"took": time.perf_counter() - began, "memory": peak() - before}))
"""


class Server:
    """Serves one file of a given size under every path."""

    def __init__(self, size: int) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", SERVER, str(size)], stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()


def ours(url: str, folder: Path, jobs: int, files: int) -> dict:
    command = [sys.executable, "-c", OURS, url, str(folder), str(jobs), str(files), str(PARALLEL)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(folder)
    return json.loads(run.stdout)


def curl(url: str, folder: Path, jobs: int, files: int) -> float:
    folder.mkdir()
    config = folder / "config"
    urls = (f'url = "{url}/{n}/{i}"\noutput = "{folder}/{n}-{i}.mp4"\n' for n in range(jobs) for i in range(files))
    config.write_text("".join(urls))
    began = time.perf_counter()
    command = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(PARALLEL), "--config", str(config)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    took = time.perf_counter() - began
    shutil.rmtree(folder)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only show that it works")
    smoke = parser.parse_args().smoke
    jobs, files, size, large = (1, 4, 100_000, 1_000_000) if smoke else (10, 20, 5_000_000, 1_000_000_000)
    folder = Path(tempfile.mkdtemp(prefix="ugen-bench-"))
    missed = False

    def report(name: str, value: str, target: str, good: bool) -> None:
        nonlocal missed
        missed = missed or not (good or smoke)
        print(f"  {name:<58} {value:>14}   target {target}{'' if good or smoke else '  MISSED'}", flush=True)

    try:
        with Server(size) as server:
            shares = []
            for _ in range(1 if smoke else 5):
                theirs = curl(server.url, folder / "curl", jobs, files)
                mine = ours(server.url, folder / "ours", jobs, files)
                shares.append(theirs / mine["took"])
            share = sorted(shares)[len(shares) // 2]
            name = f"{jobs * files} files of {size / 1e6:g} MB, checked and described"
            report(name, f"{share:.2f}", f">= 0.8 x curl --parallel ({theirs:.1f} s)", share >= 0.8)
            report("its memory above the import", f"{mine['memory']:.0f} MB", "<= 60 MB", mine["memory"] <= 60)
        with Server(large) as server:
            found = ours(server.url, folder / "large", 1, 1)
            name = f"memory for one file of {large / 1e6:g} MB"
            report(name, f"{found['memory']:.0f} MB", "<= 60 MB", found["memory"] <= 60)
    finally:
        shutil.rmtree(folder)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
