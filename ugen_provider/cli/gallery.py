# SPDX-License-Identifier: Apache-2.0
"""`ugen gallery`: one static page of a folder of videos."""

from __future__ import annotations

from pathlib import Path

import click

from ugen_provider.cli.frame import command
from ugen_provider.cli.session import Session
from ugen_provider.core.media.gallery import write_gallery


@command("gallery", examples=("ugen gallery videos", "ugen gallery videos --title 'Spring'"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--title", default="U-Gen videos", show_default=True, help="The page's heading.")
def gallery_command(session: Session, *, folder: Path, title: str) -> None:
    """Write index.html into FOLDER: every video below it with its scores and credits. It needs no network."""
    page = write_gallery(folder, title=title)
    if next(folder.rglob("manifest.json"), None) is None:
        session.out.note(
            f"Note: there is no manifest.json below {folder}, so the page is empty: is it where videos went?"
        )
    session.out.text(str(page), data={"page": str(page)})
