# SPDX-License-Identifier: Apache-2.0
"""A user's own tests of pipelines: the fixture, `materialize`, `materialize_to_memory`, direct calls, and clocks."""

from typing import Any

import dagster as dg
import pytest

from dagster_ugen import UGenResource, UGenVideoAssets, build_assets_from_definition, build_ugen_assets
from dagster_ugen.definition import Output, UGenAssetProps
from dagster_ugen.requests import as_requests
from tests.dagster.shop import request_of
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

TWO = dg.StaticPartitionsDefinition(["lamp", "mug"])


@dg.asset
def two_videos(context: dg.AssetExecutionContext, ugen: UGenResource) -> list[str]:
    """An asset of the user's own, with two jobs and the default poll interval of 10 s."""
    return [ugen.buy(context, request_of(name), order_name=f"campaign {name}").job.job_id for name in ("lamp", "mug")]


def purchases(server: EmulatorServer) -> int:
    return len(server.emulator.journal.purchases)


@pytest.mark.parametrize("run", [dg.materialize, dg.materialize_to_memory], ids=["materialize", "to_memory"])
def test_two_jobs_in_a_users_own_test(
    run: Any, ugen_dagster_resource: UGenResource, ugen_emulator: EmulatorServer
) -> None:
    result = run([two_videos], resources={"ugen": ugen_dagster_resource})
    assert result.success
    assert len(set(result.output_for_node("two_videos"))) == 2
    assert purchases(ugen_emulator) == 2


@pytest.mark.parametrize(
    "partitions",
    [{"partition_key": "lamp"}, {"partition_key_range": dg.PartitionKeyRange("lamp", "mug")}],
    ids=["key", "range"],
)
def test_body_called_directly_returns_results(
    partitions: dict[str, Any], ugen_dagster_resource: UGenResource, ugen_emulator: EmulatorServer
) -> None:
    [videos] = build_ugen_assets(requests=request_of, partitions_def=TWO)
    count = 1 if "partition_key" in partitions else 2
    for _ in range(2):  # the second call finds the first one's purchases
        with dg.build_asset_context(resources={"ugen": ugen_dagster_resource}, **partitions) as context:
            results = list(videos(context))
        keys = [result.asset_key.to_user_string() for result in results]
        assert keys == ["keyframes", "videos", "final_video"]
        assert purchases(ugen_emulator) == count


def test_own_body_called_directly_buys_once(ugen_dagster_resource: UGenResource, ugen_emulator: EmulatorServer) -> None:
    first = two_videos(dg.build_asset_context(), ugen=ugen_dagster_resource)
    assert two_videos(dg.build_asset_context(), ugen=ugen_dagster_resource) == first
    assert purchases(ugen_emulator) == 2


def test_direct_call_without_gate_and_partitions(ugen_dagster_resource: UGenResource) -> None:
    videos = UGenVideoAssets(requests=as_requests(request_of), props=UGenAssetProps(output=Output.FINAL_VIDEO))
    [assets] = build_assets_from_definition(videos)
    final = list(assets(dg.build_asset_context(), ugen=ugen_dagster_resource))[-1]
    assert final.metadata["ugen/outcome"] == "created"
    assert final.metadata["ugen/credits"] > 0


def test_stopped_clock_fails_the_run_and_says_so() -> None:
    with EmulatorServer(Settings(speed=0, admin=True, patience=0.5)) as server:
        resource = UGenResource(api_key=LOCAL_KEY, base_url=server.base_url)
        result = dg.materialize([two_videos], resources={"ugen": resource}, raise_on_error=False)
        failure = result.failure_data_for_node("two_videos")
        assert failure is not None
        assert failure.error is not None
        assert "clock is stopped" in str(failure.error.cause or failure.error)
