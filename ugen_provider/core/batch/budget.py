# SPDX-License-Identifier: Apache-2.0
"""Credits of a run and of a day: booked before anything is sent, corrected when it is settled.

`Reservations` books single orders, such as an asset's partitions, in the transaction that records an order as sent.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa

from ugen_provider.core.api import endpoints
from ugen_provider.core.api.async_client import AsyncUGenClient, call_endpoint
from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    PermissionDeniedError,
    ResponseError,
)
from ugen_provider.core.batch.errors import BudgetUsedUpError, RunRefusedError
from ugen_provider.core.batch.leases import Claim
from ugen_provider.core.batch.runs import LEASE, Run
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.store import Ledger, insert_new

T = TypeVar("T")
FREE_OF_COST = frozenset(
    {
        "product_name",
        "product_image_url",
        "environment_description",
        "key_selling_points",
        "cta_text",
        "custom_script",
        "script_structure",
        "script_tone",
        "persona_id",
        "interaction_mode",
        "music_mood",
        "music_volume",
        "caption_style",
        "webhook_url",
        "idempotency_key",
    }
)
"""Fields that cost nothing, however long they are; all others may, so each combination is asked for once."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Credits that a run may spend.

    Attributes:
        credits: Of this run, over all its attempts; None for no limit.
        daily: Of all runs of this namespace in a day; None for no limit.
        timezone: Whose midnight ends the day.
        assume_credits: What to count for a job whose cost the service does not name; without it nothing is bought then.
    """

    credits: int | None
    daily: int | None = None
    timezone: str = "UTC"
    assume_credits: int | None = None

    def __post_init__(self) -> None:
        for name in ("credits", "daily", "assume_credits"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}: must not be negative, got {value}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigError(f"timezone: {self.timezone!r} is not known; use a name like Europe/Berlin") from None

    def day(self, now: float) -> str:
        """Return the day that a time belongs to.

        Examples:
            >>> Budget(credits=1, timezone="Asia/Tokyo").day(1_700_000_000.0)
            '2023-11-15'
        """
        return datetime.fromtimestamp(now, ZoneInfo(self.timezone)).date().isoformat()


def cost_key(body: Mapping[str, Any]) -> str:
    """Return what of a request decides its cost."""
    counted = {name: value for name, value in body.items() if name not in FREE_OF_COST}
    return json.dumps(counted, sort_keys=True, default=list)


def budget_refusal(budget: Budget, *, cheapest: int) -> str | None:
    """Return why a budget can buy nothing of a plan, whatever is left of it; None where it can.

    A limit below the cheapest purchase is a mistake in the settings. A rest that is too small is the end of a budget.

    Args:
        budget: The configured budget.
        cheapest: Credits of the cheapest purchase that is planned.

    Examples:
        >>> budget_refusal(Budget(credits=83), cheapest=83) is None
        True
        >>> budget_refusal(Budget(credits=None, daily=82), cheapest=83)
        "the day's budget of 82 credits is below the cheapest planned purchase of 83 credits: nothing was bought"
    """
    for name, limit in (("run's", budget.credits), ("day's", budget.daily)):
        if limit is not None and limit < cheapest:
            return (
                f"the {name} budget of {limit} credits is below the cheapest planned purchase of {cheapest} credits: "
                "nothing was bought"
            )
    return None


class Estimates:
    """Estimated costs of jobs, asked for once for each combination of the fields that cost.

    Args:
        client: Asks the service.
        assume_credits: What to count where the service names no cost.
    """

    def __init__(self, client: AsyncUGenClient, *, assume_credits: int | None) -> None:
        self._client = client
        self._assume = assume_credits
        self._known: dict[str, asyncio.Future[int]] = {}

    async def of(self, body: Mapping[str, Any]) -> int:
        """Return the credits of a request. Free; `POST /credits/estimate`.

        Raises:
            RunRefusedError: The service names no cost, and no cost is assumed instead.
        """
        key = cost_key(body)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = asyncio.ensure_future(self._ask(body))
        return await asyncio.shield(known)

    async def _ask(self, body: Mapping[str, Any]) -> int:
        try:
            return (await call_endpoint(self._client, endpoints.estimate(body))).total_credits
        except (AuthenticationError, PermissionDeniedError):
            raise
        except (APIError, ResponseError) as error:
            if self._assume is not None:
                return self._assume
            message = (
                f"the cost of a job is not known ({error}), so nothing is bought; assume_credits says what to count"
            )
            raise RunRefusedError(message, reason="estimate") from error


class _Purse:
    """Credits booked in a row, to which more are added only if they fit. Its statements are made once, see `change`."""

    def __init__(self, table: sa.Table, **columns: str) -> None:
        more, most = (sa.bindparam(name, type_=sa.Integer) for name in ("more", "most"))
        these = (table.c[column] == sa.bindparam(name) for name, column in columns.items())
        self._any = sa.update(table).where(*these).values(booked=table.c.booked + more)
        self._within = self._any.where(table.c.booked + more <= most)

    def add(
        self,
        connection: sa.Connection,
        credits: int,  # noqa: A002  the API's own word
        *,
        to: Mapping[str, object],
        most: int | None = None,
    ) -> bool:
        """Return whether there is such a row, and they fit."""
        given = {**to, "more": credits}
        if most is None:
            return connection.execute(self._any, given).rowcount == 1
        return connection.execute(self._within, {**given, "most": most}).rowcount == 1


_RUN = _Purse(schema.run, of_run="id")
_DAY = _Purse(schema.day, of_namespace="namespace", of_day="day")
_SHARE = schema.share
_THIS_SHARE = (
    _SHARE.c.run == sa.bindparam("of_run"),
    _SHARE.c.owner == sa.bindparam("of_owner"),
    _SHARE.c.day == sa.bindparam("of_day"),
)
_MORE = sa.bindparam("more", type_=sa.Integer)
_OF_SHARE = sa.select(_SHARE.c.taken - _SHARE.c.booked).where(*_THIS_SHARE)
_BOOK_FROM_SHARE = (
    sa.update(_SHARE)
    .where(*_THIS_SHARE, _SHARE.c.booked + _MORE <= _SHARE.c.taken)
    .values(booked=_SHARE.c.booked + _MORE)
)
_CORRECT_SHARE = sa.update(_SHARE).where(*_THIS_SHARE).values(booked=_SHARE.c.booked + _MORE)
_TAKE_INTO_SHARE = (
    sa.update(_SHARE)
    .where(*_THIS_SHARE)
    .values(taken=_SHARE.c.taken + _MORE, until=sa.bindparam("until_then", type_=sa.Float))
)
_THIS_ITEM = (schema.item.c.run == sa.bindparam("of_run"), schema.item.c.product_id == sa.bindparam("of_product"))
_BOOKED = sa.select(schema.item.c.booked, schema.item.c.booked_day).where(*_THIS_ITEM)
_BOOK = (
    sa.update(schema.item)
    .where(*_THIS_ITEM)
    .values(
        booked=sa.func.coalesce(schema.item.c.booked, 0) + _MORE,
        estimate=sa.func.coalesce(schema.item.c.estimate, 0) + _MORE,
        booked_day=sa.bindparam("today"),
    )
)
_AT_ONCE = 32
"""Products for which a runner takes credits at once, where the budget is large."""

_PARTS = 16
"""The share of what is left that a runner takes at most, so that little of a budget's end is in the wrong share."""


