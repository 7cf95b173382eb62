# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger repair`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ugen_provider.cli.feed.options import feed_mapping, feed_options, reading_options
from ugen_provider.cli.fields import feed_field_options
from ugen_provider.cli.frame import command
from ugen_provider.cli.ledger.reading import ledger_option
from ugen_provider.cli.printing import Sheet
from ugen_provider.cli.session import Session
from ugen_provider.core.batch.repairing import repair
from ugen_provider.core.feeds.planning import Order, Planned, plan_feed


@command(
    "repair",
    examples=(
        "ugen ledger repair",
        "ugen ledger repair --catalogue shop --feed feed.xml --segment-count 2    # for a ledger that was lost",
    ),
)
@ledger_option
@click.option("--catalogue", help="With --feed: whose products these are.")
@click.option("--feed", help="Today's feed: its products find the jobs that a lost ledger had bought.")
@reading_options
@feed_field_options()
def repair_command(
    session: Session,
    *,
    fields: dict[str, Any],
    ledger: str | None,
    catalogue: str | None,
    feed: str | None,
    kind: str | None,
    format_: str | None,
    encoding: str | None,
    mapping: Path | None,
    upload_pictures: bool,
) -> None:
    """Write into the ledger what the service knows better: jobs whose id was lost. Free; buys and cancels nothing.

    For a ledger that was lost as a whole, name the catalogue and give the feed and the fields of its last run.
    """
    if (catalogue is None) != (feed is None):
        raise click.UsageError("--catalogue and --feed belong together")
    if upload_pictures:
        raise click.UsageError("uploaded pictures cannot be recognised; repair finds products whose picture has a URL")
    # With a feed there may be no ledger any more: that is what it is for.
    open_ledger = session.ledger if feed is not None else session.existing_ledger
    with session.client() as client, open_ledger(ledger) as opened:
        known = None if catalogue is None else opened.catalogue(catalogue, namespace=session.namespace)
        orders: Iterator[Order] = iter(())
        if feed is not None:
            orders = _orders(
                plan_feed(
                    feed,
                    job_defaults=_with_model(fields, client.config.video_model),
                    options=feed_options(kind=kind, format_=format_, encoding=encoding),
                    mapping=feed_mapping(mapping, kind=kind),
                    model=client.config.video_model,
                )
            )
        done = repair(opened, client, catalogue=known, orders=orders)
    facts = [
        ("jobs looked at", f"{done.jobs:,}"),
        ("attempts whose job was found", f"{done.found:,}"),
        ("products whose job was found", f"{done.restored:,}"),
        ("jobs that the account no longer lists", f"{done.vanished:,}"),
    ]
    session.out.show(Sheet(facts, data=asdict(done)))
    if done.found or done.restored:
        session.out.note("The next `ugen feed run` takes them, and buys none of them again.")


def _with_model(fields: dict[str, Any], model: str | None) -> dict[str, Any]:
    """A run sends the account's model with every request, so the keys are made from it."""
    return {**fields, "video_model": model} if model is not None and "video_model" not in fields else fields


def _orders(rows: Iterator[Planned]) -> Iterator[Order]:
    return (row for row in rows if isinstance(row, Order))
