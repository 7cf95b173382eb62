# SPDX-License-Identifier: Apache-2.0
"""Build the documentation strictly, and beside its pages `llms.txt` and their text for programs that read Markdown.

`python scripts/docs_site.py` builds `site/` from `zensical.toml`; `--config FILE` takes another one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "zensical.toml"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Address(NamedTuple):
    """The addresses of the project, which only `zensical.toml` holds."""

    site: str
    repository: str
    edit: str


class Page(NamedTuple):
    """A page of the navigation."""

    section: str
    title: str
    path: str


def addresses(config: Path = CONFIG) -> Address:
    """Read the addresses of the project.

    Args:
        config: The settings of the documentation.

    Returns:
        Where the site is published, where the repository is, and where a page is edited.
    """
    project = _project(config)
    repository = f"{project['repo_url'].rstrip('/')}/"
    return Address(project["site_url"], repository, repository + project["edit_uri"])


def pages(config: Path = CONFIG) -> Iterator[Page]:
    """Yield the pages of the navigation in order.

    Args:
        config: The settings of the documentation.

    Yields:
        Each page with the section that it is in; '' for none.
    """
    for entry in _project(config)["nav"]:
        for title, below in entry.items():
            if isinstance(below, str):
                yield Page("", title, below)
            else:
                yield from (Page(title, name, path) for part in below for name, path in part.items())


def _project(config: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(config.read_text("utf-8"))["project"]
    return project


def write_texts(docs: Path, *, site: Path, config: Path) -> None:
    """Write `llms.txt`, `llms-full.txt` and the Markdown of each page of the navigation.

    Args:
        docs: The folder of the pages' sources.
        site: The folder of the built site.
        config: The settings of the documentation.
    """
    at, project = addresses(config).site, _project(config)
    listing = [f"# {project['site_name']}", "", f"> {project['site_description']}"]
    whole, section = list[str](), None
    for page in pages(config):
        text = (docs / page.path).read_text("utf-8")
        if page.section != section:
            section = page.section
            listing += ["", f"## {section or page.title}", ""]
        listing.append(f"- [{page.title}]({at}{page.path}): {_first_sentence(text)}")
        target = site / page.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        whole.append(text.strip())
    (site / "llms.txt").write_text("\n".join(listing) + "\n", "utf-8")
    (site / "llms-full.txt").write_text("\n\n---\n\n".join(whole) + "\n", "utf-8")


def _first_sentence(text: str) -> str:
    """Return the first sentence of a page, on one line and without links."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if re.match(r"[A-Za-z`*\[]", part.strip())]
    first = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraphs[0].split())) if paragraphs else ""
    return re.split(r"(?<=[.:?])\s", first)[0]


def main() -> int:
    """Build the site.

    Returns:
        The exit code of the build.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    config = parser.parse_args().config.resolve()
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(config)]
    built = subprocess.run(command, cwd=config.parent, capture_output=True, text=True, check=False)
    if built.returncode:
        print(COLORS.sub("", built.stdout + built.stderr), file=sys.stderr)
        return built.returncode
    write_texts(config.parent / "docs", site=config.parent / "site", config=config)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
