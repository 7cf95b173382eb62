# SPDX-License-Identifier: Apache-2.0
"""One order stays one purchase after deletes, wipes, renames and repeats in Dagster. One key window later.

In each case the service has forgotten all idempotency keys (`replay_ended: new` and a day on the clock), so only our
own record protects.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dagster_ugen import UGenOptions, UGenResource
from dagster_ugen.event_log import INTENT
from tests.dagster.shop import PRODUCTS, Shop, failure_of, request_of
from ugen_provider import CreateJob
from ugen_provider.core.jobs.order import partition_key
from ugen_provider.core.ledger.store import EphemeralLedgerWarning
from ugen_provider.ledger import Ledger

ALL = ("keyframes", "videos", "final_video")
DAY = 25 * 3600.0


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, shop: Shop, tmp_path: Path) -> Shop:
    """The shop with a named ledger on each kind of database."""
    address = str(tmp_path / "named.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    Ledger.init(address, allow_ephemeral=True).close()
    shop.ledger = address
    return shop


def forget_keys(shop: Shop) -> None:
    """One key window passes."""
    shop.server.emulator.set_readings({"replay_ended": "new"})
    shop.server.emulator.clock.advance(DAY)


def wipe_assets(shop: Shop) -> None:
    """Wipe the materializations, as the pages do: all events of the assets are gone."""
    for asset in ALL:
        shop.instance.wipe_assets([dg.AssetKey(asset)])


def delete_runs(shop: Shop) -> None:
    for run in shop.instance.get_runs():
        shop.instance.delete_run(run.run_id)


def lose_instance(shop: Shop) -> None:
    """A new instance on the same machine, as after `dagster dev` without a home."""
    shop.instance.wipe()


def remove_partition(shop: Shop) -> None:
    shop.instance.delete_dynamic_partition("ugen_products", "lamp")


LOSSES: dict[str, Callable[[Shop], None]] = {
    "nothing": lambda _shop: None,
    "wipe": wipe_assets,
    "delete": delete_runs,
    "lost_instance": lose_instance,
    "partition": remove_partition,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("purchases", [1, 2])
def test_delivered_order_after_a_loss_is_reused(kept, loss, purchases):
    """With purchase 1 delivered, purchase 0's old video must not come back."""
    assert kept.run("lamp").success
    if purchases == 2:
        assert kept.run("lamp", tags={"ugen/regenerate": "1"}).success
    job = kept.order().job_id
    forget_keys(kept)
    LOSSES[loss](kept)
    assert kept.run("lamp").success
    assert len(kept.created) == purchases
    made = kept.materialized("final_video")["lamp"]
    assert (made["ugen/outcome"], made["ugen/job_id"]) == ("reused", job)
    assert made["ugen/purchase_number"] == purchases - 1


@pytest.mark.parametrize("loss", LOSSES)
def test_unanswered_order_after_a_loss_is_bought_once(kept, ugen_faults, loss):
    """The answer of the POST was lost, and the run failed: the record says what may have been bought."""
    ugen_faults.add("lost", method="POST", path="/api/v1/jobs", times=10)
    impatient = UGenResource(**{**kept.resource.model_dump(), "max_retries": 0})
    assert not kept.run("lamp", resource=impatient).success
    ugen_faults.clear()
    LOSSES[loss](kept)
    assert kept.run("lamp").success
    assert kept.created == ["lamp"]


REFUSALS = (401, 402, 403, 404, 405, 413, 422, 429, "connection")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_order_buys_the_corrected_request_once(kept, ugen_faults, refusal):
    """The first run was refused for sure; the second sends the request as it is then, and a day later reuses it."""
    if refusal == "connection":
        away = UGenResource(**{**kept.resource.model_dump(), "base_url": "http://127.0.0.1:1/api/v1", "max_retries": 0})
        assert not kept.run("lamp", resource=away).success
    else:
        ugen_faults.add("status", status=refusal, method="POST", path="/api/v1/jobs", times=10)
        impatient = UGenResource(**{**kept.resource.model_dump(), "max_retries": 0})
        options = UGenOptions(queue_timeout=0.0)
        assert not kept.run("lamp", resource=impatient, options=options, retry_policy=None).success
        ugen_faults.clear()
    corrected = kept.assets(lambda partition: {**request_of(partition), "segment_count": 3})
    assert kept.run("lamp", assets=corrected).success
    [purchase] = kept.server.emulator.journal.find_purchases(kind="create")
    assert kept.order().body["segment_count"] == 3
    forget_keys(kept)
    assert kept.run("lamp", assets=corrected).success
    assert [each.job_id for each in kept.server.emulator.journal.find_purchases(kind="create")] == [purchase.job_id]


