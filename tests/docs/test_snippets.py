# SPDX-License-Identifier: Apache-2.0
"""Every snippet of the documentation does what its page says: programs run, DAGs and definitions load, and YAML means
something. The commands are run by test_site.py, from the built pages; docs/cli.md is recorded by a test of its own."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ugen_provider.emulator.settings import LOCAL_KEY

DOCS = Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
RECORDED = {"cli.md"}
"""Pages whose blocks are outputs, written by a test of their own."""


@dataclass(frozen=True)
class Snippet:
    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    paths = sorted(DOCS.rglob("*.md"))
    return [path for path in paths if path.name not in RECORDED and path.parent.name != "adr"]


def snippets() -> Iterator[Snippet]:
    for path in pages():
        page = str(path.relative_to(DOCS))
        text = path.read_text("utf-8")
        for found in FENCED.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Snippet(page, line, found[2], textwrap.dedent(found[3]))


ALL = list(snippets())
TESTED: set[str] = set()


def of(*languages: str, mentions: str = "", lacks: tuple[str, ...] = ()) -> Any:
    chosen = [
        snippet
        for snippet in ALL
        if snippet.language in languages
        and mentions in snippet.text
        and not any(word in snippet.text for word in lacks)
    ]
    assert chosen, "nothing is tested here"
    TESTED.update(snippet.place for snippet in chosen)
    return pytest.mark.parametrize("snippet", chosen, ids=lambda snippet: snippet.place)


def run(snippet: Snippet) -> dict[str, Any]:
    """Run an unchanged program, with lines that an error can name."""
    code = compile("\n" * snippet.line + snippet.text, str(DOCS / snippet.page), "exec", dont_inherit=True)
    module: dict[str, Any] = {"__name__": "snippet"}
    exec(code, module)
    return module


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A script in `bash` is one of `examples/`, which have tests of their own."""
    assert {snippet.language for snippet in ALL} <= {"python", "sh", "bash", "yaml", "json", "text"}
    scripts = [path.read_text("utf-8") for path in (Path(__file__).parents[2] / "examples").glob("*.sh")]
    assert all(any(snippet.text in script for script in scripts) for snippet in ALL if snippet.language == "bash")
    fences = sum(line.lstrip().startswith("```") for page in pages() for line in page.read_text("utf-8").splitlines())
    assert fences == 2 * len(ALL)


@of("python", lacks=("from airflow", "dagster", "def test_", "@pytest.fixture"))
def test_a_program_runs(snippet: Snippet, reader: Path) -> None:
    run(snippet)


@of("python", mentions="def test_")
def test_a_test_passes(
    snippet: Snippet, request: pytest.FixtureRequest, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "from airflow" in snippet.text:
        request.getfixturevalue("airflow_database")
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(reader))
        monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(reader))  # read when Airflow was imported
        for other in ALL:
            if other.page == snippet.page and "@dag" in other.text:
                (reader / f"line_{other.line}.py").write_text(other.text)
    for name, function in run(snippet).items():
        if name.startswith("test_"):
            given = {fixture: request.getfixturevalue(fixture) for fixture in inspect.signature(function).parameters}
            function(**given)


@of("python", mentions="@pytest.fixture")
def test_a_fixture_makes_settings(snippet: Snippet) -> None:
    from ugen_provider.emulator.settings import Settings

    made = run(snippet)["ugen_emulator_settings"]
    assert isinstance(made.__wrapped__(), Settings)


