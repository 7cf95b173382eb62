# SPDX-License-Identifier: Apache-2.0
"""The plugin in a real Airflow: the page in a real browser, and deliveries of the emulator's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow_processes import PASSWORD, USER
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


def test_the_page_tells_of_the_job_while_it_runs_and_when_it_is_done(
    stage: Stage, browser_client: httpx.Client
) -> None:
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


@pytest.mark.parametrize("path", ["job", "job.json", "video"])
def test_nobody_sees_it_without_a_login(stage: Stage, path: str) -> None:
    params = {"dag_id": "deferred_job", "run_id": "x", "task_id": "job"}
    assert httpx.get(f"{stage.airflow.url}/ugen/{path}", params=params, trust_env=False).status_code == 401


@pytest.mark.torture
def test_a_delivery_becomes_one_asset_event_and_a_forged_one_none(stage: Stage) -> None:
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

    def told() -> list[Any]:
        """What each finished run of the DAG on the asset was told; other tests' videos start it too."""
        found = (stage.api._ask("GET", "/dags/on_finished_video/dagRuns") or {})["dag_runs"]
        done = [run["dag_run_id"] for run in found if run["state"] == "success"]
        return [stage.api.xcom("on_finished_video", run_id=run_id, task_id="tell") for run_id in done]

    from ugen_provider.cli.demo.processes import wait_until

    wait_until(lambda: any(job.job_id in jobs for jobs in told()), what="the DAG on the asset", timeout=150.0)
    assert [job_id for jobs in told() for job_id in jobs].count(job.job_id) == 1


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_a_person_sees_the_video_play(stage: Stage) -> None:
    from pictures_of_the_pages import sign_in
    from playwright.sync_api import sync_playwright

    run = stage.start("deferred_job")
    assert run.finish()["state"] == "success"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
        )
        page = browser.new_page()
        sign_in(page, stage.airflow.url)
        page.goto(f"{stage.airflow.url}/dags/{run.dag_id}/runs/{run.run_id}/tasks/job/plugin/ugen_job")
        frame = page.frame_locator("iframe")
        frame.get_by_role("heading", name=run.product).wait_for(timeout=60_000)
        frame.locator("#final video").wait_for()
        playing = frame.locator("#final video").evaluate(
            "video => new Promise(done => video.readyState > 2 ? done(video.videoWidth)"
            " : video.addEventListener('canplay', () => done(video.videoWidth)))"
        )
        assert playing > 0
        widths = frame.locator("#keyframes img").evaluate_all("all => all.map(one => one.naturalWidth)")
        assert widths
        assert all(width > 0 for width in widths)
        browser.close()
