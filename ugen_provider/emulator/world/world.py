# SPDX-License-Identifier: Apache-2.0
"""The whole service in one object, without any I/O but its SQLite file."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ugen_provider.emulator.settings import Settings, TenantSettings
from ugen_provider.emulator.world.accounts import Accounts, Tenant
from ugen_provider.emulator.world.clock import EmulatedClock
from ugen_provider.emulator.world.faults import Faults
from ugen_provider.emulator.world.job import EmulatedJob
from ugen_provider.emulator.world.jobs import JobRegistry
from ugen_provider.emulator.world.journal import Journal
from ugen_provider.emulator.world.library import Library
from ugen_provider.emulator.world.pipeline import COMPLETED, Phase
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.store import FORMAT, RecordStore
from ugen_provider.emulator.world.webhooks import Webhooks

IN_PROCESS = "http://localhost"
"""Start of URLs without a listening socket: the in-process transport answers for it."""


class World:
    """Clock, accounts, jobs, journal and switches.

    Everything that reads or changes it holds `lock`, since a test's thread may look in while the server answers.

    Args:
        settings: What it is started with.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self._listeners: set[Callable[[], object]] = set()
        self.clock = EmulatedClock(settings.speed, start=settings.start, tick=settings.tick)
        self.store = RecordStore(settings.db)
        self.base_url = settings.public_url or IN_PROCESS
        self.version = 0
        """Changes with everything that rendered answers depend on beside the job."""
        for _, _, moment in self.store.load("clock"):
            self.clock.catch_up_to(moment)
        self._furnish(settings.readings)

    def _furnish(self, readings: Readings) -> None:
        if "list_lag" in self.settings.profile:
            readings = readings.with_values({"list_lag": self.settings.profile["list_lag"]})
        self._readings = readings
        self.journal = Journal(self.store)
        self.accounts = Accounts(self.store, lambda: self._readings)
        now = self.clock.now()
        for tenant in self.settings.tenants:
            self.accounts.open(tenant, now)
        self.library = Library(self.store, seed=self.settings.seed, base_url=lambda: self.base_url)
        self.faults = Faults(self.settings.seed)
        for rule in self.settings.faults:
            self.faults.add(rule)
        self.webhooks = Webhooks(
            self.store, seed=self.settings.seed, readings=lambda: self._readings, faults=self.faults
        )
        self.jobs = JobRegistry(
            self.settings,
            clock=self.clock,
            store=self.store,
            journal=self.journal,
            readings=lambda: self._readings,
            ended=self._job_ended,
        )
        self.jobs.load(self.accounts.by_name)
        self.version += 1
        self.commit()

    def _job_ended(self, job: EmulatedJob, phase: Phase) -> None:
        """Announce the end of a job."""
        done = phase.status == COMPLETED
        finished = job.finished(phase)
        failure = self.jobs.plan(job, phase.run).failure
        event = {
            "event": f"job.{phase.status}",
            "job_id": job.id,
            "status": phase.status,
            "final_video_url": self.output_url(job.id, f"final-{phase.run}.mp4", phase.start) if finished else None,
            "thumbnail_url": self.output_url(job.id, f"thumbnail-{phase.run}.png", phase.start) if finished else None,
            "credits_consumed": job.consumed if done else 0,
            "error_message": failure.message if failure and not done else None,
        }
        self.webhooks.announce(job.tenant, job.id, job.params.get("webhook_url"), event, phase.start)

    def output_url(self, job_id: str, name: str, now: float) -> str:
        """Return where an output can be fetched, signed where the readings let URLs expire."""
        path = f"/media/{job_id}/{name}"
        if self._readings.output_urls == "lasting":
            return f"{self.base_url}{path}"
        expires = int(now + self._readings.url_lifetime)
        return f"{self.base_url}{path}?expires={expires}&signature={self.url_signature(path, expires)}"

    def url_signature(self, path: str, expires: int) -> str:
        """Return what makes an expiring URL valid."""
        return hashlib.sha256(f"{self.settings.seed}/{path}/{expires}".encode()).hexdigest()[:32]

    def listen(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after every commit; returns how to stop that."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    @property
    def readings(self) -> Readings:
        """The switches with their present values."""
        return self._readings

    def set_readings(self, values: Mapping[str, Any]) -> Readings:
        """Turn switches; existing objects are reported in the new words from now on.

        Raises:
            ValueError: A name or value that does not exist.
        """
        with self.lock:
            self._readings = self._readings.with_values(values)
            self.version += 1
            return self._readings

    def set_base_url(self, url: str) -> None:
        """Say where the server listens, unless a public URL was set."""
        with self.lock:
            if self.settings.public_url is None:
                self.base_url = url
                self.version += 1

    def now(self) -> float:
        """Return the time, with everything booked that has happened by then."""
        with self.lock:
            moment = self.clock.now()
            self.jobs.catch_up(moment)
            return moment

    def advance(self, seconds: float) -> float:
        """Move the clock, and book what has happened by then."""
        with self.lock:
            self.clock.advance(seconds)
            moment = self.now()
            self.commit()
            return moment

    def commit(self) -> None:
        """Make what was done lasting, with the time at which it was."""
        if self.store.dirty:
            self.store.put("clock", "clock", 0, self.clock.now())
            self.store.commit()
            for callback in tuple(self._listeners):
                callback()

    def open_tenant(self, settings: TenantSettings) -> Tenant:
        """Open a further account with its credits.

        Raises:
            ValueError: Its name or a key is taken.
        """
        with self.lock:
            tenant = self.accounts.open(settings, self.now())
            self.jobs.admit(tenant)
            return tenant

    def dump(self) -> dict[str, Any]:
        """Return the whole state as JSON, uploads included, secrets and keys not in clear."""
        with self.lock:
            now = self.now()
            self.commit()
            return {"format": FORMAT, "now": now, "readings": self._readings.as_dict(), **self.store.dump()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was dumped. Accounts that the settings do not name are left out.

        Raises:
            ValueError: It is no dump, or one of another version.
        """
        with self.lock:
            if state.get("format") != FORMAT:
                raise ValueError("this is not a state that this version dumped")
            before = self.dump()
            try:
                self._put_back(state)
            except (ArithmeticError, LookupError, TypeError, ValueError) as problem:
                self._put_back(before)
                raise ValueError(f"this is no dump of an emulator's state: {problem!r}") from None

    def _put_back(self, state: Mapping[str, Any]) -> None:
        readings = Readings().with_values(state["readings"])
        self.store.restore(state)
        self.clock.reset(speed=self.clock.speed, tick=self.clock.tick, start=float(state["now"]))
        self._furnish(readings)

    def reset(self, *, seed: int | None = None, readings: Mapping[str, Any] | None = None) -> None:
        """Begin anew: no jobs, opening balances, switches as at the start, a clock at its beginning.

        Args:
            seed: Another seed from here on.
            readings: Switches that differ from those at the start.
        """
        with self.lock:
            wanted = self.settings.readings.with_values(readings or {})
            if seed is not None:
                self.settings = dataclasses.replace(self.settings, seed=seed)
            self.store.clear()
            self.clock.reset(speed=self.settings.speed, tick=self.settings.tick)
            self._furnish(wanted)

    def close(self) -> None:
        """Commit and close the file, with the time at which to continue."""
        with self.lock:
            self.store.put("clock", "clock", 0, self.now())
            self.commit()
            self.store.close()
