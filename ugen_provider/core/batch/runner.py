# SPDX-License-Identifier: Apache-2.0
"""A feed run from its plan to its report: async inside, one call outside. Every entry point uses it unchanged."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.clock import Clock, SystemClock, asleep_unless
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.errors import RateLimitError, UGenError
from ugen_provider.core.batch import runs
from ugen_provider.core.batch.budget import BudgetShare, Estimates, budget_refusal, left
from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, RunRefusedError
from ugen_provider.core.batch.images import Pictures, picture_identity
from ugen_provider.core.batch.leases import Claim, ClaimPosition, claim, heartbeat, release
from ugen_provider.core.batch.planner import Planner
from ugen_provider.core.batch.report import Report, report_of
from ugen_provider.core.batch.runs import LEASE, Run, running_jobs
from ugen_provider.core.batch.spec import FeedRun, Progress
from ugen_provider.core.batch.worker import ProductResult, ProductWorker, RunContext, settle
from ugen_provider.core.jobs.order import origin_of, parse_record_key
from ugen_provider.core.jobs.reconciler import INTERVAL as RECONCILE_INTERVAL
from ugen_provider.core.jobs.reconciler import reconcile
from ugen_provider.core.jobs.results import OwnerState, collect_outputs, limit_pause
from ugen_provider.core.jobs.threads import in_daemon
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord, shown_id, split_row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger
from ugen_provider.core.media.origins import RowOrigins
from ugen_provider.core.text import get_logger

_log = get_logger("ugen_provider.batch")
T = TypeVar("T")
_LEDGER_THREADS = 16
_REQUESTS_AT_ONCE = 12
"""Of those that buy, beside those that look: more would open connections that are not kept."""
_LOOK_AGAIN = 2.0
_AHEAD = 64
_ANY_PICTURE = "https://example.com/picture.jpg"
"""Costs as much as any other: a picture that is uploaded first has no address yet."""
_PLENTY = 200
"""Purchases that must fit into the rest of a budget for their order not to matter: more than are reserved at once."""


def _owner_state(record: OrderRecord, action: Action) -> OwnerState:  # noqa: ARG001
    """Return whether a killed attempt is over: true for products; attempts of orchestrators are not known here."""
    key = parse_record_key(record.order_key)
    return "over" if key is not None and key.kind in {"product", "name"} else "unknown"


_FIRST = 20


class Slots:
    """Limits the jobs under way: eight, one more for each accepted job, and fewer once the account answers 429.

    Args:
        most: The user's limit, `in_flight`; None for the account's limit.

    Examples:
        >>> slots = Slots(100)
        >>> slots.limited(in_flight=3, now=0.0, pause=30.0)
        >>> slots.free(in_flight=2, now=10.0), slots.free(in_flight=2, now=31.0)
        (0, 1)
    """

    __slots__ = ("_grow_by", "_most", "_paused_until", "limit")

    def __init__(self, most: int | None) -> None:
        self._most = float("inf") if most is None else float(most)
        self._grow_by = 1.0
        self._paused_until = float("-inf")
        self.limit = min(float(_FIRST), self._most)

    def free(self, *, in_flight: int, now: float) -> int:
        """Return the number of jobs that may begin now."""
        return 0 if now < self._paused_until else max(0, int(self.limit) - in_flight)

    def pause(self, *, now: float) -> float:
        """Return the seconds until any may begin again."""
        return max(0.0, self._paused_until - now)

    def accepted(self) -> None:
        """Record that the service accepted a job."""
        self.limit = min(self._most, self.limit + self._grow_by)

    def limited(self, *, in_flight: int, now: float, pause: float) -> None:
        """Record that the account takes no more: with `in_flight` others under way there was no free slot.

        Args:
            in_flight: Jobs that are under way.
            now: Seconds since the epoch.
            pause: Seconds that the service asks to wait.
        """
        self.limit = float(max(1, min(int(self.limit), in_flight)))
        self._grow_by = 1.0 / max(8.0, 4.0 * self.limit)
        self._paused_until = max(self._paused_until, now + pause)


class FeedRunner:
    """Runs one feed: plans it or joins its plan, buys it, stores it, and reports.

    Args:
        client: Sends the requests; it stays the caller's to close.
        ledger: Holds the records of purchases; it stays the caller's to close.
        spec: The feed and the choices of the run.
        on_progress: Called for each event of the run, in the event loop's thread.
        watcher: Waits for jobs; by default the run makes its own.
        clock: The time; by default the machine's clock.
        probe: Called at each named point; tests end the process there.
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
        self._origins = RowOrigins(spec.plan.picture_roots)
        self._on_progress = on_progress or (lambda progress: None)  # noqa: ARG005
        self._clock = clock or SystemClock()
        self._watcher = watcher or JobWatcher(client, clock=self._clock)
        self._own_watcher = watcher is None
        self._probe = probe
        self._owner = uuid.uuid4().hex
        # Apart from the loop's own threads: no slow download may keep a lease from being renewed.
        self._threads = ThreadPoolExecutor(_LEDGER_THREADS, "ugen-ledger")
        self._slots = Slots(spec.in_flight)
        self._waiting: deque[Claim] = deque()
        self._position = ClaimPosition()
        self._tasks: dict[asyncio.Task[None], Claim] = {}
        self._workers: dict[str, ProductWorker] = {}
        self._accepted: set[str] = set()
        self._running: set[str] = set()
        """Products whose jobs were read a moment ago and had not ended."""
        self._may_leave = False
        self._stop: str | None = None
        self._fatal: BaseException | None = None
        self._total = 0
        self._done = 0
        self._most_expensive = 0
        self._used_up: BudgetUsedUpError | None = None
        self._before: asyncio.Event | None = None
        """Set when the product that was begun last has reserved its credits."""
        self._share: BudgetShare
        self._heartbeats: dict[str, asyncio.Future[None]] = {}
        """Heartbeats without an answer yet."""
        self._changed = asyncio.Event()
        """A product is through, or there is place for another."""

    async def _in_thread(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def run(self) -> Report:
        """Do the run, or continue it.

        Returns:
            What became of the feed; its counts add up.

        Raises:
            ConfigError: Nothing here can write to the destination; nothing was bought.
            FeedError: The feed cannot be read to its end; nothing was bought.
            RunRefusedError: Continuing is surely not intended; nothing was bought.
            LedgerUnavailableError: The ledger's database went away; the same run continues once it is back.
            UGenError: The run cannot continue, such as for a refused key. Running jobs are left; the ledger knows them.
        """
        report = await self._run_guarded()
        assert report is not None  # only a run that may leave ends without one
        return report

    async def run_until_only_waiting(self) -> Report | None:
        """Do the run until nothing can be done before a job ends, and leave the jobs running.

        Returns:
            The report; None while jobs run, or while the account's job limit is reached.

        Raises:
            UGenError: As `run`.
        """
        self._may_leave = True
        return await self._run_guarded()

    @property
    def pause(self) -> float:
        """Seconds until the account's job limit may have a free slot again."""
        return self._slots.pause(now=self._clock.now())

    async def _run_guarded(self) -> Report | None:
        try:
            return await self._run()
        except LedgerUnavailableError as error:
            raise error.of_run(self._spec.run_id) from None

    async def _run(self) -> Report | None:
        if self._spec.outputs is not None:
            from ugen_provider.core.media.stores import Store

            # An unusable destination is an error before anything is bought.
            await self._in_thread(Store, self._spec.outputs.destination)
        catalogue = await self._in_thread(
            self._ledger.catalogue,
            self._spec.catalogue,
            namespace=self._client.config.namespace,
            origin=origin_of(self._client.config.base_url),
        )
        run = await self._planned(catalogue)
        self._total = await self._in_thread(runs.open_items, self._ledger, run)
        self._say("planned")
        self._probe("planned")
        self._share = BudgetShare(self._ledger, run, self._spec.budget)
        context = RunContext(
            spec=self._spec,
            client=self._client,
            watcher=self._watcher,
            ledger=self._ledger,
            estimates=Estimates(self._client, assume_credits=self._spec.budget.assume_credits),
            pictures=Pictures(self._client, self._ledger, namespace=catalogue.namespace, origins=self._origins),
            now=self._clock.now,
            in_thread=self._in_thread,
            share=self._share,
            slots=asyncio.Semaphore(_REQUESTS_AT_ONCE),
            probe=self._probe,
        )
        beat = asyncio.create_task(self._beat(run), name="ugen-ledger-heartbeat")
        reconciler = asyncio.create_task(self._reconcile(), name="ugen-reconciler")
        try:
            await self._check_budget(run, context)
            if not await self._buy_all(run, context):
                await self._stopped(run)
                return None
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._stopped(run)))
            raise
        except BaseException:
            await self._as_well(self._let_go(run, "an error stopped the run"))
            raise
        finally:
            beat.cancel()
            reconciler.cancel()
            if self._own_watcher:
                await self._watcher.aclose()
        await self._in_thread(self._share.give_back)
        await self._in_thread(runs.finish, self._ledger, run)
        self._probe("finished")
        return await self.report(run)

    async def _check_budget(self, run: Run, context: RunContext) -> None:
        """Refuse a budget that can buy nothing of the plan. A plan that buys nothing needs none.

        Raises:
            RunRefusedError: The configured limit is below the cheapest planned purchase, or its cost is not known.
        """
        budget = self._spec.budget
        if budget.credits is None and budget.daily is None:
            return
        if self._client.config.spending != "allow" or self._spec.policy.spending != "allow":
            return
        samples = await self._in_thread(runs.sample_requests, self._ledger, run)
        costs = [await context.estimates.of({**body, "product_image_url": _ANY_PICTURE}) for body in samples]
        if not costs:
            return
        self._most_expensive = max(costs)
        message = budget_refusal(budget, cheapest=min(costs))
        if message is not None:
            raise RunRefusedError(message, reason="budget")

    async def report(self, run: Run) -> Report:
        """Return the report in its present state."""
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
        except (UGenError, ValueError) as error:
            if not isinstance(error, (LedgerUnavailableError, LeaseLostError)):
                # The plan was refused, or its feed is broken: the ledger shows it as that, and what it said is void.
                refuse = self._in_thread(
                    runs.refuse, ledger, catalogue, spec.run_id, owner=self._owner, reason=str(error)
                )
                await self._as_well(refuse)
            raise
        except BaseException:  # a cancellation above all: the next process must not wait for a lease to end
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
        known = partial(picture_identity, ledger, origins=self._origins)
        identity = known if spec.plan.upload_pictures or spec.plan.pictures_by_content else None
        planner = Planner(ledger, run, spec.plan, identity=identity, probe=self._probe)
        await self._in_thread(
            planner.plan, spec.source, job_defaults=spec.job_defaults, model=self._client.config.video_model
        )

    async def _buy_all(self, run: Run, context: RunContext) -> bool:
        """Buy what the plan holds; return False where the run leaves while jobs run."""
        while True:
            if self._fatal is not None:
                raise self._fatal
            await self._fill(run, context)
            if not self._tasks:
                if not self._waiting and not await self._in_thread(runs.open_items, self._ledger, run):
                    return True
                if self._may_leave:
                    return False
                # Others hold what is left, or the account has no place: look again.
                await self._clock.asleep(self._slots.pause(now=self._clock.now()) or _LOOK_AGAIN)
                continue
            if self._may_leave and all(claimed.product_id in self._running for claimed in self._tasks.values()):
                return False  # each product waits for a job that runs, and no further one may begin
            pause = self._slots.pause(now=self._clock.now()) if self._waiting else 0.0
            await asleep_unless(self._changed, clock=self._clock, seconds=pause or float("inf"))
            self._changed.clear()
            for task in [task for task in self._tasks if task.done()]:
                del self._tasks[task]
                task.result()

    async def _fill(self, run: Run, context: RunContext) -> None:
        if self._stop is not None:
            reason = self._stop
            for claimed in [claimed for claimed in self._waiting if not claimed.has_job]:
                self._waiting.remove(claimed)
                await self._end(claimed, ProductResult("postponed", reason=reason))
            await self._in_thread(runs.postpone_rest, self._ledger, run, reason=reason)
        free = self._slots.free(in_flight=len(self._tasks), now=self._clock.now())
        if free > len(self._waiting):
            most = max(free, min(_AHEAD, self._spec.in_flight or _AHEAD)) - len(self._waiting)
            self._waiting.extend(await self._in_thread(claim, self._ledger, run, most=most, position=self._position))
            self._probe("claimed")
        in_order = bool(self._waiting) and await self._in_thread(self._is_short, run)
        while free > 0 and self._waiting:
            claimed = self._waiting.popleft()
            free -= 1
            reserved = asyncio.Event()
            one = self._one(claimed, context, self._before if in_order else None, reserved)
            self._before = reserved
            task = asyncio.create_task(one, name=f"ugen-product-{shown_id(claimed.product_id)}")
            task.add_done_callback(lambda _: self._changed.set())
            self._tasks[task] = claimed

    def _is_short(self, run: Run) -> bool:
        """Return whether the budget may end soon: products then reserve in the order of the plan, one after another.

        Otherwise they reserve in any order, many in one transaction, since all of them will fit.
        """
        budget = self._spec.budget
        rest = self._ledger.read(lambda connection: left(connection, run, budget, budget.day(self._ledger.now())))
        return rest is not None and rest < _PLENTY * self._most_expensive

    async def _one(
        self, claimed: Claim, context: RunContext, before: asyncio.Event | None, reserved: asyncio.Event
    ) -> None:
        product_id = claimed.product_id
        loop = asyncio.get_running_loop()

        def note_reserved() -> None:
            loop.call_soon_threadsafe(reserved.set)

        async def turn() -> None:
            # A purchase that was begun before costs nothing now, and another product need not wait for it.
            if claimed.record is None and claimed.booked is None:
                if before is not None:
                    await before.wait()
                if self._used_up is not None:
                    raise self._used_up  # what comes later in the plan must not go before
            else:
                reserved.set()

        worker = self._workers[product_id] = ProductWorker(
            context,
            claimed,
            accepted=lambda: self._accept(product_id),
            running=lambda: self._note_running(product_id),
            ended=lambda: self._note_ended(product_id),
            reserved=note_reserved,
            turn=turn,
        )
        try:
            ended = await worker.buy()
        except RateLimitError as error:
            pause = limit_pause(error)
            self._slots.limited(in_flight=len(self._accepted), now=self._clock.now(), pause=pause)
            self._waiting.append(worker.claim_now())
            self._say("limited", product_id)
            return
        except BudgetUsedUpError as error:
            self._used_up = self._used_up or error
            if self._stop is None:
                self._stop = {"run": "budget", "day": "daily budget", "credits": "credits"}[error.which]
                self._say("stopping", product_id, reason=str(error))
            await self._end(claimed, ProductResult("postponed", reason=self._stop))
            return
        except LeaseLostError:
            return  # the runner that has it settles it
        except UGenError as error:
            self._fatal = self._fatal or error
            self._say("stopping", product_id, reason=str(error))
            return
        finally:
            reserved.set()
            self._workers.pop(product_id, None)
            self._note_ended(product_id)
        self._probe("before.settle")
        await self._end(claimed, ended)
        self._probe("after.settle")

    async def _end(self, claimed: Claim, ended: ProductResult) -> None:
        try:
            await self._in_thread(settle, self._ledger, claimed, ended)
        except LeaseLostError:
            return
        self._done += 1
        self._say("settled", claimed.product_id, state=ended.state, reason=ended.reason)

    def _note_running(self, product_id: str) -> None:
        self._running.add(product_id)
        self._changed.set()

    def _note_ended(self, product_id: str) -> None:
        self._accepted.discard(product_id)
        self._running.discard(product_id)

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
        named, variant = split_row_id(product_id) if product_id is not None else (None, "")
        self._on_progress(
            Progress(
                event,
                total=self._total,
                done=self._done,
                in_flight=len(self._accepted),
                limit=int(self._slots.limit),
                product_id=named,
                variant=variant,
                state=state,
                reason=reason,
            )
        )

    async def _beat(self, run: Run) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)  # real time: leases are about processes, not about jobs
            for name, beat in (("products", partial(heartbeat, self._ledger, run)), ("budget", self._share.renew)):
                try:
                    await self._beat_once(name, beat)
                except (LedgerUnavailableError, SQLAlchemyError, TimeoutError) as error:
                    # The next writer under the lease finds overdue products.
                    _log.warning("the ledger did not take a heartbeat of the %s: %s", name, type(error).__name__)

    async def _beat_once(self, name: str, beat: Callable[[], None]) -> None:
        """Renew leases in a thread of its own: the run's threads may all wait for something else.

        Raises:
            TimeoutError: There is no answer yet; no other heartbeat of this kind is sent before it.
        """
        if name not in self._heartbeats:
            self._heartbeats[name] = asyncio.wrap_future(in_daemon(beat))
        done, _ = await asyncio.wait({self._heartbeats[name]}, timeout=LEASE / 8)
        if not done:
            raise TimeoutError
        self._heartbeats.pop(name).result()

    async def _reconcile(self) -> None:
        """Do what earlier processes of this ledger owe, once now and then every five minutes."""
        world = AsyncWorld(self._client, LedgerOrderStore(self._ledger))
        collect = partial(collect_outputs, network=self._client.config.network)
        while True:
            try:
                await reconcile(world, self._ledger, owner=self._owner, owner_state=_owner_state, collect=collect)
            except (UGenError, SQLAlchemyError) as error:
                _log.warning("the reconciler could not run; it tries again in 5 minutes: %s", type(error).__name__)
            await asyncio.sleep(RECONCILE_INTERVAL)  # real time, as for leases

    async def _stopped(self, run: Run) -> None:
        """Stop buying; leave or cancel running jobs, by `on_interrupt`; let others continue at once."""
        self._say("stopping", reason="interrupted")
        workers = list(self._workers.values())
        await self._end_tasks()
        if self._spec.on_interrupt == "cancel":
            await asyncio.gather(*(worker.cancel() for worker in workers), return_exceptions=True)
        await self._release(run, "interrupted")

    async def _as_well(self, work: Awaitable[None]) -> None:
        """Do what only spares others the wait for our leases; a ledger that is gone hides no error behind its own."""
        try:
            await work
        except LedgerUnavailableError as error:
            _log.warning("the products of this runner stay leased until their leases end: %s", error)

    async def _let_go(self, run: Run, reason: str) -> None:
        await self._end_tasks()
        await self._release(run, reason)

    async def _release(self, run: Run, reason: str) -> None:
        await self._in_thread(self._share.give_back)
        if not await self._in_thread(release, self._ledger, run, reason=reason):
            await self._in_thread(runs.postpone_rest, self._ledger, run, reason=reason)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run_feed(
    spec: FeedRun,
    *,
    config: ClientConfig,
    ledger: Ledger,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Run a feed from code that is not async.

    Costs what its budget allows at most. Ctrl-C stops buying and leaves or cancels running jobs, by `on_interrupt`.

    Args:
        spec: What is ordered.
        config: Settings of the client.
        ledger: Knows what was bought.
        on_progress: Called whenever something happened.

    Returns:
        What became of the feed.

    Raises:
        FeedError: The feed cannot be read to its end; nothing was bought.
        RunRefusedError: Continuing is surely not intended; nothing was bought.
        LedgerUnavailableError: The ledger's database went away; the same run continues once it is back.
        UGenError: The run cannot continue; running jobs are left.

    Examples:
        >>> spec = FeedRun("feed.xml", catalogue="shop", run_id="2026-11-24",
        ...                job_defaults={"segment_count": 2}, budget=Budget(credits=5000))
        >>> with Ledger("shop.db") as ledger:
        ...     print(run_feed(spec, config=resolve(), ledger=ledger).table())
    """

    async def work() -> Report:
        async with AsyncUGenClient(config=config) as client:
            return await FeedRunner(client, ledger, spec, on_progress=on_progress).run()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    return _in_thread(work)


def _in_thread(work: Callable[[], Any]) -> Report:
    """A notebook has a loop of its own, which must not be blocked from inside."""
    result: list[Report] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            result.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001  it is raised where the result is waited for
            errors.append(error)

    thread = threading.Thread(target=target, name="ugen-feed-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


@dataclass(frozen=True, slots=True)
class Wave:
    """State of a run when the process leaves it.

    Attributes:
        report: What became of the feed, once nothing is open any more.
        job_ids: Jobs that run, to be waited for elsewhere; the next wave settles them and buys what is next.
        retry_in: Seconds after which to come back although no job of ours runs: the account had no place.
    """

    report: Report | None
    job_ids: tuple[str, ...] = ()
    retry_in: float = 0.0


async def run_wave(
    spec: FeedRun,
    *,
    config: ClientConfig,
    ledger: Ledger,
    on_progress: Callable[[Progress], None] | None = None,
) -> Wave:
    """Settle what has ended, buy what there is place for, and leave what runs.

    Costs what its budget allows at most. Calling it again with the same spec continues the same run.

    Args:
        spec: What is ordered; `on_interrupt` must be `leave`.
        config: Settings of the client.
        ledger: Knows what was bought.
        on_progress: Called whenever something happened.

    Raises:
        FeedError: The feed cannot be read to its end; nothing was bought.
        RunRefusedError: Continuing is surely not intended; nothing was bought.
        LedgerUnavailableError: The ledger's database went away; the same run continues once it is back.
        UGenError: The run cannot continue; running jobs are left.
    """
    async with AsyncUGenClient(config=config) as client:
        runner = FeedRunner(client, ledger, spec, on_progress=on_progress)
        report = await runner.run_until_only_waiting()
        if report is not None:
            return Wave(report)
    job_ids = await asyncio.to_thread(_job_ids, ledger, spec, config)
    return Wave(None, job_ids, retry_in=max(30.0, runner.pause))


def _job_ids(ledger: Ledger, spec: FeedRun, config: ClientConfig) -> tuple[str, ...]:
    origin = origin_of(config.base_url)
    catalogue = ledger.find_catalogue(spec.catalogue, namespace=config.namespace, origin=origin)
    return tuple(running.job_id for running in running_jobs(ledger, catalogue, spec.run_id))
