# SPDX-License-Identifier: Apache-2.0
"""More than one machine: CeleryExecutor on PostgreSQL and Redis, two triggerers, twenty mapped jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from ugen_provider.cli.demo.airflow import RealAirflow
from ugen_provider.cli.demo.processes import free_ports, python_module, wait_until
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY

pytestmark = [pytest.mark.real, pytest.mark.torture]

ROOT = Path(__file__).parents[3]
POSTGRES = os.environ.get("UGEN_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("UGEN_TEST_REDIS", "redis://127.0.0.1:6379/13")
PATIENCE = 240.0
BESIDE = ("apache-airflow-providers-celery", "celery[redis]<5.7", "asyncpg")
"""Celery 5.7 lacks a name that version 3.26 of the provider imports; asyncpg is for Airflow's asynchronous sessions."""


@pytest.fixture(scope="module")
def celery() -> Path:
    """A folder with Celery and what it needs beside the environment of these tests, which keeps its locked versions."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not installed")
    install = [str(uv), "pip", "install", "--python", sys.executable]
    planned = subprocess.run([*install, "--dry-run", *BESIDE], capture_output=True, text=True, check=False, cwd=ROOT)
    wanted = re.findall(r"^ \+ (\S+==\S+)", planned.stderr, re.MULTILINE)
    if planned.returncode:
        pytest.skip(f"Celery cannot be resolved here: {planned.stderr.strip()[-300:]}")
    if re.search(r"^ - ", planned.stderr, re.MULTILINE):
        pytest.skip("Celery needs other versions than the locked ones")
    folder = ROOT / ".matrix" / f"celery-{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(wanted)).hex[:12]}"
    if wanted and not folder.exists():
        beside = folder.with_name(f"{folder.name}.{os.getpid()}")
        made = subprocess.run(
            [*install, "--quiet", "--no-deps", "--target", str(beside), *wanted],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if made.returncode:
            shutil.rmtree(beside, ignore_errors=True)
            pytest.skip(f"Celery cannot be installed here: {made.stderr.strip()[-300:]}")
        beside.rename(folder)
    return folder


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL database of its own."""
    psycopg2 = pytest.importorskip("psycopg2")
    parts = urlsplit(POSTGRES)
    where = {"host": parts.hostname, "port": parts.port or 5432, "user": parts.username, "password": parts.password}
    try:
        server = psycopg2.connect(**where, dbname=parts.path.lstrip("/") or "postgres", connect_timeout=3)
    except psycopg2.OperationalError as error:
        pytest.skip(f"PostgreSQL does not answer: {str(error).strip()[:200]}")
    server.autocommit = True
    name = f"ugen_airflow_{uuid.uuid4().hex[:12]}"
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(parts._replace(scheme="postgresql+psycopg2", path=f"/{name}"))
    finally:
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        server.close()


def _redis(*words: str) -> str:
    """One command to Redis, in its own protocol: its client is in Celery's folder alone."""
    parts = urlsplit(REDIS)

    def said(*command: str) -> bytes:
        return b"".join(
            [f"*{len(command)}\r\n".encode(), *(f"${len(word)}\r\n{word}\r\n".encode() for word in command)]
        )

    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=3) as redis:
        redis.sendall(said("SELECT", parts.path.lstrip("/") or "0") + said(*words))
        answer = b""
        while answer.count(b"\r\n") < 2:
            answer += redis.recv(4096)
    return answer.decode().split("\r\n")[1]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """A database of Redis for this test alone; emptied afterwards."""
    try:
        used = _redis("DBSIZE")
    except OSError as error:
        pytest.skip(f"Redis does not answer: {error}")
    if used != ":0":
        pytest.skip(f"{REDIS} is in use ({used}); name another database by UGEN_TEST_REDIS")
    yield REDIS
    _redis("FLUSHDB")


@pytest.fixture(scope="module")
def airflow(
    ugen: EmulatorServer, celery: Path, database: str, broker: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    home, dags = tmp_path_factory.mktemp("celery-airflow"), tmp_path_factory.mktemp("celery-dags")
    shutil.copy(Path(__file__).parent / "dags" / "dying.py", dags)
    made = RealAirflow(
        home,
        dags=dags,
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, (str(celery), os.environ.get("PYTHONPATH")))),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "3",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__TRIGGERER__CAPACITY": "10",  # so that one triggerer cannot take all
        },
        parallelism=8,
    )
    with made:
        ports = free_ports(1)
        second = made.env | {"AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports[0])}
        made.processes.start(
            "airflow triggerer 2",
            python_module("airflow", "triggerer"),
            env=second,
            log=made.logs / "triggerer-2.log",
            cwd=home,
        )
        made.processes.start(
            "airflow worker",
            python_module("airflow", "celery", "worker", "--celery-hostname", "ugen@%h"),
            env=made.env,
            log=made.logs / "worker.log",
            cwd=home,
        )
        made.api.set_connection("ugen_default", conn_type="ugen", password=LOCAL_KEY, extra={"base_url": ugen.base_url})
        yield made


def triggerers(database: str) -> set[int]:
    """The triggerers that hold triggers now."""
    import psycopg2

    with psycopg2.connect(database.replace("+psycopg2", "")) as asked, asked.cursor() as cursor:
        cursor.execute("SELECT DISTINCT triggerer_id FROM trigger WHERE triggerer_id IS NOT NULL")
        return {row[0] for row in cursor.fetchall()}


def test_a_killed_triggerer_of_two_costs_no_second_purchase(
    airflow: RealAirflow, ugen: EmulatorServer, database: str
) -> None:
    before = bought(ugen)
    airflow.wait_for_dag("twenty_jobs", timeout=PATIENCE)
    airflow.api.trigger("twenty_jobs", run_id="celery")

    def states() -> Counter[str]:
        try:
            tasks = airflow.api.task_instances("twenty_jobs", run_id="celery")
        except httpx.TransportError:  # the one API server of so many processes may be busy for long
            return Counter()
        return Counter(str(task["state"]) for task in tasks if task["map_index"] >= 0)

    def waits(condition: Any, what: str) -> None:
        wait_until(condition, what=what, timeout=PATIENCE, interval=0.5)

    waits(lambda: states()["deferred"] == 20, "20 tasks being deferred")
    waits(lambda: len(triggerers(database)) == 2, "both triggerers having triggers")
    lost = next(each for each in airflow.processes.running if each.name == "airflow triggerer")
    airflow.processes.running.remove(lost)
    lost.signal_group(signal.SIGKILL)
    lost.popen.wait(30)

    def over() -> bool:
        ugen.emulator.advance(20.0)
        try:
            return airflow.api.run_state("twenty_jobs", run_id="celery") in {"success", "failed"}
        except httpx.TransportError:
            return False

    waits(over, "the run being over")
    assert states() == {"success": 20}
    assert bought(ugen) - before == Counter({f"Product {number}": 1 for number in range(20)})
    ran = {task["executor"] for task in airflow.api.task_instances("twenty_jobs", run_id="celery")}
    assert ran <= {None, "CeleryExecutor"}
    assert "received" in (airflow.logs / "worker.log").read_text()


def bought(ugen: EmulatorServer) -> Counter[str]:
    with ugen.emulator.lock:
        return Counter(entry.product_name for entry in ugen.emulator.journal.find_purchases(kind="create"))
