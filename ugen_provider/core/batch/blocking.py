# SPDX-License-Identifier: Apache-2.0
"""A feed run from code that is not async: one call, which returns when everything is settled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.report import Report
from ugen_provider.core.batch.runner import FeedRunner
from ugen_provider.core.batch.spec import FeedRun, Progress


def run_feed(
    spec: FeedRun,
    *,
    config: ClientConfig,
    ledger: Ledger,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Run a feed from code that is not async.

    Costs what its budget allows at most. Ctrl-C stops buying and leaves or cancels what runs, as told.

    Args:
        spec: What is ordered.
        config: Settings of the client.
        ledger: Knows what was bought.
        on_progress: Called whenever something happened.

    Returns:
        What became of the feed.

    Raises:
        FeedError: The feed cannot be read to its end; nothing was bought.
        RunRefusedError: Going on would surely not be meant; nothing was bought.
        LedgerUnavailableError: The ledger's database went away; the same run goes on once it is back.
        UGenError: The run cannot go on; what runs is left.

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
