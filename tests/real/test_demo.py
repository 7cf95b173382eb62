# SPDX-License-Identifier: Apache-2.0
"""The demo as a newcomer runs it: twice, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import av
import psutil
import pytest
from PIL import Image

from ugen_provider.cli.demo.processes import LocalUGen
from ugen_provider.cli.demo.sides import airflow_keys, demo_parts
from ugen_provider.core.feeds import FeedOrder, plan_feed

SIDES = ("airflow", "dagster")
PRODUCTS = [
    row.product_id
    for row in plan_feed(demo_parts().feed, job_defaults={"segment_count": 1})
    if isinstance(row, FeedOrder)
]
STARTING = "Starting a real Airflow"


@dataclass(frozen=True)
class Run:
    code: int
    said: str
    report: dict


def demo_command(output):
    return [str(Path(sys.executable).with_name("ugen")), "demo", "--output", str(output)]


def run_demo(output):
    done = subprocess.run(demo_command(output), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(done.returncode, done.stdout, json.loads((output / "report.json").read_text()))


def processes_of(output):
    return [p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(output) in " ".join(p.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "output"


@pytest.fixture(scope="module")
def first(output):
    return run_demo(output)


@pytest.fixture(scope="module")
def second(output, first):
    return run_demo(output)


def results(output, side):
    return {path.parts[-3]: path.parent for path in (output / side).glob("*/*/manifest.json")}


def test_each_good_product_has_one_result_on_each_side(output, first):
    assert len(PRODUCTS) == 5
    for side in SIDES:
        assert sorted(results(output, side)) == sorted(PRODUCTS)


def test_the_final_videos_have_the_ordered_shape_and_length(output, first):
    for side in SIDES:
        for folder in results(output, side).values():
            job = json.loads((folder / "manifest.json").read_text())["job"]
            with av.open(str(folder / "final.mp4")) as video:
                stream = video.streams.video[0]
                assert stream.codec_context.name == "h264"
                assert stream.width * 16 == pytest.approx(stream.height * 9, rel=0.01)
                seconds = job["segment_count"] * job.get("segment_duration", 8)
                assert video.duration / av.time_base == pytest.approx(seconds, rel=0.02)
                assert sum(1 for _ in video.decode(stream)) > seconds


def test_the_keyframes_are_pictures(output, first):
    for side in SIDES:
        for folder in results(output, side).values():
            pictures = sorted(folder.glob("keyframe-*.png"))
            assert pictures
            for picture in pictures:
                with Image.open(picture) as image:
                    image.load()
                    assert image.width * 16 == pytest.approx(image.height * 9, rel=0.01)


def test_the_gallery_shows_all_videos(output, first):
    page = (output / "index.html").read_text()
    for side in SIDES:
        for folder in results(output, side).values():
            assert f'src="{(folder / "final.mp4").relative_to(output).as_posix()}"' in page


def test_the_broken_product_is_reported_with_its_line_and_reason(first):
    line = demo_parts().feed.read_text().splitlines()
    assert len(first.report["rejected"]) == 1
    said = first.report["rejected"][0]
    number = int(said.split(",")[0].removeprefix("line "))
    assert "<item>" in line[number - 1]
    assert "LL-1004" in said
    assert "image_link is required" in said
    assert said in first.said


def test_the_second_pass_bought_nothing(first):
    bought, again = first.report["passes"]
    assert bought["bought"] == 10
    assert bought["credits_after"] < bought["credits_before"]
    assert again["bought"] == 0
    assert again["credits_after"] == again["credits_before"] == bought["credits_after"]
    assert f"nothing was bought: {again['credits_before']} credits before, {again['credits_after']} after" in first.said


def test_running_it_again_buys_nothing(first, second):
    (again,) = second.report["passes"]
    assert again["bought"] == 0
    assert again["credits_before"] == again["credits_after"] == first.report["passes"][-1]["credits_after"]
    assert f"nothing was bought: {again['credits_before']} credits before" in second.said


def test_the_journal_holds_five_jobs_of_each_side_after_all_that(output, second):
    keys = airflow_keys(PRODUCTS)
    with LocalUGen(output / ".state", speed=20) as ugen:
        purchases = ugen.purchases()
    created = Counter("airflow" if purchase.idempotency_key in keys else "dagster" for purchase in purchases)
    assert created == {"airflow": 5, "dagster": 5}
    for side in SIDES:
        found = {folder.name for folder in results(output, side).values()}
        own = {p.job_id for p in purchases if (p.idempotency_key in keys) == (side == "airflow")}
        assert found == own


def test_the_airflow_tasks_waited_in_the_triggerer(output, first):
    assert first.report["deferred"] == [0, 1, 2, 3, 4]
    logs = output / ".state" / "airflow" / "home" / "logs"
    for index in first.report["deferred"]:
        assert list(logs.glob(f"dag_id=feed_to_videos/run_id=demo/task_id=make_video/map_index={index}/*.trigger.*"))


def test_no_process_is_left(output, second):
    assert processes_of(output) == []


def test_ctrl_c_ends_every_process(tmp_path):
    output = tmp_path / "output"
    # A shell that runs the tests in the background makes its children ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(demo_command(output), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as demo:
        for line in demo.stdout:
            if STARTING in line:
                break
        log = output / ".state" / "airflow" / "home" / "process-logs" / "triggerer.log"
        while not log.exists():  # until the last of Airflow's processes is started
            assert demo.poll() is None
        assert processes_of(output)
        os.kill(demo.pid, signal.SIGINT)
        demo.communicate()
    assert demo.returncode != 0
    assert processes_of(output) == []
