# SPDX-License-Identifier: Apache-2.0
"""The reconcile sensor: it does what is owed once the run that decided it is gone.

Owed are cancels that are not confirmed, gates that expired, and the outputs of jobs whose partition failed for good. A
run that a person terminated or deleted, and whose process ended before it could cancel, is found by its attempts in the
ledger. A job without an owner is collected or reported, never cancelled.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen.definition import VideoDefinition, order_parts
from dagster_ugen.event_log import is_retried, is_under_way, recorded_jobs, run_of_attempt, runs_of
from dagster_ugen.resource import required_resources, sensor_account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_ugen.account import Account
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.jobs.results import OwnerState, ReconcileReport
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.core.ledger.record import Action, OrderRecord

GONE_SECONDS = 600.0
"""Seconds between the two readings by which a run counts as deleted: a storage may not show a new run at once."""

_LEASE_SECONDS = 120.0
_OWNER = uuid.uuid4().hex
"""This process, as the owner of the reconciler's lease."""

_RECENT_SECONDS = 7 * 86_400.0
"""How long ago an order may have changed to be read. A job that runs longer is named by `ugen jobs list`."""


@dataclass(slots=True)
class _Cursor:
    """The state of the sensor between ticks.

    Attributes:
        missing: When each run that does not exist was first missed, in seconds since the epoch.
    """

    missing: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> _Cursor:
        try:
            return cls(**json.loads(text)) if text else cls()
        except (ValueError, TypeError):
            return cls()

    def write(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def build_ugen_reconcile_sensor(
    videos: VideoDefinition | Sequence[VideoDefinition] = (),
    *,
    resource: UGenResource | None = None,
    name: str = "ugen_reconcile_sensor",
    minimum_interval_seconds: int = 300,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build a sensor that sends owed cancels, ends expired gates, and collects results of partitions that failed.

    It purchases nothing, and cancels only what a verified record says is to be cancelled, while no newer run needs the
    job. One sensor serves all orders of an account in the ledger.

    Args:
        videos: The assets whose recorded jobs need no collection; none is needed for cancels.
        resource: The account; default the resource `ugen` of the definitions.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        default_status: Whether it runs from the start.
    """
    definitions = [videos] if isinstance(videos, VideoDefinition) else list(videos)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = _Cursor.read(context.cursor)
        with sensor_account(resource, context).open_account(context.instance) as account:
            report = reconcile_account(context.instance, account, definitions, missing=cursor.missing, now=time.time())
        for action, why in report.owed:
            context.log.warning("job %s: its %s (%s) is owed: %s", action.job_id, action.kind, action.reason, why)
        summary = (
            f"{len(report.done)} settled, {len(report.withdrawn)} withdrawn, {len(report.owed)} owed"
            if report.ran
            else "another process of this account reconciles"
        )
        return dg.SensorResult(skip_reason=dg.SkipReason(summary), cursor=cursor.write())

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys=required_resources(resource),
        description="Sends owed cancels of U-Gen jobs, ends expired gates, and collects results of failed partitions.",
    )


def reconcile_account(
    instance: dg.DagsterInstance,
    account: Account,
    definitions: Sequence[VideoDefinition],
    *,
    missing: dict[str, float],
    now: float,
) -> ReconcileReport:
    """Do one round for an account. Free: it sends GET and DELETE, never POST.

    Args:
        instance: The Dagster instance, which says what became of runs.
        account: The account.
        definitions: The assets whose recorded jobs need no collection.
        missing: When each missing run was first missed; it is updated.
        now: Seconds since the epoch.
    """
    from ugen_provider.core.jobs.results import ReconcileReport
    from ugen_provider.core.jobs.sync.reconciler import LEASE, reconcile
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.ledger.store import take_lease

    if account.config.spending != "allow":
        return ReconcileReport(ran=False)  # the jobs are another environment's
    if not take_lease(account.ledger, LEASE, owner=_OWNER, seconds=_LEASE_SECONDS):
        return ReconcileReport(ran=False)
    store = account.store()
    runs = _Runs(instance, missing, now)
    with account.client() as client:
        world = World(client, store)
        record_abandoned(world, account, definitions, runs=runs, now=now)
        report = reconcile(
            world,
            account.ledger,
            owner=_OWNER,
            owner_state=partial(_owner_state, account.config.namespace, runs),
            collect=_collector(account, world),
        )
    runs.forget_found()
    return report


class _Runs:
    """States of runs: a run is gone if it is missing in two readings ten minutes apart."""

    def __init__(self, instance: dg.DagsterInstance, missing: dict[str, float], now: float) -> None:
        self.instance = instance
        self._missing = missing
        self._now = now
        self._known: dict[str, dg.DagsterRun | None] = {}

    def load(self, run_ids: Sequence[str]) -> None:
        unknown = [run_id for run_id in run_ids if run_id not in self._known]
        found = runs_of(self.instance, unknown)
        self._known |= {run_id: found.get(run_id) for run_id in unknown}

    def status(self, run_id: str) -> str:
        """Return `canceling`, `canceled`, `ended`, `alive`, `gone`, or `missing` for a run that may yet be shown."""
        self.load([run_id])
        run = self._known[run_id]
        if run is None:
            first = self._missing.setdefault(run_id, self._now)
            return "gone" if self._now - first >= GONE_SECONDS else "missing"
        if run.status in {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}:
            return "canceling" if run.status is dg.DagsterRunStatus.CANCELING else "canceled"
        return "alive" if is_under_way(run) else "ended"

    def forget_found(self) -> None:
        """Keep only the runs that are still missing and still asked for."""
        for run_id in list(self._missing):
            if self._known.get(run_id, None) is not None or run_id not in self._known:
                del self._missing[run_id]


def _owner_state(namespace: str, runs: _Runs, record: OrderRecord, action: Action) -> OwnerState:
    """Return whether the run that an owed cancel ended is over. Orders of other orchestrators are not known here."""
    parts = order_parts(record.order_key)
    if parts is None or parts[0] != namespace:
        return "unknown"
    status = runs.status(run_of_attempt(record.attempt))
    if status in {"canceling", "canceled", "gone"}:
        return "over"
    # A run whose process failed after its termination was recorded may end as FAILURE.
    return "over" if status == "ended" and action.reason == "terminate" else "alive"


def record_abandoned(
    world: World, account: Account, definitions: Sequence[VideoDefinition], *, runs: _Runs, now: float
) -> None:
    """Record what is owed for runs whose process ended before it could record it.

    A run that a person terminated or deleted owes the cancel of its job, where its order has `cancel_on_kill`. A run
    that failed while its job runs owes what `on_final_failure` says: a lost worker causes the same state.
    """
    from ugen_provider.core.jobs.policy import effective_action
    from ugen_provider.core.ledger.record import Action

    store: LedgerOrderStore = account.store()
    recent = _recent(store, account, since=now - _RECENT_SECONDS)
    runs.load([run_of_attempt(record.attempt) for record in recent])
    delivered = _delivered(runs.instance, account, definitions, recent)
    for record in recent:
        if record.job_id in delivered:
            continue
        status = runs.status(run_of_attempt(record.attempt))
        terminated = status in {"canceled", "gone"} and record.cancel_on_kill
        failed = _failed_run(runs, record) if status == "ended" else None
        if not terminated and failed is None:
            continue
        verified = store.read_verified(record.order_key)
        if verified is None or verified.token != record.token:
            continue  # another writer's record, or a newer attempt: no authority
        actions = store.actions(record.order_key)
        if effective_action(record, actions) is not None or any(
            action.token == record.token and action.concerns(record) for action in actions
        ):
            continue
        if failed is not None and is_retried(runs.instance, failed):
            continue  # a retry that is coming or under way waits for the same job
        cancels = terminated or record.on_final_failure == "cancel"
        has_ended = _has_ended(world, record) if cancels else False
        if has_ended is None:
            continue  # the next tick reads it again
        world.append_action(
            Action(
                order_key=record.order_key,
                purchase_number=record.purchase_number,
                job_id=record.job_id,
                kind="cancel" if cancels else "collect",
                # `timeout`, as everywhere for `on_final_failure`: it asks about no owner, since a failed run is over.
                reason="terminate" if terminated else "timeout" if cancels else "final_failure",
                token=record.token,
                at=now,
                # A job that ended first keeps its result; the row says that this run was judged.
                state="withdrawn" if has_ended else "recorded",
            )
        )


def _recent(store: LedgerOrderStore, account: Account, *, since: float) -> list[OrderRecord]:
    """Return the orders of partitions of this account that changed recently and may have a job."""
    prefix = json.dumps([account.config.namespace, "partition"], ensure_ascii=False, separators=(",", ":"))[:-1] + ","
    return [
        record
        for record, _ in store.find(prefix, changed_since=since)
        if record.origin == account.origin and not record.surely_not_bought and not record.deleted and record.attempt
    ]


def _delivered(
    instance: dg.DagsterInstance, account: Account, definitions: Sequence[VideoDefinition], records: list[OrderRecord]
) -> set[str]:
    """Return the jobs that the event log has as the newest materialization of their partition."""
    jobs: set[str] = set()
    for definition in definitions:
        partitions = [
            partition
            for record in records
            if (partition := account.partition_of(definition, record.order_key)) is not None
        ]
        for start in range(0, len(partitions), 1000):
            jobs |= set(recorded_jobs(instance, definition.order_asset, partitions[start : start + 1000]).values())
    return jobs


def _failed_run(runs: _Runs, record: OrderRecord) -> dg.DagsterRun | None:
    run_id = run_of_attempt(record.attempt)
    found = runs_of(runs.instance, [run_id]).get(run_id)
    return found if found is not None and found.status is dg.DagsterRunStatus.FAILURE else None


def _has_ended(world: World, record: OrderRecord) -> bool | None:
    """Return whether the job of an order has ended; None where it cannot be read now."""
    from ugen_provider.core.api import endpoints
    from ugen_provider.core.api.errors import UGenError

    if record.job_id is None:
        return False
    try:
        return world.send(endpoints.get_job(record.job_id)).ended
    except UGenError:
        return None


def _collector(account: Account, world: World) -> Callable[[OrderRecord, Job], str]:
    """Return the function that stores the outputs of a job where its order wanted them."""

    def collect(record: OrderRecord, job: Job) -> str:
        from ugen_provider.core.media import download_outputs

        assert record.destination is not None  # the reconciler asks for nothing else
        parts = order_parts(record.order_key)
        keyframes = job.keyframes or world.client.jobs.list_keyframes(job.job_id)
        request: Mapping[str, Any] = {name: value for name, value in record.body.items() if name != "idempotency_key"}
        manifest = download_outputs(
            job,
            record.destination,
            keyframes=keyframes,
            product_id=(parts[2] if parts is not None else "") or None,
            request=request,
            allow_private=account.is_local,
        )
        return f"{manifest.location}manifest.json"

    return collect