def test_view_has_one_observation_per_submitted_purchase(shop):
    """A run that waits has its materialization; one that submits says what it sent, once."""
    assert shop.run("mug").success
    for tags in ({}, {}, {"ugen/regenerate": "1"}, {}):
        assert shop.run("lamp", tags={**tags, "ugen/run_kind": "submit"}).success
    records = shop.instance.fetch_observations(dg.AssetKey("final_video"), limit=20).records
    jobs = [record.asset_observation.metadata["ugen/job_id"].value for record in records]
    assert len(jobs) == len(set(jobs)) == len(shop.created) - 1 == 2


# Renamed assets.


def test_added_prefix_is_refused_and_order_name_keeps_video(kept):
    assert kept.run("lamp").success
    forget_keys(kept)
    result = kept.run("lamp", key_prefix="shop")
    assert "order_name='final_video'" in failure_of(result).description
    assert kept.created == ["lamp"]
    assert kept.run("lamp", key_prefix="shop", order_name="final_video").success
    assert kept.created == ["lamp"]
    assert kept.materialized("shop/final_video")["lamp"]["ugen/outcome"] == "reused"


def test_guard_leaves_other_orders_unrefused(shop):
    """Other partitions, other requests, namespaces, and names that are still defined are no renamed assets."""
    assert shop.run("lamp").success
    assert shop.run("mug", key_prefix="shop").success
    changed = shop.assets(lambda partition: {**request_of(partition), "segment_count": 3}, key_prefix="shop")
    assert shop.run("lamp", assets=changed).success
    staging = UGenResource(**{**shop.resource.model_dump(), "namespace": "staging"})
    assert shop.run("lamp", key_prefix="other", resource=staging).success
    both = [*shop.assets(), *shop.assets(key_prefix="second")]
    assert shop.run("lamp", assets=both, select=["second/final_video"]).success
    assert len(shop.created) == 5


def test_guard_is_passed_by_regenerate(shop):
    assert shop.run("lamp").success
    assert shop.run("lamp", key_prefix="shop", tags={"ugen/regenerate": "new look"}).success
    assert len(shop.created) == 2


def test_renamed_own_asset_is_refused(shop):
    def own_asset(name: str, **arguments):
        @dg.asset(name=name)
        def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
            ugen.buy(context, request_of("lamp"), **arguments)

        return own

    assert shop.run(assets=[own_asset("poster")]).success
    result = shop.run(assets=[own_asset("billboard")])
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data.error
    assert "order_name='poster'" in failure.to_string()
    assert shop.run(assets=[own_asset("billboard", order_name="poster")]).success
    assert shop.created == ["lamp"]


# Assets of the user's own.


def test_own_asset_materialized_three_times_buys_once(kept):
    @dg.asset
    def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
        bought = ugen.buy(context, request_of("lamp"))
        assert bought.job.final_video_url

    for number in range(3):
        assert kept.run(assets=[own]).success
        made = kept.materialized("own")[""]
        assert made["ugen/jobs"] == int(number == 0)
        assert made["ugen/outcome"] == ("created" if number == 0 else "reused")
        forget_keys(kept)
    assert kept.created == ["lamp"]


def test_own_asset_with_partitions_buys_each_once(shop):
    @dg.asset(partitions_def=PRODUCTS)
    def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> dg.MaterializeResult:
        bought = ugen.buy(context, request_of(context.partition_key))
        return dg.MaterializeResult(metadata={"mine": bought.job.job_id})

    for partition in ("lamp", "mug", "lamp"):
        assert shop.run(partition, assets=[own]).success
    assert shop.created == ["lamp", "mug"]
    made = shop.materialized("own")["lamp"]
    assert made["mine"] == made["ugen/job_id"]


def test_own_op_needs_an_order_name(shop):
    @dg.op
    def buying(context: dg.OpExecutionContext, ugen: UGenResource) -> None:
        ugen.buy(context, request_of("lamp"))

    @dg.op
    def naming(context: dg.OpExecutionContext, ugen: UGenResource) -> None:
        ugen.buy(context, request_of("lamp"), order_name="lamp, spring")

    def run(op):
        job = dg.GraphDefinition(name="one", node_defs=[op]).to_job(resource_defs={"ugen": shop.resource})
        return job.execute_in_process(instance=shop.instance, raise_on_error=False)

    assert not run(buying).success
    assert run(naming).success
    assert run(naming).success
    assert shop.created == ["lamp"]


def test_failed_own_purchase_raises_its_own_error(shop, ugen_faults):
    ugen_faults.job(product_name="lamp", fail_at="generation", kind="moderation")
    raised: list[str] = []

    @dg.asset
    def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
        try:
            ugen.buy(context, request_of("lamp"))
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    assert not shop.run(assets=[own]).success
    assert raised == ["JobFailedError"]


def test_get_client_keeps_the_users_exception(shop):
    @dg.multi_asset(specs=[dg.AssetSpec("one"), dg.AssetSpec("two")])
    def own(context: dg.AssetExecutionContext, ugen: UGenResource):
        with ugen.get_client(context):
            raise LookupError("the user's own words")

    result = shop.run(assets=[own])
    error = next(event for event in result.all_events if event.is_step_failure).step_failure_data.error
    assert "the user's own words" in error.to_string()


