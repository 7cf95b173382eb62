# SPDX-License-Identifier: Apache-2.0
"""Everything that can be done with jobs: order, look up, pause, resume, cancel, retry, and let time pass."""

import hashlib
import heapq
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json

from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world import pipeline
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.clock import EmulatedClock
from ugen_provider.emulator.world.credits import NotEnoughCreditsError, actual, breakdown, reservation
from ugen_provider.emulator.world.errors import ErrorReply, Invalid, conflict, not_found
from ugen_provider.emulator.world.job import EmulatedJob
from ugen_provider.emulator.world.journal import Journal
from ugen_provider.emulator.world.pipeline import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    PAUSED,
    PENDING,
    PROCESSING,
    REVIEW,
    Outcome,
    Phase,
    Plan,
    choose,
    plan,
)
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.spec import COMPLETE, STAGES, JobSpec
from ugen_provider.emulator.world.store import RecordStore

_IGNORED = ("webhook_url", "idempotency_key", "product_image_url")


def digest(data: Mapping[str, Any]) -> str:
    """Return a digest of everything in a request that is not null."""
    ordered = {name: data[name] for name in sorted(data) if data[name] is not None}
    return hashlib.sha256(to_json(ordered)).hexdigest()[:32]


def look(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job is recognised by for the seed: nothing that differs between two runs of the same test."""
    seen = {name: value for name, value in params.items() if name not in _IGNORED}
    # Uploads and local servers have another port each time.
    return {**seen, "image": urlsplit(params["product_image_url"]).path}


DAY = 86_400
_RUNNING = (PENDING, PROCESSING, REVIEW)


class Limits:
    """The limits of all accounts.

    Args:
        clock: Whose days count.
        readings: Whether a paused job holds a slot.
    """

    def __init__(self, clock: EmulatedClock, readings: Callable[[], Readings]) -> None:
        self._clock = clock
        self._readings = readings
        self._days: dict[tuple[str, int], int] = {}

    def count(self, tenant: str, at: float) -> None:
        """Count a job that was created."""
        day = (tenant, int(at // DAY))
        self._days[day] = self._days.get(day, 0) + 1

    def active(self, tenant: Tenant) -> int:
        """Return how many jobs of a tenant count as concurrent."""
        held = (PAUSED,) if self._readings().paused_holds_slot == "yes" else ()
        return tenant.index.count(*_RUNNING, *held)

    def check(self, tenant: Tenant, now: float, *, new: bool) -> None:
        """Refuse a job that is too many.

        Args:
            tenant: Whose.
            now: The time.
            new: Whether it counts for the day; a retry does not, it only needs a slot.

        Raises:
            ErrorReply: 429, with when to ask again.
        """
        limits = tenant.settings
        if new and limits.daily_jobs is not None:
            day = int(now // DAY)
            if self._days.get((tenant.name, day), 0) >= limits.daily_jobs:
                wait = self._clock.for_clients((day + 1) * DAY - now)
                raise ErrorReply(429, "DAILY_LIMIT", "The account's daily job limit is reached", retry_after=wait)
        if limits.concurrent_jobs is not None and self.active(tenant) >= limits.concurrent_jobs:
            raise ErrorReply(
                429,
                "CONCURRENCY_LIMIT",
                "The account's limit of concurrent jobs is reached",
                retry_after=self._clock.for_clients(self._until_free(tenant, now)),
            )

    def _until_free(self, tenant: Tenant, now: float) -> float:
        ends = [
            tenant.index.jobs[number].timeline[-1].start
            for status in _RUNNING
            for number in tenant.index.numbers(status)
        ]
        return max(1.0, min(ends, default=now + 30.0) - now)


REVIEW_SECONDS = 2.0


class JobRegistry:
    """The jobs of all tenants.

    Args:
        settings: Seed, prices, pace.
        clock: The one clock.
        store: Where jobs are kept.
        journal: Where purchases are written down.
        readings: Asked whenever a question is open.
        ended: Called when a job completes or fails, with the phase that ended it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: EmulatedClock,
        store: RecordStore,
        journal: Journal,
        readings: Callable[[], Readings],
        ended: Callable[[EmulatedJob, Phase], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._limits = Limits(clock, readings)
        self._journal = journal
        self._readings = readings
        self._ended = ended
        self.outcomes: list[Outcome] = []
        self.by_id: dict[str, EmulatedJob] = {}
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[tuple[str, str], EmulatedJob] = {}
        self._reads: dict[str, int] = {}
        self._due: list[tuple[float, int, EmulatedJob]] = []
        self._number = 0

    def load(self, tenants: Mapping[str, Tenant]) -> None:
        """Take the accounts, and the jobs that the store holds for them."""
        self._tenants = dict(tenants)
        for _, _, record in self._store.load("job"):
            if record["tenant"] in self._tenants:
                self._take(EmulatedJob.from_record(record))

    def admit(self, tenant: Tenant) -> None:
        """Take an account that was opened later."""
        self._tenants[tenant.name] = tenant

    def _take(self, job: EmulatedJob) -> None:
        self.by_id[job.id] = job
        self._keys[job.tenant, job.key] = job
        seen = job.identity.rpartition("/")[0]
        self._reads[seen] = self._reads.get(seen, 0) + 1
        self._limits.count(job.tenant, job.created_at)
        self._number = max(self._number, job.number + 1)
        self._tenants[job.tenant].index.add(job, job.timeline[job.applied].status)
        self._arm(job)

    # Time

    def next_due(self) -> float | None:
        """Return when the next job changes its status by itself."""
        while self._due and self._due[0][2].due != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def catch_up(self, now: float) -> None:
        """Book everything that has happened by `now`, in the order in which it happened."""
        while self._due and self._due[0][0] <= now:
            moment, _, job = heapq.heappop(self._due)
            if job.due == moment:
                self._pass(job, moment)

    def _arm(self, job: EmulatedJob) -> None:
        coming = job.next_change()
        job.due = coming.start if coming else None
        if coming:
            heapq.heappush(self._due, (coming.start, job.number, job))

    def _pass(self, job: EmulatedJob, moment: float) -> None:
        place = pipeline.at(job.timeline, moment)
        for later in range(job.applied + 1, place + 1):
            job.applied = later
            phase = job.timeline[later]
            if phase.status in ENDED:
                self._settle(job, phase)
                if phase.status != CANCELLED:
                    self._ended(job, phase)
        self._tenants[job.tenant].index.move(job, job.timeline[place].status)
        if len(job.plans) > 1 or job.ended:
            # The plan can be made again from the seed; a hundred thousand ended jobs need not hold theirs.
            job.plans.clear()
        self._arm(job)
        self._store.put("job", job.id, job.number, job.record())

    def _settle(self, job: EmulatedJob, phase: Phase) -> None:
        consumed = 0
        if phase.status == COMPLETED:
            consumed = self._actual(job, phase.stage)
        elif phase.status == CANCELLED and self._readings().cancel_consumes == "stages":
            consumed = self._actual(job, phase.stage - 1)
        self._tenants[job.tenant].credits.settle(job.reserved, consumed, job.id, phase.start)
        job.reserved = 0
        job.consumed += consumed

    def _actual(self, job: EmulatedJob, last: int) -> int:
        used = actual(
            job.spec,
            self._settings.prices,
            self.plan(job, job.run),
            persona_voice=self._persona_voice,
            first=job.first,
            last=last,
        )
        return min(used, job.reserved)

    # Looking up

    def get(self, tenant: Tenant, job_id: str) -> EmulatedJob:
        """Return a job of the tenant, by its id.

        Raises:
            ErrorReply: 404, for the jobs of others too.
        """
        readings = self._readings()
        job = self.by_id.get(job_id if readings.id_case == "exact" else job_id.lower())
        if job is None or job.tenant != tenant.name:
            raise not_found("EmulatedJob")
        if readings.get_lag and self._clock.now() - job.created_at < readings.get_lag:
            raise not_found("EmulatedJob")
        return job

    def plan(self, job: EmulatedJob, run: int) -> Plan:
        """Return the plan of one of a job's runs, the same each time."""
        made = job.plans.get(run)
        if made is None:
            made = job.plans[run] = plan(
                job.spec,
                seed=f"{self._settings.seed}/{job.identity}/{run}",
                pace=self._settings.pace,
                quality=self._settings.quality,
                outcome=job.outcomes[run],
            )
        return made

    @property
    def _persona_voice(self) -> bool:
        return self._readings().voice_line == "persona"

    def estimate(self, spec: JobSpec) -> dict[str, int]:
        """Return what a job would reserve, by component."""
        return breakdown(spec, self._settings.prices, persona_voice=self._persona_voice)

    # Ordering

    def create(
        self, tenant: Tenant, params: dict[str, Any], sent: Mapping[str, Any], now: float
    ) -> tuple[EmulatedJob, bool]:
        """Order a job, or return the one that its key already ordered.

        Args:
            tenant: Who orders.
            params: Effective parameters, defaults filled in.
            sent: What was sent.
            now: The time.

        Returns:
            The job, and whether it existed before.

        Raises:
            ErrorReply: 402, 409 or 429.
        """
        key = params.pop("idempotency_key", None)
        effective, as_sent = digest(params), digest({**sent, "idempotency_key": None})
        if key is not None:
            known = self._replay(tenant, key, effective, as_sent, now)
            if known is not None:
                return known, True
        self._limits.check(tenant, now, new=True)
        spec = JobSpec.of(params)
        reserved = reservation(spec, self._settings.prices, persona_voice=self._persona_voice, first=0)
        seen = digest(look(params))
        identity = f"{tenant.name}/{seen}/{self._reads.get(f'{tenant.name}/{seen}', 0)}"
        source = random.Random(f"{self._settings.seed}/{identity}")
        job_id = str(uuid.UUID(int=source.getrandbits(128), version=4))
        persona = str(uuid.UUID(int=source.getrandbits(128), version=4))
        if params.get("persona_id") is None:
            params["persona_id"] = persona
        self._reserve(tenant, reserved, job_id, now)
        job = EmulatedJob(
            id=job_id,
            tenant=tenant.name,
            number=self._number,
            key=key or str(uuid.UUID(int=source.getrandbits(128), version=4)),
            identity=identity,
            effective=effective,
            sent=as_sent,
            created_at=now,
            params=params,
            stop=self._stop(params.get("stop_at_stage")),
            reserved=reserved,
            spec=spec,
            outcomes=[choose(self.outcomes, spec.product_name)],
        )
        job.timeline = pipeline.schedule(
            self.plan(job, 0),
            start=now,
            run=0,
            first=0,
            stop=job.stop,
            stop_status=COMPLETED if self._readings().stop_ends == "completed" else PAUSED,
            review=self._review,
            human=self._human_review(job),
        )
        self._take(job)
        self._store.put("job", job.id, job.number, job.record())
        self._bought("create", job, reserved, now, key_sent=key is not None)
        return job, False

    def _replay(self, tenant: Tenant, key: str, effective: str, sent: str, now: float) -> EmulatedJob | None:
        job = self._keys.get((tenant.name, key))
        if job is None or now - job.created_at >= self._settings.remembered:
            return None
        readings = self._readings()
        if readings.replay_ended == "new" and job.timeline[job.applied].status in (FAILED, CANCELLED):
            return None
        if now - job.created_at < readings.in_flight:
            wait = self._clock.for_clients(job.created_at + readings.in_flight - now)
            message = "A request with this idempotency_key is still in progress"
            raise ErrorReply(409, "REQUEST_IN_PROGRESS", message, retry_after=wait)
        same = job.effective == effective if readings.conflict_compares == "effective" else job.sent == sent
        if same or readings.conflict == "return":
            return job
        if readings.conflict == "422":
            raise Invalid.one(
                "idempotency_conflict", ("body", "idempotency_key"), "Used before with other parameters", key
            )
        raise ErrorReply(409, "IDEMPOTENCY_CONFLICT", "This idempotency_key was used before with other parameters")

    def _reserve(self, tenant: Tenant, amount: int, job_id: str, now: float) -> None:
        try:
            tenant.credits.reserve(amount, job_id, now)
        except NotEnoughCreditsError as short:
            raise ErrorReply(
                402,
                "INSUFFICIENT_CREDITS",
                "Not enough credits for this job",
                details={"required": short.required, "available": short.available},
            ) from None

    def _stop(self, name: str | None) -> int | None:
        if name is None:
            return None
        stage = STAGES.index(name)
        return max(0, stage - 1) if self._readings().stop_at == "before" else stage

    @property
    def _review(self) -> float:
        return REVIEW_SECONDS if self._readings().extra_status else 0.0

    def _bought(self, kind: str, job: EmulatedJob, reserved: int, now: float, *, key_sent: bool) -> None:
        self._journal.bought(
            kind,
            tenant=job.tenant,
            job_id=job.id,
            key=job.key,
            key_sent=key_sent,
            product_name=job.spec.product_name,
            reserved=reserved,
            at=now,
        )

    # Steering

    def pause(self, job: EmulatedJob, now: float) -> None:
        """Stop a job after its current stage.

        Raises:
            ErrorReply: 409 unless it is processing.
        """
        status = job.phase(now).status
        may = {PROCESSING, REVIEW} | ({PENDING} if self._readings().pause_pending == "allowed" else set())
        if status not in may:
            raise conflict(f"A job that is {status} cannot be paused")
        self._rewrite(job, pipeline.pause(job.timeline, now), now)

    def resume(self, job: EmulatedJob, now: float) -> None:
        """Let a paused job continue.

        Raises:
            ErrorReply: 409 unless it is paused.
        """
        status = job.phase(now).status
        if status != PAUSED:
            raise conflict(f"A job that is {status} cannot be resumed")
        again = pipeline.resume(
            job.timeline,
            now,
            self.plan(job, job.run),
            queue=self._queues,
            review=self._review,
            human=self._human_review(job),
        )
        self._rewrite(job, again, now)

    def cancel(self, job: EmulatedJob, now: float) -> None:
        """Cancel a job and release what it reserved.

        Raises:
            ErrorReply: 409, or what the readings say, if it has ended.
        """
        status = job.phase(now).status
        readings = self._readings()
        if status in ENDED:
            if readings.cancel_ended == "200":
                return
            if readings.cancel_ended == "404":
                raise not_found("Active job")
            raise conflict(f"A job that is {status} cannot be cancelled")
        if status == PAUSED and readings.cancel_paused == "refused":
            raise conflict("A paused job cannot be cancelled: resume it first")
        self._rewrite(job, pipeline.cancel(job.timeline, now), now)

    def retry(self, tenant: Tenant, job: EmulatedJob, restart_from: str | None, now: float) -> None:
        """Run a job again from a stage on, with a new reservation.

        Raises:
            ErrorReply: 402, 409 or 429.
        """
        readings = self._readings()
        phase = job.phase(now)
        may = {FAILED, COMPLETED} | ({CANCELLED} if readings.retry_cancelled == "allowed" else set())
        if phase.status not in may:
            raise conflict(f"A job that is {phase.status} cannot be retried")
        first = phase.stage if restart_from is None else STAGES.index(restart_from)
        if restart_from is None and phase.status == COMPLETED:
            first = 0 if phase.stage == COMPLETE else phase.stage + 1
        if first > phase.stage + (phase.status == COMPLETED):
            raise conflict(f"The job never reached {STAGES[first]}: restart from {STAGES[phase.stage]} or before")
        self._limits.check(tenant, now, new=False)
        reserved = reservation(
            job.spec,
            self._settings.prices,
            persona_voice=self._persona_voice,
            first=0 if readings.retry_charge == "whole" else first,
        )
        self._reserve(tenant, reserved, job.id, now)
        job.reserved, job.first = reserved, first
        job.outcomes.append(choose(self.outcomes, job.spec.product_name))
        again = pipeline.retry(
            job.timeline,
            now,
            self.plan(job, job.run),
            run=job.run,
            first=first,
            queue=self._queues,
            review=self._review,
            human=self._human_review(job),
        )
        self._rewrite(job, again, now)
        self._bought("retry", job, reserved, now, key_sent=False)

    def _human_review(self, job: EmulatedJob) -> pipeline.HumanReview | None:
        """Return the review that a job asked for, with the refusals of its outcome."""
        params = job.params
        if self._readings().human_review == "off" or params["human_review"] == "off":
            return None
        return pipeline.HumanReview(
            stages=pipeline.REVIEWED[params["human_review"]],
            refusals=job.outcomes[-1].refusals,
            most=params["human_review_max_rejections"],
            fails=params["human_review_budget"] == "fail",
        )

    @property
    def _queues(self) -> bool:
        return self._readings().retry_status == "pending"

    def _rewrite(self, job: EmulatedJob, phases: pipeline.Timeline, now: float) -> None:
        job.timeline = phases
        job.view = job.brief = None
        self._pass(job, now)
