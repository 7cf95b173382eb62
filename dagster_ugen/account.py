# SPDX-License-Identifier: Apache-2.0
"""An open account: the settings of a resource and its ledger, as runs, sensors and approvals use them.

It is imported when a run or a tick starts, since it loads the HTTP client and the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from dagster_ugen.definition import BUDGET_RUN_TAG, BUDGET_TAG, VideoDefinition, order_parts
from ugen_provider.core.api.client import UGenClient
from ugen_provider.core.api.endpoints import Endpoint
from ugen_provider.core.api.models import Job
from ugen_provider.core.batch.budget import Budget, Reservations
from ugen_provider.core.jobs.order import origin_of, record_key
from ugen_provider.core.ledger.orders import FindOlder, LedgerOrderStore
from ugen_provider.core.ledger.record import RecordSigner

if TYPE_CHECKING:
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.ledger.record import OrderRecord
    from ugen_provider.core.ledger.store import Ledger

T = TypeVar("T")


def unlimited() -> Budget:
    """Return a budget without limits."""
    return Budget(credits=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A U-Gen account with an open ledger.

    Attributes:
        config: The client's settings.
        read_config: Reads them again, where the key is refused.
        ledger: Where orders are recorded.
        poll_interval: Seconds between polls of a job.
        budget: What a logical run and a day may reserve; no limits by default.
        max_credits: Most credits that one job may reserve, where the options of the assets do not say.
    """

    config: ClientConfig
    read_config: Callable[[], ClientConfig] = field(repr=False)
    ledger: Ledger
    poll_interval: float = 10.0
    budget: Budget = field(default_factory=unlimited)
    max_credits: int | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API."""
        return origin_of(self.config.base_url)

    @property
    def is_local(self) -> bool:
        """Whether the API runs on a machine of yours, so that its links may lead to private addresses."""
        return self.config.base_url.startswith("http://")

    def store(self, *, older: Sequence[FindOlder] = ()) -> LedgerOrderStore:
        """Return the store of this account's orders.

        Args:
            older: Find orders in the places of earlier versions.
        """
        return LedgerOrderStore(self.ledger, signer=RecordSigner(self.config.api_key), older=older)

    def budgeted_store(self, reservations: Reservations, *, older: Sequence[FindOlder] = ()) -> BudgetedOrderStore:
        """Return the store of one partition's order, which reserves credits before the order is sent.

        Args:
            reservations: Those of the logical run.
            older: Find orders in the places of earlier versions.
        """
        return BudgetedOrderStore(reservations, signer=RecordSigner(self.config.api_key), older=older)

    def client(self) -> UGenClient:
        """Return a blocking client; the caller closes it."""
        return UGenClient(config=self.config)

    def record_key(self, definition: VideoDefinition, partition: str) -> str:
        """Return the key of the record of a partition's order."""
        return record_key(definition.order_of(partition, namespace=self.config.namespace), origin=self.origin)

    def record_prefix(self, definition: VideoDefinition) -> str:
        """Return the text that the record keys of all partitions of a definition begin with."""
        whole = str(definition.order_of("", namespace=self.config.namespace))
        return whole.removesuffix('""]')

    def partition_of(self, definition: VideoDefinition, record_key: str) -> str | None:
        """Return the partition of a record's key; None for a record of another definition or origin."""
        found = order_parts(record_key)
        if found is None:
            return None
        partition = found[-1]
        return partition if self.record_key(definition, partition) == record_key else None


# Budgets of runs.


class BudgetedOrderStore(LedgerOrderStore):
    """The order of one partition: a record that is about to be sent is stored together with the reservation.

    If the process ends before the commit, neither exists and nothing was sent; after it, both do.

    Attributes:
        credits: The estimate of the request; None where it is not known, and then nothing is sent.
    """

    credits: int | None = None

    def __init__(self, reservations: Reservations, *, signer: RecordSigner, older: Sequence[FindOlder] = ()) -> None:
        super().__init__(reservations.ledger, signer=signer, older=older)
        self._reservations = reservations
        self._purchase_number = 0

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make an attempt the newest one of the order."""
        record = super().take_token(order_key, attempt)
        self._purchase_number = record.purchase_number
        return record

    def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record.

        Raises:
            BudgetUsedUpError: It is about to be sent, and the budget does not cover it; nothing was stored.
        """
        self._purchase_number = record.purchase_number
        self.before_send = partial(
            self._reservations.reserve,
            order_key=record.order_key,
            purchase_number=record.purchase_number,
            credits=self.credits,
        )
        return super().write(record)

    def reserve_retry(self, order_key: str) -> None:
        """Reserve the credits of a stage retry that is about to be sent.

        Raises:
            BudgetUsedUpError: The budget does not cover them.
        """
        self._reservations.reserve_again(order_key, self._purchase_number, self.credits)


def reservations_of(account: Account, run: dg.DagsterRun) -> Reservations | None:
    """Return the reservations of a run's logical run; None where no budget is set.

    The runs of a backfill are one logical run, as are a run and its retries, and the runs that a sensor requests in a
    day. Where both the sensor and the resource set a budget, the smaller one holds.
    """
    budget, tags = account.budget, run.tags
    tagged = tags.get(BUDGET_TAG, "")
    if tagged.isdigit():
        limits = [int(tagged), *([budget.credits] if budget.credits is not None else [])]
        budget = replace(budget, credits=min(limits))
    if budget.credits is None and budget.daily is None:
        return None
    name = tags.get(BUDGET_RUN_TAG) or tags.get("dagster/backfill") or run.root_run_id or run.run_id
    return Reservations(
        ledger=account.ledger, budget=budget, run=f"dagster {name}"[:300], namespace=account.config.namespace
    )


# Costs of an asset of your own.


class CountingClient(UGenClient):
    """A client that counts the jobs that it created, and the credits that were reserved for them.

    Attributes:
        reserved: Credits reserved, by job id; a job that existed already counts too, once.
    """

    reserved: dict[str, int]

    def _call(self, endpoint: Endpoint[T], wait_when_limited: bool, retry: bool) -> T:
        """Call one endpoint, and count the job where it is a create."""
        answer = super()._call(endpoint, wait_when_limited, retry)
        if endpoint.request.point == "create" and isinstance(answer, Job):
            self.__dict__.setdefault("reserved", {})[answer.job_id] = answer.credits_reserved or 0
        return answer

    def usage(self) -> dict[str, Any]:
        """Return the counts as metadata."""
        counted: dict[str, int] = self.__dict__.get("reserved", {})
        return {"ugen/jobs": len(counted), "ugen/credits_reserved": sum(counted.values())}
