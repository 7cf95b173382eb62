# SPDX-License-Identifier: Apache-2.0
"""A feed run from its plan to its report: async inside, one call outside. Used as it is by every door."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.clock import Clock, SystemClock, asleep_unless
from ugen_provider.core.api.errors import RateLimitError, UGenError
from ugen_provider.core.batch import runs
from ugen_provider.core.batch.budget import Estimates
from ugen_provider.core.batch.buying import Buyer, Desk
from ugen_provider.core.batch.claims import Claim, claim, heartbeat, release
from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, LedgerUnavailableError
from ugen_provider.core.batch.ledger import Catalogue, Ledger
from ugen_provider.core.batch.pictures import Pictures, picture_identity
from ugen_provider.core.batch.planning import Planner
from ugen_provider.core.batch.plans import LEASE, Run
from ugen_provider.core.batch.report import Report, report_of
from ugen_provider.core.batch.settling import Settlement, settle
from ugen_provider.core.batch.slots import Slots
from ugen_provider.core.batch.spec import FeedRun, Progress
from ugen_provider.core.jobs.purchase import slot_pause
from ugen_provider.core.jobs.watcher import JobWatcher

_log = logging.getLogger("ugen_provider.batch")
T = TypeVar("T")
_LEDGER_THREADS = 16
_REQUESTS_AT_ONCE = 12
"""Of those that buy, beside those that look: more would open connections that are not kept."""
_LOOK_AGAIN = 2.0
_AHEAD = 64


class FeedRunner:
    """Runs one feed: plans it or joins its plan, buys it, stores it, and reports.

    Args:
        client: Sends the requests; it stays the caller's to close.
        ledger: Knows what was bought; it stays the caller's to close.
        spec: What is ordered.
        on_progress: Called whenever something happened, in the event loop's thread.
        watcher: Waits; a watcher of its own where not given.
        clock: What time it is.
        probe: Called at each named point; tests end the world there.
    """

    def __init__(
        self,
        client: AsyncUGenClient,
        ledger: Ledger,
        spec: FeedRun,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        watcher: JobWatcher | None = None,
        clock: Clock | None = None,
        probe: Callable[[str], None] = lambda point: None,  # noqa: ARG005
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._spec = spec
        self._tell = on_progress or (lambda progress: None)  # noqa: ARG005
        self._clock = clock or SystemClock()
        self._watcher = watcher or JobWatcher(client, clock=self._clock)
        self._own_watcher = watcher is None
        self._probe = probe
        self._owner = uuid.uuid4().hex
        # Apart from the loop's own threads: no slow download may keep a lease from being renewed.
        self._threads = ThreadPoolExecutor(_LEDGER_THREADS, "ugen-ledger")
        self._slots = Slots(spec.in_flight)
        self._waiting: deque[Claim] = deque()
        self._tasks: dict[asyncio.Task[None], Claim] = {}
        self._buyers: dict[str, Buyer] = {}
        self._accepted: set[str] = set()
        self._stop: str | None = None
        self._fatal: BaseException | None = None
        self._total = 0
        self._done = 0
        self._changed = asyncio.Event()
        """A product is through, or there is place for another."""

    async def _in_thread(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def run(self) -> Report:
        """Do the run, or go on with it.

        Returns:
            What became of the feed; its counts add up.

        Raises:
            ConfigError: Nothing here can write to the destination; nothing was bought.
            FeedError: The feed cannot be read to its end; nothing was bought.
            RunRefusedError: Going on would surely not be meant; nothing was bought.
            LedgerUnavailableError: The ledger's database went away; the same run goes on once it is back.
            UGenError: The run cannot go on, such as for a refused key. What runs is left, and the ledger knows it.
        """
        try:
            return await self._run()
        except LedgerUnavailableError as error:
            raise error.of_run(self._spec.run_id) from None

    async def _run(self) -> Report:
        if self._spec.outputs is not None:
            from ugen_provider.core.media.stores import Store

            # What cannot be used is told before anything is bought.
            await self._in_thread(Store, self._spec.outputs.destination)
        catalogue = await self._in_thread(
            self._ledger.catalogue, self._spec.catalogue, namespace=self._client.config.namespace
        )
        run = await self._planned(catalogue)
        self._total = await self._in_thread(runs.open_items, self._ledger, run)
        self._say("planned")
        self._probe("planned")
        desk = Desk(
            spec=self._spec,
            client=self._client,
            watcher=self._watcher,
            ledger=self._ledger,
            estimates=Estimates(self._client, assume_credits=self._spec.budget.assume_credits),
            pictures=Pictures(self._client, self._ledger, namespace=catalogue.namespace),
            sleep=self._clock.asleep,
            now=self._clock.now,
            in_thread=self._in_thread,
            places=asyncio.Semaphore(_REQUESTS_AT_ONCE),
            probe=self._probe,
        )
        beat = asyncio.create_task(self._beat(run), name="ugen-ledger-heartbeat")
        try:
            await self._buy_all(run, desk)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._stopped(run)))
            raise
        except BaseException:
            await self._as_well(self._let_go(run, "an error stopped the run"))
            raise
        finally:
            beat.cancel()
            if self._own_watcher:
                await self._watcher.aclose()
        await self._in_thread(runs.finish, self._ledger, run)
        self._probe("finished")
        return await self.report(run)

    async def report(self, run: Run) -> Report:
        """The report as it stands."""
        return await self._in_thread(report_of, self._ledger, run, min_score=self._spec.min_score)

    async def _planned(self, catalogue: Catalogue) -> Run:
        spec, ledger = self._spec, self._ledger
        try:
            while True:
                run, todo = await self._joined(catalogue)
                self._probe("joined")
                if todo == "wait":
                    await self._clock.asleep(_LOOK_AGAIN)
                elif todo == "plan":
                    await self._plan(run)
                    return run
                else:
                    await self._in_thread(runs.reopen, ledger, run)
                    return run
        except BaseException:  # a cancellation above all: whoever comes next must not wait for a lease to end
            give_up = self._in_thread(runs.give_up_planning, ledger, catalogue, spec.run_id, owner=self._owner)
            await self._as_well(asyncio.shield(asyncio.ensure_future(give_up)))
            raise

    async def _joined(self, catalogue: Catalogue) -> tuple[Run, str]:
        """Join the run; the thread that takes its lease is waited for, since it cannot be stopped."""
        spec = self._spec
        join = partial(runs.join, self._ledger, catalogue, spec.run_id, owner=self._owner, budget=spec.budget.credits)
        joining = asyncio.ensure_future(self._in_thread(join))
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            await asyncio.wait({joining})
            raise

    async def _plan(self, run: Run) -> None:
        spec, ledger = self._spec, self._ledger
        identity = (lambda address: picture_identity(ledger, address)) if spec.plan.upload_pictures else None
        planner = Planner(ledger, run, spec.plan, identity=identity, probe=self._probe)
        await self._in_thread(
            planner.plan, spec.source, job_defaults=spec.job_defaults, model=self._client.config.video_model
        )

    async def _buy_all(self, run: Run, desk: Desk) -> None:
        while True:
            if self._fatal is not None:
                raise self._fatal
            await self._fill(run, desk)
            if not self._tasks:
                if not self._waiting and not await self._in_thread(runs.open_items, self._ledger, run):
                    return
                # Others hold what is left, or the account has no place: look again.
                await self._clock.asleep(self._slots.pause(now=self._clock.now()) or _LOOK_AGAIN)
                continue
            pause = self._slots.pause(now=self._clock.now()) if self._waiting else 0.0
            await asleep_unless(self._changed, clock=self._clock, seconds=pause or float("inf"))
            self._changed.clear()
            for task in [task for task in self._tasks if task.done()]:
                del self._tasks[task]
                task.result()

    async def _fill(self, run: Run, desk: Desk) -> None:
        if self._stop is not None:
            reason = self._stop
            for claimed in [claimed for claimed in self._waiting if not claimed.has_job]:
                self._waiting.remove(claimed)
                await self._end(claimed, Settlement("postponed", reason=reason))
            await self._in_thread(runs.postpone_rest, self._ledger, run, reason=reason)
        free = self._slots.free(in_flight=len(self._tasks), now=self._clock.now())
        if free > len(self._waiting):
            most = max(free, min(_AHEAD, self._spec.in_flight)) - len(self._waiting)
            self._waiting.extend(await self._in_thread(claim, self._ledger, run, most=most))
            self._probe("claimed")
        while free > 0 and self._waiting:
            claimed = self._waiting.popleft()
            free -= 1
            task = asyncio.create_task(self._one(claimed, desk), name=f"ugen-product-{claimed.product_id}")
            task.add_done_callback(lambda _: self._changed.set())
            self._tasks[task] = claimed

    async def _one(self, claimed: Claim, desk: Desk) -> None:
        product_id = claimed.product_id
        buyer = self._buyers[product_id] = Buyer(
            desk,
            claimed,
            accepted=lambda: self._accept(product_id),
            ended=lambda: self._accepted.discard(product_id),
        )
        try:
            ended = await buyer.buy()
        except RateLimitError as error:
            pause = slot_pause(error)
            self._slots.limited(in_flight=len(self._accepted), now=self._clock.now(), pause=pause)
            self._waiting.append(buyer.claim_now())
            self._say("limited", product_id)
            return
        except BudgetUsedUpError as error:
            if self._stop is None:
                self._stop = {"run": "budget", "day": "daily budget", "credits": "credits"}[error.which]
                self._say("stopping", product_id, reason=str(error))
            await self._end(claimed, Settlement("postponed", reason=self._stop))
            return
        except LeaseLostError:
            return  # whoever has it settles it
        except UGenError as error:
            self._fatal = self._fatal or error
            self._say("stopping", product_id, reason=str(error))
            return
        finally:
            self._buyers.pop(product_id, None)
            self._accepted.discard(product_id)
        self._probe("before.settle")
        await self._end(claimed, ended)
        self._probe("after.settle")

    async def _end(self, claimed: Claim, ended: Settlement) -> None:
        try:
            await self._in_thread(settle, self._ledger, claimed, ended)
        except LeaseLostError:
            return
        self._done += 1
        self._say("settled", claimed.product_id, state=ended.state, reason=ended.reason)

    def _accept(self, product_id: str) -> None:
        if product_id not in self._accepted:
            self._accepted.add(product_id)
            places = int(self._slots.limit)
            self._slots.accepted()
            if int(self._slots.limit) > places:
                self._changed.set()
            self._say("submitted", product_id)

    def _say(
        self, event: Any, product_id: str | None = None, *, state: str | None = None, reason: str | None = None
    ) -> None:
        self._tell(
            Progress(
                event,
                total=self._total,
                done=self._done,
                in_flight=len(self._accepted),
                limit=int(self._slots.limit),
                product_id=product_id,
                state=state,
                reason=reason,
            )
        )

    async def _beat(self, run: Run) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)  # real time: leases are about processes, not about jobs
            try:
                await self._in_thread(heartbeat, self._ledger, run)
            except (LedgerUnavailableError, SQLAlchemyError) as error:
                # What is due is found by whoever next writes under the lease.
                _log.warning("the ledger did not take a heartbeat: %s", type(error).__name__)

    async def _stopped(self, run: Run) -> None:
        """Stop buying; leave or cancel what runs, as told; let others go on at once."""
        self._say("stopping", reason="interrupted")
        buyers = list(self._buyers.values())
        await self._end_tasks()
        if self._spec.on_interrupt == "cancel":
            await asyncio.gather(*(buyer.cancel() for buyer in buyers), return_exceptions=True)
        await self._release(run, "interrupted")

    async def _as_well(self, work: Awaitable[None]) -> None:
        """Do what only spares others the wait for our leases; a ledger that is gone hides no error behind its own."""
        try:
            await work
        except LedgerUnavailableError as error:
            _log.warning("what this runner holds is held until its leases end: %s", error)

    async def _let_go(self, run: Run, reason: str) -> None:
        await self._end_tasks()
        await self._release(run, reason)

    async def _release(self, run: Run, reason: str) -> None:
        if not await self._in_thread(release, self._ledger, run, reason=reason):
            await self._in_thread(runs.postpone_rest, self._ledger, run, reason=reason)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
