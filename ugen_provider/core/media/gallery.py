# SPDX-License-Identifier: Apache-2.0
"""One static page of all results below a folder; it opens from disk, without any network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from ugen_provider.core.media.manifest import MANIFEST_NAME, Manifest, ManifestFile, OutputKind, read_manifest

PAGE_NAME = "index.html"
_FAIR, _GOOD = 0.55, 0.70
"""The service's own thresholds for `lenient` and `standard`."""


def write_gallery(folder: str | os.PathLike[str], *, title: str = "U-Gen videos") -> Path:
    """Write `index.html` into a folder of results: poster, video, scores and credits per job, with filters.

    Args:
        folder: A local folder with manifests anywhere below it.
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
    found = sorted(_manifests(root), key=lambda entry: ((entry[0].product_name or "").lower(), entry[0].job_id))
    template = Template(files("ugen_provider.core.media").joinpath("gallery.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        sums=_sums([manifest for manifest, _ in found]),
        statuses="".join(
            f'<option value="{escape(status)}">{escape(status.capitalize())}</option>'
            for status in sorted({manifest.status for manifest, _ in found})
        ),
        cards="\n".join(_card(manifest, below) for manifest, below in found),
    )
    path = root / PAGE_NAME
    beside = path.with_name(f".{PAGE_NAME}.part")
    beside.write_text(page, "utf-8")
    beside.replace(path)
    return path


def _manifests(root: Path) -> Iterator[tuple[Manifest, str]]:
    for path in root.rglob(MANIFEST_NAME):
        manifest = read_manifest(path.read_bytes())
        if manifest is not None:
            below = path.parent.relative_to(root).as_posix()
            yield manifest, "" if below == "." else f"{below}/"


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


def _card(manifest: Manifest, below: str) -> str:
    name = manifest.product_name or manifest.product_id or manifest.job_id
    lowest = manifest.scores.lowest
    words = " ".join(filter(None, (name, manifest.product_id, manifest.job_id, manifest.video_model))).lower()
    data = {
        "name": name.lower(),
        "words": words,
        "status": manifest.status,
        "score": "" if lowest is None else f"{lowest:g}",
        "credits": "" if manifest.credits.consumed is None else str(manifest.credits.consumed),
        "date": str(manifest.job.get("completed_at") or manifest.written_at),
    }
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    ids = " · ".join(escape(value) for value in (manifest.product_id, manifest.job_id) if value)
    return (
        f'<article {attributes}>{_stage(manifest, below)}<div class="text"><h2>{escape(name)}</h2>'
        f'<div class="ids">{ids}</div>{_facts(manifest)}{_details(manifest, below)}</div></article>'
    )


def _stage(manifest: Manifest, below: str) -> str:
    poster = manifest.file("thumbnail") or next(_of_kind(manifest, "keyframe"), None)
    final = manifest.file("final")
    if final is not None:
        shown = f' poster="{_link(below, poster)}"' if poster else ""
        video = f'<video src="{_link(below, final)}"{shown} controls playsinline preload="none"></video>'
        return f'<div class="stage">{video}</div>'
    inner = f'<img src="{_link(below, poster)}" alt="" loading="lazy">' if poster else "no video"
    return f'<div class="stage">{inner}</div>'


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


def _details(manifest: Manifest, below: str) -> str:
    frames = "".join(
        f'<li><a href="{_link(below, file)}">'
        f'<img src="{_link(below, file)}" alt="Keyframe {file.index}" loading="lazy">{_score(file)}</a></li>'
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
    return "" if file.score is None else f'<span class="{_class_of(file.score)}">{file.score:.2f}</span>'


def _class_of(score: float) -> str:
    return "good" if score >= _GOOD else "fair" if score >= _FAIR else "poor"


def _class_of_status(status: str) -> str:
    return {"completed": "good", "failed": "poor"}.get(status, "fair")


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1000:.0f} kB"


def _link(below: str, file: ManifestFile) -> str:
    return escape(quote(f"{below}{file.path}"))
