# SPDX-License-Identifier: Apache-2.0
"""The plugin in a real Airflow: the page in a real browser, and deliveries of the emulator's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.real.airflow.conftest import LEDGERS, api_server_beside
from tests.real.airflow.test_examples import answer, gate
from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow import PASSWORD, USER
from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Run, Stage

pytestmark = pytest.mark.real
WEBHOOK_SECRET = "whsec_local_0123456789"


@pytest.fixture
def browser_client(stage: Stage) -> Iterator[httpx.Client]:
    """A client with the login that a browser has."""
    with httpx.Client(base_url=stage.airflow.url, trust_env=False, timeout=30) as client:
        token = client.post("/auth/token", json={"username": USER, "password": PASSWORD}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def query(run: Run, **more: Any) -> dict[str, Any]:
    return {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "job", "map_index": "{MAP_INDEX}", **more}


def test_the_page_shows_the_job_while_it_runs_and_when_it_ends(stage: Stage, browser_client: httpx.Client) -> None:
    run = stage.start("deferred_job")
    run.until("deferred")
    running = browser_client.get("/ugen/job.json", params=query(run)).json()
    assert (running["product_name"], running["ended"]) == (run.product, False)
    assert browser_client.get("/ugen/video", params=query(run)).status_code == 404
    assert run.finish()["state"] == "success"
    done = browser_client.get("/ugen/job.json", params=query(run))
    assert done.json()["final_video_url"]
    assert [frame["score"] for frame in done.json()["keyframes"]]
    assert LOCAL_KEY not in done.text
    video = browser_client.get("/ugen/video", params=query(run))
    assert httpx.get(video.headers["location"]).content[4:8] == b"ftyp"


def test_it_is_kind_on_tasks_that_are_not_ours(stage: Stage, browser_client: httpx.Client) -> None:
    run = stage.start("deferred_job")
    run.until("deferred")
    answer = browser_client.get("/ugen/job.json", params=query(run, task_id="another"))
    assert (answer.status_code, "no U-Gen job" in answer.json()["message"]) == (404, True)
    run.mark("failed")


def xcoms(run: Run, task_id: str) -> str:
    return f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries"


def forge(client: httpx.Client, run: Run, value: Any, *, task_id: str = "job") -> None:
    """Write the XCom of a task, as a user without connection rights may."""
    entry = f"{xcoms(run, task_id)}/ugen_job"
    if client.get(entry).status_code == 200:
        told = client.patch(entry, json={"value": value, "map_index": -1})
    else:
        told = client.post(xcoms(run, task_id), json={"key": "ugen_job", "value": value, "map_index": -1})
    assert told.status_code in {200, 201}, told.text


@pytest.mark.parametrize("attack", ["copied", "other_job", "to_a_task_without_operator"])
def test_plugin_forged_reference_shows_and_cancels_nothing(
    stage: Stage, browser_client: httpx.Client, attack: str
) -> None:
    victim = stage.start("deferred_job")
    victim.until("deferred")
    stolen = browser_client.get(f"{xcoms(victim, 'job')}/ugen_job", params={"stringify": "false"}).json()["value"]
    attacker = stage.start("deferred_job") if attack != "to_a_task_without_operator" else stage.start("plain_task")
    attacker.until("deferred" if attack != "to_a_task_without_operator" else "success")
    own = attacker.jobs()
    if attack == "other_job":
        mine = browser_client.get(f"{xcoms(attacker, 'job')}/ugen_job", params={"stringify": "false"}).json()["value"]
        stolen = {**mine, "job_id": stolen["job_id"]}
    forge(browser_client, attacker, stolen)
    answer = browser_client.get("/ugen/job.json", params=query(attacker))
    assert (answer.status_code, "ugen_default" in answer.text) == (404, False)
    attacker.mark("failed")
    if own:  # its own trigger does not believe the forged reference either
        attacker.until("failed")
    victim.mark("failed")  # the listener has handled the attacker's event before this one's

    def cancelled() -> bool:
        # Airflow may start the task at the moment of the mark, and then lose the mark; a person marks it again.
        if victim.task()["state"] == "deferred":
            victim.mark("failed")
        return victim.statuses() == ["cancelled"]

    victim.wait(cancelled, what="the victim's job being cancelled")
    assert stage.desk is not None
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        assert all(client.jobs.get(job_id).state.value != "completed" for job_id in own)


def test_plugin_deleted_connection_is_not_revealed(stage: Stage, browser_client: httpx.Client) -> None:
    run = stage.start("plain_task")
    run.until("success")
    forge(browser_client, run, {"job_id": "j", "ugen_conn_id": "ugen_default", "attempt": "a job -1"})
    known = browser_client.get("/ugen/job.json", params=query(run))
    forge(browser_client, run, {"job_id": "j", "ugen_conn_id": "no_such_connection", "attempt": "a job -1"})
    unknown = browser_client.get("/ugen/job.json", params=query(run))
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)


def gates_of(client: httpx.Client, run: Run) -> list[dict[str, Any]]:
    told = client.get("/ugen/review.json")
    assert told.status_code == 200, told.text
    return [each for each in told.json()["gates"] if urlencode({"run_id": run.run_id}) in each["id"]]


def test_review_board_lists_a_gate_while_its_record_is_authentic(stage: Stage, browser_client: httpx.Client) -> None:
    run = gate(stage)
    (listed,) = gates_of(browser_client, run)
    assert set(listed["answers"]) == {"approve", "reject"}
    job = browser_client.get(f"/ugen/{listed['job']}").json()
    assert (job["status"], len(job["keyframes"]) > 0) == ("paused", True)
    stolen = browser_client.get(f"{xcoms(run, 'approve')}/ugen_job", params={"stringify": "false"}).json()["value"]
    forge(browser_client, run, {**stolen, "job_id": "11111111-2222-4333-8444-555555555555"}, task_id="approve")
    assert gates_of(browser_client, run) == []
    forge(browser_client, run, stolen, task_id="approve")
    assert [each["id"] for each in gates_of(browser_client, run)] == [listed["id"]]
    answer(stage, run, "Reject")
    assert gates_of(browser_client, run) == []


@pytest.mark.parametrize("path", ["job", "job.json", "video", "review", "review.json"])
def test_without_a_login_the_page_is_not_shown(stage: Stage, path: str) -> None:
    params = {"dag_id": "deferred_job", "run_id": "x", "task_id": "job"}
    assert httpx.get(f"{stage.airflow.url}/ugen/{path}", params=params, trust_env=False).status_code == 401


@pytest.mark.torture
def test_a_delivery_becomes_one_event_and_a_forged_one_none(stage: Stage) -> None:
    stage.airflow.wait_for_dag("on_finished_video")
    hook = f"{stage.airflow.url}/ugen/webhook/ugen_default"
    lamp = {"product_name": "Webhook lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        client.webhook.set(webhook_url=hook, webhook_secret=WEBHOOK_SECRET)
        try:
            with stage.desk.lock:
                stage.desk.faults.add({"kind": "webhook_twice", "path": "*"})
            job = client.jobs.create(CreateJob(**lamp))
            stage.desk.advance(3600.0)
            stage.ugen.settle()
            forged = httpx.post(hook, content=b"{}", headers={"X-UGen-Signature": "sha256=00"}, trust_env=False)
            assert forged.status_code == 401
        finally:
            client.webhook.delete()

    def reported() -> list[Any]:
        """Return the report to each finished run of the DAG on the asset; other tests' videos start it too."""
        found = (stage.api._ask("GET", "/dags/on_finished_video/dagRuns") or {})["dag_runs"]
        done = [run["dag_run_id"] for run in found if run["state"] == "success"]
        return [stage.api.xcom("on_finished_video", run_id=run_id, task_id="report") for run_id in done]

    from ugen_provider.cli.demo.processes import wait_until

    wait_until(lambda: any(job.job_id in jobs for jobs in reported()), what="the DAG on the asset", timeout=150.0)
    assert [job_id for jobs in reported() for job_id in jobs].count(job.job_id) == 1