class _ShareGivenBackError(Exception):
    """The runner's share does not cover the product: another runner gave it back, because its lease had ended."""


class BudgetShare:
    """A runner's part of the budgets of its run and its day, taken in advance for several products at once.

    The row of the run is locked only while a share is taken, in a transaction of its own. A product reserves from the
    runner's own row, in the same transaction as its record, and waits for no other runner.

    Credits that are taken and not reserved go back when the runner ends. If its process dies, another runner gives them
    back as soon as the lease of the share has ended and the budget is short.

    Args:
        ledger: Where.
        run: Whose budget, for which runner.
        budget: What the run may spend.
    """

    def __init__(self, ledger: Ledger, run: Run, budget: Budget) -> None:
        self._ledger = ledger
        self._run = run
        self._budget = budget
        self._turn = threading.Lock()
        self._day = ""
        self._unused = 0
        self._pending = 0
        """Credits of products whose transaction has begun: the row may or may not have them booked."""

    def reserve(self, credits: int, write: Callable[[], T]) -> T:  # noqa: A002  the API's own word
        """Do a write whose transaction calls `book`, after the runner's share covers the credits.

        Args:
            credits: What the write books.
            write: Whole transactions; it may be called again after one that stored nothing.

        Raises:
            BudgetUsedUpError: They do not fit; the write was not done.
        """
        while True:
            self._cover(credits)
            try:
                done = write()
            except _ShareGivenBackError:
                with self._turn:
                    self._unused = 0
                continue
            else:
                with self._turn:
                    self._unused -= credits
                return done
            finally:
                with self._turn:
                    self._pending -= credits

    def _cover(self, credits: int) -> None:  # noqa: A002
        with self._turn:
            today = self._budget.day(self._ledger.now())
            if today != self._day:
                self._day, self._unused = today, 0
            if self._unused - self._pending < credits:
                self._take(credits)
            self._pending += credits

    def _take(self, credits: int) -> None:  # noqa: A002
        """Take credits from the run and the day. The numbers here are a lower bound of what the row has."""

        def work(connection: sa.Connection) -> int:
            return _taken(
                connection, self._ledger, self._run, self._budget, day=self._day, credits=credits, pending=self._pending
            )

        try:
            self._unused = self._ledger.writer.run_alone(work)
        except BudgetUsedUpError:
            if not give_back_ended(self._ledger):
                raise
            self._unused = self._ledger.writer.run_alone(work)

    def renew(self) -> None:
        """Renew the lease of the share."""
        ours = (_SHARE.c.run == self._run.id, _SHARE.c.owner == self._run.owner)
        update = sa.update(_SHARE).where(*ours).values(until=self._ledger.now() + LEASE)
        self._ledger.writer.run(lambda connection: connection.execute(update))

    def give_back(self) -> None:
        """Give back what was taken and not reserved. A later reservation takes a share anew."""
        with self._turn:
            self._unused = 0
            ours = (_SHARE.c.run == self._run.id, _SHARE.c.owner == self._run.owner)
            self._ledger.writer.run_alone(lambda connection: _give_back(connection, sa.and_(*ours)))


