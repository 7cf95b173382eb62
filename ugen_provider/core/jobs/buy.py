# SPDX-License-Identifier: Apache-2.0
"""Purchase for plain Python: a script that names its order buys it once, however often it runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ugen_provider.core.api import polling
from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.models import CreateJob, Job, request_of
from ugen_provider.core.jobs.order import Order, Purchase, name_key, origin_of
from ugen_provider.core.jobs.policy import OnEarlierFailure, OnPaused, PurchasePolicy
from ugen_provider.core.jobs.purchase import purchase_and_wait
from ugen_provider.core.jobs.threads import in_thread
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger, open_default_ledger


async def buy_async(
    client: AsyncUGenClient,
    job: CreateJob | Mapping[str, Any],
    *,
    name: str,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    regenerate: str | None = None,
    on_earlier_failure: OnEarlierFailure = "retry_stage",
    on_paused: OnPaused = "wait",
    max_credits: int | None = None,
    interval: float = polling.DEFAULT_INTERVAL,
    timeout: float | None = None,
    queue_timeout: float | None = None,
    on_progress: Callable[[Job], None] | None = None,
) -> Purchase:
    """Make one video and wait for it. Run again under the same name, it returns that video and buys nothing.

    Costs the credits of one job, once; a stage retry of a failed job reserves again. Calls `POST /jobs` and
    `GET /jobs/{jobId}`.

    Args:
        client: Sends the requests.
        job: The request, as a `CreateJob` or a mapping of its fields.
        name: The order's name; with the client's namespace, its identity.
        ledger: Where the order is recorded before it is bought: an open ledger, the path of a SQLite file or a
            PostgreSQL URL that `ugen ledger init` created. Default: `UGEN_LEDGER`, else a file in your data folder.
        regenerate: A value that asks for another video; each new value buys once. Default none.
        on_earlier_failure: For a job that failed in an earlier run: `retry_stage` (default), `resubmit` or `fail`.
        on_paused: For a job that another user paused: `wait` (default) or `fail`.
        max_credits: Most credits that the job may reserve. Default no limit.
        interval: Seconds between polls. Default 10.
        timeout: Seconds to wait for the job itself; it keeps running when they are up. Default no limit.
        queue_timeout: Seconds to wait while the account's job limit is reached. Default no limit.
        on_progress: Called with each answer about the job while it is waited for.

    Returns:
        The job, how the call came to it (`outcome`), and warnings.

    Raises:
        PurchaseError: To continue could pay twice, or the request differs from the one under this name; the message
            says what to do.
        JobFailedError: The job failed. The next call follows `on_earlier_failure`.
        JobTimeoutError: The time is up; the job keeps running, and the next call resumes waiting for it.
        InsufficientCreditsError: The account has too few credits.

    Examples:
        >>> lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
        >>> bought = await buy_async(async_client, lamp, name="lamp, spring")
        >>> (await buy_async(async_client, lamp, name="lamp, spring")).outcome.value
        'reused'
    """
    config = client.config
    request = request_of(job, {})
    body = request.with_model(config.video_model).body()
    body.pop("idempotency_key", None)
    policy = PurchasePolicy(
        on_earlier_failure=on_earlier_failure,
        on_paused=on_paused,
        regenerate=regenerate,
        max_credits=max_credits,
        spending=config.spending,
    )
    order = Order(
        key=name_key(name, namespace=config.namespace),
        body=body,
        policy=policy,
        # One attempt for each call: a later call in the same process may follow a cancel of this one.
        attempt=uuid.uuid4().hex,
        origin=origin_of(config.base_url),
    )
    with await in_thread(_opened, ledger) as opened:
        world = AsyncWorld(client, LedgerOrderStore(opened))
        world.on_progress = on_progress
        return await purchase_and_wait(world, order, interval=interval, timeout=timeout, queue_timeout=queue_timeout)


def _opened(ledger: Ledger | str | os.PathLike[str] | None) -> AbstractContextManager[Ledger]:
    if ledger is None:
        return open_default_ledger()
    return nullcontext(ledger) if isinstance(ledger, Ledger) else Ledger(os.fspath(ledger))
