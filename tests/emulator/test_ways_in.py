# SPDX-License-Identifier: Apache-2.0
"""The ways to start and use the emulator: command line, curl, a restart on the same database."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ugen_provider.cli.exits import ExitCode
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings, TenantSettings

ROOT = Path(__file__).parents[2]
HEADERS = {"X-API-Key": "ugen_sk_local"}
BODY = {"product_name": "Lamp", "product_image_url": "https://example.com/lamp.jpg", "segment_count": 1}


class Process:
    """`python -m ugen_provider.emulator` with some options."""

    def __init__(self, *options):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ugen_provider.emulator", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.line = self._process.stdout.readline()
        assert "http://127.0.0.1:" in self.line, self._process.stderr.read()
        self.url = json.loads(self.line)["url"] if "--json" in options else re.search(r"http://\S+", self.line)[0]
        self.api = httpx.Client(base_url=f"{self.url}/api/v1", headers=HEADERS)

    def end(self, number):
        self.api.close()
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=30)
        return self._process.returncode, errors


@pytest.fixture
def start():
    processes = []

    def run(*options):
        processes.append(Process(*options))
        return processes[-1]

    yield run
    for process in processes:
        if process._process.poll() is None:
            process.end(signal.SIGKILL)


def test_the_examples_of_the_specification_run_by_curl():
    # Each request moves the clock by three seconds, so that no client has to wait.
    with EmulatorServer(Settings(speed=0, tick=3)) as server:
        run = subprocess.run(
            ["sh", str(ROOT / "examples" / "curl.sh")],
            env={**os.environ, "UGEN_BASE_URL": server.url, "UGEN_API_KEY": "ugen_sk_local", "UGEN_POLL_SECONDS": "0"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        called = {
            (entry.method, re.sub(r"[0-9a-f-]{36}", "ID", entry.path), entry.status)
            for entry in server.emulator.journal.find_requests()
        }
    assert called == {
        ("POST", "/api/v1/jobs/suggest-fields", 200),
        ("POST", "/api/v1/jobs", 201),
        ("GET", "/api/v1/jobs", 200),
        ("GET", "/api/v1/jobs/ID", 200),
        ("DELETE", "/api/v1/jobs/ID", 200),
        ("POST", "/api/v1/jobs/ID/pause", 200),
        ("POST", "/api/v1/jobs/ID/resume", 200),
        ("POST", "/api/v1/jobs/ID/retry", 200),
        ("GET", "/api/v1/jobs/ID/keyframes", 200),
        ("GET", "/api/v1/jobs/ID/videos", 200),
    }
    assert run.stdout.rstrip().endswith("cancelled")


def test_sigterm_ends_it_cleanly(start):
    process = start("--speed", 0)
    assert process.api.get("/models").status_code == 200
    assert process.end(signal.SIGTERM) == (0, "")


def test_admin_answers_only_when_it_is_asked_for(start):
    process = start()
    assert httpx.get(f"{process.url}/_emulator/journal").status_code == 404
    assert httpx.get(process.url).status_code == 200


def test_options_reach_the_emulator(start, tmp_path):
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"kind": "status", "status": 503, "path": "/api/v1/models"}]))
    process = start(
        "--speed", 0, "--seed", 3, "--faults", faults, "--reading", "id_field=both", "--reading", "create_status=202",
        "--public-url", "http://ugen.example:8080/", "--credits", 100, "--tenant", "other=key-2",
    )  # fmt: skip
    assert process.api.get("/models").status_code == 503
    answer = process.api.post("/jobs", json=BODY)
    assert (answer.status_code, answer.json()["id"]) == (202, answer.json()["job_id"])
    assert process.api.post("/jobs", json=BODY).json()["error"]["code"] == "INSUFFICIENT_CREDITS"
    upload = process.api.post("/uploads/product-image", files={"file": b"\x89PNG\r\n\x1a\n"})
    assert upload.json()["url"].startswith("http://ugen.example:8080/media/uploads/")
    other = httpx.get(f"{process.url}/api/v1/credits/balance", headers={"X-API-Key": "key-2"})
    assert other.json()["available_credits"] == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reading", "nonsense=1"], "no reading is called 'nonsense'"),
        (["--reading", "create_status=500"], "reading create_status is one of"),
        (["--reading", "create_status"], "write a reading as name=value"),
        (["--host", "0.0.0.0", "--admin"], "admin_anywhere"),
        (["--tenant", "noequals"], "NAME=KEY"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    from click.testing import CliRunner

    from ugen_provider.emulator.cli import emulator_command

    result = CliRunner().invoke(emulator_command, options)
    assert result.exit_code == 2
    assert message in result.output


def test_a_port_that_is_taken_is_trouble_on_this_machine():
    from click.testing import CliRunner

    from ugen_provider.emulator.cli import emulator_command

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(emulator_command, ["--port", str(port)])
    assert result.exit_code == ExitCode.TROUBLE
    assert f"127.0.0.1:{port} cannot be listened on: Address already in use" in result.output


def test_programs_read_its_address_as_json(start):
    process = start("--json")
    reported = json.loads(process.line)
    assert reported["url"].startswith("http://127.0.0.1:")
    models = httpx.get(f"{reported['base_url']}/models", headers={"X-API-Key": reported["api_key"]})
    assert models.status_code == 200


def test_a_kill_amid_fifty_jobs_loses_no_job_and_no_credits(start, tmp_path):
    db = tmp_path / "state.db"
    process = start("--db", db, "--speed", 60, "--admin", "--credits", 1_000_000)
    bodies = [{**BODY, "product_name": f"P{number}", "idempotency_key": f"k{number}"} for number in range(50)]
    answered, enough = {}, threading.Event()
    count = itertools.count(1)

    def order(body):
        if len(answered) > 40:
            return  # on any machine, the kill comes before the end
        with contextlib.suppress(httpx.TransportError):
            job_id = process.api.post("/jobs", json=body).json()["job_id"]
            answered[body["idempotency_key"]] = job_id
            if next(count) == 25:
                process.api.delete(f"/jobs/{job_id}")
                enough.set()

    with ThreadPoolExecutor(8) as pool:
        for body in bodies:
            pool.submit(order, body)
        assert enough.wait(60)
        process.end(signal.SIGKILL)
    assert 25 <= len(answered) < 50

    process = start("--db", db, "--speed", 0, "--admin")
    kept = {entry["job_id"] for entry in httpx.get(f"{process.url}/_emulator/journal").json()["purchases"]}
    assert set(answered.values()) <= kept
    created = {}
    for body in bodies:
        again = process.api.post("/jobs", json=body)
        job_id = created[body["idempotency_key"]] = again.json()["job_id"]
        assert again.status_code == (200 if job_id in kept else 201)
        assert answered.get(body["idempotency_key"], job_id) == job_id
    assert_books_are_right(process)
    httpx.post(f"{process.url}/_emulator/clock/advance", json={"seconds": 3600}).raise_for_status()
    jobs = [process.api.get(f"/jobs/{job_id}").json() for job_id in created.values()]
    assert sorted(job["status"] for job in jobs) == ["cancelled"] + ["completed"] * 49
    balance = assert_books_are_right(process)
    assert balance["credit_reserved"] == 0
    assert balance["credit_balance"] == 1_000_000 - sum(job["credits_consumed"] for job in jobs)
    journal = httpx.get(f"{process.url}/_emulator/journal").json()
    assert journal["created"] == 50
    assert httpx.get(jobs[0]["final_video_url"]).status_code == 200


def assert_books_are_right(process):
    """Every row follows from the one before, and together they give the balance."""
    rows, page = [], 1
    while batch := process.api.get("/credits/transactions", params={"page": page, "page_size": 100}).json()["items"]:
        rows += batch
        page += 1
    rows.reverse()
    balance = process.api.get("/credits/balance").json()
    assert rows[-1]["balance_after"] == balance["available_credits"]
    for earlier, later in itertools.pairwise(rows):
        assert later["balance_before"] == earlier["balance_after"]

    def amount(kind):
        return sum(row["amount"] for row in rows if row["type"] == kind)

    reserved = -amount("reserve") + amount("consume") - amount("release")
    assert reserved == balance["credit_reserved"]
    return balance


def test_a_restart_continues_where_it_was(tmp_path):
    settings = Settings(
        speed=0,
        db=tmp_path / "u.db",
        admin=True,
        tenants=(TenantSettings(), TenantSettings(name="b", api_keys=("kb",), bearer_tokens=())),
    )
    with EmulatorServer(settings) as server, httpx.Client(base_url=server.base_url, headers=HEADERS) as api:
        api.put("/tenants/me/webhook", json={"webhook_url": "http://127.0.0.1:1/hook", "webhook_secret": "s3cret"})
        template = api.post("/templates", json={"name": "T", "config": {"segment_count": 2}}).json()
        picture = api.post("/uploads/product-image", files={"file": b"\x89PNG\r\n\x1a\nrest"}).json()["url"]
        job = api.post("/jobs", json=BODY).json()
        now = server.emulator.advance(100)
        api.post("/jobs", json={**BODY, "product_name": "second"})
        seen = api.get(f"/jobs/{job['job_id']}").json()
    assert b"s3cret" not in (tmp_path / "u.db").read_bytes()
    with EmulatorServer(settings) as server, httpx.Client(base_url=server.base_url, headers=HEADERS) as api:
        assert server.emulator.now() == now
        again = api.get(f"/jobs/{job['job_id']}").json()
        assert again == seen
        assert api.get("/templates").json() == [template]
        assert api.get("/tenants/me/webhook").json()["webhook_configured"] is True
        assert httpx.get(server.url + httpx.URL(picture).path).content == b"\x89PNG\r\n\x1a\nrest"
        server.emulator.advance(3600)
        server.settle()
        deliveries = httpx.get(f"{server.url}/_emulator/webhooks").json()
        assert [delivery["signed"] for delivery in deliveries] == [True, True]


@pytest.fixture
def admin(ugen_emulator):
    with httpx.Client(base_url=f"{ugen_emulator.url}/_emulator") as client:
        yield client


def test_dump_and_load_bring_back_a_moment(api, admin, ugen_clock):
    job = api.create()
    ugen_clock.advance(60)
    before = api.job(job["job_id"])
    state = admin.get("/state").json()
    assert "ugen_sk_local" not in json.dumps(state)
    ugen_clock.advance(3600)
    api.create(product_name="later")
    assert admin.put("/state", json=state).status_code == 204
    assert api.job(job["job_id"]) == before
    assert api.get("/jobs").json()["total"] == 1
    assert admin.put("/state", json={"format": 1}).status_code == 422
    assert admin.put("/state", json={**state, "format": 99}).status_code == 422
    assert api.get("/jobs").json()["total"] == 1


def test_reset_begins_anew_with_another_seed_and_readings(api, ugen_emulator):
    first = api.create()
    reset = f"{ugen_emulator.url}/_emulator/reset"
    httpx.post(reset).raise_for_status()
    assert api.get("/jobs").json()["total"] == 0
    assert api.create()["job_id"] == first["job_id"]
    httpx.post(reset, json={"seed": 8, "readings": {"id_field": "id"}}).raise_for_status()
    other = api.post("/jobs", json=BODY).json()
    assert other["id"] != first["job_id"]
    httpx.post(reset, json={"seed": 7}).raise_for_status()
    assert httpx.post(reset, json={"readings": {"nonsense": 1}}).status_code == 422


def test_one_emulator_a_file(start, tmp_path):
    from click.testing import CliRunner

    from ugen_provider.emulator.cli import emulator_command

    start("--db", tmp_path / "u.db")
    second = CliRunner().invoke(emulator_command, ["--db", str(tmp_path / "u.db")])
    assert (second.exit_code, "in use by another emulator" in second.output) == (6, True)
    (tmp_path / "text").write_text("no database " * 100)
    third = CliRunner().invoke(emulator_command, [], env={"UGEN_EMULATOR_DB": str(tmp_path / "text")})
    assert (third.exit_code, "is no database" in third.output) == (6, True)


def test_users_get_the_fixtures_from_the_package(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        """
from ugen_provider import CreateJob
from ugen_provider.emulator.settings import Settings
import pytest

