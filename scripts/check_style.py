# SPDX-License-Identifier: Apache-2.0
"""Check the language: words that a reader of plain English does not expect, long test names, unclear module names."""

import ast
import collections
import io
import itertools
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIMIT = 3.0
"""How many mannerisms 10,000 words of prose may hold, over the whole project."""

TEST_NAME_LENGTH = 60

KNOWN_DUPLICATES = frozenset[str]()
"""Class names that still wait for a better name in one of their modules."""

ACTIVITY_MODULES = frozenset({"retrying", "polling", "mapping"})
"""Module names on -ing that are standard terms, not activities of this project."""

TO_RENAME = frozenset({"checking", "running"} | {"cleaning", "sealing"})
"""Modules that still wait for a better name."""

NO_NOUN = re.compile(r"(?:[a-z]ed|[a-z]ing|Ran|Seen|Later|Known|All)$")
NOUNS = re.compile(r"(?:Feed|Speed|Warning|Mapping|Finding|Listing|Cleaning|Pricing|Succeeded)$")
"""Endings by which a class name is no noun, and nouns that have them; `Succeeded` is a state of a run."""

MANNERISMS = re.compile(
    r"""\b(?:
      nobody | somebody | whoever | whatever | whichever | dear | dearer | dearest | dead | doors? | rooms?
    | tells? | telling | told | (?:go|goes|going|went)\s+on | as\s+(?:it\s+is|they\s+are)(?!\s+(?:now|then|sent))
    | (?:stands?|standing|stood)(?!-)(?:\s+(?:on|for|at|in|still|there|beside|by))? | mend(?:s|ed|ing)?
    | (?:a|one|each|every|first|second|next|last|per|between|of|two|several|no)\s+looks? | looks(?!\s+(?:like|up))
    | one's\s+own | at\s+home | (?:bring|brings|brought|bringing)\s+home
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
NOUN_CLAUSE = re.compile(r"(?:\A|(?<=[.!]\s)|(?<=\n\n))\s*((?:What(?!\s+to\b)|Who)\s[^.?!:|`]*)(?=[.:,]|\Z)")
NO_SENTENCE = re.compile(r"What's")
EXEMPT = frozenset({"scripts/check_style.py", "tests/docs/test_style.py"})
"""Files that quote the words."""

SHIPPED = (("ugen_provider",), ("dagster_ugen",))


class Hit(NamedTuple):
    """A mannerism, with the line that it begins on."""

    path: str
    line: int
    words: str


class Prose(NamedTuple):
    """A comment, a string, a name or a paragraph, with its first line."""

    line: int
    text: str


def prose_of_python(source: str) -> Iterator[Prose]:
    """Yield comments, strings and defined names of a Python file; joined lines stay one text.

    Args:
        source: The text of the file.

    Yields:
        One text per comment block, per string and per defined name.
    """
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    line, parts, kind_before = 0, list[str](), -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            if parts and token.type != kind_before:
                yield Prose(line, "".join(parts))
                parts = []
            kind_before, line = token.type, line if parts else token.start[0]
            parts.append(
                token.string.strip("#\"'rbfRBF") if token.type == tokenize.STRING else token.string.strip("# ")
            )
        elif token.type == tokenize.NL and parts:
            parts.append("\n")
        elif parts and token.type not in {tokenize.INDENT, tokenize.DEDENT}:
            yield Prose(line, "".join(parts))
            parts = []
    for name, number in _names_defined(ast.parse(source)).items():
        yield Prose(number, re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name))


def _names_defined(tree: ast.Module) -> dict[str, int]:
    names = dict[str, int]()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.setdefault(name, node.lineno)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.setdefault(name, node.lineno)
    return names


def prose_of_markdown(source: str) -> Iterator[Prose]:
    """Yield the paragraphs, headings, list items and table rows of a Markdown file.

    Args:
        source: The text of the file.

    Yields:
        One text per block.
    """
    line, parts = 1, list[str]()
    for number, text in enumerate(source.splitlines(), start=1):
        if parts and (not text.strip() or re.match(r"\s*(?:[-*|#]|\d+\.)", text)):
            yield Prose(line, "\n".join(parts))
            parts = []
        if text.strip():
            line = line if parts else number
            parts.append(re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", text))
    if parts:
        yield Prose(line, "\n".join(parts))


def mannerisms_of(path: str, *, source: str) -> tuple[list[Hit], int]:
    """Find the mannerisms of one file.

    Args:
        path: The file's name, which says whether it is Python or Markdown.
        source: The text of the file.

    Returns:
        The mannerisms in order of their lines, and the number of words of prose.
    """
    hits, words = list[Hit](), 0
    for line, text in (prose_of_python if path.endswith(".py") else prose_of_markdown)(source):
        words += len(re.findall(r"[A-Za-z][A-Za-z']*", text))
        found = [*MANNERISMS.finditer(text), *(m for m in NOUN_CLAUSE.finditer(text) if not NO_SENTENCE.match(m[1]))]
        hits += [Hit(path, line + text.count("\n", 0, match.start()), " ".join(match[0].split())) for match in found]
    return sorted(hits), words


def problems_of_names(path: str, *, tree: ast.Module) -> list[str]:
    """Find long test names, modules and classes that are not named after things, and private names of other packages.

    Args:
        path: The file's name, relative to the repository.
        tree: The parsed file.

    Returns:
        One sentence per problem, beginning with the path.
    """
    found, package, stem = list[str](), Path(path).parent.parts, Path(path).stem
    if package[:1] in SHIPPED and stem.endswith("ing") and stem not in ACTIVITY_MODULES | TO_RENAME:
        found.append(f"{path}: name the module after a thing, not after an activity")
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) if package[:1] in SHIPPED:
                if NO_NOUN.search(name) and not NOUNS.search(name):
                    found.append(f"{path}:{node.lineno}: class {name}: name it after a thing, by a noun")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test_") and len(name) > TEST_NAME_LENGTH:
                    found.append(f"{path}:{node.lineno}: {name} is longer than {TEST_NAME_LENGTH} characters")
            case ast.ImportFrom(module=str(module), level=0, names=names):
                for full in ((*module.split("."), alias.name) for alias in names):
                    owner = tuple(itertools.takewhile(lambda part: not re.match(r"_(?!_)", part), full))
                    ours = owner[:1] in (*SHIPPED, ("tests",)) and owner != full
                    if ours and owner != package[: len(owner)] and owner[:-1] != package:
                        found.append(f"{path}:{node.lineno}: {'.'.join(full)} is private to another package")
    return found


def duplicate_classes(trees: dict[str, ast.Module]) -> list[str]:
    """Find names that two shipped modules give to classes of their own.

    Args:
        trees: The parsed files by name; generated twins are left out by the caller.

    Returns:
        One sentence per name.
    """
    homes = collections.defaultdict[str, list[str]](list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name not in KNOWN_DUPLICATES:
                homes[node.name].append(path)
    return [f"class {name} is defined in {' and '.join(paths)}" for name, paths in homes.items() if len(paths) > 1]


def main() -> int:
    """Check every tracked Python and Markdown file.

    Returns:
        The exit code: 1 if there is a problem or too many mannerisms.
    """
    command = ["git", "ls-files", "*.py", "*.md"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    texts = {name: Path(name).read_text() for name in listed if name and Path(name).exists() and name not in EXEMPT}
    trees = {name: ast.parse(text) for name, text in texts.items() if name.endswith(".py")}
    shipped = {name: tree for name, tree in trees.items() if Path(name).parts[:1] in SHIPPED and "/sync/" not in name}
    problems = [problem for name, tree in trees.items() for problem in problems_of_names(name, tree=tree)]
    problems += duplicate_classes(shipped)
    counted = [mannerisms_of(name, source=text) for name, text in texts.items()]
    hits = [hit for found, _ in counted for hit in found]
    rate = 10_000 * len(hits) / max(1, sum(words for _, words in counted))
    if rate > LIMIT or "--all" in sys.argv:
        problems += [f"{hit.path}:{hit.line}: write plainly: {hit.words!r}" for hit in hits]
        problems.append(f"{len(hits)} mannerisms, {rate:.1f} per 10,000 words; {LIMIT} are allowed")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
