# SPDX-License-Identifier: Apache-2.0
"""Which jobs a tenant has, by status, in order of creation."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from ugen_provider.emulator.world.job import Job


class Index:
    """The jobs of one tenant. Numbers rise with creation, so each list is sorted by age."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._all: list[int] = []
        self._by_status: dict[str, list[int]] = {}
        self._status: dict[int, str] = {}

    def add(self, job: Job, status: str) -> None:
        """Take a new job, newer than every other."""
        self.jobs[job.number] = job
        self._all.append(job.number)
        self._status[job.number] = status
        insort(self._by_status.setdefault(status, []), job.number)

    def move(self, job: Job, status: str) -> None:
        """Note a job's new status."""
        old = self._by_status[self._status[job.number]]
        del old[bisect_left(old, job.number)]
        self._status[job.number] = status
        insort(self._by_status.setdefault(status, []), job.number)

    def numbers(self, status: str | None) -> Sequence[int]:
        """Return the numbers of the jobs with a status, or of all, oldest first."""
        return self._all if status is None else self._by_status.get(status, [])

    def count(self, *statuses: str) -> int:
        """Return how many jobs have one of these statuses."""
        return sum(len(self._by_status.get(status, [])) for status in statuses)
