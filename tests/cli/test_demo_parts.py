# SPDX-License-Identifier: Apache-2.0
"""Parts of the demo, below its processes."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ugen_provider.cli.demo.processes import (
    ProcessDiedError,
    Processes,
    ProcessGroup,
    WaitTimeoutError,
    child_environment,
    free_ports,
    listens,
    python_module,
    run_to_end,
    wait_until,
)
from ugen_provider.cli.demo.run import Result, problems_of, problems_of_pass
from ugen_provider.cli.demo.sides import CONNECTION_ID, LEDGER_ID, demo_parts, init_ledger
from ugen_provider.cli.demo.watch import JobBars, JobView, Pass
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.core.media import Manifest

LISTEN = """
import socket, subprocess, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if len(sys.argv) > 2:
    subprocess.Popen([sys.executable, "-c", open(sys.argv[2]).read(), sys.argv[3]])
time.sleep(600)
"""


def python(*arguments):
    return [sys.executable, *map(str, arguments)]


def test_stopping_ends_children_of_children_too(tmp_path):
    script = tmp_path / "listen.py"
    script.write_text(LISTEN)
    ports = free_ports(2)
    processes = Processes()
    processes.start("one", python(script, ports[0], script, ports[1]), env=os.environ, log=tmp_path / "log")
    wait_until(lambda: all(map(listens, ports)), what="both ports", timeout=30, watch=[processes])
    processes.stop()
    assert not any(map(listens, ports))


def test_a_process_that_ended_is_named_with_the_end_of_its_log(tmp_path):
    processes = Processes()
    processes.start("one", python("-c", "print('the reason'); raise SystemExit(3)"), env=os.environ, log=tmp_path / "l")
    with pytest.raises(ProcessDiedError, match=r"(?s)one ended with exit code 3.*the reason"):
        wait_until(lambda: False, what="nothing", timeout=30, watch=[processes])
    processes.stop()


def test_an_ended_process_is_reported_before_its_connection(tmp_path):
    def refused():
        processes.running[0].popen.wait()
        raise ConnectionRefusedError

    processes = Processes()
    processes.start("one", python("-c", "raise SystemExit(3)"), env=os.environ, log=tmp_path / "log")
    with pytest.raises(ProcessDiedError, match="one ended with exit code 3"):
        wait_until(refused, what="an answer", timeout=30, watch=[processes])
    processes.stop()
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: bool(1 / 0), what="nothing", timeout=30)


def test_what_waits_for_stopped_processes_ends(tmp_path):
    processes = Processes()
    processes.stop()
    with pytest.raises(ProcessDiedError, match="it was stopped"):
        wait_until(lambda: False, what="nothing", timeout=30, watch=[processes])
    with pytest.raises(ProcessDiedError, match="not started"):
        processes.start("late", python("-c", "pass"), env=os.environ, log=tmp_path / "log")


def test_waiting_in_vain_says_for_what():
    with pytest.raises(WaitTimeoutError, match="in vain for a miracle"):
        wait_until(lambda: False, what="a miracle", timeout=0)


def test_a_service_that_does_not_come_up_is_ended():
    class Broken(ProcessGroup):
        ended = False

        def up(self):
            raise RuntimeError("no")

        def stop(self):
            self.ended = True

    broken = Broken()
    with pytest.raises(RuntimeError, match="no"), broken:
        pass
    assert broken.ended


def test_a_command_that_fails_is_named_with_the_end_of_its_log(tmp_path):
    with pytest.raises(ProcessDiedError, match=r"(?s)no_such_module.*failed.*No module named"):
        run_to_end(python_module("no_such_module"), env=os.environ, log=tmp_path / "log", cwd=tmp_path)


def test_a_child_inherits_no_settings_of_ours(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    monkeypatch.setenv("UGEN_API_KEY", "ugen_sk_real")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    env = child_environment({"UGEN_FEED": "feed.xml"})
    assert env["UGEN_FEED"] == "feed.xml"
    assert not {"AIRFLOW__CORE__EXECUTOR", "DAGSTER_HOME", "UGEN_API_KEY", "PYTHONDONTWRITEBYTECODE"} & set(env)


def view(where, percent):
    return JobView(job_id="j", side="airflow", product="Lamp", where=where, percent=percent)


def test_without_a_terminal_there_is_a_line_per_stage():
    said = io.StringIO()
    with JobBars(Console(file=said, width=100)) as bars:
        for where, percent in [("init", 15), ("init", 20), ("generation", 25), ("completed", 100)]:
            bars.show([view(where, percent)])
    assert [line.split() for line in said.getvalue().splitlines()] == [
        ["airflow", "Lamp", "15", "%", "init"],
        ["airflow", "Lamp", "25", "%", "generation"],
        ["airflow", "Lamp", "100", "%", "completed"],
    ]


def test_on_a_terminal_there_is_a_bar_per_job():
    said = io.StringIO()
    with JobBars(Console(file=said, width=100, force_terminal=True)) as bars:
        bars.show([view("init", 15)])
        bars.show([view("completed", 100)])
    assert "completed" in said.getvalue()
    assert "━" in said.getvalue()


def result(folder, *, width=360, height=640, duration=8.0, **job):
    (folder / "final.mp4").write_bytes(b"video")
    common = {"sha256": "0", "bytes": 5, "source": ""}
    files = [
        {"kind": "final", "path": "final.mp4", "media_type": "video/mp4", **common}
        | {"width": width, "height": height, "duration": duration},
        {"kind": "keyframe", "index": 0, "path": "keyframe-0.png", "media_type": "image/png", **common},
    ]
    manifest = Manifest.model_validate(
        {
            "job_id": "j",
            "product_id": "LL-1",
            "status": "completed",
            "job": {"segment_count": 1} | job,
            "files": files,
            "written_at": "",
            "written_by": "",
        }
    )
    return Result(side="airflow", folder=Path(folder), manifest=manifest)


def problems(*results, products=("LL-1",)):
    return problems_of(results, products=products, sides=["airflow"])


def test_a_video_as_it_was_ordered_is_no_problem(tmp_path):
    assert problems(result(tmp_path)) == []
    assert problems(result(tmp_path, width=640, height=360, aspect_ratio="16:9")) == []
    assert problems(result(tmp_path, duration=15.0, segment_count=3, segment_duration=5)) == []


def test_a_video_of_another_shape_or_length_is_a_problem(tmp_path):
    assert problems(result(tmp_path, width=640, height=640)) == [
        "airflow, product LL-1: the final video is 640x640, expected 9:16"
    ]
    assert problems(result(tmp_path, duration=6.0)) == [
        "airflow, product LL-1: the final video lasts 6.0 s, expected 8 s"
    ]


def test_a_missing_or_doubled_result_is_a_problem(tmp_path):
    found = result(tmp_path)
    assert problems(found, found) == ["airflow: 2 results of product LL-1, expected 1"]
    assert problems(found, products=["LL-1", "LL-2"]) == ["airflow: 0 results of product LL-2, expected 1"]
    (tmp_path / "final.mp4").unlink()
    assert problems(found) == ["airflow, product LL-1: no final video"]


def a_pass(name, *, before=100, after=100, created=5, bought=0):
    return Pass(name=name, credits_before=before, credits_after=after, created={"airflow": created}, bought=bought)


def test_a_pass_that_buys_more_than_it_should_is_a_problem():
    def problems(done):
        return problems_of_pass(done, orders=5, sides=["airflow"])

    assert problems(a_pass("first", after=50, bought=5)) == []
    assert problems(a_pass("again")) == []
    assert problems(a_pass("again", after=90)) == ["again: nothing was bought, but 10 credits are gone"]
    assert problems(a_pass("again", after=90, created=6, bought=1)) == [
        "again: airflow has created 6 jobs, expected 5",
        "again: 1 jobs were bought a second time",
    ]


def test_make_airflow_has_each_connection_that_an_example_names():
    """Beside `ugen_default`, which they name by naming none."""
    named = set()
    for example in demo_parts().dag.parent.glob("*.py"):
        named.update(re.findall(r"conn_id=\"(\w+)\"", example.read_text()))
    assert named <= {CONNECTION_ID, LEDGER_ID}
    assert LEDGER_ID in named


def test_ledger_of_the_demo_is_created_once_on_any_disk(tmp_path):
    ids = set()
    for _ in range(2):
        with Ledger(str(init_ledger(tmp_path / "state"))) as ledger:
            ids.add(ledger.ledger_id)
    assert len(ids) == 1
