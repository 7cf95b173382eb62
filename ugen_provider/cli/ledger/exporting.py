# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger export`: the videos, back to the shop."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from ugen_provider.cli.frame import command
from ugen_provider.cli.ledger.reading import ledger_option
from ugen_provider.cli.session import Session
from ugen_provider.core.batch.shopfeed import ShopFormat, write_shop_feed


@command(
    "export",
    examples=(
        "ugen ledger export shop --to videos.xml --stored-at s3://videos/ --public-at https://cdn.shop.example/videos/",
        "ugen ledger export shop --to videos.jsonl --format jsonl",
    ),
)
@click.argument("catalogue")
@click.option("--to", "path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(ShopFormat)),
    default="google",
    show_default=True,
    help="google: a supplemental feed; tsv: the same as text; jsonl: all that is known.",
)
@click.option("--stored-at", metavar="PREFIX", help="Where outputs are stored, as their locations begin.")
@click.option("--public-at", metavar="URL", help="What that place is called on the web.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Leave out videos below this score.")
@ledger_option
def export_command(
    session: Session,
    *,
    catalogue: str,
    path: Path,
    format_: ShopFormat,
    stored_at: str | None,
    public_at: str | None,
    min_score: float | None,
    ledger: str | None,
) -> None:
    """Write `id` and `video_link` of every product of CATALOGUE that has a video. The file is replaced as a whole."""
    with session.existing_ledger(ledger) as opened:
        count = write_shop_feed(
            opened,
            catalogue,
            path,
            namespace=session.namespace,
            format=format_,
            stored_at=stored_at,
            public_at=public_at,
            min_score=min_score,
        )
    if count == 0 and format_ != "jsonl":
        session.out.note("Note: a feed takes http(s) links alone; --stored-at with --public-at, or --format jsonl")
    session.out.text(f"{path}: {count:,} products", data={"file": str(path), "products": count})
