# SPDX-License-Identifier: Apache-2.0
"""The Airflow packages: the cost of importing, and thousands of triggers in one loop, beside the real peers.

    python benchmarks/bench_airflow.py                  # the figures, about ten minutes
    python benchmarks/bench_airflow.py --only imports   # one of imports, parsing, thousand, many
    python benchmarks/bench_airflow.py --smoke          # seconds, judging nothing, ours alone

The peers are those of PyPI, in the environment that `make peers` makes; where it is, ours is measured in it too. A peer
that is not there is named, and the others are measured. Their https is turned into http for the stub.

Each figure is a ratio, or a count, within one run on one machine. Every mode runs in a process of its own, against a
stub in another, so that what is measured is the waiting side. Jobs take 60 s and end within 5 s of one another; the
interval is 5 s.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers

OURS = "ugen_provider.operators.jobs, ugen_provider.triggers.jobs"
IMPORTED = {
    "apache-airflow-providers-airbyte": "operators.airbyte triggers.airbyte",
    "apache-airflow-providers-dbt-cloud": "operators.dbt triggers.dbt",
    "apache-airflow-providers-http": "operators.http triggers.http",
    "apache-airflow-providers-databricks": "operators.databricks triggers.databricks",
    "apache-airflow-providers-openai": "operators.openai triggers.openai",
    "apache-airflow-providers-anthropic": "operators.batch triggers.batch",
}
"""Imports of a user from each peer: its operators and its triggers."""
WAITED = {"dbt": "apache-airflow-providers-dbt-cloud", "http": "apache-airflow-providers-http"}
"""Whose triggers wait beside ours."""
INTERVAL, SPREAD, PATIENCE = 5.0, 5.0, 400.0

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
print(listener.getsockname()[1], began, flush=True)
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
    return {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", "NO_PROXY": "127.0.0.1"}


def modules_of(name: str) -> str:
    """Return what is imported of a peer, as an import statement lists it."""
    package = name.removeprefix("apache-").replace("-", ".")
    return ", ".join(f"{package}.{module}" for module in IMPORTED[name].split())


def imports(asked: dict[str, str], *, times: int, python: str) -> dict[str, list[float]]:
    """Medians of fresh processes, in turns: modules, milliseconds, milliseconds of CPU, beyond `airflow.sdk`."""
    rows: dict[str, list[list[float]]] = {name: [] for name in asked}
    for _ in range(times):
        for name, modules in asked.items():
            code = IMPORTS.replace("{modules}", modules)
            done = subprocess.run(
                [python, "-P", "-c", code], env=environment(), capture_output=True, text=True, check=True
            )
            rows[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in rows.items()}


def memory() -> int:
    """Resident bytes of this process."""
    with Path("/proc/self/statm").open() as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def triggers_of(mode: str, port: int, count: int) -> list[Any]:
    if mode == "ugen":
        stored = {"conn_type": "ugen", "password": "k", "extra": {"base_url": f"http://127.0.0.1:{port}/api/v1"}}
        os.environ["AIRFLOW_CONN_UGEN_DEFAULT"] = json.dumps(stored)
        from ugen_provider.triggers.jobs import UGenJobTrigger

        return [
            UGenJobTrigger(job_id=f"job-{i:06d}", ugen_conn_id="ugen_default", poll_interval=INTERVAL)
            for i in range(count)
        ]
    if mode == "http":
        stored = {"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": port}
        os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps(stored)
        from airflow.providers.http.triggers.http import HttpEventTrigger

        return [
            HttpEventTrigger("response_check.is_completed", endpoint=f"api/v1/jobs/job-{i:06d}", poll_interval=INTERVAL)
            for i in range(count)
        ]
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
        DbtCloudRunJobTrigger(conn_id="dbt_cloud_default", run_id=i, end_time=far, poll_interval=INTERVAL, account_id=1)
        for i in range(count)
    ]


async def wait_all(triggers: list[Any], ends: list[float]) -> dict[str, float]:
    """Run all triggers to their events: CPU, memory, how late the loop was meanwhile, and each end noticed."""
    late: list[float] = []
    noticed: list[float] = []

    async def watchdog() -> None:
        while True:
            due = time.perf_counter() + 0.05
            await asyncio.sleep(0.05)
            late.append(max(0.0, time.perf_counter() - due))

    async def one(number: int) -> None:
        async for event in triggers[number].run():
            assert event.payload["status"] in {"ended", "success"}, event.payload
            noticed.append(time.time() - ends[number])
            return

    # One first: imports and connections are not what is counted per trigger.
    warm = asyncio.create_task(one(0))
    await asyncio.sleep(2.0)
    gc.collect()
    began, resident = time.process_time(), memory()
    watching = asyncio.create_task(watchdog())
    tasks = [warm, *(asyncio.create_task(one(number)) for number in range(1, len(triggers)))]
    await asyncio.sleep(20.0)
    used = memory() - resident
    over, _ = await asyncio.wait(tasks, timeout=PATIENCE)
    cpu = time.process_time() - began
    watching.cancel()
    for task in over:
        task.result()
    late.sort()
    noticed.sort()
    return {
        "cpu_s": round(cpu, 2),
        "kb_per_trigger": round(used / 1024 / max(1, len(triggers) - 1), 2),
        "lag_p99_ms": round(1000 * late[int(0.99 * (len(late) - 1))], 1),
        "noticed_p99_s": round(noticed[int(0.99 * (len(noticed) - 1))], 1),
        "reported": len(noticed),
    }


def ends_of(count: int, began: float, lasts: float) -> list[float]:
    """When the stub ends each job."""
    return [began + lasts + SPREAD * ((number * 7919) % count) / count for number in range(count)]


def measure(mode: str, *, count: int, lasts: float, python: str) -> dict[str, float]:
    """One mode in a process of its own, against a stub of its own."""
    stub = subprocess.Popen(
        [sys.executable, "-c", STUB, str(count), str(lasts), str(SPREAD)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert stub.stdout is not None
        port, began = stub.stdout.readline().split()
        asked = ["--mode", mode, "--port", port, "--began", began, "--count", str(count), "--lasts", str(lasts)]
        done = subprocess.run(
            [python, __file__, *asked], env=environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
        found = json.loads(done.stdout.strip().splitlines()[-1])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/requests") as answered:
            found["requests"] = json.load(answered)["requests"]
        return dict(found)
    finally:
        stub.terminate()
        stub.wait()


class Judge:
    """Says each figure with its limit, and remembers those that missed it."""

    def __init__(self, *, smoke: bool) -> None:
        self.smoke = smoke
        self.missed: list[str] = []

    def check(self, name: str, value: float, limit: float) -> None:
        good = value <= limit
        if not good and not self.smoke:
            self.missed.append(name)
        print(f"  {'ok ' if good or self.smoke else 'NO '} {name}: {value:g} (at most {limit:g})", flush=True)


def importing(judge: Judge, there: dict[str, str]) -> dict[str, object]:
    asked = {peers.ITSELF: OURS, **{name: modules_of(name) for name in IMPORTED if name in there}}
    cost = imports(asked, times=1 if judge.smoke else 7, python=peers.python(alone=judge.smoke))
    modules, _, cpu = cost[peers.ITSELF]
    judge.check("modules", modules, 30)
    judge.check("milliseconds", round(cpu, 1), 30)
    lightest_first = sorted(cost, key=lambda name: cost[name][2])
    rows = [[name, there[name], f"{cost[name][0]:,.0f}", f"{cost[name][2]:,.1f}"] for name in lightest_first]
    columns = ["imports beyond `airflow.sdk`", "version", "modules", "CPU, ms"]
    return peers.side_by_side("Importing operators and triggers, medians of 7 processes", columns, rows)


COLUMNS = ["", "requests", "CPU, s", "KB a trigger", "loop lag p99, ms", "end noticed p99, s", "reported"]


PARSING = """
import gc, json, sys, time
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization
from ugen_provider.operators.jobs import UGenCreateJobOperator
LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 1}
class FourArguments(BaseOperator):
    template_fields = ("conn_id", *LAMP)
    def __init__(self, *, conn_id="ugen_default", product_name, product_image_url, segment_count, **kwargs):
        super().__init__(**kwargs)
        self.conn_id, self.product_name = conn_id, product_name
        self.product_image_url, self.segment_count = product_image_url, segment_count
