# SPDX-License-Identifier: Apache-2.0
"""Back to the shop: which product has which video, as a supplemental feed for Google, or as JSONL for all others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.ledger import Entry, Ledger

ShopFormat = Literal["google", "tsv", "jsonl"]
_LONGEST_LINK = 2000


def write_shop_feed(
    ledger: Ledger,
    catalogue: str,
    path: str | os.PathLike[str],
    *,
    namespace: str = "",
    format: ShopFormat = "google",  # noqa: A002  the word that everybody uses for it
    stored_at: str | None = None,
    public_at: str | None = None,
    min_score: float | None = None,
) -> int:
    """Write what a shop takes in to show the videos: `id` and `video_link` of every product that has one.

    Args:
        ledger: What is known.
        catalogue: Whose products.
        path: The file; it is replaced as a whole.
        namespace: Of the connection.
        format: `google` (supplemental RSS), `tsv` (the same as text) or `jsonl` (all that the ledger knows).
        stored_at: Where outputs are stored, as their locations begin: `s3://videos/`.
        public_at: What that place is called on the web: `https://cdn.shop.example/videos/`.
        min_score: Lowest quality score that is shown; products without a score are shown.

    Returns:
        How many products were written. Products whose video has no http(s) address are left out of `google` and `tsv`.

    Raises:
        ConfigError: The catalogue is not there, or only one of `stored_at` and `public_at` is given.
        OSError: The file cannot be written.

    Examples:
        >>> write_shop_feed(ledger, "shop", "videos.xml", stored_at="s3://videos/", public_at="https://cdn.example/")
        5
    """
    if (stored_at is None) != (public_at is None):
        raise ConfigError("stored_at and public_at belong together: the one is replaced by the other")
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    count = 0
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(_HEADS[format])
            for entry in ledger.entries(catalogue, namespace=namespace):
                if entry.video is None or not entry.seen or not _good_enough(entry, min_score):
                    continue
                link = public_link(entry.video, stored_at=stored_at, public_at=public_at)
                if (line := _line(entry, link, format)) is not None:
                    file.write(line)
                    count += 1
            file.write(_TAILS[format])
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return count


def public_link(video: str, *, stored_at: str | None, public_at: str | None) -> str:
    """The address of a video on the web, where its place in storage has one.

    Examples:
        >>> public_link("s3://videos/a b/1.mp4", stored_at="s3://videos", public_at="https://cdn.example/v")
        'https://cdn.example/v/a%20b/1.mp4'
    """
    if stored_at is not None and public_at is not None and video.startswith(stored_at):
        rest = video.removeprefix(stored_at).lstrip("/")
        return f"{public_at.rstrip('/')}/{quote(rest)}"
    return video


def entries_as_json(entries: Iterator[Entry]) -> Iterator[dict[str, object]]:
    """Products as JSON types, for an export."""
    for entry in entries:
        yield {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _good_enough(entry: Entry, min_score: float | None) -> bool:
    return min_score is None or entry.score is None or entry.score >= min_score


def _line(entry: Entry, link: str, format: ShopFormat) -> str | None:  # noqa: A002
    if format == "jsonl":
        known = {"id": entry.product_id, "video_link": link, "job_id": entry.job_id, "score": entry.score}
        return json.dumps({**known, "manifest": entry.manifest}, ensure_ascii=False) + "\n"
    if not link.startswith(("http://", "https://")) or len(link) > _LONGEST_LINK:
        return None
    if format == "tsv":
        return f"{_cell(entry.product_id)}\t{_cell(link)}\n"
    return f"<item><g:id>{escape(entry.product_id)}</g:id><g:video_link>{escape(link)}</g:video_link></item>\n"


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in '\t\n\r"') else text


_HEADS: dict[ShopFormat, str] = {
    "google": '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">\n<channel>\n<title>Product videos</title>\n'
    "<description>Supplemental feed: id and video_link</description>\n",
    "tsv": "id\tvideo_link\n",
    "jsonl": "",
}
_TAILS: dict[ShopFormat, str] = {"google": "</channel>\n</rss>\n", "tsv": "", "jsonl": ""}
