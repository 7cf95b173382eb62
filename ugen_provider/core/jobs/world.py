# SPDX-License-Identifier: Apache-2.0
"""All contacts of a purchase with the outside world: the API, the order's record, the clock.

`core.jobs` is written once as `async def`; `scripts/unasync.py` makes its blocking twin in `core.jobs.sync`. Each
contact passes through `AsyncWorld.contact` under a name, so a wrapper can count it, refuse it or end the process there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from ugen_provider.core.api import endpoints, polling
from ugen_provider.core.api.async_client import AsyncUGenClient, call_endpoint
from ugen_provider.core.api.clock import clock_of, poll_pause
from ugen_provider.core.api.endpoints import Endpoint
from ugen_provider.core.api.errors import PurchaseError
from ugen_provider.core.api.models import Job
from ugen_provider.core.api.polling import EarlierState, Goal, WaitOutcome
from ugen_provider.core.jobs.threads import in_ledger_thread
from ugen_provider.core.ledger.record import Action, ActionState, OrderRecord, OrderStore

T = TypeVar("T")

SPENDS = frozenset({"create", "retry", "resume"})
"""Requests that may cost credits: a process that received a stop signal sends none of them."""

CHANGES_JOB = frozenset({*SPENDS, "pause", "cancel"})


class AsyncWorld:
    """One attempt's contacts with the outside world.

    Args:
        client: Calls the API.
        store: Keeps the order's record.
        is_stopping: Whether the process received a stop signal (SIGTERM); it then creates, retries and resumes nothing.

    Examples:
        >>> from ugen_provider.core.ledger.record import KeyOnlyStore
        >>> world = AsyncWorld(async_client, KeyOnlyStore())
        >>> world.durable
        False
    """

    def __init__(
        self, client: AsyncUGenClient, store: OrderStore, *, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.client = client
        self.store = store
        self._is_stopping = is_stopping
        self.on_progress: Callable[[Job], None] | None = None
        """Called with each answer during a wait."""

    @property
    def durable(self) -> bool:
        """Whether records outlive the process; otherwise the idempotency key alone protects."""
        return self.store.durable

    async def contact(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one contact. Subclasses override this to count, delay or refuse contacts.

        Args:
            name: `create`, `get`, `cancel`, … for requests, `record.read`, `record.write`, … for the store, `wait`.
            call: Makes the contact.

        Raises:
            PurchaseError: The process is stopping, and the request could cost credits.
        """
        if name in SPENDS and self._is_stopping():
            raise PurchaseError(
                f"the process is stopping: {name} was not sent; the next attempt continues",
                scope="",
                reason="stopping",
                retryable=True,
            )
        return await call()

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return clock_of(self.client).now()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds without blocking the loop."""
        clock = clock_of(self.client)
        await self.contact("sleep", partial(clock.asleep, poll_pause(clock, seconds)))

    async def send(self, endpoint: Endpoint[T]) -> T:
        """Call one endpoint, repeating what is safe to repeat. A 429 is waited for within the client's policy."""
        return await self.contact(endpoint.request.point, partial(call_endpoint, self.client, endpoint))

    async def create(self, record: OrderRecord) -> Job:
        """Send the record's request: `POST /jobs`. A 429 is raised at once, since the caller can wait more cheaply."""
        create = partial(call_endpoint, self.client, endpoints.create_job(record.body), wait_when_limited=False)
        return await self.contact("create", create)

    async def wait(
        self,
        job_id: str,
        *,
        goal: Goal,
        interval: float = polling.DEFAULT_INTERVAL,
        deadline: float | None = None,
        stale: EarlierState | None = None,
    ) -> WaitOutcome:
        """Wait for a job by one `GET /jobs/{jobId}` per interval. Free.

        Args:
            job_id: The job.
            goal: What ends the wait beside the job's end.
            interval: Seconds between polls. Default 10.
            deadline: Seconds since the epoch; None waits without limit.
            stale: A state that does not count, after a retry or a resume.

        Raises:
            JobTimeoutError: The deadline passed; the job keeps running.
            UGenError: An error that a wait does not survive.
        """
        wait_until = self.client.jobs.wait_until
        wait = partial(wait_until, job_id, goal=goal, interval=interval, deadline=deadline, stale=stale)
        if self.on_progress is not None:
            wait = partial(wait, on_progress=self.on_progress)
        return await self.contact("wait", wait)

    # The order's record.

    async def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order."""
        return await self.contact("record.read", partial(in_ledger_thread, self.store.read, order_key))

    async def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make an attempt the newest one of its order."""
        return await self.contact("record.token", partial(in_ledger_thread, self.store.take_token, order_key, attempt))

    async def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record while its attempt is the newest; when this returns, it is on disk."""
        return await self.contact("record.write", partial(in_ledger_thread, self.store.write, record))

    async def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Store the answer of a create that was sent; also an attempt that is no longer the newest does this."""
        return await self.contact("record.job_id", partial(in_ledger_thread, self.store.record_job_id, record, job_id))

    async def actions(self, order_key: str) -> tuple[Action, ...]:
        """Return the actions of an order."""
        return await self.contact("actions.read", partial(in_ledger_thread, self.store.actions, order_key))

    async def append_action(self, action: Action) -> Action:
        """Append a new action to the order's record."""
        return await self.contact("actions.append", partial(in_ledger_thread, self.store.append_action, action))

    async def mark_action(self, action: Action, state: ActionState) -> None:
        """Store the new state of an action."""
        await self.contact("actions.mark", partial(in_ledger_thread, self.store.mark_action, action, state))
