# SPDX-License-Identifier: Apache-2.0
"""The door for plain Python: a script that names its order buys it once, however often it runs."""

from __future__ import annotations

import os
import socket

from ugen_provider.core.api import polling
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.effects import Flow, Now
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import CreateJob
from ugen_provider.core.jobs.buying import BuyingPolicy, OnEarlierFailure, OnPaused
from ugen_provider.core.jobs.intent import FileIntentStore, IntentStore
from ugen_provider.core.jobs.purchase import Order, Purchase, obtain, waiting
from ugen_provider.core.jobs.scope import named_scope


def buy(
    client: UGenClient,
    job: CreateJob,
    *,
    name: str,
    store: IntentStore | str | os.PathLike[str],
    regenerate: str | None = None,
    on_earlier_failure: OnEarlierFailure = "retry_stage",
    on_paused: OnPaused = "wait",
    max_credits: int | None = None,
    interval: float = polling.DEFAULT_INTERVAL,
    timeout: float | None = None,
    slot_timeout: float | None = None,
) -> Purchase:
    """Make one video and wait for it. Run again under the same name, it finds that video and buys nothing.

    Costs the credits of one job, once; a stage retry of a failed job reserves again. Stands on `POST /jobs` and
    `GET /jobs/{jobId}`.

    Args:
        client: Sends the requests.
        job: What to make.
        name: What this order is called; with the client's namespace, its identity.
        store: Where the order is written down before it is bought: a folder, or a store of your own.
        regenerate: A value by which another video is bought; each value buys once.
        on_earlier_failure: For a job that failed before: `retry_stage`, `resubmit` or `fail`.
        on_paused: For a job that somebody paused: `wait` or `fail`.
        max_credits: Most credits that the job may reserve.
        interval: Seconds between looks.
        timeout: Seconds to wait for the job itself; it is left when they are up.
        slot_timeout: Seconds to wait while the account's job limit is reached; None waits as long as it takes.

    Returns:
        The job, how it came to be ours, and notes.

    Raises:
        PurchaseError: Going on could pay twice; the message says what to do.
        JobFailedError: The job failed. Calling again acts by `on_earlier_failure`.
        JobTimeoutError: The time is up; the job was left, and calling again attaches to it.
        InsufficientCreditsError: The account has too few credits.

    Examples:
        >>> lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
        >>> bought = buy(client, lamp, name="lamp, spring", store=tmp_path)
        >>> buy(client, lamp, name="lamp, spring", store=tmp_path).how.value
        'taken'
    """
    policy = _policy(client.config, on_earlier_failure, on_paused, regenerate, max_credits)
    order = _order(client.config, job, name, policy)
    return client.run(
        _buy(client.caller, order, store=_store(store), interval=interval, timeout=timeout, slot_timeout=slot_timeout)
    )


async def buy_async(
    client: AsyncUGenClient,
    job: CreateJob,
    *,
    name: str,
    store: IntentStore | str | os.PathLike[str],
    regenerate: str | None = None,
    on_earlier_failure: OnEarlierFailure = "retry_stage",
    on_paused: OnPaused = "wait",
    max_credits: int | None = None,
    interval: float = polling.DEFAULT_INTERVAL,
    timeout: float | None = None,
    slot_timeout: float | None = None,
) -> Purchase:
    """`buy`, awaited; arguments, costs and errors are the same.

    Examples:
        >>> bought = await buy_async(async_client, lamp, name="lamp, autumn", store=tmp_path)
    """
    policy = _policy(client.config, on_earlier_failure, on_paused, regenerate, max_credits)
    order = _order(client.config, job, name, policy)
    return await client.run(
        _buy(client.caller, order, store=_store(store), interval=interval, timeout=timeout, slot_timeout=slot_timeout)
    )


def _policy(
    config: ClientConfig,
    on_earlier_failure: OnEarlierFailure,
    on_paused: OnPaused,
    regenerate: str | None,
    max_credits: int | None,
) -> BuyingPolicy:
    return BuyingPolicy(
        on_earlier_failure=on_earlier_failure,
        on_paused=on_paused,
        regenerate=regenerate,
        max_credits=max_credits,
        spending=config.spending,
    )


def _order(config: ClientConfig, job: CreateJob, name: str, policy: BuyingPolicy) -> Order:
    body = job.with_model(config.video_model).body()
    body.pop("idempotency_key", None)
    holder = f"{socket.gethostname()} {os.getpid()}"
    return Order(scope=named_scope(name, namespace=config.namespace), body=body, policy=policy, holder=holder)


def _store(store: IntentStore | str | os.PathLike[str]) -> IntentStore:
    return FileIntentStore(store) if isinstance(store, str | os.PathLike) else store


def _buy(
    caller: Caller,
    order: Order,
    *,
    store: IntentStore,
    interval: float,
    timeout: float | None,
    slot_timeout: float | None,
) -> Flow[Purchase]:
    def wait(bought: Purchase) -> Flow[polling.Outcome]:
        # Time spent waiting for a slot does not count: the job's own time begins here.
        deadline = None if timeout is None else (yield Now()) + timeout
        return (yield from waiting(caller, order, interval=interval, deadline=deadline)(bought))

    return (yield from obtain(caller, order, store=store, wait=wait, slot_timeout=slot_timeout))
