# SPDX-License-Identifier: Apache-2.0
"""The Airflow rooms: what importing costs, and a thousand triggers in one loop beside a thousand of dbt-cloud's.

    python benchmarks/bench_airflow.py            # the figures, about four minutes
    python benchmarks/bench_airflow.py --smoke    # seconds, judging nothing

dbt-cloud's trigger is the official one, with its https turned into http for the stub. It is kept apart:

    uv pip install --no-deps --target .venv/bench -r requirements/bench.txt

Each figure is a ratio, or a count, within one run on one machine. Every mode runs in a process of its own, against a
stub in another, so that what is measured is the waiting side. Jobs take 60 s and end within 5 s of one another; the
interval is 5 s. Without dbt-cloud's provider only our side is measured.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

BENCH = Path(__file__).parents[1] / ".venv" / "bench"

STUB = """
import json, socket, sys, time, uvicorn
from urllib.parse import parse_qs
count, lasts, spread = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
began = time.time()
ends = [began + lasts + spread * ((i * 7919) % count) / count for i in range(count)]
requests = 0
def number(path):
    return int("".join(c for c in path.rstrip("/").rpartition("/")[2] if c.isdigit()))
def job(i, now):
    done = now >= ends[i]
    return {"job_id": f"job-{i:06d}", "status": "completed" if done else "processing",
            "current_stage": "complete" if done else "generation", "progress_percent": 100 if done else 40,
            "final_video_url": "https://storage.example/x" if done else None,
            "created_at": "2026-04-09T14:30:00Z", "updated_at": "2026-04-09T14:30:00Z"}
def answer(path, query):
    now = time.time()
    if path == "/requests":
        return {"requests": requests}
    if path.startswith("/api/v2/accounts"):
        i = number(path)
        return {"data": {"id": i, "status": 10 if now >= ends[i] else 3}, "status": {"code": 200}}
    if path.endswith("/jobs"):
        asked = parse_qs(query)
        status, page = asked.get("status", [""])[0], int(asked.get("page", ["1"])[0])
        ids = [i for i, end in enumerate(ends) if status == ("completed" if now >= end else "processing")]
        items = [job(i, now) for i in ids[100 * (page - 1) : 100 * page]]
        return {"items": items, "total": len(ids), "page": page, "page_size": 100, "total_pages": -(-len(ids) // 100)}
    return job(number(path), now)
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
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=120)).run(sockets=[listener])
"""

IMPORTS = """
import json, sys, time, resource
import airflow.sdk, airflow.triggers.base
from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
before, began, cpu = len(sys.modules), time.perf_counter(), time.process_time()
import {modules}
print(json.dumps([len(sys.modules) - before, 1000 * (time.perf_counter() - began),
                  1000 * (time.process_time() - cpu)]))
