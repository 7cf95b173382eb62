# SPDX-License-Identifier: Apache-2.0
"""A check as one page: what a run would buy, product by product, with a selection that `feed run --only` takes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

from ugen_provider.core.batch.images import InspectedPicture
from ugen_provider.core.batch.preview import OpenCheck
from ugen_provider.core.feeds.products import place
from ugen_provider.core.text import one_line

MOST_PRODUCTS = 5000
"""Products that a page shows where no other number is given."""
_MOST_ROWS = 500
_BUYING = frozenset({"new", "changed", "again"})
_SCRIPT = ("custom_script", "key_selling_points", "cta_text", "product_name", "product_image_url")
_LOOK = (
    ("segment_count", "{} segments"),
    ("segment_duration", "{} s each"),
    ("aspect_ratio", "{}"),
    ("video_model", "{}"),
    ("video_resolution", "{} resolution"),
    ("persona_id", "persona {}"),
    ("script_tone", "{} tone"),
    ("script_structure", "{}"),
    ("interaction_mode", "{}"),
    ("music_mood", "{} music"),
)
_WHY = {
    "new": ("good", "New"),
    "changed": ("fair", "Changed"),
    "again": ("good", "No video yet"),
    "adopted": ("", "Has its video already, under another id"),
    "unchanged": ("", "Unchanged: has its video"),
}
_FACTS = {
    "out_of_stock": "out of stock",
    "without_selling_points": "no selling points",
    "mojibake": "name decoded wrongly?",
    "long_names": "long name",
    "suspicious_ids": "id changed by a spreadsheet?",
}
_OF_ADDRESS = {
    "page_pictures": "the picture's address is a page",
    "placeholder_pictures": "the picture is a placeholder",
}
_NO_PICTURE = frozenset({"missing", "page"})
"""Kinds of pictures whose products are not ticked by default."""

_VIEWS = (
    ("", "All products"),
    ("ticked", "Ticked"),
    ("unticked", "Not ticked"),
    ("new", "New"),
    ("changed", "Changed"),
    ("has", "Nothing to buy"),
    ("picture", "Problem with the picture"),
    ("note", "With a note"),
)


@dataclass(frozen=True, slots=True)
class PreviewFacts:
    """What a page says beside the check itself.

    Attributes:
        title: The page's heading.
        catalogue: The catalogue of the run; None for none.
        command: The command that buys the selection, such as `ugen feed run feed.xml --only selection.json`.
        balance: Credits of the account that are free; None where not known.
        budget: Credits that the run may spend; None where not given.
        pictures: The results of the inspection, by address; empty where pictures were not inspected.
        written_at: When the page was written, in words.
    """

    title: str = "Preview of a feed"
    catalogue: str | None = None
    command: str = "ugen feed run FEED --only selection.json"
    balance: int | None = None
    budget: int | None = None
    pictures: Mapping[str, InspectedPicture] = field(default_factory=dict)
    written_at: str = ""


def shown_products(check: OpenCheck, *, limit: int = MOST_PRODUCTS) -> list[list[dict[str, Any]]]:
    """Return the orders of the products that a page shows, each with all of its variants, the first to buy first.

    Args:
        check: A check whose rows were all read.
        limit: Products at most.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for order in check.orders():
        looks = found.get(order["product_id"])
        if looks is not None:
            looks.append(order)
        elif len(found) < limit:
            found[order["product_id"]] = [order]
    return list(found.values())


