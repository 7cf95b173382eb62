# SPDX-License-Identifier: Apache-2.0
"""Credits of a run and of a day: booked before anything is sent, corrected when it is settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa

from ugen_provider.core.api import operations
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    PermissionDeniedError,
    ResponseError,
)
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.claims import Claim
from ugen_provider.core.batch.errors import BudgetUsedUpError, RunRefusedError
from ugen_provider.core.batch.ledger import Ledger, insert_new

_FREE_OF_COST = frozenset(
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
    """What a run may spend.

    Attributes:
        credits: Of this run, over all its attempts; None for no limit.
        daily: Of all runs of this namespace in a day; None for no limit.
        timezone: Whose midnight ends the day.
        assume_credits: What to count for a job whose cost the service does not tell; without it nothing is bought then.
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
        """The day that a time belongs to.

        Examples:
            >>> Budget(credits=1, timezone="Asia/Tokyo").day(1_700_000_000.0)
            '2023-11-15'
        """
        return datetime.fromtimestamp(now, ZoneInfo(self.timezone)).date().isoformat()


def cost_key(body: Mapping[str, Any]) -> str:
    """What of a request decides its cost."""
    counted = {name: value for name, value in body.items() if name not in _FREE_OF_COST}
    return json.dumps(counted, sort_keys=True, default=list)


class Estimates:
    """What jobs would cost, asked for once for each combination of the fields that cost.

    Args:
        client: Asks the service.
        assume_credits: What to count where the service does not tell.
    """

    def __init__(self, client: AsyncUGenClient, *, assume_credits: int | None) -> None:
        self._client = client
        self._assume = assume_credits
        self._known: dict[str, asyncio.Future[int]] = {}

    async def of(self, body: Mapping[str, Any]) -> int:
        """The credits of a request. Free; `POST /credits/estimate`.

        Raises:
            RunRefusedError: The service does not tell, and nothing is assumed instead.
        """
        key = cost_key(body)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = asyncio.ensure_future(self._ask(body))
        return await asyncio.shield(known)

    async def _ask(self, body: Mapping[str, Any]) -> int:
        try:
            return (await self._client.call(operations.estimate(body))).total_credits
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
        """Whether there is such a row, and they fit."""
        given = {**to, "more": credits}
        if most is None:
            return connection.execute(self._any, given).rowcount == 1
        return connection.execute(self._within, {**given, "most": most}).rowcount == 1


_RUN = _Purse(schema.run, of_run="id")
_DAY = _Purse(schema.day, of_namespace="namespace", of_day="day")
_THIS_ITEM = (schema.item.c.run == sa.bindparam("of_run"), schema.item.c.product_id == sa.bindparam("of_product"))
_BOOKED = sa.select(schema.item.c.booked, schema.item.c.booked_day).where(*_THIS_ITEM)
_BOOK = (
    sa.update(schema.item)
    .where(*_THIS_ITEM)
    .values(
        booked=sa.func.coalesce(schema.item.c.booked, 0) + sa.bindparam("more", type_=sa.Integer),
        estimate=sa.func.coalesce(schema.item.c.estimate, 0) + sa.bindparam("more", type_=sa.Integer),
        booked_day=sa.bindparam("today"),
    )
)


def book(
    connection: sa.Connection,
    ledger: Ledger,
    claimed: Claim,
    budget: Budget,
    *,
    credits: int,  # noqa: A002  the API's own word
) -> None:
    """Book credits for a product whose lease was made sure of, in one step with the certainty that they fit.

    Args:
        connection: In whose transaction.
        ledger: Where.
        claimed: The product.
        budget: What the run may spend.
        credits: Its estimate.

    Raises:
        BudgetUsedUpError: They do not fit; the transaction must not be committed.
    """
    run_id, namespace = claimed.run.id, claimed.run.catalogue.namespace
    today = budget.day(ledger.now())
    if not _RUN.add(connection, credits, to={"of_run": run_id}, most=budget.credits):
        raise BudgetUsedUpError(f"the run's budget of {budget.credits} credits is used up", which="run")
    this_day = {"of_namespace": namespace, "of_day": today}
    if not _DAY.add(connection, credits, to=this_day, most=budget.daily):
        insert_new(connection, schema.day, {"namespace": namespace, "day": today, "booked": 0})
        if not _DAY.add(connection, credits, to=this_day, most=budget.daily):
            raise BudgetUsedUpError(f"the day's budget of {budget.daily} credits is used up", which="day")
    this_item = {"of_run": run_id, "of_product": claimed.product_id}
    connection.execute(_BOOK, {**this_item, "more": credits, "today": today})


def correct(connection: sa.Connection, claimed: Claim, *, consumed: int) -> bool:
    """Replace what run and day have booked for a product by what it consumed.

    Returns:
        Whether anything was booked for it.
    """
    row = connection.execute(_BOOKED, {"of_run": claimed.run.id, "of_product": claimed.product_id}).one()
    if row.booked is None:
        return False
    if difference := consumed - row.booked:
        this_day = {"of_namespace": claimed.run.catalogue.namespace, "of_day": row.booked_day}
        _RUN.add(connection, difference, to={"of_run": claimed.run.id})
        _DAY.add(connection, difference, to=this_day)
    return True