"""


def environment() -> dict[str, str]:
    home = os.environ.get("AIRFLOW_HOME") or tempfile.mkdtemp(prefix="bench-airflow-")
    return {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", "NO_PROXY": "127.0.0.1"}


def imports(modules: str, *, times: int) -> dict[str, float]:
    """Median of fresh processes: modules, milliseconds, milliseconds of CPU, beyond `airflow.sdk`."""
    code = IMPORTS.replace("{modules}", modules)
    rows = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    return {"modules": middle[0], "ms": round(middle[1], 1), "cpu_ms": round(middle[2], 1)}


def memory() -> int:
    """Resident bytes of this process."""
    with Path("/proc/self/statm").open() as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def triggers_of(mode: str, port: int, count: int) -> list[object]:
    if mode == "ugen":
        stored = {"conn_type": "ugen", "password": "k", "extra": {"base_url": f"http://127.0.0.1:{port}/api/v1"}}
        os.environ["AIRFLOW_CONN_UGEN_DEFAULT"] = json.dumps(stored)
        from ugen_provider.triggers.jobs import UGenJobTrigger

        return [
            UGenJobTrigger(job_id=f"job-{i:06d}", ugen_conn_id="ugen_default", poll_interval=5) for i in range(count)
        ]
    sys.path.insert(0, str(BENCH))
    import airflow.providers

    airflow.providers.__path__.append(str(BENCH / "airflow" / "providers"))
    stored = {"conn_type": "dbt_cloud", "login": "1", "password": "k", "host": f"127.0.0.1:{port}"}
    os.environ["AIRFLOW_CONN_DBT_CLOUD_DEFAULT"] = json.dumps(stored)
    from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    plain = DbtCloudHook.get_request_url_params

    def over_http(*args: object, **more: object) -> object:
        url, data = plain(*args, **more)
        return url.replace("https://", "http://", 1), data

    DbtCloudHook.get_request_url_params = staticmethod(over_http)
    far = time.time() + 7 * 86400
    return [
        DbtCloudRunJobTrigger(conn_id="dbt_cloud_default", run_id=i, end_time=far, poll_interval=5, account_id=1)
        for i in range(count)
    ]


async def wait_all(triggers: list[object]) -> dict[str, float]:
    """Run all triggers to their events: CPU, memory, and how late the loop was meanwhile."""
    late: list[float] = []

    async def watchdog() -> None:
        while True:
            due = time.perf_counter() + 0.05
            await asyncio.sleep(0.05)
            late.append(max(0.0, time.perf_counter() - due))

    async def one(trigger: object) -> None:
        async for _ in trigger.run():
            return

    # One first: imports and connections are not what is counted per trigger.
    warm = asyncio.create_task(one(triggers[0]))
    await asyncio.sleep(2.0)
    gc.collect()
    began, resident = time.process_time(), memory()
    watching = asyncio.create_task(watchdog())
    tasks = [asyncio.create_task(one(trigger)) for trigger in triggers[1:]]
    await asyncio.sleep(20.0)
    used = memory() - resident
    await asyncio.gather(warm, *tasks)
    cpu = time.process_time() - began
    watching.cancel()
    late.sort()
    return {
        "cpu_s": round(cpu, 2),
        "kb_per_trigger": round(used / 1024 / max(1, len(triggers) - 1), 2),
        "lag_p99_ms": round(1000 * late[int(0.99 * (len(late) - 1))], 1),
    }


def measure(mode: str, *, count: int, lasts: float) -> dict[str, float]:
    """One mode in a process of its own, against a stub of its own."""
    stub = subprocess.Popen(
        [sys.executable, "-c", STUB, str(count), str(lasts), "5"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert stub.stdout is not None
        port = int(stub.stdout.readline())
        done = subprocess.run(
            [sys.executable, "-P", __file__, "--mode", mode, "--port", str(port), "--count", str(count)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
        found = json.loads(done.stdout.strip().splitlines()[-1])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/requests") as told:
            found["requests"] = json.load(told)["requests"]
        return dict(found)
    finally:
        stub.terminate()
        stub.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--mode")
    parser.add_argument("--port", type=int)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    if given.mode:
        print(json.dumps(asyncio.run(wait_all(triggers_of(given.mode, given.port, given.count)))))
        return 0

    smoke = given.smoke
    found: dict[str, object] = {}
    failed = []

    def check(name: str, value: float, limit: float) -> None:
        good = value <= limit
        print(f"  {'ok ' if good else 'NO '} {name}: {value:g} (at most {limit:g})")
        if not good:
            failed.append(name)

    cost = imports("ugen_provider.operators.jobs, ugen_provider.triggers.jobs", times=1 if smoke else 7)
    found["imports"] = cost
    print(f"imports beyond airflow.sdk: {cost}")
    check("modules", cost["modules"], 30)
    if not smoke:
        check("milliseconds", cost["cpu_ms"], 30)
    count, lasts = (50, 22.0) if smoke else (1000, 60.0)
    ours = measure("ugen", count=count, lasts=lasts)
    found["ugen"] = ours
    print(f"ugen, {count} triggers: {ours}")
    if not smoke:
        check("KB a trigger", ours["kb_per_trigger"], 10)
        check("99th percentile of loop lag, ms", ours["lag_p99_ms"], 10)
    if (BENCH / "airflow" / "providers" / "dbt").exists():
        theirs = measure("dbt", count=count, lasts=lasts)
        found["dbt"] = theirs
        print(f"dbt-cloud, {count} triggers: {theirs}")
        if not smoke:
            check("share of its requests, %", round(100 * ours["requests"] / theirs["requests"], 2), 2)
            check("share of its CPU, %", round(100 * ours["cpu_s"] / theirs["cpu_s"], 2), 8)
    else:
        print("dbt-cloud's provider is not there: see the top of this file")
    if not smoke:
        many = measure("ugen", count=10_000, lasts=lasts)
        found["ugen_10000"] = many
        print(f"ugen, 10000 triggers: {many}")
        check("requests per trigger against 1,000's", many["requests"] / 10_000, 1.05 * ours["requests"] / count)
        check("CPU per trigger against 1,000's", many["cpu_s"] / 10_000, 1.05 * ours["cpu_s"] / count)
    print(json.dumps(found))
    return 0 if smoke or not failed else 1


if __name__ == "__main__":
    sys.exit(main())