@pytest.mark.browser
def test_a_person_sees_the_video_play(stage: Stage, chromium: str) -> None:
    from pictures_of_the_pages import sign_in
    from playwright.sync_api import sync_playwright

    run = stage.start("deferred_job")
    assert run.finish()["state"] == "success"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
        )
        page = browser.new_page()
        sign_in(page, stage.airflow.url)
        page.goto(f"{stage.airflow.url}/ugen/job?{urlencode(query(run, map_index=-1))}")
        page.get_by_role("heading", name=run.product).wait_for(timeout=60_000)
        page.locator("#final video").wait_for()
        playing = page.locator("#final video").evaluate(
            "video => new Promise(done => video.readyState > 2 ? done(video.videoWidth)"
            " : video.addEventListener('canplay', () => done(video.videoWidth)))"
        )
        assert playing > 0
        widths = page.locator("#keyframes img").evaluate_all("all => all.map(one => one.naturalWidth)")
        assert widths
        assert all(width > 0 for width in widths)
        browser.close()


@pytest.mark.browser
def test_plugin_page_under_a_path_prefix_shows_the_job(stage: Stage, chromium: str) -> None:
    """Airflow behind `[api] base_url=http://host/af`: the page finds its data."""
    from playwright.sync_api import sync_playwright

    run = stage.start("deferred_job")
    run.until("deferred")
    with api_server_beside(stage, "/af") as (client, _):
        page_url = f"{client.base_url}ugen/job?{urlencode(query(run, map_index=-1))}"  # as the task's link has it there
        assert "/af/ugen/" in page_url
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
            )
            login = {"Authorization": client.headers["Authorization"]}
            page = browser.new_context(extra_http_headers=login).new_page()
            page.goto(page_url)
            page.get_by_role("heading", name=run.product).wait_for(timeout=60_000)
            browser.close()
    run.mark("failed")


def test_plugin_without_the_ledger_reports_and_cancels(stage: Stage, triggerer_back: None) -> None:
    """An API server that cannot open the ledger says so once, shows it on the page, and cancels all the same."""
    if "postgresql" not in stage.ledgers:
        pytest.skip("no PostgreSQL answers on loopback")
    run = stage.start("own_create_deferred_postgresql")
    run.until("deferred")
    with api_server_beside(stage, without=[f"AIRFLOW_CONN_{LEDGERS['postgresql'].upper()}"]) as (client, log):
        for _ in range(2):
            shown = client.get("/ugen/job.json", params=query(run)).json()
            assert "cannot open the ledger" in shown["notice"]
            assert LEDGERS["postgresql"] not in shown["notice"], "which connections exist is not revealed"
        stage.kill_part("triggerer")  # only the listener can cancel now
        task = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/job"
        assert client.patch(task, json={"new_state": "failed"}).status_code == 200
        run.until_status("cancelled")
        said = [line for line in log.read_text().splitlines() if "cannot open the ledger of connection" in line]
        assert len(said) == 1, said
    stage.desk.advance(25 * 3600.0)
    assert run.bought() == 1