@pytest.fixture(scope="session")
def ugen_emulator_settings():
    return Settings(speed=0, seed=3, admin=True)

def test_one(ugen_client, ugen_clock, ugen_faults, ugen_emulator):
    assert ugen_emulator.emulator.settings.seed == 3
    before = ugen_client.credits.balance().available_credits
    rule = ugen_faults.add("status", status=503, path="/api/v1/credits/*")
    assert ugen_client.credits.balance().available_credits == before
    assert rule.hits == 1

def test_code_that_waits_by_itself(ugen_client, ugen_clock):
    ugen_clock.tick(600)
    lamp = CreateJob(product_name="Lamp", product_image_url="https://example.com/l.png", segment_count=1)
    job = ugen_client.jobs.create(lamp)
    assert ugen_client.jobs.get(job.job_id).status == "completed"

def test_two(ugen_emulator, ugen_clock, ugen_faults):
    assert ugen_emulator.emulator.clock.tick == 0
    ugen_clock.run(1000)
    assert ugen_emulator.emulator.clock.mode == "scaled"

def test_three(ugen_emulator, ugen_faults):
    assert ugen_emulator.emulator.clock.mode == "manual"
    assert not ugen_emulator.emulator.faults.rules
    assert not ugen_emulator.emulator.journal.find_requests()
"""
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "4 passed" in run.stdout, run.stdout + run.stderr


def test_loading_the_plugin_costs_next_to_nothing():
    code = "import sys, ugen_provider.emulator.pytest_plugin; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"starlette", "uvicorn", "av", "PIL", "httpx", "pydantic"}


def test_the_benchmark_runs():
    script = ROOT / "benchmarks" / "bench_emulator.py"
    run = subprocess.run([sys.executable, str(script), "--smoke"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "ratio to bare" in run.stdout