@of("python", mentions="from airflow", lacks=("airflow.providers.http", "def test_"))
def test_a_dag_loads(snippet: Snippet, reader: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (reader / "dags").mkdir()
    (reader / "dags" / "example.py").write_text(snippet.text)
    bag = DagBag(reader / "dags")
    assert bag.import_errors == {}
    assert bag.dag_ids


class ByHand:
    """As much of a task instance as the operators of the DAG by hand use."""

    def __init__(self) -> None:
        self.returned: dict[str, Any] = {}

    def xcom_pull(self, *, task_ids: str) -> Any:
        return self.returned[task_ids]


def rendered(task: Any, ti: ByHand) -> Any:
    from airflow.sdk.execution_time.context import ConnectionAccessor

    task.render_template_fields({"conn": ConnectionAccessor(), "ti": ti})
    return task


@of("python", mentions="airflow.providers.http")
def test_a_handwritten_dag_buys_again_when_it_is_cleared(
    snippet: Snippet, reader: Path, ugen_emulator: Any, ugen_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("airflow.providers.http")
    connection = {"conn_type": "http", "host": ugen_emulator.url, "password": LOCAL_KEY}
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_HTTP", json.dumps(connection))
    ti = ByHand()
    for bought in (1, 2):
        dag = run(snippet)
        create, wait = rendered(dag["create"], ti), dag["wait"]
        ti.returned["create"] = create.execute({})
        assert rendered(wait, ti).poke({}) is False
        ugen_clock.advance(600)
        assert wait.poke({}) is True
        assert len(ugen_emulator.emulator.journal.purchases) == bought


@of("python", mentions="requests.Session")
def test_a_handwritten_asset_buys_again_when_materialized_again(
    snippet: Snippet, reader: Path, ugen_emulator: Any, ugen_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    import dagster as dg

    monkeypatch.setattr(time, "sleep", ugen_clock.advance)
    module = run(replace(snippet, text=snippet.text.replace("https://api.u-gen.ai/api/v1", ugen_emulator.base_url)))
    for bought in (1, 2):
        made = dg.materialize([module["video"]], instance=dg.DagsterInstance.ephemeral())
        (event,) = made.get_asset_materialization_events()
        assert event.materialization.metadata["video"].value
        assert len(ugen_emulator.emulator.journal.purchases) == bought


@of("python", mentions="dagster", lacks=("requests.Session",))
def test_definitions_load(snippet: Snippet, reader: Path) -> None:
    import dagster as dg

    module = run(snippet)
    defs = module.get("defs")
    if defs is None:
        assert "DagsterInstance.get()" in snippet.text or any(
            isinstance(made, dg.AssetsDefinition) for made in module.values()
        )
    else:
        dg.Definitions.validate_loadable(defs)


@of("yaml")
def test_yaml_means_something(snippet: Snippet, reader: Path) -> None:
    from ugen_provider.core.feeds import FeedMapping

    written = yaml.safe_load(snippet.text)
    if "type" not in written:
        FeedMapping.from_dict(written)
        return
    from dagster.components.testing import create_defs_folder_sandbox

    from dagster_ugen import UGenVideosComponent

    assert written["type"] == "dagster_ugen.UGenVideosComponent"
    written["attributes"]["feed"] = str(reader / "feed.xml")
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=UGenVideosComponent, defs_yaml_contents=written)
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            assert defs.resolve_all_asset_keys()


def test_the_start_in_dagster_can_be_followed(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, in an environment that knows of no instance; commands that serve pages only check that they could."""
    import os
    import subprocess
    import sys

    (reader / "feed.xml").unlink()
    shown = [snippet.text for snippet in ALL if snippet.page == "start/dagster.md"]
    for name, mark in {
        "definitions.py": "defs = dg.Definitions",
        "add_partitions.py": "sync_product_partitions(",
    }.items():
        (reader / name).write_text(next(text for text in shown if mark in text))
    feed, start = (next(text for text in shown if text.startswith(mark)) for mark in ("cp ", "export "))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_HOME")}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    script = f"set -e\n{feed}{start.replace('dagster dev', 'dagster definitions validate')}"
    done = subprocess.run(["bash", "-c", script], cwd=reader, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 new products, 1 rows refused" in done.stdout
    assert list((reader / "dagster_home").iterdir())


def test_every_program_is_run_by_a_test() -> None:
    assert [
        snippet.place for snippet in ALL if snippet.language in {"python", "yaml"} and snippet.place not in TESTED
    ] == []


def test_connections_are_json() -> None:
    shown = [match for snippet in ALL for match in re.findall(r"AIRFLOW_CONN_(\w+)=('.*')", snippet.text)]
    assert shown
    for name, connection in shown:
        (text,) = shlex.split(connection)
        assert json.loads(text)["conn_type"] in ({"postgres", "sqlite"} if name.endswith("_LEDGER") else {"ugen"})


def test_tables_are_what_the_code_says() -> None:
    import subprocess
    import sys

    script = DOCS.parent / "scripts" / "docs_tables.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
