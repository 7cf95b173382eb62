# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs create`: one order, written down before it is sent, and so bought once however often it is called."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.fields import field_options
from ugen_provider.cli.following import JobProgress, TellingWatcher
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.jobs.orders import Orders
from ugen_provider.cli.jobs.views import data_of, job_sheet
from ugen_provider.cli.jobs.waiting import interval_option, left_running, timeout_option
from ugen_provider.cli.printing import Sheet
from ugen_provider.cli.session import Session
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.effects import Flow, Now
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import CreateJob
from ugen_provider.core.api.polling import Outcome
from ugen_provider.core.api.retries import ambiguous
from ugen_provider.core.jobs.buying import BuyingPolicy
from ugen_provider.core.jobs.intent import IntentStore
from ugen_provider.core.jobs.purchase import How, Order, Purchase, obtain, purchase_when_free
from ugen_provider.core.jobs.scope import named_scope
from ugen_provider.core.jobs.watcher import watching

_HOW = {
    How.SUBMITTED: "bought",
    How.ATTACHED: "this order was bought already; nothing was sent",
    How.TAKEN: "this order was bought already and is complete; nothing was sent",
    How.FOUND: "the service had it already under this order's key; nothing was paid",
    How.RESUMED: "resumed",
    How.STAGE_RETRIED: "an earlier attempt failed; run again from the stage that failed",
    How.AT_THE_GATE: "it waits where it was told to stop",
}


@command(
    "create",
    examples=(
        "ugen jobs create --product-name Lamp --image lamp.jpg --segment-count 2 --wait",
        "ugen jobs create --order lamp-spring --product-name Lamp --product-image-url https://shop.example/lamp.jpg \\",
        "    --segment-count 2    # however often it is called: one video",
    ),
)
@click.option("--order", metavar="NAME", help="What this order is called; without one it gets a new name, printed.")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture on this machine; it is uploaded.",
)
@click.option("--regenerate", metavar="VALUE", help="Buy the order once more; each value buys once.")
@click.option(
    "--on-earlier-failure",
    type=click.Choice(("retry_stage", "resubmit", "fail")),
    default="retry_stage",
    show_default=True,
    help="What to do where the order's last job failed.",
)
@click.option("--max-credits", type=click.IntRange(min=0), help="Cancel the job if it reserves more.")
@click.option("--wait", is_flag=True, help="Wait until the video is there.")
@interval_option
@timeout_option
@click.option(
    "--slot-timeout",
    type=click.FloatRange(min=0),
    help="Seconds to wait for a free slot of the account; default 0, with --wait as long as it takes.",
)
@field_options()
def create_command(
    session: Session,
    *,
    fields: dict[str, Any],
    order: str | None,
    image: Path | None,
    regenerate: str | None,
    on_earlier_failure: Any,
    max_credits: int | None,
    wait: bool,
    interval: float,
    timeout: float | None,
    slot_timeout: float | None,
) -> ExitCode:
    """Buy a video. Costs the credits of one job; `ugen credits estimate` tells them first.

    The order is written down before it is sent. If an answer is lost, or this command is killed, call it again under
    the same --order: it finds what was bought and buys nothing twice.
    """
    if image is not None and "product_image_url" in fields:
        raise click.UsageError("give --image or --product-image-url, not both")
    name = order if order is not None else f"ugen-{uuid.uuid4()}"
    policy = BuyingPolicy(
        on_earlier_failure=on_earlier_failure,
        regenerate=regenerate,
        max_credits=max_credits,
        spending=session.config.spending,
    )
    with session.client() as client:
        wanted = _order(client, session, name, fields=fields, image=image, policy=policy)
        store = Orders(session.data / "orders").store
        if order is None:
            session.out.note(f"order {name}")
        try:
            if wait:
                bought = _obtain(
                    session, wanted, store=store, interval=interval, timeout=timeout, slot_timeout=slot_timeout
                )
            else:
                bought = client.run(
                    purchase_when_free(client.caller, wanted, store=store, slot_timeout=slot_timeout or 0.0)
                )
        except KeyboardInterrupt:
            raise _interrupted(store, wanted, name) from None
        except UGenError as error:
            if ambiguous(error):
                session.out.note(f"It may have been bought. To go on, buying nothing twice: --order {name}")
            raise
    for note in (_HOW[bought.how], *bought.notes):
        session.out.note(note)
    sheet = job_sheet(bought.job)
    told = {"order": name, "how": bought.how.value, "key": bought.intent.key, **data_of(bought.job)}
    session.out.show(Sheet([*sheet.facts[:1], ("order", name), *sheet.facts[1:]], data=told))
    return ExitCode.DONE


def _order(
    client: UGenClient,
    session: Session,
    name: str,
    *,
    fields: Mapping[str, Any],
    image: Path | None,
    policy: BuyingPolicy,
) -> Order:
    """The order, checked before a picture is uploaded for it."""
    checked = checked_body(session, fields, image=image, model=client.config.video_model)
    digest = None
    if image is not None:
        content = image.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        checked["product_image_url"] = client.uploads.create_product_image(content, filename=image.name).url
    holder = f"{socket.gethostname()} {os.getpid()}"
    scope = named_scope(name, namespace=client.config.namespace)
    return Order(scope=scope, body=checked, policy=policy, image_identity=digest, holder=holder)


def checked_body(
    session: Session, fields: Mapping[str, Any], *, image: Path | None, model: str | None
) -> dict[str, Any]:
    """The request that these fields make; what the service will ignore is told.

    Raises:
        InvalidRequestError: A documented rule is broken.
    """
    # The address is not known before the upload, and must look like one until then.
    filled = {**fields, "product_image_url": "https://upload.invalid/"} if image is not None else dict(fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        body = CreateJob.model_validate(filled).with_model(model).body()
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        session.out.note(f"Note: {text}")
    return body


def _obtain(
    session: Session,
    order: Order,
    *,
    store: IntentStore,
    interval: float,
    timeout: float | None,
    slot_timeout: float | None,
) -> Purchase:
    """Buy and wait, with live progress."""

    async def work(progress: JobProgress) -> Purchase:
        async with session.async_client() as client:
            watcher = TellingWatcher(client)
            watcher.progress = progress

            def wait(bought: Purchase) -> Flow[Outcome]:
                progress.saw(bought.job)
                # Time spent waiting for a slot does not count: the job's own time begins here.
                deadline = None if timeout is None else (yield Now()) + timeout
                return (yield from watching(watcher, order, interval=interval, deadline=deadline)(bought))

            try:
                flow = obtain(client.caller, order, store=store, wait=wait, slot_timeout=slot_timeout)
                return await client.run(flow)
            finally:
                await watcher.aclose()

    with JobProgress(session.out) as progress:
        bought = asyncio.run(work(progress))
        progress.saw(bought.job)
    return bought


def _interrupted(store: IntentStore, order: Order, name: str) -> CommandFailedError:
    """Ctrl-C: what still runs and how to go on."""
    intent = store.read(order.intent_scope)
    if intent is None:
        return CommandFailedError("stopped; nothing was sent", code=ExitCode.INTERRUPTED, kind="KeyboardInterrupt")
    if intent.job_id is None:
        return CommandFailedError(
            f"stopped while order {name} was being sent; nothing is lost",
            code=ExitCode.INTERRUPTED,
            advice=f"call it again with --order {name}: it finds what was bought",
            kind="KeyboardInterrupt",
        )
    return left_running([intent.job_id])
