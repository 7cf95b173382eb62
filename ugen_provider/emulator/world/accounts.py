# SPDX-License-Identifier: Apache-2.0
"""The tenants: their keys, limits, credits and jobs."""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ugen_provider.emulator.settings import TenantSettings
from ugen_provider.emulator.world.credits import Row, TenantCredits
from ugen_provider.emulator.world.errors import ErrorReply
from ugen_provider.emulator.world.job import EmulatedJob
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.store import RecordStore


class Index:
    """The jobs of one tenant. Numbers rise with creation, so each list is sorted by age."""

    def __init__(self) -> None:
        self.jobs: dict[int, EmulatedJob] = {}
        self._all: list[int] = []
        self._by_status: dict[str, list[int]] = {}
        self._status: dict[int, str] = {}

    def add(self, job: EmulatedJob, status: str) -> None:
        """Take a new job, newer than every other."""
        self.jobs[job.number] = job
        self._all.append(job.number)
        self._status[job.number] = status
        insort(self._by_status.setdefault(status, []), job.number)

    def move(self, job: EmulatedJob, status: str) -> None:
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


@dataclass(slots=True, eq=False)
class Tenant:
    """An account in its present state."""

    settings: TenantSettings
    credits: TenantCredits
    index: Index = field(default_factory=Index)

    @property
    def name(self) -> str:
        """Return what the emulator calls it."""
        return self.settings.name


class Accounts:
    """All tenants, by name, key and token.

    Args:
        store: Where credits are kept.
        readings: Asked at each transaction.
    """

    def __init__(self, store: RecordStore, readings: Callable[[], Readings]) -> None:
        self._store = store
        self._readings = readings
        self.by_name: dict[str, Tenant] = {}
        self._by_key: dict[str, Tenant] = {}
        self._by_token: dict[str, Tenant] = {}
        self._stored = {name: data for name, _, data in store.load("credits")}
        self._rows: dict[str, list[Row]] = {}
        for _, _, data in store.load("transaction"):
            row = Row(*data)
            self._rows.setdefault(row.tenant, []).append(row)

    def open(self, settings: TenantSettings, at: float) -> Tenant:
        """Open an account, or find it again in the store with the credits it had.

        Raises:
            ValueError: A name or key that another account has.
        """
        if settings.name in self.by_name:
            raise ValueError(f"there already is a tenant {settings.name!r}")
        if taken := [key for key in settings.api_keys if key in self._by_key]:
            raise ValueError(f"{len(taken)} of the keys belong(s) to another tenant")
        name = settings.name
        account = TenantCredits(name, self._readings, lambda row: self._write(name, row))
        tenant = Tenant(settings, account)
        self.by_name[name] = tenant
        self._by_key |= dict.fromkeys(settings.api_keys, tenant)
        self._by_token |= dict.fromkeys(settings.bearer_tokens, tenant)
        if (stored := self._stored.get(name)) is not None:
            for row in self._rows.pop(name, []):
                account.load(row)
            account.balance, account.reserved = stored["balance"], stored["reserved"]
        else:
            account.grant("purchase", settings.credits, at, "Opening balance")
        return tenant

    def authenticate(self, *, api_key: str | None, authorization: str | None) -> Tenant:
        """Return whose credentials these are. A token beats a key, as documented.

        Raises:
            ErrorReply: 401.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            tenant = self._by_token.get(token.strip()) if scheme.lower() == "bearer" else None
            if tenant is None:
                raise ErrorReply(401, "UNAUTHORIZED", "The bearer token is unknown or has expired")
            return tenant
        if api_key is None:
            raise ErrorReply(401, "UNAUTHORIZED", "Send an API key in X-API-Key or a token in Authorization: Bearer")
        tenant = self._by_key.get(api_key)
        if tenant is None:
            raise ErrorReply(401, "UNAUTHORIZED", "The API key is unknown or was revoked")
        return tenant

    def revoke(self, api_key: str) -> bool:
        """Make a key unknown, at once and for good; returns whether it was one."""
        return self._by_key.pop(api_key, None) is not None

    def _write(self, name: str, row: Row) -> None:
        account = self.by_name[name].credits
        self._store.put("transaction", row.id, row.number, row)
        self._store.put("credits", name, 0, account.state())