def test_get_client_never_fails_paid_work_for_metadata(shop):
    """Metadata of a body with two outputs needs a name, which Dagster asks for after the job was bought."""

    @dg.multi_asset(specs=[dg.AssetSpec("one"), dg.AssetSpec("two")])
    def own(context: dg.AssetExecutionContext, ugen: UGenResource):
        with ugen.get_client(context) as client:
            client.jobs.create(CreateJob(**request_of("lamp")), idempotency_key="k")
        yield dg.MaterializeResult("one")
        yield dg.MaterializeResult("two")

    assert shop.run(assets=[own]).success
    assert shop.created == ["lamp"]


# The ledger of an instance.


def test_default_ledger_is_in_the_data_folder(shop):
    assert shop.run("lamp").success
    assert (Path(os.environ["XDG_DATA_HOME"]) / "ugen" / "ledger.db").is_file()
    root = Path(shop.instance.root_directory)
    assert not list(root.rglob("ledger.db"))


def test_server_instance_without_a_named_ledger_is_refused(shop, monkeypatch):
    class ServerStorage:
        pass

    monkeypatch.setattr(type(shop.instance), "event_log_storage", ServerStorage())
    resource = UGenResource(**{**shop.resource.model_dump(), "ledger": None})
    with pytest.raises(Exception, match=r"UGenResource\.ledger: .*`ugen ledger init"):
        resource.open_ledger(shop.instance)


def test_missing_named_ledger_is_refused_before_a_purchase(shop, tmp_path):
    shop.ledger = str(tmp_path / "mistyped.db")
    result = shop.run("lamp")
    assert "ugen ledger init" in failure_of(result).description
    assert shop.created == []


def test_run_begun_with_another_ledger_is_refused(shop, tmp_path):
    assert shop.run("lamp").success
    [run] = shop.instance.get_runs()
    assert run.tags["ugen/ledger_id"]
    Ledger.init(str(tmp_path / "other.db"), allow_ephemeral=True).close()
    shop.ledger = str(tmp_path / "other.db")
    result = shop.run("lamp", tags={"ugen/ledger_id": run.tags["ugen/ledger_id"]})
    assert "could be bought twice" in failure_of(result).description
    assert shop.created == ["lamp"]


# Orders of versions before the ledger.


def observe_intent(shop: Shop, *, job_id: str | None, **changes) -> None:
    """Write an observation as a version before the ledger did."""
    key = partition_key(asset="final_video", partition="lamp")
    body = {**request_of("lamp"), "idempotency_key": "an-old-key"}
    intent = {
        "scope": str(key),
        "generation": 0,
        "key": "an-old-key",
        "body": body,
        "fingerprint": "f" * 64,
        "scheme": 1,
        "written_at": shop.server.emulator.clock.now(),
        "refused": False,
        "job_id": job_id,
        "stage_retries": 0,
        "pending_retry": None,
        "regenerate": [],
        "action": None,
        "holder": "an old run",
        "earlier": [],
        "armed": False,
        **changes,
    }
    shop.instance.report_runless_asset_event(
        dg.AssetObservation("final_video", partition="lamp", metadata={INTENT: dg.MetadataValue.json(intent)})
    )


def old_job(shop: Shop, *, cancel: bool = False) -> str:
    with shop.resource.get_client() as client:
        job = client.jobs.create(CreateJob(**request_of("lamp")), idempotency_key="an-old-key")
        if cancel:
            client.jobs.cancel(job.job_id)
        return job.job_id


def test_older_order_is_imported_once_and_reused(kept):
    job = old_job(kept)
    observe_intent(kept, job_id=job)
    kept.instance.add_dynamic_partitions("ugen_products", ["lamp"])
    assert kept.run("lamp").success
    assert kept.created == ["lamp"]
    assert kept.order().job_id == job
    wipe_assets(kept)
    assert kept.run("lamp").success
    assert kept.created == ["lamp"], "the import stays, also without the event log"


def test_older_cancel_is_imported_with_its_order(kept):
    """A job that our own termination cancelled is bought again; one that another user cancelled is not."""
    job = old_job(kept, cancel=True)
    observe_intent(kept, job_id=job, action={"kind": "cancel", "reason": "kill", "at": 0.0, "confirmed": True})
    assert kept.run("lamp").success
    assert sorted(kept.jobs.values()) == ["cancelled", "completed"]


def test_older_order_of_a_renamed_asset_is_found_by_order_name(shop):
    observe_intent(shop, job_id=old_job(shop))
    assert shop.run("lamp", key_prefix="shop", order_name="final_video").success
    assert shop.created == ["lamp"]


def test_warning_about_a_temporary_disk_is_no_error(shop):
    with warnings.catch_warnings():
        warnings.simplefilter("default", EphemeralLedgerWarning)
        assert shop.run("lamp", options=UGenOptions()).success
