# SPDX-License-Identifier: Apache-2.0
"""A feed run in waves, for doors that hold no process while jobs run: buy what there is place for, leave, come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.report import Report
from ugen_provider.core.batch.runner import FeedRunner
from ugen_provider.core.batch.runs import running_jobs
from ugen_provider.core.batch.spec import FeedRun, Progress

_STILL = 2.0
"""Seconds in which nothing more happens before a wave counts as bought."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Where a run stands when the process leaves it.

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

    Costs what its budget allows at most. Calling it again with the same spec goes on with the same run.

    Args:
        spec: What is ordered; `on_interrupt` must be `leave`.
        config: Settings of the client.
        ledger: Knows what was bought.
        on_progress: Called whenever something happened.

    Raises:
        FeedError: The feed cannot be read to its end; nothing was bought.
        RunRefusedError: Going on would surely not be meant; nothing was bought.
        LedgerUnavailableError: The ledger's database went away; the same run goes on once it is back.
        UGenError: The run cannot go on; what runs is left.
    """
    last: Progress | None = None

    def tell(progress: Progress) -> None:
        nonlocal last
        last = progress
        if on_progress is not None:
            on_progress(progress)

    async with AsyncUGenClient(config=config) as client:
        running = asyncio.ensure_future(FeedRunner(client, ledger, spec, on_progress=tell).run())
        seen: Progress | None = None
        while not running.done():
            await asyncio.wait({running}, timeout=_STILL)
            if last is not None and last is seen and _is_bought(last):
                break
            seen = last
        if running.done():
            return Wave(running.result())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if not running.cancelled():
            return Wave(running.result())
    return Wave(None, await asyncio.to_thread(_job_ids, ledger, spec, config.namespace), retry_in=30.0)


def _is_bought(progress: Progress) -> bool:
    """Whether there is place for no further job, or nothing further to buy."""
    if progress.event == "planned":
        return False
    full = progress.in_flight >= progress.limit
    rest = progress.total - progress.done - progress.in_flight
    return full or rest <= 0


def _job_ids(ledger: Ledger, spec: FeedRun, namespace: str) -> tuple[str, ...]:
    catalogue = ledger.find_catalogue(spec.catalogue, namespace=namespace)
    return tuple(running.job_id for running in running_jobs(ledger, catalogue, spec.run_id))