def measure(make, count):
    gc.collect()
    began = time.process_time()
    with DAG("parsed") as dag:
        for number in range(count):
            make(f"t{number}")
    built = time.process_time()
    DagSerialization.to_dict(dag)
    return built - began, time.process_time() - built
makers = {"EmptyOperator": lambda name: EmptyOperator(task_id=name),
          "an operator with four templated arguments and no code": lambda name: FourArguments(task_id=name, **LAMP),
          "UGenCreateJobOperator": lambda name: UGenCreateJobOperator(task_id=name, **LAMP)}
count, times = int(sys.argv[1]), int(sys.argv[2])
for make in makers.values():
    measure(make, 10)
found = {name: [] for name in makers}
for _ in range(times):
    for name, make in makers.items():
        found[name].append(measure(make, count))
print(json.dumps({name: [min(each[part] for each in kept) for part in (0, 1)] for name, kept in found.items()}))
"""
"""In turns, and the fastest of each: what else the machine does only adds time."""


def parsing(judge: Judge, *, count: int, times: int, python: str) -> dict[str, object]:
    """Measure how long a DAG of many operators takes to build and to serialize, beside the least that Airflow needs.

    Airflow reads its configuration once for each templated argument that is set, so no operator that is given four
    comes near `EmptyOperator`, which takes none.
    """
    done = subprocess.run(
        [python, "-c", PARSING, str(count), str(times)], capture_output=True, text=True, check=True, env=environment()
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [[name, *(round(1e6 * seconds / count) for seconds in kept)] for name, kept in found.items()]
    empty, least, ours = (sum(kept) for kept in found.values())
    judge.check("parse time against EmptyOperator's", round(ours / empty, 2), 2.3)
    judge.check("parse time against an operator's with four templated arguments", round(ours / least, 2), 1.35)
    return peers.side_by_side(f"A DAG of {count:,} operators", ["", "µs to build each", "µs to serialize each"], rows)


def waiting(
    modes: Sequence[str], names: dict[str, str], *, count: int, lasts: float, python: str
) -> tuple[dict[str, dict[str, float]], dict[str, object]]:
    """So many triggers of each in one loop. A peer whose triggers break is said to have broken."""
    found: dict[str, dict[str, float]] = {}
    for mode in modes:
        try:
            found[mode] = measure(mode, count=count, lasts=lasts, python=python)
        except RuntimeError as error:
            if mode == "ugen":
                raise
            print(f"{names[mode]}: its triggers broke: {str(error).strip()[-300:]}", flush=True)
    rows = [
        [names[mode]]
        + [
            f"{each[what]:,}"
            for what in ("requests", "cpu_s", "kb_per_trigger", "lag_p99_ms", "noticed_p99_s", "reported")
        ]
        for mode, each in found.items()
    ]
    return found, peers.side_by_side(f"{count:,} triggers in one loop", [f"{count:,} triggers of", *COLUMNS[1:]], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", choices=("imports", "parsing", "thousand", "many"), action="append")
    for hidden, kind in (("mode", str), ("port", int), ("began", float), ("lasts", float), ("count", int)):
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mode:
        ends = ends_of(given.count, given.began, given.lasts)
        print(json.dumps(asyncio.run(wait_all(triggers_of(given.mode, given.port, given.count), ends))))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-airflow-") as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        return run(given)


def run(given: argparse.Namespace) -> int:
    judge = Judge(smoke=given.smoke)
    there = peers.versions([] if given.smoke else list(IMPORTED))
    names = {"ugen": f"ugen-provider {there[peers.ITSELF]}: `UGenJobTrigger`"}
    names |= {"dbt": "dbt-cloud: `DbtCloudRunJobTrigger`", "http": "http: `HttpEventTrigger`"}
    modes = ["ugen", *(mode for mode, name in WAITED.items() if name in there)]
    parts = given.only or (
        ("imports", "parsing", "thousand") if given.smoke else ("imports", "parsing", "thousand", "many")
    )
    tables = []
    python = peers.python(alone=given.smoke)
    few, lasts = (50, 22.0) if given.smoke else (1000, 60.0)
    if "imports" in parts:
        tables.append(importing(judge, there))
    if "parsing" in parts:
        tables.append(parsing(judge, count=few, times=1 if given.smoke else 5, python=python))
    if "thousand" in parts:
        found, table = waiting(modes, names, count=few, lasts=lasts, python=python)
        tables.append(table)
        ours = found["ugen"]
        judge.check("KB a trigger", ours["kb_per_trigger"], 10)
        judge.check("99th percentile of loop lag, ms", ours["lag_p99_ms"], 10)
        if "dbt" in found:
            for what, name, limit in (("requests", "requests", 2), ("cpu_s", "CPU", 8)):
                judge.check(f"share of dbt-cloud's {name}, %", round(100 * ours[what] / found["dbt"][what], 2), limit)
    if "many" in parts:
        found, table = waiting(modes, names, count=10 * few, lasts=lasts, python=python)
        tables.append(table)
        if "thousand" in parts:
            for what, name in (("requests", "requests"), ("cpu_s", "CPU")):
                mine = found["ugen"][what] / 10 / few
                judge.check(f"{name} per trigger against 1,000's", mine, 1.05 * ours[what] / few)
    print(json.dumps({"tables": tables}))
    if judge.missed:
        print("missed: " + "; ".join(judge.missed), file=sys.stderr)
    return int(bool(judge.missed))


if __name__ == "__main__":
    sys.exit(main())
