# SPDX-License-Identifier: Apache-2.0
"""Take the pictures that the documentation shows, of real pages in a headless Chromium.

    .venv/bin/python scripts/pictures_of_the_pages.py                 # all three
    .venv/bin/python scripts/pictures_of_the_pages.py emulator dagster airflow

Each starts what it shows: the local U-Gen, a real Dagster with the example project, a real Airflow with the example
DAGs.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picture_of_the_gallery import ALL_SHOWN, BROWSERS, SHOW_FRAMES
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow import PASSWORD, USER, RealAirflow
from ugen_provider.cli.demo.dagster import BACKFILL_ENDED, RealDagster
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.cli.demo.sides import demo_parts
from ugen_provider.core.feeds import FeedOrder, plan_feed
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images"
MOST_BYTES = 200_000
FEED = demo_parts().feed
LOADED = "() => [...document.images].every(image => image.complete)"
PRODUCTS = {"mug": "Stoneware mug", "lamp": "Aurora lamp", "shoe": "Trail shoe"}


def keep(page: Page, name: str) -> None:
    """Take the picture, once the page has come to rest; with fewer colours where it would be large."""
    page.wait_for_timeout(1500)
    raw = page.screenshot()
    path = PICTURES / f"{name}.png"
    for colours in (None, 256, 64, 24):
        shown = Image.open(io.BytesIO(raw)).convert("RGB")
        file = io.BytesIO()
        (shown.quantize(colours) if colours else shown).save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= MOST_BYTES:
            break
    PICTURES.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB", flush=True)


def sign_in(page: Page, url: str) -> None:
    """Pass the login of a demo's Airflow."""
    page.goto(f"{url}/auth/login")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(lambda now: "/auth/login" not in now, timeout=60_000)  # the cookie is set before this
    page.wait_for_load_state("networkidle")


def emulator(page: Page) -> None:
    """The page of the local U-Gen, with a finished job and one at work."""
    with EmulatorServer(Settings(speed=0, admin=True)) as server:
        with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
            for number, name in enumerate(PRODUCTS.values()):
                image = f"https://shop.example/{name.split()[0].lower()}.png"
                client.jobs.create(CreateJob(product_name=name, product_image_url=image, segment_count=2))
                server.emulator.advance(3600 if number < 2 else 70)
        page.goto(server.url)
        page.wait_for_timeout(3000)
        page.wait_for_function(LOADED)
        page.evaluate(SHOW_FRAMES)
        page.wait_for_function(ALL_SHOWN)
        keep(page, "emulator")


def dagster(page: Page) -> None:
    """The assets of the example project in Dagster: one partition open, all partitions, and the checks."""
    home = Path(tempfile.mkdtemp(prefix="ugen-pictures-"))
    with EmulatorServer(Settings(speed=200, admin=True)) as server:
        env = {
            "UGEN_API_KEY": LOCAL_KEY,
            "UGEN_BASE_URL": server.base_url,
            "UGEN_OUTPUT": str(home / "videos"),
            "UGEN_FEED": str(FEED),
            "PYTHONPATH": str(ROOT / "example_dagster"),
        }
        definitions = ROOT / "example_dagster" / "shop_videos" / "definitions.py"
        products = [
            row.product_id for row in plan_feed(FEED, job_defaults={"segment_count": 1}) if isinstance(row, FeedOrder)
        ]
        with RealDagster(home / "home", definitions=definitions, env=env) as real:
            real.api.add_partitions("ugen_products", keys=products)
            # One product is left, so that the page shows a missing one.
            backfill = real.api.launch_backfill(["keyframes", "videos", "final_video"], partitions=products[:-1])
            wait_until(
                lambda: real.api.backfill_status(backfill) in BACKFILL_ENDED,
                what="the backfill",
                timeout=400.0,
                watch=[real.processes],
            )
            page.set_viewport_size({"width": 1280, "height": 1000})
            page.goto(f"{real.url}/assets/final_video?view=partitions&partition={products[0]}")
            page.wait_for_function(
                "() => document.querySelectorAll('td img').length > 0 && "
                "[...document.querySelectorAll('td img')].every(image => image.complete && image.naturalWidth > 0)",
                timeout=60_000,
            )
            keep(page, "dagster-partition")
            page.set_viewport_size({"width": 1280, "height": 560})
            page.goto(f"{real.url}/assets/keyframes?view=checks")
            page.get_by_text("keyframe_scores").first.click(timeout=60_000)
            keep(page, "dagster-checks")
    shutil.rmtree(home)


