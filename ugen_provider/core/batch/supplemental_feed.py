# SPDX-License-Identifier: Apache-2.0
"""Back to the shop: which product has which video, as a supplemental feed, as JSONL, or as a table of a database.

An export follows the plan in force, and replaces the earlier file or table as a whole. A shop that reads a feed
without a product takes its video away, so a file never becomes much smaller unless that is allowed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape, unescape

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.errors import ExportRefusedError
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.database import with_driver
from ugen_provider.core.ledger.store import Entry, Ledger, runs_in_force
from ugen_provider.core.media.origins import STORE_SCHEMES
from ugen_provider.core.media.stores import Store
from ugen_provider.core.text import is_xml_text, spreadsheet_cell, without_passwords

ShopFormat = Literal["google", "tsv", "meta", "tiktok", "pinterest", "jsonl"]
_LONGEST_LINK = 2000
_GUARD_MIN = 10
"""Products in the file that is replaced, from which on it may not shrink by much."""
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Columns:
    """How a text format is written: the names of its two columns, and what separates them."""

    id: str
    link: str
    separator: str


_TEXT: Mapping[str, _Columns] = {
    "tsv": _Columns("id", "video_link", "\t"),
    "meta": _Columns("id", "video[0].url", ","),
    "tiktok": _Columns("sku_id", "video_link", ","),
    "pinterest": _Columns("id", "video_link", "\t"),
}


@dataclass(frozen=True, slots=True)
class TargetIds:
    """The ids under which a target knows the products, where they are others than those of the feed.

    Attributes:
        template: An id with `{id}` in the place of the product's own, such as `shopify_DE_{id}`.
        table: Ids by those of the products; a product that it lacks is left out.
    """

    template: str = "{id}"
    table: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.template.replace("{id}", "").count("{") or "{id}" not in self.template:
            raise ConfigError(f"id template {self.template!r}: must hold {{id}} and no other name in braces")

    def of(self, product_id: str) -> str | None:
        """Return the target's id of a product; None where it has none.

        Examples:
            >>> TargetIds("shopify_DE_{id}").of("4711")
            'shopify_DE_4711'
        """
        if self.table is not None:
            found = self.table.get(product_id)
            return None if found is None else self.template.replace("{id}", found)
        return self.template.replace("{id}", product_id)


@dataclass(frozen=True, slots=True)
class Export:
    """How videos are written: the options of `write_shop_feed` and `write_table`.

    Attributes:
        format: Of a file; see `write_shop_feed`.
        table: Of a database.
        stored_at: Where outputs are stored, in the words of `ugen feed run --to`.
        public_at: The URL under which that place is public.
        min_score: Lowest quality score that is shown.
        variant: The variant that a file shows; None for the first that has a video.
        ids: The ids under which the target knows the products.
        max_gone: Share of the products that were there which may go.
        allow_shrink: Whether any number of them may.
    """

    format: ShopFormat = "google"
    table: str = "ugen_video"
    stored_at: str | None = None
    public_at: str | None = None
    min_score: float | None = None
    variant: str | None = None
    ids: TargetIds = field(default_factory=TargetIds)
    max_gone: float = 0.2
    allow_shrink: bool = False


def export_videos(
    ledger: Ledger,
    catalogue: str,
    to: str,
    *,
    namespace: str = "",
    export: Export | None = None,
    on_skipped: Callable[[str, str], None] = lambda product_id, reason: None,  # noqa: ARG005
) -> int:
    """Write a catalog's videos where `to` says: a local file, an object of a store, or a table of a database. Free.

    Args:
        ledger: What is known.
        catalogue: Whose products.
        to: A path; the URL of an object store, such as `s3://shop/videos.xml`; or a SQLAlchemy URL.
        namespace: Of the connection.
        export: How; the default options where not given.
        on_skipped: Called with the id of a product that has a video and cannot be written, and the reason.

    Returns:
        How many products (for a table: products and variants) were written.

    Raises:
        ConfigError: As for `write_shop_feed` and `write_table`.
        ExportRefusedError: There is no product to write, or too many would go. Nothing is changed.
        OSError: The file cannot be written.
    """
    options = export or Export()
    return export_entries(
        ledger.entries(catalogue, namespace=namespace),
        to,
        catalogue=catalogue,
        export=_as_the_plan_allows(options, ledger, catalogue, namespace=namespace),
        on_skipped=on_skipped,
    )


def export_entries(
    entries: Iterable[Entry],
    to: str,
    *,
    catalogue: str,
    export: Export,
    on_skipped: Callable[[str, str], None] = lambda product_id, reason: None,  # noqa: ARG005
) -> int:
    """Write the videos of products where `to` says, as `export_videos` does: the one way by which a shop gets them.

    Args:
        entries: What is known of the products; those without a video, or that the feed lacks, are left out.
        to: As for `export_videos`.
        catalogue: The name of the catalog in a table.
        export: How.
        on_skipped: As for `export_videos`.

    Returns:
        How many products (for a table: products and variants) were written.

    Raises:
        ConfigError: As for `write_shop_feed` and `write_table`.
        ExportRefusedError: There is no product to write, or too many would go. Nothing is changed.
        OSError: The file cannot be written.
    """
    scheme = to.partition("://")[0].lower() if "://" in to else ""
    if scheme and scheme not in STORE_SCHEMES:
        return _write_table(entries, to, catalogue=catalogue, export=export)
    if not scheme:
        return _write_file(entries, Path(to), export=export, on_skipped=on_skipped)
    folder, _, name = to.rpartition("/")
    store = Store(folder)
    with TemporaryDirectory(prefix="ugen-export-") as temporary:
        # The object is read first, since it must not shrink by more than it may.
        local = Path(temporary) / "feed"
        if (before := store.read(name)) is not None:
            local.write_bytes(before)
        count = _write_file(entries, local, export=export, on_skipped=on_skipped)
        store.write(name, local.read_bytes())
    return count


def write_shop_feed(
    ledger: Ledger,
    catalogue: str,
    path: str | os.PathLike[str],
    *,
    namespace: str = "",
    format: ShopFormat = "google",  # noqa: A002  the usual word for it
    stored_at: str | None = None,
    public_at: str | None = None,
    min_score: float | None = None,
    variant: str | None = None,
    ids: TargetIds | None = None,
    max_gone: float = 0.2,
    allow_shrink: bool = False,
    on_skipped: Callable[[str, str], None] = lambda product_id, reason: None,  # noqa: ARG005
) -> int:
    """Write what a shop takes in to show the videos: id and link of every product that has one.

    Args:
        ledger: What is known.
        catalogue: Whose products.
        path: The file; it is replaced as a whole, or not at all.
        namespace: Of the connection.
        format: `google` (supplemental RSS), `tsv` (the same as text), `meta`, `tiktok`, `pinterest`, or `jsonl` (all
            that the ledger knows, once for each variant).
        stored_at: Where outputs are stored, in the words of `ugen feed run --to`: `s3://videos/`, or a folder.
        public_at: What that place is called on the web: `https://cdn.shop.example/videos/`.
        min_score: Lowest quality score that is shown; products without a score are shown.
        variant: The variant that is shown; None for the first that has a video.
        ids: The ids under which the target knows the products.
        max_gone: Share of the products of the file that is replaced that may go; the plan in force may allow more.
        allow_shrink: Whether any number of them may go.
        on_skipped: Called with the id of a product that has a video and cannot be written, and the reason.

    Returns:
        How many products were written. Products whose video has no http(s) address are left out of all but `jsonl`.

    Raises:
        ConfigError: The catalog is not there, or only one of `stored_at` and `public_at` is given.
        ExportRefusedError: There is no product to write, or too many would go. The file is unchanged.
        OSError: The file cannot be written.

    Examples:
        >>> write_shop_feed(ledger, "shop", "videos.xml", stored_at="s3://videos/", public_at="https://cdn.example/")
        5
    """
    export = Export(
        format=format,
        stored_at=stored_at,
        public_at=public_at,
        min_score=min_score,
        variant=variant,
        ids=ids or TargetIds(),
        max_gone=max_gone,
        allow_shrink=allow_shrink,
    )
    return _write_file(
        ledger.entries(catalogue, namespace=namespace),
        Path(path),
        export=_as_the_plan_allows(export, ledger, catalogue, namespace=namespace),
        on_skipped=on_skipped,
    )


def _write_file(
    entries: Iterable[Entry], target: Path, *, export: Export, on_skipped: Callable[[str, str], None]
) -> int:
    links = _LinkColumns(export.stored_at, export.public_at)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with closing(_Replacement(_ids_in(target, export.format))) as replaced:
            with beside.open("w", encoding="utf-8", newline="") as file:
                file.write(_head(export.format))
                for entry in _shown(entries, min_score=export.min_score, variant=export.variant):
                    product_id = export.ids.of(entry.product_id)
                    link = links.of(entry.video or "")
                    if (problem := _problem(product_id, link, export.format)) is not None:
                        on_skipped(entry.product_id, problem)
                    elif product_id is not None and replaced.add(product_id, _look(entry, export.format)):
                        file.write(_line(entry, product_id, link, export.format))
                file.write(_TAIL if export.format == "google" else "")
                file.flush()
                os.fsync(file.fileno())
            replaced.check(str(target), max_gone=1.0 if export.allow_shrink else export.max_gone)
            beside.replace(target)
            return replaced.count
    finally:
        beside.unlink(missing_ok=True)


def write_table(
    ledger: Ledger,
    catalogue: str,
    url: str,
    *,
    table: str = "ugen_video",
    namespace: str = "",
    stored_at: str | None = None,
    public_at: str | None = None,
    min_score: float | None = None,
    ids: TargetIds | None = None,
    max_gone: float = 0.2,
    allow_shrink: bool = False,
) -> int:
    """Write a catalog's videos into a table of a database: one row for each product and variant.

    The catalog's rows are replaced in one transaction; those of other catalogs stay. The table is created if it is
    missing.

    Args:
        ledger: What is known.
        catalogue: Whose products.
        url: A SQLAlchemy URL, such as `postgresql://db/shop`.
        table: The table's name.
        namespace: As for `write_shop_feed`.
        stored_at: As for `write_shop_feed`.
        public_at: As for `write_shop_feed`.
        min_score: As for `write_shop_feed`.
        ids: As for `write_shop_feed`.
        max_gone: As for `write_shop_feed`.
        allow_shrink: As for `write_shop_feed`.

    Returns:
        How many rows were written.

    Raises:
        ConfigError: The database cannot be reached, or has another table of this name.
        ExportRefusedError: There is no product to write, or too many would go. The table is unchanged.
    """
    export = Export(
        table=table,
        stored_at=stored_at,
        public_at=public_at,
        min_score=min_score,
        ids=ids or TargetIds(),
        max_gone=max_gone,
        allow_shrink=allow_shrink,
    )
    return _write_table(
        ledger.entries(catalogue, namespace=namespace),
        url,
        catalogue=catalogue,
        export=_as_the_plan_allows(export, ledger, catalogue, namespace=namespace),
    )


def _write_table(entries: Iterable[Entry], url: str, *, catalogue: str, export: Export) -> int:
    links = _LinkColumns(export.stored_at, export.public_at)
    shown = without_passwords(url)
    made = _table(export.table)
    try:
        engine = sa.create_engine(with_driver(make_url(url)))
    except ImportError as error:
        raise ConfigError(
            f"--to: {shown} needs the driver {error.name}; for PostgreSQL: pip install 'ugen-provider[postgres]'"
        ) from None
    except (SQLAlchemyError, ValueError) as error:
        raise ConfigError(f"--to: {shown} is no address of a database: {type(error).__name__}") from None
    try:
        with engine.begin() as connection:
            made.create(connection, checkfirst=True)
            ours = made.c.catalog == catalogue
            before = [
                (str(row[0]), str(row[1]))
                for row in connection.execute(sa.select(made.c.id, made.c.variant).where(ours))
            ]
            connection.execute(sa.delete(made).where(ours))
            with closing(_Replacement(before)) as replaced:
                batch: list[dict[str, Any]] = []
                for entry in _shown(entries, min_score=export.min_score, variant=None):
                    product_id = export.ids.of(entry.product_id)
                    if product_id is None or not replaced.add(product_id, entry.variant):
                        continue
                    batch.append({"catalog": catalogue, **_facts(entry, product_id, links.of(entry.video or ""))})
                    if len(batch) >= _BATCH:
                        connection.execute(sa.insert(made), batch)
                        batch.clear()
                if batch:
                    connection.execute(sa.insert(made), batch)
                allowed = 1.0 if export.allow_shrink else export.max_gone
                replaced.check(f"table {export.table} of {shown}", max_gone=allowed)
                return replaced.count
    except SQLAlchemyError as error:
        raise ConfigError(f"--to: table {export.table} of {shown} cannot be written: {type(error).__name__}") from None
    finally:
        engine.dispose()


def _table(name: str) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("catalog", sa.String(200), primary_key=True),
        sa.Column("id", sa.String(600), primary_key=True),
        sa.Column("variant", sa.String(50), primary_key=True),
        sa.Column("product_id", sa.String(512), nullable=False),
        sa.Column("video_link", sa.Text, nullable=False),
        sa.Column("job_id", sa.String(200)),
        sa.Column("score", sa.Float),
        sa.Column("credits", sa.Integer),
        sa.Column("manifest", sa.Text),
        sa.Column("shared_with", sa.String(600)),
        sa.Column("updated_at", sa.Float),
    )


def _facts(entry: Entry, product_id: str, link: str) -> dict[str, Any]:
    return {
        "id": product_id,
        "variant": entry.variant,
        "product_id": entry.product_id,
        "video_link": link,
        "job_id": entry.job_id,
        "score": entry.score,
        "credits": entry.credits,
        "manifest": entry.manifest,
        "shared_with": entry.adopted_from,
        "updated_at": entry.updated_at,
    }


def _shown(entries: Iterable[Entry], *, min_score: float | None, variant: str | None) -> Iterator[Entry]:
    """Yield the products that the shop is to show, as the plan in force saw them."""
    for entry in entries:
        good_enough = min_score is None or entry.score is None or entry.score >= min_score
        if entry.video is not None and entry.seen and good_enough and variant in {None, entry.variant}:
            yield entry


def _as_the_plan_allows(export: Export, ledger: Ledger, catalogue: str, *, namespace: str) -> Export:
    """Return the options with the share of products that the plans in force were allowed to lose, if that is more."""
    found = ledger.find_catalogue(catalogue, namespace=namespace)
    run = schema.run

    def work(connection: sa.Connection) -> float:
        newest = runs_in_force(connection, found.id).newest.values()
        query = sa.select(sa.func.max(run.c.max_gone)).where(run.c.id.in_(list(newest)))
        return float(connection.execute(query).scalar() or 0.0)

    return replace(export, max_gone=max(export.max_gone, ledger.read(work)))


class _Replacement:
    """The products that a file or table had, and those that it gets: in a temporary file, so memory stays constant."""

    def __init__(self, before: Iterable[tuple[str, str]]) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        for name in ("before", "after"):
            self._database.execute(f"CREATE TABLE {name} (id, variant, PRIMARY KEY (id, variant)) WITHOUT ROWID")
        self._database.executemany("INSERT OR IGNORE INTO before VALUES (?, ?)", before)
        self.count = 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._database.close()

    def add(self, product_id: str, variant: str) -> bool:
        """Note a product; return False for one that is there already."""
        added = self._database.execute("INSERT OR IGNORE INTO after VALUES (?, ?)", (product_id, variant)).rowcount
        self.count += added
        return added == 1

    def check(self, name: str, *, max_gone: float) -> None:
        """Refuse what a shop would take for the end of its videos.

        Raises:
            ExportRefusedError: Nothing is left, or too few of the products that were there.
        """
        if not self.count:
            raise ExportRefusedError(
                f"{name} is unchanged: no product of the catalog has a video that it could show", reason="empty"
            )
        before: int = self._database.execute("SELECT count(*) FROM before").fetchone()[0]
        gone: int = self._database.execute(
            "SELECT count(*) FROM before AS b WHERE NOT EXISTS "
            "(SELECT 1 FROM after AS a WHERE a.id = b.id AND a.variant = b.variant)"
        ).fetchone()[0]
        if before >= _GUARD_MIN and gone > max_gone * before:
            raise ExportRefusedError(
                f"{name} is unchanged: {gone} of the {before} products in it would lose their videos, and max_gone is "
                f"{max_gone:.0%}",
                reason="shrinks",
            )


class _LinkColumns:
    def __init__(self, stored_at: str | None, public_at: str | None) -> None:
        if (stored_at is None) != (public_at is None):
            raise ConfigError("stored_at and public_at belong together: the one is replaced by the other")
        self._public_at = public_at
        # `feed run --to videos` stored below the absolute path of that folder.
        local = [] if stored_at is None or "://" in stored_at else [str(Path(stored_at).expanduser().absolute())]
        self._prefixes = [] if stored_at is None else [*local, *(f"file://{path}" for path in local), stored_at]

    def of(self, video: str) -> str:
        """Return the address of a video on the web, where its place in storage has one."""
        for prefix in self._prefixes:
            if video.startswith(prefix):
                return public_link(video, stored_at=prefix, public_at=self._public_at)
        return video


def public_link(video: str, *, stored_at: str | None, public_at: str | None) -> str:
    """Return the address of a video on the web, where its place in storage has one.

    Examples:
        >>> public_link("s3://videos/a b/1.mp4", stored_at="s3://videos", public_at="https://cdn.example/v")
        'https://cdn.example/v/a%20b/1.mp4'
    """
    if stored_at is not None and public_at is not None and video.startswith(stored_at):
        rest = video.removeprefix(stored_at).lstrip("/")
        return f"{public_at.rstrip('/')}/{quote(rest)}"
    return video


def entries_as_json(entries: Iterator[Entry]) -> Iterator[dict[str, object]]:
    """Yield products as JSON types, for an export."""
    for entry in entries:
        yield {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _problem(product_id: str | None, link: str, format: ShopFormat) -> str | None:  # noqa: A002
    if product_id is None:
        return "the target has no id for it"
    if format == "jsonl":
        return None
    if not is_xml_text(product_id + link):
        return "its id or link has a control character, which the file cannot hold"
    if not link.startswith(("http://", "https://")):
        return "its video has no http(s) address"
    return f"its link has more than {_LONGEST_LINK} characters" if len(link) > _LONGEST_LINK else None


def _look(entry: Entry, format: ShopFormat) -> str:  # noqa: A002
    """Return what distinguishes two rows of a product: a shop shows one video, JSONL names each variant."""
    return entry.variant if format == "jsonl" else ""


def _head(format: ShopFormat) -> str:  # noqa: A002
    if format == "google":
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">\n<channel>\n<title>Product videos</title>\n'
            "<description>Supplemental feed: id and video_link</description>\n"
        )
    columns = _TEXT.get(format)
    return "" if columns is None else f"{columns.id}{columns.separator}{columns.link}\n"


_TAIL = "</channel>\n</rss>\n"


def _line(entry: Entry, product_id: str, link: str, format: ShopFormat) -> str:  # noqa: A002
    if format == "jsonl":
        known = {"id": product_id, "video_link": link, "job_id": entry.job_id, "score": entry.score}
        more = {"variant": entry.variant, "credits": entry.credits, "shared_with": entry.adopted_from}
        return json.dumps({**known, "manifest": entry.manifest, **more}, ensure_ascii=False) + "\n"
    if format == "google":
        return f"<item><g:id>{escape(product_id)}</g:id><g:video_link>{escape(link)}</g:video_link></item>\n"
    row = io.StringIO()
    writer = csv.writer(row, delimiter=_TEXT[format].separator, lineterminator="\n")
    writer.writerow([spreadsheet_cell(product_id), spreadsheet_cell(link)])
    return row.getvalue()


_ID = re.compile(r"<g:id>(.*?)</g:id>")


def _ids_in(path: Path, format: ShopFormat) -> Iterator[tuple[str, str]]:  # noqa: A002
    """Yield the products of a file that was written before; none where it is in another form."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if format == "google":
            for line in file:
                for found in _ID.findall(line):
                    yield unescape(found), ""
        elif format == "jsonl":
            for line in file:
                try:
                    row = json.loads(line)
                    yield str(row["id"]), str(row.get("variant", ""))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        else:
            for row in csv.DictReader(file, delimiter=_TEXT[format].separator):
                if found_id := row.get(_TEXT[format].id):
                    # A cell that no spreadsheet takes for a formula has an apostrophe before its text.
                    plain = found_id.removeprefix("'")
                    yield (plain if spreadsheet_cell(plain) == found_id else found_id), ""
