# SPDX-License-Identifier: Apache-2.0
"""Everything that can be done with jobs: order, look up, pause, resume, cancel, retry, and let time pass."""

import heapq
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world import pricing, timeline
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.books import NotEnoughCreditsError
from ugen_provider.emulator.world.clock import Clock
from ugen_provider.emulator.world.identity import digest, look
from ugen_provider.emulator.world.job import Job
from ugen_provider.emulator.world.journal import Journal
from ugen_provider.emulator.world.limits import Limits
from ugen_provider.emulator.world.outcomes import Outcome, choose
from ugen_provider.emulator.world.pipeline import Plan, plan
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Invalid, Refusal, conflict, not_found
from ugen_provider.emulator.world.spec import JobSpec
from ugen_provider.emulator.world.stages import COMPLETE, STAGES
from ugen_provider.emulator.world.store import Store
from ugen_provider.emulator.world.timeline import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    PAUSED,
    PENDING,
    PROCESSING,
    REVIEW,
    Phase,
)

REVIEW_SECONDS = 2.0


class Desk:
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
        clock: Clock,
        store: Store,
        journal: Journal,
        readings: Callable[[], Readings],
        ended: Callable[[Job, Phase], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._limits = Limits(clock, readings)
        self._journal = journal
        self._readings = readings
        self._ended = ended
        self.outcomes: list[Outcome] = []
        self.jobs: dict[str, Job] = {}
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[tuple[str, str], Job] = {}
        self._looks: dict[str, int] = {}
        self._due: list[tuple[float, int, Job]] = []
        self._number = 0

    def load(self, tenants: Mapping[str, Tenant]) -> None:
        """Take the accounts, and the jobs that the store holds for them."""
        self._tenants = dict(tenants)
        for _, _, record in self._store.load("job"):
            if record["tenant"] in self._tenants:
                self._take(Job.from_record(record))

    def admit(self, tenant: Tenant) -> None:
        """Take an account that was opened later."""
        self._tenants[tenant.name] = tenant

    def _take(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._keys[job.tenant, job.key] = job
        seen = job.identity.rpartition("/")[0]
        self._looks[seen] = self._looks.get(seen, 0) + 1
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

    def _arm(self, job: Job) -> None:
        coming = job.next_change()
        job.due = coming.start if coming else None
        if coming:
            heapq.heappush(self._due, (coming.start, job.number, job))

    def _pass(self, job: Job, moment: float) -> None:
        place = timeline.at(job.timeline, moment)
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

    def _settle(self, job: Job, phase: Phase) -> None:
        consumed = 0
        if phase.status == COMPLETED:
            consumed = self._actual(job, phase.stage)
        elif phase.status == CANCELLED and self._readings().cancel_consumes == "stages":
            consumed = self._actual(job, phase.stage - 1)
        self._tenants[job.tenant].books.settle(job.reserved, consumed, job.id, phase.start)
        job.reserved = 0
        job.consumed += consumed

    def _actual(self, job: Job, last: int) -> int:
        used = pricing.actual(
            job.spec,
            self._settings.prices,
            self.plan(job, job.run),
            persona_voice=self._persona_voice,
            first=job.first,
            last=last,
        )
        return min(used, job.reserved)

    # Looking up

    def get(self, tenant: Tenant, job_id: str) -> Job:
        """Return a tenant's job.

        Raises:
            Refusal: 404, for the jobs of others too.
        """
        job = self.jobs.get(job_id)
        if job is None or job.tenant != tenant.name:
            raise not_found("Job")
        return job

    def plan(self, job: Job, run: int) -> Plan:
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
        return pricing.breakdown(spec, self._settings.prices, persona_voice=self._persona_voice)

    # Ordering

    def create(self, tenant: Tenant, params: dict[str, Any], sent: Mapping[str, Any], now: float) -> tuple[Job, bool]:
        """Order a job, or return the one that its key already ordered.

        Args:
            tenant: Who orders.
            params: Effective parameters, defaults filled in.
            sent: What was sent.
            now: The time.

        Returns:
            The job, and whether it existed before.

        Raises:
            Refusal: 402, 409 or 429.
        """
        key = params.pop("idempotency_key", None)
        effective, as_sent = digest(params), digest({**sent, "idempotency_key": None})
        if key is not None:
            known = self._replay(tenant, key, effective, as_sent, now)
            if known is not None:
                return known, True
        self._limits.check(tenant, now, new=True)
        spec = JobSpec.of(params)
        reserved = pricing.reservation(spec, self._settings.prices, persona_voice=self._persona_voice, first=0)
        seen = digest(look(params))
        identity = f"{tenant.name}/{seen}/{self._looks.get(f'{tenant.name}/{seen}', 0)}"
        source = random.Random(f"{self._settings.seed}/{identity}")
        job_id = str(uuid.UUID(int=source.getrandbits(128), version=4))
        persona = str(uuid.UUID(int=source.getrandbits(128), version=4))
        if params.get("persona_id") is None:
            params["persona_id"] = persona
        self._reserve(tenant, reserved, job_id, now)
        job = Job(
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
        job.timeline = timeline.schedule(
            self.plan(job, 0),
            start=now,
            run=0,
            first=0,
            stop=job.stop,
            stop_status=COMPLETED if self._readings().stop_ends == "completed" else PAUSED,
            review=self._review,
        )
        self._take(job)
        self._store.put("job", job.id, job.number, job.record())
        self._bought("create", job, reserved, now, key_sent=key is not None)
        return job, False

    def _replay(self, tenant: Tenant, key: str, effective: str, sent: str, now: float) -> Job | None:
        job = self._keys.get((tenant.name, key))
        if job is None or now - job.created_at >= self._settings.key_window:
            return None
        readings = self._readings()
        if readings.replay_ended == "new" and job.timeline[job.applied].status in (FAILED, CANCELLED):
            return None
        same = job.effective == effective if readings.conflict_compares == "effective" else job.sent == sent
        if same or readings.conflict == "return":
            return job
        if readings.conflict == "422":
            raise Invalid.one(
                "idempotency_conflict", ("body", "idempotency_key"), "Used before with other parameters", key
            )
        raise Refusal(409, "IDEMPOTENCY_CONFLICT", "This idempotency_key was used before with other parameters")

    def _reserve(self, tenant: Tenant, amount: int, job_id: str, now: float) -> None:
        try:
            tenant.books.reserve(amount, job_id, now)
        except NotEnoughCreditsError as short:
            raise Refusal(
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

    def _bought(self, kind: str, job: Job, reserved: int, now: float, *, key_sent: bool) -> None:
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

    def pause(self, job: Job, now: float) -> None:
        """Stop a job after its current stage.

        Raises:
            Refusal: 409 unless it is processing.
        """
        status = job.phase(now).status
        may = {PROCESSING, REVIEW} | ({PENDING} if self._readings().pause_pending == "allowed" else set())
        if status not in may:
            raise conflict(f"A job that is {status} cannot be paused")
        self._rewrite(job, timeline.pause(job.timeline, now), now)

    def resume(self, job: Job, now: float) -> None:
        """Let a paused job go on.

        Raises:
            Refusal: 409 unless it is paused.
        """
        status = job.phase(now).status
        if status != PAUSED:
            raise conflict(f"A job that is {status} cannot be resumed")
        again = timeline.resume(job.timeline, now, self.plan(job, job.run), queue=self._queues, review=self._review)
        self._rewrite(job, again, now)

    def cancel(self, job: Job, now: float) -> None:
        """Cancel a job and release what it reserved.

        Raises:
            Refusal: 409, or what the readings say, if it has ended.
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
        self._rewrite(job, timeline.cancel(job.timeline, now), now)

    def retry(self, tenant: Tenant, job: Job, restart_from: str | None, now: float) -> None:
        """Run a job again from a stage on, with a new reservation.

        Raises:
            Refusal: 402, 409 or 429.
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
        reserved = pricing.reservation(
            job.spec,
            self._settings.prices,
            persona_voice=self._persona_voice,
            first=0 if readings.retry_charge == "whole" else first,
        )
        self._reserve(tenant, reserved, job.id, now)
        job.reserved, job.first = reserved, first
        job.outcomes.append(choose(self.outcomes, job.spec.product_name))
        again = timeline.retry(
            job.timeline,
            now,
            self.plan(job, job.run),
            run=job.run,
            first=first,
            queue=self._queues,
            review=self._review,
        )
        self._rewrite(job, again, now)
        self._bought("retry", job, reserved, now, key_sent=False)

    @property
    def _queues(self) -> bool:
        return self._readings().retry_status == "pending"

    def _rewrite(self, job: Job, phases: timeline.Timeline, now: float) -> None:
        job.timeline = phases
        job.view = job.brief = None
        self._pass(job, now)
