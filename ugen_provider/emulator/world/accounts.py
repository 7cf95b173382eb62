# SPDX-License-Identifier: Apache-2.0
"""The tenants: their keys, limits, books and jobs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ugen_provider.emulator.settings import TenantSettings
from ugen_provider.emulator.world.books import Books, Row
from ugen_provider.emulator.world.index import Index
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Refusal
from ugen_provider.emulator.world.store import Store


@dataclass(slots=True, eq=False)
class Tenant:
    """An account as it stands."""

    settings: TenantSettings
    books: Books
    index: Index = field(default_factory=Index)

    @property
    def name(self) -> str:
        """What the emulator calls it."""
        return self.settings.name


class Accounts:
    """All tenants, by name, key and token.

    Args:
        store: Where books are kept.
        readings: Asked at each entry in the books.
    """

    def __init__(self, store: Store, readings: Callable[[], Readings]) -> None:
        self._store = store
        self._readings = readings
        self.by_name: dict[str, Tenant] = {}
        self._by_key: dict[str, Tenant] = {}
        self._by_token: dict[str, Tenant] = {}
        self._stored = {name: data for name, _, data in store.load("books")}
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
        books = Books(name, self._readings, lambda row: self._write(name, row))
        tenant = Tenant(settings, books)
        self.by_name[name] = tenant
        self._by_key |= dict.fromkeys(settings.api_keys, tenant)
        self._by_token |= dict.fromkeys(settings.bearer_tokens, tenant)
        if (stored := self._stored.get(name)) is not None:
            for row in self._rows.pop(name, []):
                books.load(row)
            books.balance, books.reserved = stored["balance"], stored["reserved"]
        else:
            books.grant("purchase", settings.credits, at, "Opening balance")
        return tenant

    def authenticate(self, *, api_key: str | None, authorization: str | None) -> Tenant:
        """Return whose credentials these are. A token beats a key, as documented.

        Raises:
            Refusal: 401.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            tenant = self._by_token.get(token.strip()) if scheme.lower() == "bearer" else None
            if tenant is None:
                raise Refusal(401, "UNAUTHORIZED", "The bearer token is unknown or has expired")
            return tenant
        if api_key is None:
            raise Refusal(401, "UNAUTHORIZED", "Send an API key in X-API-Key or a token in Authorization: Bearer")
        tenant = self._by_key.get(api_key)
        if tenant is None:
            raise Refusal(401, "UNAUTHORIZED", "The API key is unknown or was revoked")
        return tenant

    def revoke(self, api_key: str) -> bool:
        """Make a key unknown, at once and for good; returns whether it was one."""
        return self._by_key.pop(api_key, None) is not None

    def _write(self, name: str, row: Row) -> None:
        books = self.by_name[name].books
        self._store.put("transaction", row.id, row.number, row)
        self._store.put("books", name, 0, books.state())
