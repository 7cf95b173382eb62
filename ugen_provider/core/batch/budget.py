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
from ugen_provider.core.batch.claims import Claim, hold
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

        Example:
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


def book(ledger: Ledger, claimed: Claim, budget: Budget, *, credits: int) -> None:  # noqa: A002  the API's own word
    """Book credits for a product, in one step with the certainty that they fit.

    Args:
        ledger: Where.
        claimed: The product.
        budget: What the run may spend.
        credits: Its estimate.

    Raises:
        BudgetUsedUpError: They do not fit; nothing was booked.
        LeaseLostError: The product is no longer ours.
    """
    item, run, day = schema.item, schema.run, schema.day
    namespace = claimed.run.catalogue.namespace

    def work(connection: sa.Connection) -> None:
        hold(connection, ledger, claimed)
        today = budget.day(ledger.now())
        fits = sa.update(run).where(run.c.id == claimed.run.id)
        if budget.credits is not None:
            fits = fits.where(run.c.booked + credits <= budget.credits)
        if connection.execute(fits.values(booked=run.c.booked + credits)).rowcount != 1:
            raise BudgetUsedUpError(f"the run's budget of {budget.credits} credits is used up", which="run")
        connection.execute(insert_new(connection, day, {"namespace": namespace, "day": today, "booked": 0}))
        fits = sa.update(day).where(day.c.namespace == namespace, day.c.day == today)
        if budget.daily is not None:
            fits = fits.where(day.c.booked + credits <= budget.daily)
        if connection.execute(fits.values(booked=day.c.booked + credits)).rowcount != 1:
            raise BudgetUsedUpError(f"the day's budget of {budget.daily} credits is used up", which="day")
        connection.execute(
            sa.update(item)
            .where(item.c.run == claimed.run.id, item.c.product_id == claimed.product_id)
            .values(
                booked=sa.func.coalesce(item.c.booked, 0) + credits,
                estimate=sa.func.coalesce(item.c.estimate, 0) + credits,
                booked_day=today,
            )
        )

    ledger.writer.run(work)


def correct(connection: sa.Connection, claimed: Claim, *, consumed: int) -> None:
    """Replace what was booked for a product by what it consumed."""
    item, run, day = schema.item, schema.run, schema.day
    this = (item.c.run == claimed.run.id, item.c.product_id == claimed.product_id)
    row = connection.execute(sa.select(item.c.booked, item.c.booked_day).where(*this)).one()
    if row.booked is None:
        return
    difference = consumed - row.booked
    connection.execute(sa.update(item).where(*this).values(booked=consumed, consumed=consumed))
    connection.execute(sa.update(run).where(run.c.id == claimed.run.id).values(booked=run.c.booked + difference))
    connection.execute(
        sa.update(day)
        .where(day.c.namespace == claimed.run.catalogue.namespace, day.c.day == row.booked_day)
        .values(booked=day.c.booked + difference)
    )
