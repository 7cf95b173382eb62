# SPDX-License-Identifier: Apache-2.0
"""One static page of all results below a folder; it opens from disk, without any network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from ugen_provider.core.media.manifest import MANIFEST_NAME, Manifest, ManifestFile, OutputKind, read_manifest
from ugen_provider.core.media.outputs import safe_name

PAGE_NAME = "index.html"
_FAIR, _GOOD = 0.55, 0.70
"""The service's own thresholds for `lenient` and `standard`."""


@dataclass(frozen=True, slots=True)
class _Result:
    """One job below the folder.

    Attributes:
        manifest: Its facts and files.
        below: Its folder, relative to the page, ending in `/` unless it is empty.
        side: The folder above that of the product, such as `airflow`: what made the video. '' if there is none.
    """

    manifest: Manifest
    below: str
    side: str

    @property
    def product(self) -> str:
        """What an entry of the page is about: the product, or a job without one."""
        return self.manifest.product_id or self.manifest.job_id

    @property
    def name(self) -> str:
        """The product in words."""
        return self.manifest.product_name or self.product

    @property
    def date(self) -> str:
        """When its job ended."""
        return str(self.manifest.job.get("completed_at") or self.manifest.written_at)


def write_gallery(folder: str | os.PathLike[str], *, title: str = "U-Gen videos") -> Path:
    """Write `index.html` into a folder of results: an entry per product with its variants, and filters.

    Args:
        folder: A local folder with manifests anywhere below it. A folder above those of the products, such as
            `airflow/`, becomes a badge.
        title: The page's heading.

    Returns:
        The page.

    Raises:
        OSError: The folder cannot be read or written.

    Examples:
        >>> write_gallery("results")
        PosixPath('results/index.html')
    """
    root = Path(folder)
    entries: dict[str, list[_Result]] = {}
    for result in _results(root):
        entries.setdefault(result.product, []).append(result)
    for results in entries.values():
        results.sort(key=lambda one: one.date, reverse=True)  # the newest first
        results.sort(key=lambda one: (one.side, one.manifest.variant or ""))
    found = sorted(entries.values(), key=lambda results: (results[0].name.lower(), results[0].product))
    everything = [one for results in found for one in results]
    sides = sorted({one.side for one in everything if one.side})
    template = Template(files("ugen_provider.core.media").joinpath("gallery.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        sums=_sums([one.manifest for one in everything]),
        statuses=_choices({one.manifest.status for one in everything}),
        sides=_choices(sides),
        sides_hidden="" if len(sides) > 1 else " hidden",
        cards="\n".join(_entry(number, results) for number, results in enumerate(found)),
    )
    path = root / PAGE_NAME
    beside = path.with_name(f".{PAGE_NAME}.part")
    beside.write_text(page, "utf-8")
    beside.replace(path)
    return path


def _choices(words: Iterator[str] | Sequence[str] | set[str]) -> str:
    return "".join(f'<option value="{escape(word)}">{escape(_title(word))}</option>' for word in sorted(words))


def _title(word: str) -> str:
    return word[:1].upper() + word[1:]


def _results(root: Path) -> Iterator[_Result]:
    for path in sorted(root.rglob(MANIFEST_NAME)):
        manifest = read_manifest(path.read_bytes(), name=str(path))
        if manifest is not None:
            parts = path.parent.relative_to(root).parts
            own = {safe_name(value) for value in (manifest.product_id, manifest.variant, manifest.job_id) if value}
            side = parts[0] if parts and parts[0] not in own else ""
            yield _Result(manifest, "".join(f"{part}/" for part in parts), side)


def _sums(manifests: Sequence[Manifest]) -> str:
    credits_of = [manifest.credits.consumed for manifest in manifests if manifest.credits.consumed is not None]
    scores = [manifest.scores.lowest for manifest in manifests if manifest.scores.lowest is not None]
    seconds = sum(file.duration or 0.0 for manifest in manifests for file in manifest.files if file.kind == "final")
    sums = [
        ("Products", str(len({manifest.product_id or manifest.job_id for manifest in manifests}))),
        ("Videos", str(sum(manifest.file("final") is not None for manifest in manifests))),
        ("Seconds", f"{seconds:.0f}"),
        ("Credits", f"{sum(credits_of):,}" if credits_of else "?"),
        ("Lowest score", f"{min(scores):.2f}" if scores else "?"),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in sums)


def _entry(number: int, results: Sequence[_Result]) -> str:
    """Return a product with its results: one is shown, and a button for each chooses it."""
    name = results[0].name
    buttons = ""
    if len(results) > 1:
        labels = _labels(results)
        inner = "".join(
            f'<button type="button" aria-pressed="{"true" if place == 0 else "false"}">{escape(label)}</button>'
            for place, label in enumerate(labels)
        )
        buttons = f'<div class="takes" role="group" aria-label="Videos of {escape(name)}">{inner}</div>'
    takes = "".join(_take(one, hidden=place > 0) for place, one in enumerate(results))
    heading = f'<h2 id="product-{number}">{escape(name)}</h2>'
    return f'<article aria-labelledby="product-{number}">{heading}{buttons}{takes}</article>'


def _labels(results: Sequence[_Result]) -> list[str]:
    """Return what distinguishes the results of one product: the side, the variant, and else the date."""
    plain = [", ".join(filter(None, (_title(one.side), one.manifest.variant))) for one in results]
    return [
        label
        if label and plain.count(label) == 1
        else ", ".join(filter(None, (label, one.date[:16].replace("T", " "))))
        for label, one in zip(plain, results, strict=True)
    ]


def _take(result: _Result, *, hidden: bool) -> str:
    manifest = result.manifest
    lowest = manifest.scores.lowest
    words = (result.name, manifest.product_id, manifest.variant, manifest.job_id, manifest.video_model, result.side)
    data = {
        "name": result.name.lower(),
        "words": " ".join(filter(None, words)).lower(),
        "status": manifest.status,
        "side": result.side,
        "score": "" if lowest is None else f"{lowest:g}",
        "credits": "" if manifest.credits.consumed is None else str(manifest.credits.consumed),
        "date": result.date,
    }
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    badges = "".join(
        f'<span class="badge">{escape(word)}</span>' for word in (_title(result.side), manifest.variant) if word
    )
    ids = " · ".join(escape(value) for value in (manifest.product_id, manifest.job_id) if value)
    return (
        f'<section class="take" {attributes}{" hidden" if hidden else ""}>{_stage(result, badges)}<div class="text">'
        f'<div class="ids">{ids}</div>{_facts(manifest)}{_details(result)}</div></section>'
    )


def _stage(result: _Result, badges: str) -> str:
    manifest, below = result.manifest, result.below
    poster = manifest.file("thumbnail") or next(_of_kind(manifest, "keyframe"), None)
    final = manifest.file("final")
    name = escape(result.name)
    if final is not None:
        # The page sets the poster when the entry comes into view: a browser would load all of them at once.
        shown = f' data-poster="{_link(below, poster)}"' if poster else ""
        inner = (
            f'<video src="{_link(below, final)}"{shown} controls playsinline preload="none" '
            f'aria-label="Video of {name}"></video>'
        )
    elif poster:
        inner = f'<img src="{_link(below, poster)}" alt="Picture of {name}; there is no video" loading="lazy">'
    else:
        inner = "no video"
    return f'<div class="stage">{inner}{f"""<div class="badges">{badges}</div>""" if badges else ""}</div>'


def _facts(manifest: Manifest) -> str:
    final = manifest.file("final")
    facts = [f'<li class="{_class_of_status(manifest.status)}">{escape(manifest.status)}</li>']
    if manifest.scores.lowest is not None:
        facts.append(f'<li class="{_class_of(manifest.scores.lowest)}">lowest score {manifest.scores.lowest:.2f}</li>')
    if manifest.credits.consumed is not None:
        facts.append(f"<li>{manifest.credits.consumed:,} credits</li>")
    if final is not None and final.duration is not None:
        facts.append(f"<li>{final.duration:.0f} s</li>")
    if final is not None and final.width is not None:
        facts.append(f"<li>{final.width}&times;{final.height}</li>")
    if manifest.video_model:
        facts.append(f"<li>{escape(manifest.video_model)}</li>")
    return f'<ul class="facts">{"".join(facts)}</ul>'


def _details(result: _Result) -> str:
    manifest, below = result.manifest, result.below
    frames = "".join(
        f'<li><a href="{_link(below, file)}">'
        f'<img src="{_link(below, file)}" alt="Keyframe {file.index} of {escape(result.name)}" loading="lazy">'
        f"{_score(file)}</a></li>"
        for file in _of_kind(manifest, "keyframe")
    )
    parts = "".join(
        f'<li><a href="{_link(below, file)}">{escape(file.path)}</a> {_score(file)} {_size(file.bytes)}</li>'
        for file in manifest.files
        if file.kind != "keyframe"
    )
    missing = "".join(f"<li>{escape(item.message)}</li>" for item in manifest.missing)
    return (
        "<details><summary>Keyframes, segments, files</summary>"
        + (f'<ul class="frames">{frames}</ul>' if frames else "")
        + (f'<ul class="files">{parts}</ul>' if parts else "")
        + (f'<ul class="missing">{missing}</ul>' if missing else "")
        + "</details>"
    )


def _of_kind(manifest: Manifest, kind: OutputKind) -> Iterator[ManifestFile]:
    return (file for file in manifest.files if file.kind == kind)


def _score(file: ManifestFile) -> str:
    if file.score is None:
        return ""
    return f'<span class="{_class_of(file.score)}"><span class="unseen">score </span>{file.score:.2f}</span>'


def _class_of(score: float) -> str:
    return "good" if score >= _GOOD else "fair" if score >= _FAIR else "poor"


def _class_of_status(status: str) -> str:
    return {"completed": "good", "failed": "poor"}.get(status, "fair")


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1000:.0f} kB"


def _link(below: str, file: ManifestFile) -> str:
    return escape(quote(f"{below}{file.path}"))
