# SPDX-License-Identifier: Apache-2.0
"""The journal: every purchase for good, and the latest requests. Tests judge a client by it."""

from collections import deque
from typing import Any, NamedTuple

from ugen_provider.emulator.world.store import RecordStore

KEPT_REQUESTS = 200_000


class PurchaseEntry(NamedTuple):
    """Credits that a tenant reserved: a `create`, or the `retry` of a job that had ended."""

    number: int
    kind: str
    tenant: str
    job_id: str
    idempotency_key: str
    key_sent: bool
    product_name: str
    reserved: int
    at: float


class RequestEntry(NamedTuple):
    """A request and what it was answered with."""

    number: int
    at: float
    method: str
    path: str
    query: str
    status: int
    tenant: str | None
    key: str | None
    fault: str | None


class Journal:
    """Purchases, which survive a restart, and requests, of which the newest are kept in memory."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.purchases: list[PurchaseEntry] = [PurchaseEntry(*data) for _, _, data in store.load("purchase")]
        self._requests: deque[RequestEntry] = deque(maxlen=KEPT_REQUESTS)
        self._count = 0

    def bought(
        self,
        kind: str,
        *,
        tenant: str,
        job_id: str,
        key: str,
        key_sent: bool,
        product_name: str,
        reserved: int,
        at: float,
    ) -> None:
        """Append a purchase to the journal."""
        entry = PurchaseEntry(len(self.purchases), kind, tenant, job_id, key, key_sent, product_name, reserved, at)
        self.purchases.append(entry)
        self._store.put("purchase", str(entry.number), entry.number, entry)

    def seen(
        self,
        at: float,
        method: str,
        path: str,
        query: str,
        status: int,
        *,
        tenant: str | None = None,
        key: str | None = None,
        fault: str | None = None,
    ) -> None:
        """Append a request to the journal."""
        self._requests.append(RequestEntry(self._count, at, method, path, query, status, tenant, key, fault))
        self._count += 1

    @property
    def count(self) -> int:
        """Requests ever, those no longer kept included."""
        return self._count

    def find_purchases(
        self,
        *,
        kind: str | None = None,
        product_name: str | None = None,
        key: str | None = None,
        tenant: str | None = None,
    ) -> list[PurchaseEntry]:
        """Return the purchases that match everything that is given, oldest first."""
        return [
            entry
            for entry in self.purchases
            if (kind is None or entry.kind == kind)
            and (product_name is None or entry.product_name == product_name)
            and (key is None or entry.idempotency_key == key)
            and (tenant is None or entry.tenant == tenant)
        ]

    def find_requests(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
        tenant: str | None = None,
        since: int = 0,
    ) -> list[RequestEntry]:
        """Return the kept requests that match, oldest first.

        Args:
            method: As in HTTP.
            path: Beginning of the path, such as `/api/v1/jobs`.
            status: Status that it was answered with.
            tenant: Account.
            since: Number from which on.
        """
        return [
            entry
            for entry in self._requests
            if entry.number >= since
            and (method is None or entry.method == method.upper())
            and (path is None or entry.path.startswith(path))
            and (status is None or entry.status == status)
            and (tenant is None or entry.tenant == tenant)
        ]

    def forget_requests(self) -> None:
        """Drop the requests, not the purchases."""
        self._requests.clear()


def as_json(entry: PurchaseEntry | RequestEntry) -> dict[str, Any]:
    """Return an entry as JSON shows it."""
    return entry._asdict()
