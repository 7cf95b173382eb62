# SPDX-License-Identifier: Apache-2.0
"""Check that the pages for tasks read plainly: short sentences, and none of the words that the style advises against.

The pages of the navigation and the README are checked. Generated tables, code and the pages on inner workings are not.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import check_style
import docs_site

ROOT = Path(__file__).resolve().parents[1]
MEAN = 16.0
"""Most words per sentence of a page, on average."""
LONGEST = 40
"""Most words of any one sentence."""
NOT_PROSE = re.compile(
    r"<!-- (?:table|cells|session).*?<!-- end.*?-->|^( *)```.*?^\1```$|^\|.*?$|^:::.*?$|^ {4}options:.*?$|^#+ .*?$",
    re.MULTILINE | re.DOTALL,
)


def sentences_of(text: str) -> Iterator[str]:
    """Yield the sentences of a page's paragraphs and list items; code spans and links count as their words.

    Args:
        text: The page, in Markdown.

    Yields:
        Each sentence on one line.
    """
    prose = NOT_PROSE.sub("", text)
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s+|\n=== ", "\n" + prose):
        line = " ".join(paragraph.split())
        yield from (
            sentence
            for sentence in re.split(r"(?<=[.?!:])[)*_]*\s+(?=[\"'`*(A-Za-z0-9])", line)
            if len(sentence.split()) > 2
        )


def problems_of(name: str, *, text: str) -> list[str]:
    """Find the faults of one page.

    Args:
        name: The page's path.
        text: Its Markdown.

    Returns:
        One line per fault.
    """
    lengths = [(len(sentence.split()), sentence) for sentence in sentences_of(text)]
    found = [f"{name}: {count} words in one sentence: {said[:70]}…" for count, said in lengths if count > LONGEST]
    mean = statistics.fmean(count for count, _ in lengths) if lengths else 0.0
    if mean > MEAN:
        found.append(f"{name}: {mean:.1f} words per sentence on average; {MEAN:g} are allowed")
    hits, _ = check_style.mannerisms_of(name, source=NOT_PROSE.sub(lambda cut: "\n" * cut[0].count("\n"), text))
    return found + [f"{hit.path}:{hit.line}: write plainly: {hit.words!r}" for hit in hits]


def main() -> int:
    """Check the README and every page of the navigation.

    Returns:
        The exit code: 1 if a page has a fault.
    """
    names = ["README.md", *(f"docs/{page.path}" for page in docs_site.pages())]
    faults = [fault for name in names for fault in problems_of(name, text=(ROOT / name).read_text("utf-8"))]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
