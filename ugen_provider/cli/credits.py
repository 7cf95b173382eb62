# SPDX-License-Identifier: Apache-2.0
"""`ugen credits`, `models`, `suggest`, `upload` and `gallery`: commands that cost nothing and create no job."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click

from ugen_provider.cli.frame import command
from ugen_provider.cli.options import field_options
from ugen_provider.cli.printer import Listing, Sheet, time_of
from ugen_provider.cli.session import Session
from ugen_provider.core.api.models import CreateJob, Model, Transaction

_SAMPLE = {"product_name": "Estimate only", "product_image_url": "https://example.com/estimate.jpg"}


@click.group("credits")
def credits_group() -> None:
    """Balance, estimates, transactions. Free."""


@command("balance", examples=("ugen credits balance", "ugen credits balance --json | jq .available_credits"))
def balance_command(session: Session) -> None:
    """Show the credits of the account."""
    with session.client() as client:
        balance = client.credits.balance()
    facts = [
        ("available", f"{balance.available_credits:,}"),
        ("reserved", f"{balance.credit_reserved:,}"),
        ("balance", f"{balance.credit_balance:,}"),
    ]
    session.out.show(Sheet(facts, data=balance.model_dump(mode="json")))


@command(
    "estimate", examples=("ugen credits estimate --segment-count 3", "ugen credits estimate --segment-count 3 --json")
)
@field_options()
def estimate_command(session: Session, *, fields: dict[str, Any]) -> None:
    """Estimate the credits of a video. Only fields that affect the price are needed, such as --segment-count."""
    job = CreateJob.model_validate({**_SAMPLE, **fields})
    with session.client() as client:
        estimate = client.credits.estimate(job)
    parts = estimate.breakdown if isinstance(estimate.breakdown, dict) else {}
    facts = [("credits", f"{estimate.total_credits:,}"), *((str(name), str(value)) for name, value in parts.items())]
    session.out.show(Sheet(facts, data=estimate.model_dump(mode="json")))


def transactions_listing(rows: list[Transaction]) -> Listing:
    """Return transactions as a table."""
    cells = [
        (
            row.transaction_id or "",
            row.type,
            f"{row.amount:+,}",
            "" if row.balance_after is None else f"{row.balance_after:,}",
            row.job_id or "",
            time_of(row.created_at),
        )
        for row in rows
    ]
    columns = ("TRANSACTION", "TYPE", "CREDITS", "BALANCE", "JOB", "WHEN")
    return Listing(columns, cells, data=[row.model_dump(mode="json") for row in rows], nothing="No transactions.")


@command("transactions", examples=("ugen credits transactions --job JOB", "ugen credits transactions --all --json"))
@click.option("--job", "job_id", metavar="JOB", help="Only those of this job.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number of rows.")
@click.option("--all", "everything", is_flag=True, help="All rows, over all pages.")
def transactions_command(session: Session, *, job_id: str | None, limit: int, everything: bool) -> None:
    """List the credit transactions of the account."""
    with session.client() as client:
        found = list(islice(client.credits.transactions(job_id=job_id), None if everything else limit + 1))
    shown = found if everything else found[:limit]
    session.out.show(transactions_listing(shown))
    if len(shown) < len(found):
        session.out.note(f"There are more than {limit}: --limit or --all shows them.")


for _command in (balance_command, estimate_command, transactions_command):
    credits_group.add_command(_command)


def model_sheet(model: Model) -> Sheet:
    """Return one model as a sheet."""
    abilities = model.capabilities if isinstance(model.capabilities, dict) else {}
    facts = [
        ("model", model.model_id),
        ("name", model.name or ""),
        ("status", model.status or ""),
        ("default variant", model.default_variant or ""),
        *((str(name).replace("_", " "), str(value)) for name, value in abilities.items()),
    ]
    return Sheet(facts, data=model.model_dump(mode="json"))


@command("models", examples=("ugen models", "ugen models kling3_std"))
@click.argument("model_id", metavar="[MODEL]", required=False)
def models_command(session: Session, *, model_id: str | None) -> None:
    """Show the video models, or one of them."""
    with session.client() as client:
        if model_id is not None:
            session.out.show_each(model_sheet(client.models.get(model_id)))
            return
        models = client.models.list()
    rows = [(model.model_id, model.name or "", model.status or "", model.default_variant or "") for model in models]
    data = [model.model_dump(mode="json") for model in models]
    session.out.show(Listing(("MODEL", "NAME", "STATUS", "DEFAULT VARIANT"), rows, data=data, nothing="No models."))


# Before an order: suggestions and uploads.

_PICTURE = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "suggest",
    examples=(
        "ugen suggest --product-name Lamp --image lamp.jpg",
        "ugen suggest --product-name Lamp --product-image-url https://shop.example/lamp.jpg --json",
    ),
)
@click.option("--product-name", required=True, help="Name of the product.")
@click.option("--product-image-url", metavar="URL", help="URL of its picture.")
@click.option("--image", type=_PICTURE, help="A picture on this machine; it is uploaded.")
@click.option("--persona-id", help="The presenter.")
@click.option("--interaction-mode", help="How the presenter shows the product.")
@click.option("--segment-count", type=int, metavar="N", help="From 1 to 10.")
def suggest_command(
    session: Session,
    *,
    product_name: str,
    product_image_url: str | None,
    image: Path | None,
    persona_id: str | None,
    interaction_mode: str | None,
    segment_count: int | None,
) -> None:
    """Suggest script fields from the picture. Free."""
    if (image is None) == (product_image_url is None):
        raise click.UsageError("give one of --image and --product-image-url")
    with session.client() as client:
        address = product_image_url or ""
        if image is not None:
            address = client.uploads.create_product_image(image).url
        idea = client.jobs.suggest_fields(
            product_name=product_name,
            product_image_url=address,
            persona_id=persona_id,
            interaction_mode=interaction_mode,
            segment_count=segment_count,
        )
    facts = [
        *(("key_selling_points", point) for point in idea.key_selling_points or ()),
        ("cta_text", idea.cta_text or ""),
        ("environment_description", idea.environment_description or ""),
        ("custom_script", idea.custom_script or ""),
    ]
    session.out.show(Sheet(facts, data=idea.model_dump(mode="json")))


@command("upload", examples=("ugen upload lamp.jpg", "ugen upload *.jpg --json"))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_PICTURE)
def upload_command(session: Session, *, files: tuple[Path, ...]) -> None:
    """Upload product pictures and print their URLs, for --product-image-url. Free.

    JPEG, PNG, WebP or GIF, at most 10 MB each.
    """
    with session.client() as client:
        uploaded = [(path, client.uploads.create_product_image(path)) for path in files]
    if len(uploaded) == 1 and not session.out.as_json:
        session.out.text(uploaded[0][1].url, data=[])
        return
    rows = [(str(path), image.url) for path, image in uploaded]
    data = [{"file": str(path), **image.model_dump(mode="json")} for path, image in uploaded]
    session.out.show(Listing(("FILE", "URL"), rows, data=data))


@command("gallery", examples=("ugen gallery videos", "ugen gallery videos --title 'Spring'"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--title", default="U-Gen videos", show_default=True, help="The page's heading.")
def gallery_command(session: Session, *, folder: Path, title: str) -> None:
    """Write index.html into FOLDER, with each video below it, its scores and credits. Needs no network."""
    from ugen_provider.core.media.gallery import write_gallery

    page = write_gallery(folder, title=title)
    if next(folder.rglob("manifest.json"), None) is None:
        session.out.note(
            f"Note: there is no manifest.json below {folder}, so the page is empty; is it the folder of the videos?"
        )
    session.out.text(str(page), data={"page": str(page)})