def airflow(page: Page) -> None:
    """Picture Airflow's pages: the grid of the feed's DAG, the plugin's page of a job, and a keyframe to approve."""
    home = Path(tempfile.mkdtemp(prefix="ugen-pictures-"))
    env = {"UGEN_FEED": str(FEED), "UGEN_OUTPUT": str(home / "videos")}
    dags = ROOT / "example_dags"
    with (
        EmulatorServer(Settings(speed=60, admin=True)) as server,
        RealAirflow(home / "home", dags=dags, env=env) as real,
    ):
        real.api.set_connection(
            "ugen_default", conn_type="ugen", password=LOCAL_KEY, extra={"base_url": server.base_url}
        )

        def until(dag_id: str, task_id: str, *states: str) -> None:
            def there() -> bool:
                found = [each for each in real.api.task_instances(dag_id, run_id="first") if each["task_id"] == task_id]
                return bool(found) and all(each["state"] in states for each in found)

            wait_until(there, what=f"{dag_id}.{task_id}", timeout=300.0, watch=[real.processes])

        for dag_id in ("feed_to_videos", "keyframe_gate"):
            real.wait_for_dag(dag_id)
            real.api.trigger(dag_id, run_id="first")
        until("keyframe_gate", "approve", "awaiting_input", "failed")
        until("feed_to_videos", "make_video", "success", "failed")
        page.set_viewport_size({"width": 1440, "height": 900})
        sign_in(page, real.url)

        page.goto(f"{real.url}/dags/feed_to_videos/runs/first/tasks/make_video/mapped")
        page.get_by_text("Aurora").first.wait_for(timeout=60_000)
        keep(page, "airflow-grid")

        page.goto(f"{real.url}/ugen/job?dag_id=feed_to_videos&run_id=first&task_id=make_video&map_index=0")
        page.locator("#final video").wait_for(timeout=60_000)
        page.locator("#final video").evaluate(
            "video => new Promise(done => { video.preload = 'auto'; video.currentTime = 1;"
            " const seen = () => video.readyState >= 2 ? done(1) : setTimeout(seen, 100); seen(); })"
        )
        page.locator("#keyframes img").first.wait_for()
        keep(page, "airflow-job")

        # A keyframe is upright, with the answer below it.
        page.set_viewport_size({"width": 1440, "height": 1060})

        page.goto(f"{real.url}/dags/keyframe_gate/runs/first/tasks/approve/required_actions")
        page.get_by_role("button", name="Approve").wait_for(timeout=60_000)
        page.wait_for_function(LOADED)
        keep(page, "airflow-approval")
    shutil.rmtree(home, ignore_errors=True)


TAKEN: dict[str, Callable[[Page], None]] = {"emulator": emulator, "dagster": dagster, "airflow": airflow}


def main() -> int:
    """Take those that are asked for.

    Returns:
        The exit code.
    """
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("no Chromium found; say CHROMIUM=/path/to/chromium")
        return 1
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
    with sync_playwright() as playwright:
        chromium: Any = playwright.chromium.launch(executable_path=browser, args=arguments)
        for name in sys.argv[1:] or TAKEN:
            begun = time.monotonic()
            TAKEN[name](chromium.new_page(viewport={"width": 1280, "height": 800}))
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
