# SPDX-License-Identifier: Apache-2.0
"""The component: from YAML to assets, what is refused and where, and a key that stays hidden."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from dagster_ugen import UGenVideosComponent
from tests.dagster.shop import failure_of
from ugen_provider.emulator.settings import LOCAL_KEY

REPOSITORY = Path(__file__).parents[2]
FEED = REPOSITORY / "examples" / "feed.xml"
KEY = "ugen_sk_this_must_never_be_seen"
GOOD: dict[str, Any] = {
    "api_key": "{{ env('UGEN_API_KEY') }}",
    "feed": str(FEED),
    "job": {"segment_count": 2},
}
CHECKS = {"blocking": ["keyframe_count", "segment_count"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    monkeypatch.setenv("UGEN_API_KEY", KEY)


@contextmanager
def loaded(component: type = UGenVideosComponent, **attributes: Any) -> Iterator[tuple[Any, dg.Definitions]]:
    asked = {**GOOD, **attributes}
    contents = {"type": f"{component.__module__}.{component.__name__}", "attributes": asked}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=component, defs_yaml_contents=contents)
        shutil.copy(FEED, path / "feed.xml")
        with sandbox.load_component_and_build_defs(defs_path=path) as found:
            yield found


def keys(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}


def test_yaml_becomes_assets():
    with loaded(key_prefix=["shop"], group_name="films", owners=["team:video"], checks=CHECKS) as (_, defs):
        assert keys(defs) == {"shop/keyframes", "shop/videos", "shop/final_video"}
        graph = defs.resolve_asset_graph()
        final = graph.get(dg.AssetKey(["shop", "final_video"]))
        assert final.group_name == "films"
        assert final.owners == ["team:video"]
        assert final.partitions_def == dg.DynamicPartitionsDefinition(name="ugen_products")
        assert {key.name for key in graph.asset_check_keys} >= {"keyframe_count", "credits_within_estimate"}
        assert sorted(key.name for key in graph.asset_check_keys if graph.get(key).blocking) == CHECKS["blocking"]
        sensors = defs.resolve_all_sensors() if hasattr(defs, "resolve_all_sensors") else defs.sensors
        assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}


def sensors_of(defs: dg.Definitions) -> dict[str, Any]:
    return {sensor.name: sensor for sensor in defs.sensors or ()}


def test_the_sensors_and_how_often_they_look():
    with loaded(sensors={"reconcile": False, "feed_interval": 60, "completion_interval": 5}) as (_, defs):
        found = {name: sensor.minimum_interval_seconds for name, sensor in sensors_of(defs).items()}
        assert found == {"ugen_feed_sensor": 60, "ugen_completion_sensor": 5}
    with loaded(sensors={"completion": False}) as (_, defs):
        assert set(sensors_of(defs)) == {"ugen_feed_sensor", "ugen_reconcile_sensor"}


def test_with_a_gate():
    with loaded(gate={"approve_score": 0.8}, automation="after_approval") as (_, defs):
        assert set(sensors_of(defs)) == {"ugen_feed_sensor", "ugen_reconcile_sensor"}, "what waits is not made in bulk"
        decisions = ["ugen_approve_keyframe", "ugen_reject_keyframe", "ugen_regenerate_keyframe"]
        assert [job.name for job in defs.jobs or ()] == decisions
        assert keys(defs) == {"anchor_keyframe", "keyframe_approval", "keyframes", "videos", "final_video"}
        graph = defs.resolve_asset_graph()
        automatic = {
            key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).automation_condition
        }
        assert automatic == {"keyframes", "videos", "final_video"}


def test_missing_feed_fails_its_run_and_not_the_code_location(shop):
    account = {"base_url": shop.server.base_url}
    with loaded(feed="no-such-feed.xml", api_key=LOCAL_KEY, account=account) as (_, defs):
        shop.instance.add_dynamic_partitions("ugen_products", ["lamp"])
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=shop.instance, partition_key="lamp", raise_on_error=False)
        assert "no-such-feed.xml" in failure_of(result).description
    assert shop.created == []


def test_runs_are_cut_and_repeated_as_the_yaml_says():
    with loaded(partitions_per_run=7, retry_policy={"max_retries": 3, "delay": 5}, deps=["raw/products"]) as (_, defs):
        assets = next(each for each in defs.assets if isinstance(each, dg.AssetsDefinition))
        assert assets.backfill_policy.max_partitions_per_run == 7
        assert assets.op.retry_policy == dg.RetryPolicy(max_retries=3, delay=5)
        graph = defs.resolve_asset_graph()
        assert dg.AssetKey(["raw", "products"]) in graph.get(dg.AssetKey("keyframes")).parent_keys


def test_a_feed_beside_the_yaml():
    with loaded(feed="feed.xml") as (_, defs):
        assert keys(defs)


class Described(UGenVideosComponent):
    """Overrides both."""

    def get_asset_spec(self, props):
        return super().get_asset_spec(props).replace_attributes(description=f"our {props.output.value}")

    def execute(self, context, ugen, *, videos, regenerate):
        context.log.info("first our own")
        for output in ("keyframes", "videos", "final_video"):
            yield dg.MaterializeResult(asset_key=output, metadata={"ours": True})


def test_overrides():
    with loaded(Described) as (_, defs):
        final = defs.resolve_asset_graph().get(dg.AssetKey("final_video"))
        assert final.description == "our final_video"
        with dg.instance_for_test() as instance:
            instance.add_dynamic_partitions("ugen_products", ["LL-1001"])
            job = defs.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, partition_key="LL-1001")
            assert all("ours" in event.materialization.metadata for event in result.get_asset_materialization_events())


def refusal(**attributes: Any) -> str:
    """Return what the component says, with all its causes, to attributes that it refuses."""
    with pytest.raises(Exception) as refused, loaded(**attributes):  # noqa: PT011  Dagster wraps any error
        pass
    said, error = [], refused.value
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"feeed": "x"}, "feeed"),
        ({"job": {"segment_count": 99}}, "segment_count: must be at most 10"),
        ({"job": {"segment_count": 2, "aspect": "9:16"}}, "aspect: is not a field of POST /jobs"),
        ({"job": {}}, "segment_count: is required"),
        ({"gate": {"approve_score": "{{ 7 }}"}}, "approve_score: must be at most 1, got 7"),
        ({"gate": {"max_open_gates": "{{ 0 }}"}}, "max_open_gates: must be at least 1, got 0"),
        ({"account": {"poll_interval": "{{ 0 }}"}}, "poll_interval: must be more than 0, got 0"),
        ({"checks": {"min_score": "high"}}, "min_score: Input should be a valid number"),
        ({"account": {"base_url": "http://ugen.example/api"}}, "base_url: http://ugen.example would send the key"),
        ({"partitions": {"name": ""}}, "PartitionsArgs"),
        ({"api_key": "{{ env.UGEN_NO_SUCH_KEY }}"}, "api_key: the environment variable that it names is not set"),
        ({"mapping": {"columms": {}}}, "columms: is no section"),
        ({"account": {"spending": "everything"}}, "spending"),
        ({"options": {"on_interrupt": "explode"}}, "on_interrupt"),
        ({"gate": {}, "sensors": {"completion": True}}, "no job is submitted to be collected"),
        ({"automation": "after_approval"}, "without a gate there is no approval"),
        ({"checks": {"blocking": ["urls_alive"]}}, "urls_alive is not among the checks"),
    ],
)
def test_a_wrong_field_is_refused_at_load_time(attributes, message):
    assert message in refusal(**attributes)


@pytest.mark.parametrize(
    ("attributes", "place"),
    [
        ({"job": {"segment_count": 99}}, "defs.yaml:4 - attributes.job: segment_count"),
        ({"mapping": {"columms": {}}}, "defs.yaml:6 - attributes.mapping: columms"),
        ({"options": {"timeout": 60, "on_interrupt": "explode"}}, "defs.yaml:7 - attributes.options.on_interrupt: "),
        ({"gate": {"approve_score": "{{ 7 }}"}}, "defs.yaml:5 - attributes.gate.approve_score: "),
        ({"automation": "after_approval"}, "defs.yaml:3 - attributes.automation: "),
        ({"gate": {}, "sensors": {"completion": True}}, "defs.yaml:8 - attributes.sensors.completion: "),
    ],
)
def test_what_is_refused_at_load_time_has_its_place_in_the_yaml(attributes, place):
    assert place in refusal(**attributes), "the sandbox writes the attributes in alphabetical order"


def test_a_refusal_says_nothing_of_the_key():
    for attributes in ({"automation": "after_approval"}, {"gate": {}, "sensors": {"completion": True}}):
        assert KEY[:6] not in refusal(**attributes)
    with pytest.raises(ValueError, match="without a gate") as refused:
        UGenVideosComponent(api_key=KEY, feed="feed.xml", job={"segment_count": 2}, automation="after_approval")
    assert KEY[:6] not in str(refused.value)


def test_numbers_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("LEAST", "0.4")
    with loaded(
        checks={"min_score": "{{ env('LEAST') }}"},
        account={"poll_interval": "{{ env('POLL', '5') }}"},
        options={"max_credits": "{{ 70 }}"},
        sensors={"feed_interval": "{{ 60 }}"},
    ) as (component, _):
        assert component.checks.min_score == 0.4
        assert component.account.poll_interval == 5
        assert component.options.max_credits == 70
        assert component.sensors.feed_interval == 60


def test_a_missing_key_names_the_variable(monkeypatch):
    monkeypatch.delenv("UGEN_API_KEY")
    assert "Environment variable UGEN_API_KEY is not set" in refusal()


# In a dg project.


def dg_command(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("UGEN_")}
    bin_folder = Path(sys.executable).parent
    clean |= {
        "PATH": f"{bin_folder}{os.pathsep}{clean['PATH']}",
        "VIRTUAL_ENV": str(bin_folder.parent),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(
        [str(bin_folder / "dg"), *arguments],
        check=False,
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of example_dagster, whose feed is where it is in the repository."""
    folder = tmp_path / "example_dagster"
    shutil.copytree(REPOSITORY / "example_dagster", folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (tmp_path / "examples").mkdir()
    shutil.copy(FEED, tmp_path / "examples" / "feed.xml")
    return folder


def test_the_example_project_loads(project):
    said = dg_command(project, "list", "defs", "--json", UGEN_API_KEY=KEY)
    assert said.returncode == 0, said.stdout + said.stderr
    assert KEY not in said.stdout + said.stderr
    listed = {each.get("asset_key") or each["key"] for each in _json_of(said.stdout)["assets"]}  # `key` until 1.12
    assert {"final_video", "keyframes", "videos"} <= listed


def _json_of(text: str) -> Any:
    return json.loads(text[min(position for position in (text.find("{"), text.find("[")) if position >= 0) :])


def test_scaffolded_yaml_loads_and_asks_for_the_key_by_name(project):
    said = dg_command(project, "scaffold", "defs", "dagster_ugen.UGenVideosComponent", "lamps")
    assert said.returncode == 0, said.stdout + said.stderr
    path = project / "shop_videos" / "defs" / "lamps" / "defs.yaml"
    written = yaml.safe_load(path.read_text())["attributes"]
    assert written["api_key"] == "{{ env('UGEN_API_KEY') }}"
    assert written["job"] == {"segment_count": 3}
    shutil.rmtree(path.parents[1] / "videos")
    assert dg_command(project, "check", "yaml", "--validate-requirements", UGEN_API_KEY=KEY).returncode == 0
    assert dg_command(project, "check", "defs", UGEN_API_KEY=KEY).returncode == 0
    without = dg_command(project, "check", "defs")
    assert without.returncode != 0
    assert "UGEN_API_KEY" in without.stdout + without.stderr


def test_a_wrong_field_is_named_with_its_line(project):
    path = project / "shop_videos" / "defs" / "videos" / "defs.yaml"
    path.write_text(path.read_text().replace("  job:", "  feeed: x\n  job:"))
    said = dg_command(project, "check", "yaml", UGEN_API_KEY=KEY)
    assert said.returncode != 0
    assert "defs.yaml:" in said.stdout
    assert "feeed" in said.stdout


@pytest.mark.parametrize(
    ("wrong", "named"), [("segment_cuont: 2", "segment_cuont"), ("segment_count: 2\n  mapping: {colums: {}}", "colums")]
)
def test_dg_check_yaml_knows_job_fields_and_mapping_sections(project, wrong, named):
    path = project / "shop_videos" / "defs" / "videos" / "defs.yaml"
    path.write_text(path.read_text().replace('segment_count: 2\n    aspect_ratio: "9:16"', wrong))
    said = dg_command(project, "check", "yaml", UGEN_API_KEY=KEY)
    assert said.returncode != 0
    assert "defs.yaml:" in said.stdout
    assert named in said.stdout


def test_the_component_is_listed():
    said = dg_command(REPOSITORY / "example_dagster", "list", "components", "--json")
    assert "dagster_ugen.UGenVideosComponent" in said.stdout


# The key.

RESOURCES = """query($selector: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $selector) {
    ... on ResourceDetailsList { results { name configuredValues { key value type } } } } }"""


LAUNCHPAD = """query($pipeline: PipelineSelector!) { runConfigSchemaOrError(selector: $pipeline) {
    ... on RunConfigSchema { rootDefaultYaml allConfigTypes { key ... on CompositeConfigType {
      fields { name defaultValueAsJson } } } } ... on PythonError { message } } }"""


def module_of(project: Path) -> Any:
    from dagster._core.workspace.load_target import ModuleTarget

    return ModuleTarget("shop_videos.definitions", attribute=None, working_directory=str(project), location_name="here")


def pages_say(target: Any, query: str, **job: str) -> str:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_graphql.schema import create_schema

    with dg.instance_for_test() as instance, WorkspaceProcessContext(instance, target) as process:
        context = process.create_request_context()
        selector = {"repositoryLocationName": "here", "repositoryName": "__repository__"}
        variables = {"selector": selector, "pipeline": {**selector, **job}} if job else {"selector": selector}
        answer = asyncio.run(create_schema().execute_async(query, context_value=context, variables=variables))
        assert not answer.errors, answer.errors
        return json.dumps(answer.data)


def test_the_resource_page_never_shows_the_key():
    from dagster._core.workspace.load_target import PythonFileTarget

    file = str(REPOSITORY / "example_dagster" / "feed_to_videos.py")
    said = pages_say(PythonFileTarget(file, attribute=None, working_directory=None, location_name="here"), RESOURCES)
    assert '"name": "ugen"' in said
    assert KEY not in said
    assert '"UGEN_API_KEY"' in said


def test_the_components_resource_is_on_no_page(project):
    said = pages_say(module_of(project), RESOURCES)
    assert KEY not in said


@pytest.mark.parametrize("job", ["__ASSET_JOB", "ugen_videos_job"])
def test_the_launchpad_offers_no_account_with_its_key(project, job):
    said = pages_say(module_of(project), LAUNCHPAD, pipelineName=job)
    assert "rootDefaultYaml" in said, said
    assert KEY not in said


def test_two_feeds_share_one_project(project):
    folder = project / "shop_videos" / "defs"
    written = (folder / "videos" / "defs.yaml").read_text()
    for name, account in (("videos", "first"), ("more", "second"), ("other", "first")):
        text = written.replace("poll_interval: 5", f"namespace: {account}")
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "defs.yaml").write_text(text.replace("  job:", f"  key_prefix: [{name}]\n  job:"))
    said = pages_say(module_of(project), LAUNCHPAD, pipelineName="more_ugen_videos_job")
    assert "rootDefaultYaml" in said, said


def test_printing_never_shows_the_key():
    from dagster_ugen import UGenResource

    with loaded() as (component, _):
        assert KEY not in repr(component)
        assert KEY not in str(component)
    assert KEY not in repr(UGenResource(api_key=KEY))