def _taken(
    connection: sa.Connection,
    ledger: Ledger,
    run: Run,
    budget: Budget,
    *,
    day: str,
    credits: int,  # noqa: A002
    pending: int,
) -> int:
    """Take credits into a runner's share, and return what of it is not booked.

    Locks the row of the run, then that of the day, then the share: every transaction that locks two of them has this
    order, and none of these waits while it holds a product.
    """
    this = {"of_run": run.id, "of_owner": run.owner, "of_day": day}
    unused = int(connection.execute(_OF_SHARE, this).scalar() or 0)
    need = credits + pending - unused
    if need <= 0:
        return unused
    this_day = {"of_namespace": run.catalogue.namespace, "of_day": day}
    rest = left(connection, run, budget, day)
    more = max(need, credits * _AT_ONCE if rest is None else min(credits * _AT_ONCE, rest // _PARTS))
    if not _RUN.add(connection, more, to={"of_run": run.id}, most=budget.credits):
        more = need
        if not _RUN.add(connection, more, to={"of_run": run.id}, most=budget.credits):
            raise BudgetUsedUpError(f"the run's budget of {budget.credits} credits is used up", which="run")
    if not _DAY.add(connection, more, to=this_day, most=budget.daily):
        insert_new(connection, schema.day, {"namespace": run.catalogue.namespace, "day": day, "booked": 0})
        if not _DAY.add(connection, more, to=this_day, most=budget.daily):
            if more == need:
                raise BudgetUsedUpError(f"the day's budget of {budget.daily} credits is used up", which="day")
            _RUN.add(connection, need - more, to={"of_run": run.id})
            more = need
            if not _DAY.add(connection, more, to=this_day, most=budget.daily):
                raise BudgetUsedUpError(f"the day's budget of {budget.daily} credits is used up", which="day")
    until = ledger.now() + LEASE
    _change_share(connection, _TAKE_INTO_SHARE, run, day, {"more": more, "until_then": until}, until=until)
    return unused + more


def left(connection: sa.Connection, run: Run, budget: Budget, day: str) -> int | None:
    """Return the rest of run and day, as a hint; None without a limit."""
    lefts = []
    if budget.credits is not None:
        query = sa.select(schema.run.c.booked).where(schema.run.c.id == run.id)
        lefts.append(budget.credits - int(connection.execute(query).scalar() or 0))
    if budget.daily is not None:
        ours = (schema.day.c.namespace == run.catalogue.namespace, schema.day.c.day == day)
        lefts.append(budget.daily - int(connection.execute(sa.select(schema.day.c.booked).where(*ours)).scalar() or 0))
    return min(lefts, default=None)


def _change_share(
    connection: sa.Connection, statement: sa.Update, run: Run, day: str, given: Mapping[str, object], *, until: float
) -> None:
    """Change a runner's share, and begin it where it has none.

    A product takes credits in one transaction while another product of the runner is corrected in a second one: both
    may find no share, so neither may fail because the other one began it. Between two of these statements another
    runner may give back a share whose lease has ended; it is then begun again.
    """
    this = {"of_run": run.id, "of_owner": run.owner, "of_day": day}
    row = {"run": run.id, "owner": run.owner, "day": day, "namespace": run.catalogue.namespace}
    while connection.execute(statement, {**this, **given}).rowcount != 1:
        insert_new(connection, _SHARE, {**row, "taken": 0, "booked": 0, "until": until})


def give_back_ended(ledger: Ledger) -> bool:
    """Give back what ended runners took and did not reserve; return whether there was any.

    A runner that is only slow loses no credit that it has reserved: it takes a share anew for its next product.
    """
    return ledger.writer.run_alone(lambda connection: _give_back(connection, _SHARE.c.until < ledger.now()))


def _give_back(connection: sa.Connection, where: Any) -> bool:
    """Give back what these shares have left. Locks runs, days and shares in the order of `_taken`."""
    found = connection.execute(sa.select(_SHARE.c.run, _SHARE.c.namespace, _SHARE.c.day).where(where)).all()
    run, day = schema.run, schema.day
    for run_id in sorted({row.run for row in found}):
        connection.execute(sa.select(run.c.id).where(run.c.id == run_id).with_for_update())
    for namespace, name in sorted({(row.namespace, row.day) for row in found}):
        this_day = (day.c.namespace == namespace, day.c.day == name)
        connection.execute(sa.select(day.c.day).where(*this_day).with_for_update())
    # A share that its own runner writes to at this moment is not ended.
    rows = connection.execute(sa.select(_SHARE).where(where).with_for_update(skip_locked=True)).all()
    for row in rows:
        if unused := row.taken - row.booked:
            _RUN.add(connection, -unused, to={"of_run": row.run})
            _DAY.add(connection, -unused, to={"of_namespace": row.namespace, "of_day": row.day})
        these = (_SHARE.c.run == row.run, _SHARE.c.owner == row.owner, _SHARE.c.day == row.day)
        connection.execute(sa.delete(_SHARE).where(*these))
    return bool(rows)


def book(
    connection: sa.Connection,
    ledger: Ledger,
    claimed: Claim,
    budget: Budget,
    *,
    credits: int,  # noqa: A002  the API's own word
) -> None:
    """Book credits for a product whose lease was made sure of, in one step with the certainty that they fit.

    Call it in a write of `BudgetShare.reserve`, which takes the credits into the runner's share first.

    Args:
        connection: In whose transaction.
        ledger: Where.
        claimed: The product.
        budget: What the run may spend.
        credits: Its estimate.

    Raises:
        _ShareGivenBackError: The share does not cover them; the transaction must not be committed.
    """
    today = budget.day(ledger.now())
    this = {"of_run": claimed.run.id, "of_owner": claimed.run.owner, "of_day": today}
    if connection.execute(_BOOK_FROM_SHARE, {**this, "more": credits}).rowcount != 1:
        raise _ShareGivenBackError
    this_item = {"of_run": claimed.run.id, "of_product": claimed.product_id}
    connection.execute(_BOOK, {**this_item, "more": credits, "today": today})


def correct(connection: sa.Connection, ledger: Ledger, claimed: Claim, *, consumed: int) -> bool:
    """Replace what run and day have booked for a product by what it consumed, through the runner's own share.

    Returns:
        Whether anything was booked for it.
    """
    row = connection.execute(_BOOKED, {"of_run": claimed.run.id, "of_product": claimed.product_id}).one()
    if row.booked is None:
        return False
    if difference := consumed - row.booked:
        until = ledger.now() + LEASE
        _change_share(connection, _CORRECT_SHARE, claimed.run, row.booked_day, {"more": difference}, until=until)
    return True


_BOOKING, _LOGICAL_RUN, _SHARED_DAY = schema.booking, schema.logical_run, schema.day


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservations:
    """The reservations of one logical run.

    Args:
        ledger: Where they are written.
        budget: The limits.
        run: Name of the logical run, such as a Dagster root run or a backfill.
        namespace: Whose day it is.
    """

    ledger: Ledger
    budget: Budget
    run: str
    namespace: str

    def reserve(
        self,
        connection: sa.Connection,
        *,
        order_key: str,
        purchase_number: int,
        credits: int | None,  # noqa: A002  the API's own word
        again: bool = False,
    ) -> None:
        """Reserve the credits of a purchase, once. If the process ends before the commit, nothing is reserved or sent.

        Args:
            connection: In whose transaction.
            order_key: The order.
            purchase_number: Which purchase of it.
            credits: Its estimate; None where it is not known.
            again: Whether to reserve although the purchase has a reservation, such as for a stage retry.

        Raises:
            BudgetUsedUpError: They do not fit, or are not known; the transaction must not be committed.
        """
        today = self.budget.day(self.ledger.now())
        where = (_BOOKING.c.order_key == order_key, _BOOKING.c.purchase_number == purchase_number)
        known = connection.execute(sa.select(_BOOKING.c.credits).where(*where)).scalar()
        if known is not None and not again:
            return
        if credits is None:
            raise BudgetUsedUpError("the cost of the job is not known; assume_credits says what to count", which="run")
        key = {"name": self.run}
        if not _add(connection, _LOGICAL_RUN, key, credits, most=self.budget.credits):
            raise BudgetUsedUpError(self._message("budget", self.budget.credits, credits), which="run")
        day = {"namespace": self.namespace, "day": today}
        if not _add(connection, _SHARED_DAY, day, credits, most=self.budget.daily):
            raise BudgetUsedUpError(self._message("daily_budget", self.budget.daily, credits), which="day")
        if known is not None:
            connection.execute(sa.update(_BOOKING).where(*where).values(credits=known + credits))
            return
        row = {"order_key": order_key, "purchase_number": purchase_number, "run": self.run, "credits": credits, **day}
        insert_new(connection, _BOOKING, row)

    def reserve_again(self, order_key: str, purchase_number: int, credits: int | None) -> None:  # noqa: A002
        """Reserve the credits of a stage retry, before it is sent.

        Raises:
            BudgetUsedUpError: They do not fit.
        """
        self.ledger.writer.run(
            lambda connection: self.reserve(
                connection, order_key=order_key, purchase_number=purchase_number, credits=credits, again=True
            )
        )

    def remaining(self) -> int | None:
        """Return the credits that can still be reserved; None where no limit is set."""
        today = self.budget.day(self.ledger.now())

        def work(connection: sa.Connection) -> int | None:
            left: list[int] = []
            if self.budget.credits is not None:
                booked = connection.execute(
                    sa.select(_LOGICAL_RUN.c.booked).where(_LOGICAL_RUN.c.name == self.run)
                ).scalar()
                left.append(self.budget.credits - (booked or 0))
            if self.budget.daily is not None:
                where = (_SHARED_DAY.c.namespace == self.namespace, _SHARED_DAY.c.day == today)
                booked = connection.execute(sa.select(_SHARED_DAY.c.booked).where(*where)).scalar()
                left.append(self.budget.daily - (booked or 0))
            return min(left, default=None)

        return self.ledger.read(work)

    @staticmethod
    def _message(name: str, limit: int | None, credits: int) -> str:  # noqa: A002
        if limit is not None and credits > limit:
            return f"{name} is {limit} credits, and the job would reserve {credits}; raise {name}"
        return f"{name} of {limit} credits is used up: {credits} more do not fit"


def settle(ledger: Ledger, order_key: str, purchase_number: int, *, consumed: int) -> None:
    """Replace what was reserved for a purchase by what its job consumed; nothing where nothing was reserved."""
    where = (_BOOKING.c.order_key == order_key, _BOOKING.c.purchase_number == purchase_number)
    if ledger.read(lambda connection: connection.execute(sa.select(_BOOKING.c.credits).where(*where)).scalar()) in {
        None,
        consumed,
    }:
        return

    def work(connection: sa.Connection) -> None:
        row = connection.execute(sa.select(_BOOKING).where(*where).with_for_update()).one()
        difference = consumed - row.credits
        _add(connection, _LOGICAL_RUN, {"name": row.run}, difference)
        _add(connection, _SHARED_DAY, {"namespace": row.namespace, "day": row.day}, difference)
        connection.execute(sa.update(_BOOKING).where(*where).values(credits=consumed))

    ledger.writer.run(work)


def _add(
    connection: sa.Connection,
    table: sa.Table,
    key: dict[str, str],
    credits: int,  # noqa: A002  the API's own word
    *,
    most: int | None = None,
) -> bool:
    """Add credits to a row, in one conditional write; return whether they fit."""
    insert_new(connection, table, {**key, "booked": 0})
    where = [table.c[name] == value for name, value in key.items()]
    if most is not None:
        where.append(table.c.booked + credits <= most)
    return connection.execute(sa.update(table).where(*where).values(booked=table.c.booked + credits)).rowcount == 1
