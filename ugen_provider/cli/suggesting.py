# SPDX-License-Identifier: Apache-2.0
"""`ugen suggest` and `ugen upload`: what comes before an order. Both free."""

from __future__ import annotations

from pathlib import Path

import click

from ugen_provider.cli.frame import command
from ugen_provider.cli.printing import Listing, Sheet
from ugen_provider.cli.session import Session

_PICTURE = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "suggest",
    examples=(
        "ugen suggest --product-name Lamp --image lamp.jpg",
        "ugen suggest --product-name Lamp --product-image-url https://shop.example/lamp.jpg --json",
    ),
)
@click.option("--product-name", required=True, help="What the video is about.")
@click.option("--product-image-url", metavar="URL", help="Address of its picture.")
@click.option("--image", type=_PICTURE, help="Its picture on this machine; it is uploaded.")
@click.option("--persona-id", help="Who presents it.")
@click.option("--interaction-mode", help="How the product is shown.")
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
    """Let the service propose script fields from the picture. Free."""
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
    """Upload product pictures and print their addresses, for --product-image-url. Free.

    JPEG, PNG, WebP or GIF, at most 10 MB each.
    """
    with session.client() as client:
        uploaded = [(path, client.uploads.create_product_image(path)) for path in files]
    if len(uploaded) == 1:
        session.out.text(uploaded[0][1].url, data=uploaded[0][1].model_dump(mode="json"))
        return
    rows = [(str(path), image.url) for path, image in uploaded]
    data = [{"file": str(path), **image.model_dump(mode="json")} for path, image in uploaded]
    session.out.show(Listing(("FILE", "URL"), rows, data=data))