def picture_addresses(products: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the addresses of the pictures of products, each once."""
    return list(dict.fromkeys(str(look["request"]["product_image_url"]) for looks in products for look in looks))


def write_preview(
    check: OpenCheck,
    path: str | os.PathLike[str],
    *,
    products: Sequence[Sequence[Mapping[str, Any]]],
    facts: PreviewFacts | None = None,
) -> Path:
    """Write a check as one page. Buys nothing; a browser that opens it loads the products' pictures and nothing else.

    Args:
        check: A check whose rows were all read.
        path: The page; it is replaced as a whole.
        products: From `shown_products`.
        facts: What the page says beside the check.

    Returns:
        The page.

    Raises:
        OSError: It cannot be written.

    Examples:
        >>> with check_feed("feed.xml", job_defaults={"segment_count": 2}) as check:
        ...     list(check.rows)
        ...     write_preview(check, "preview.html", products=shown_products(check))
        PosixPath('preview.html')
    """
    given = facts or PreviewFacts()
    folder = files("ugen_provider.core.batch")
    script = folder.joinpath("preview.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template(folder.joinpath("preview.html").read_text("utf-8")).substitute(
        title=escape(given.title),
        script_hash=f"sha256-{digest}",
        script=script,
        source=escape(_source(check, given)),
        sums=_sums(check, given),
        notes="".join(_notes(check, given, products)),
        views="".join(f'<option value="{value}">{name}</option>' for value, name in _VIEWS),
        limits=_limits(check, given),
        command=escape(given.command),
        cards="\n".join(_card(looks, given, has_catalogue=check.summary.new is not None) for looks in products),
        sections="".join(_sections(check)),
        footer=escape(_footer(given)),
    )
    target = Path(path)
    beside = target.with_name(f".{target.name}.part")
    try:
        beside.write_text(page, "utf-8")
        beside.replace(target)
    except OSError as error:
        if error.filename == str(beside):
            error.filename = str(target)  # what its user named
        raise
    finally:
        beside.unlink(missing_ok=True)
    return target


def _source(check: OpenCheck, given: PreviewFacts) -> str:
    summary = check.summary
    catalogue = f", compared with catalogue {given.catalogue}" if summary.new is not None else ""
    return f"{summary.source} ({summary.kind}, {summary.format}){catalogue}"


def _sums(check: OpenCheck, given: PreviewFacts) -> str:
    summary = check.summary
    sums: list[tuple[str, int | None]] = [("Products in the feed", summary.rows), ("Videos to buy", summary.to_buy)]
    sums.append(("Estimated credits", summary.estimated_credits))
    if given.budget is not None:
        sums.append(("Budget", given.budget))
    if given.balance is not None:
        sums.append(("Balance", given.balance))
    if summary.unchanged is not None:
        sums.append(("Have their video", summary.unchanged + (summary.adopted or 0)))
    sums.append(("Rejected", summary.rejected))
    sums.append(("Not for sale", summary.not_for_sale))
    return "".join(
        f"<div><dt>{name}</dt><dd>{'not known' if value is None else format(value, ',')}</dd></div>"
        for name, value in sums
    )


def _notes(check: OpenCheck, given: PreviewFacts, products: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    summary = check.summary
    cost, limits = summary.estimated_credits, {"budget": given.budget, "balance": given.balance}
    short = [(name, limit) for name, limit in limits.items() if limit is not None and cost is not None and cost > limit]
    for name, limit in short:
        yield _note(
            f"The run costs {cost:,} credits and the {name} is {limit:,}: the last products would wait.", "stop"
        )
    problems: dict[str, int] = {}
    for picture in given.pictures.values():
        problems[picture.kind] = problems.get(picture.kind, 0) + 1
    bad = sum(count for kind, count in problems.items() if kind not in {"ok", "small", "not_inspected"})
    refused = "a run with these options would be refused: "
    for warning in summary.warnings:
        if warning.startswith(refused):
            text = f"A run of the whole feed would be refused: {warning.removeprefix(refused)}."
            yield _note(f"{text} A run of a selection is not held by these limits.", "stop")
        else:
            yield _note(f"{warning[:1].upper()}{warning[1:]}.")
    if bad:
        text = f"{bad:,} of {len(given.pictures):,} pictures cannot be used or are doubtful."
        if _NO_PICTURE & problems.keys():
            text += " Products whose picture is missing, or is a page, are not ticked."
        yield f'<li class="stop">{text}<button type="button" data-view="picture">Show them</button></li>'
    if skipped := problems.get("not_inspected"):
        yield _note(f"{skipped:,} of {len(given.pictures):,} pictures were not inspected: the time was up.")
    elif given.pictures and not bad:
        yield _note(f"{len(given.pictures):,} pictures were opened, and all can be used.", "calm")
    orders = summary.accepted - summary.duplicates
    if (shown := sum(map(len, products))) < orders:
        yield _note(
            f"The page shows the first {shown:,} of {orders:,} orders; the sums above count all. "
            "A selection holds only products that are shown."
        )
    if not short and summary.refused_by is None and cost is not None and summary.to_buy:
        yield _note("Nothing has been bought. Untick the products that need no video, and save the selection.", "calm")


def _note(text: str, kind: str = "") -> str:
    return f'<li class="{kind}">{escape(text)}</li>' if kind else f"<li>{escape(text)}</li>"


def _limits(check: OpenCheck, given: PreviewFacts) -> str:
    values = {
        "catalogue": given.catalogue,
        "feed": check.summary.source,
        "budget": given.budget,
        "balance": given.balance,
    }
    return " ".join(f'data-{name}="{escape(str(value))}"' for name, value in values.items() if value is not None)


def _footer(given: PreviewFacts) -> str:
    when = f"Written {given.written_at}. " if given.written_at else ""
    return f"{when}The page buys nothing and sends nothing; it loads the pictures of the shop."


def _card(looks: Sequence[Mapping[str, Any]], given: PreviewFacts, *, has_catalogue: bool) -> str:
    first = looks[0]
    request = first["request"]
    product_id, name = str(first["product_id"]), one_line(str(request["product_name"]))
    address = str(request["product_image_url"])
    picture = given.pictures.get(address)
    whys = [str(look.get("why", "new")) for look in looks]
    buys = any(why in _BUYING for why in whys)
    can_tick = any(why != "unchanged" for why in whys)
    notes = list(dict.fromkeys(fact for look in looks for fact in look["facts"]))
    found = picture.kind if picture is not None else "ok"
    has_problem = found not in {"ok", "small", "not_inspected"} or bool(_OF_ADDRESS.keys() & set(notes))
    views = [*dict.fromkeys(whys), *(["has"] if not buys else []), *(["picture"] if has_problem else [])]
    views += ["note"] if notes or has_problem or found == "small" else []
    # A video of a picture that is not there is no video of the product: a person has to ask for it.
    unseen = picture is None or found == "not_inspected"
    has_picture = found not in _NO_PICTURE and not (unseen and "page_pictures" in notes)
    videos = " ".join(
        f"{look['video']}:{'' if look['credits'] is None else look['credits']}"
        for look in looks
        if look.get("why", "new") in _BUYING
    )
    heading = f"<span>{escape(name)}</span>"
    if can_tick:
        box = (
            f'<input type="checkbox" class="pick"{" checked" if has_picture else ""} value="{escape(product_id)}" '
            f'data-videos="{escape(videos)}">'
        )
        heading = f"<label>{box}{heading}</label>"
    facts = list(_facts(first, whys, notes, picture, has_catalogue=has_catalogue))
    chips = "".join(
        f'<li class="{kind}">{escape(text)}</li>' if kind else f"<li>{escape(text)}</li>" for kind, text in facts
    )
    members = f" · one video for {first['members']:,} products" if first.get("members", 1) > 1 else ""
    where = place(first["line"], first["item"], file=first.get("file"))
    return (
        f'<li data-views="{escape(" ".join(views))}">{_picture(address, name, picture)}<div class="text">'
        f'<h2>{heading}</h2><p class="id">{escape(product_id)}'
        f' · <span class="place">{escape(where)}</span>{escape(members)}</p>'
        f'<ul class="facts">{chips}</ul>{"".join(_look(look) for look in looks)}</div></li>'
    )


def _picture(address: str, name: str, picture: InspectedPicture | None) -> str:
    link = _link_of(address)
    if link is None or (
        picture is not None and picture.kind not in {"ok", "small", "placeholder", "large", "not_inspected"}
    ):
        said = picture.problem if picture is not None and picture.problem else "is no address that a browser opens"
        return f'<div class="pic"><span>The picture {escape(said)}</span></div>'
    return (
        f'<div class="pic"><img src="{escape(link)}" alt="Picture of {escape(name)}" loading="lazy" decoding="async" '
        'referrerpolicy="no-referrer"></div>'
    )


def _link_of(address: str) -> str | None:
    """Return an address that a browser opens; None for an object of a store."""
    if address.startswith(("http://", "https://")):
        return address
    return Path(address).as_uri() if address.startswith("/") else None


def _facts(
    first: Mapping[str, Any],
    whys: Sequence[str],
    notes: Sequence[str],
    picture: InspectedPicture | None,
    *,
    has_catalogue: bool,
) -> Iterator[tuple[str, str]]:
    if has_catalogue:
        for why in dict.fromkeys(whys):
            kind, text = _WHY[why]
            changed = ", ".join(name.replace("_", " ") for name in first.get("changed", ()))
            yield kind, f"{text}: {changed}" if why == "changed" and changed else text
    if picture is not None:
        known = [f"{picture.width} by {picture.height}"] if picture.width is not None else []
        known += [(picture.media_type or "").removeprefix("image/").upper()] if picture.kind in {"ok", "small"} else []
        known += [_size(picture.size)] if picture.size is not None and known else []
        if picture.problem:
            yield "fair" if picture.kind in {"small", "not_inspected"} else "poor", f"picture {picture.problem}"
        if known:
            yield "", "picture " + " ".join(known)
    for note in notes:
        if note in _FACTS:
            yield "fair", _FACTS[note]
        elif picture is None:
            yield "poor", _OF_ADDRESS[note]


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1000:.0f} kB"


def _look(look: Mapping[str, Any]) -> str:
    """One video of a product: its script, its look, its cost."""
    request = look["request"]
    heading = f"<h3>{escape(str(look['variant']))}</h3>" if look.get("variant") else ""
    facts = [text.format(request[name]) for name, text in _LOOK if request.get(name) is not None]
    if request.get("segment_count") == 1:
        facts[0] = "1 segment"
    shown = {*_SCRIPT, *(name for name, _ in _LOOK)}
    rest = {name: value for name, value in request.items() if name not in shown}
    more = "".join(f"<dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd>" for name, value in rest.items())
    details = f"<details><summary>Other fields ({len(rest)})</summary><dl>{more}</dl></details>" if rest else ""
    return (
        f'<div class="look">{heading}{_script(request)}<p class="soft">{escape(" · ".join(facts))}</p>'
        f'<p class="cost">{_cost(look)}</p>{details}</div>'
    )


def _script(request: Mapping[str, Any]) -> str:
    written, points = request.get("custom_script"), request.get("key_selling_points") or ()
    parts = [f"<p>{escape(str(written))}</p>"] if written else []
    if points and not written:
        parts.append(f'<ul class="script">{"".join(f"<li>{escape(str(point))}</li>" for point in points)}</ul>')
    if not parts:
        parts.append('<p class="soft">No selling points: the service writes the script from name and picture.</p>')
    if request.get("cta_text"):
        parts.append(f'<p class="cta">Ends with: {escape(str(request["cta_text"]))}</p>')
    return "".join(parts)


def _cost(look: Mapping[str, Any]) -> str:
    why = look.get("why", "new")
    if why not in _BUYING:
        return "Nothing to buy"
    if not look["buys"]:
        return "Shares the video of another product"
    return "Cost not known" if look["credits"] is None else f"{look['credits']:,} credits"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sections(check: OpenCheck) -> Iterator[str]:
    summary = check.summary
    rejected = (
        (
            row["product_id"] or "",
            place(row["line"], row["item"], file=row["file"]),
            f"{row['column']} {row['rule']}",
            row["excerpt"],
        )
        for row in check.rejected_rows()
    )
    heads = ("Product", "Where", "Reason", "Value")
    yield _table("rejected", "Rejected rows", heads, rejected, count=summary.rejected)
    skipped = (
        (row["product_id"], place(row["line"], row["item"], file=row["file"]), row["rule"] or row["reason"])
        for row in sorted(
            islice(check.skipped_rows(), _MOST_ROWS * 20), key=lambda row: row["reason"] != "not_for_sale"
        )
    )
    yield _table("skipped", "Not for sale, or left out", heads[:3], skipped, count=summary.skipped)
    twice = (
        (row["product_id"], place(row["line"], row["item"]), place(row["first_line"], row["first_item"]))
        for row in check.duplicate_rows()
    )
    yield _table(
        "twice", "Ids that occur twice", ("Product", "Where", "This row counts"), twice, count=summary.duplicates
    )


def _table(name: str, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, count: int) -> str:
    if not count:
        return ""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0]) or "<span class=soft>no id</span>"}</th>'
        + "".join(
            f'<td data-name="{escape(label)}">{escape(one_line(cell))}</td>'
            for label, cell in zip(heads[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in islice(rows, _MOST_ROWS)
    )
    more = f'<p class="soft">and {count - _MOST_ROWS:,} more</p>' if count > _MOST_ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title} ({count:,})</h2>'
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">{table}</div>{more}</section>'
    )
