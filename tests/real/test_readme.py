# SPDX-License-Identifier: Apache-2.0
"""The README's examples run unchanged."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from ugen_provider.cli.demo.airflow import RealAirflow
from ugen_provider.cli.demo.processes import LOCAL_KEY, python_module, wait_until
from ugen_provider.cli.demo.sides import CONNECTION_ID, demo_parts

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = dict(re.findall(r"^## (\w+)\n+```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def env(local_ugen, tmp_path):
    return os.environ | {
        "UGEN_API_KEY": LOCAL_KEY,
        "UGEN_BASE_URL": local_ugen.base_url,
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def run(*command, env, cwd):
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def replaced(example, old, new):
    assert example.count(old) == 1
    return example.replace(old, new)


def seconds_of(video):
    with av.open(str(video)) as opened:
        return opened.duration / av.time_base


def test_there_is_an_example_for_each():
    assert sorted(EXAMPLES) == ["Airflow", "Dagster", "Python"]


def test_python(env, local_ugen, tmp_path):
    script = tmp_path / "example.py"
    # The one difference to the real service: the outputs of this one are on this machine.
    script.write_text(replaced(EXAMPLES["Python"], '"videos")', '"videos", allow_private=True)'))
    before = len(local_ugen.purchases())
    first = run(sys.executable, script, env=env, cwd=tmp_path).strip()
    assert seconds_of(tmp_path / first) == pytest.approx(8, rel=0.02)
    assert run(sys.executable, script, env=env, cwd=tmp_path).strip() == first
    assert len(local_ugen.purchases()) == before + 1


def test_dagster(env, local_ugen, tmp_path):
    (tmp_path / "example.py").write_text(EXAMPLES["Dagster"])
    shutil.copy(demo_parts().feed, tmp_path / "feed.xml")
    before = len(local_ugen.purchases())
    add = "from dagster import DagsterInstance as D; D.get().add_dynamic_partitions('ugen_products', ['LL-1001'])"
    run(sys.executable, "-c", add, env=env, cwd=tmp_path)
    materialize = ("asset", "materialize", "-f", "example.py", "--select", "*", "--partition", "LL-1001")
    run(*python_module("dagster", *materialize), env=env, cwd=tmp_path)
    run(*python_module("dagster", *materialize), env=env, cwd=tmp_path)
    (video,) = (tmp_path / "videos" / "LL-1001").glob("*/final.mp4")
    assert seconds_of(video) == pytest.approx(8, rel=0.02)
    assert len(local_ugen.purchases()) == before + 1


def test_airflow(local_ugen, tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    example = replaced(EXAMPLES["Airflow"], 'output_path="videos"', f'output_path="{tmp_path}/videos"')
    (dags / "example.py").write_text(example)
    before = len(local_ugen.purchases())
    with RealAirflow(tmp_path / "home", dags=dags) as airflow:
        extra = {"base_url": local_ugen.base_url}
        airflow.api.set_connection(CONNECTION_ID, conn_type="ugen", password=LOCAL_KEY, extra=extra)
        airflow.wait_for_dag("lamp")
        airflow.api.trigger("lamp", run_id="once")
        wait_until(
            lambda: airflow.api.run_state("lamp", run_id="once") in {"success", "failed"},
            what="the README's DAG",
            timeout=120,
            watch=[airflow.processes],
        )
        assert airflow.api.run_state("lamp", run_id="once") == "success"
        result = airflow.api.xcom("lamp", run_id="once", task_id="make_video")
    assert result["status"] == "completed"
    (video,) = (tmp_path / "videos").rglob("final.mp4")
    assert seconds_of(video) == pytest.approx(8, rel=0.02)
    assert len(local_ugen.purchases()) == before + 1
