# SPDX-License-Identifier: Apache-2.0
"""The built site: every command runs as its button copies it, in the order of its page, and the pages have what readers
expect. The site is built once."""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docs_site import Address, addresses

from ugen_provider.emulator.settings import LOCAL_KEY

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SETTINGS = "zensical.toml"
BLOCK = re.compile(r'<div class="language-(\w+)( no-copy)? highlight">(.*?)</div>', re.DOTALL)

ELSEWHERE = (
    "airflow", "cp ", "dagster", "eval ", "mkdir ", "pip ", "python ", "make ",
    "ugen demo", "ugen doctor", "ugen emulator",
)  # fmt: skip
"""Commands that install, serve or open pages, or hold this machine's clock against the emulator's: they have tests of
their own, with real processes."""

KNOWN_CAPITALS = re.compile(r"AIRFLOW_\w+|DAGSTER_\w+|UGEN_\w+|HOME|PWD|PATH|JSON|URL")
PLACEHOLDER = re.compile(r"(?<![\w$.-])[A-Z][A-Z_]*[A-Z](?![\w=])")


@dataclass(frozen=True)
class Block:
    """A block of code of a built page, as the button copies it."""

    language: str
    text: str
    has_button: bool


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly, from the pages of the repository, and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / SETTINGS, folder)
    shutil.copytree(DOCS, folder / "docs")
    command = [sys.executable, str(ROOT / "scripts" / "docs_site.py"), "--config", str(folder / SETTINGS)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def page_names() -> list[str]:
    paths = sorted(path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md"))
    return [path.as_posix() for path in paths if path.parts[0] != "adr"]


def built_page(site: Path, name: str) -> str:
    folder = site / (name.removesuffix("index") if name.endswith("index") else name)
    return (folder / "index.html").read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    return [
        Block(language, html.unescape(re.sub(r"<[^>]+>", "", inner)).strip("\n"), not no_copy)
        for language, no_copy, inner in BLOCK.findall(page)
    ]


def source_blocks(name: str) -> list[tuple[str, str]]:
    text = (DOCS / f"{name}.md").read_text("utf-8")
    return [
        (found[2], found[3]) for found in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    ]


WITH_COMMANDS = [name for name in page_names() if any(language == "sh" for language, _ in source_blocks(name))]


def lines_of(block: Block) -> Iterator[str]:
    yield from (line for line in block.text.splitlines() if line.strip())


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_run_when_copied_in_order(
    name: str, site: Path, reader: Path, ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from tests.core.local import EmulatorClock
    from ugen_provider.cli import main
    from ugen_provider.cli.session import Surroundings

    environ = {"HOME": str(reader), "UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": ugen_emulator.base_url}
    clock = EmulatorClock(ugen_emulator.emulator)
    prepare_folder(name, reader)
    commands = [block for block in blocks_of(built_page(site, name)) if block.language == "sh" and block.has_button]
    assert commands
    for block in commands:
        checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
        for line in lines_of(block):
            words = [string.Template(word).safe_substitute(environ) for word in shlex.split(line, comments=True)]
            if words[0] == "export" or "=" in words[0] or line.startswith(ELSEWHERE) or "://DB_USER" in line:
                continue
            assert words[0] == "ugen", line
            given = [newest_job(ugen_emulator) if word == "JOB_ID" else word for word in words[1:]]
            result = CliRunner().invoke(main, given, obj=Surroundings(environ=environ, clock=clock), input=LOCAL_KEY)
            assert result.exit_code == 0, f"{line}: {result.output}"


def prepare_folder(name: str, reader: Path) -> None:
    """Add what the reader has from an earlier page."""
    if name == "howto/storage":
        (reader / "videos").mkdir()
    if name == "howto/feed-every-night":  # the selection that the page of `ugen feed preview` saves
        (reader / "selection.json").write_text('{"products": ["LL-1001"]}')
    if name == "howto/retry":
        from ugen_provider.core.api.config import resolve
        from ugen_provider.core.batch import Budget, FeedRun, run_feed
        from ugen_provider.ledger import Ledger

        folder = reader / ".local" / "share" / "ugen"
        folder.mkdir(parents=True)
        night = FeedRun(
            "feed.xml", catalogue="shop", run_id="1", job_defaults={"segment_count": 1}, budget=Budget(credits=5000)
        )
        with Ledger.init(str(folder / "ledger.db")) as ledger:
            run_feed(night, config=resolve(), ledger=ledger)


def newest_job(ugen_emulator: Any) -> str:
    return str(ugen_emulator.emulator.journal.find_purchases()[-1].job_id)


@pytest.mark.parametrize("name", page_names())
def test_copied_blocks_have_no_prompt(name: str, site: Path) -> None:
    found = blocks_of(built_page(site, name))
    assert len(found) >= len(source_blocks(name))
    copied = [block for block in found if block.has_button]
    assert [
        block.text for block in copied if re.search(r"^\s*(\$|%|#) (ugen|pip|airflow)", block.text, re.MULTILINE)
    ] == []
    assert [block.language for block in copied if block.language == "console"] == []


def test_examples_with_prompts_have_no_copy_button() -> None:
    assert ".language-pycon .md-code__nav { display: none; }" in (DOCS / "look.css").read_text("utf-8")


@pytest.mark.parametrize("name", page_names())
def test_placeholder_is_named_on_its_page(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text("utf-8")
    named = {
        word
        for sentence in re.findall(r"Replace (.*?) with", text, re.DOTALL)
        for word in re.findall(r"`(\w+)`", sentence)
    }
    for language, code in source_blocks(name):
        if language in {"sh", "toml"}:
            assert "…" not in code
            used = {word for word in PLACEHOLDER.findall(code) if not KNOWN_CAPITALS.fullmatch(word)}
            assert used <= named, f"{name}: {used - named}"


@pytest.mark.parametrize("name", page_names())
def test_ledger_is_created_before_it_is_named(name: str) -> None:
    before = ""
    for language, code in source_blocks(name):
        if language not in {"sh", "python", "yaml"} or is_creation_not_needed(name):
            continue
        first = re.search(r"--ledger\b|ledger_conn_id", code)
        if first is not None:
            assert "ugen ledger init" in before + code[: first.start()], f"{name}: {code[first.start() :][:60]}"
            return
        before = code


def is_creation_not_needed(name: str) -> bool:
    return name == "reference/cli"


@pytest.mark.parametrize("path", sorted((ROOT / "example_dags").glob("*.py")), ids=lambda path: path.stem)
def test_example_with_ledger_says_how_to_create_it(path: Path) -> None:
    text = path.read_text("utf-8")
    if "ledger_conn_id" in text:
        assert "ugen ledger init" in text[: text.index("ledger_conn_id=")]


def test_every_page_is_in_the_navigation_or_linked(site: Path) -> None:
    settings = (ROOT / SETTINGS).read_text("utf-8")
    inner = (DOCS / "explain" / "index.md").read_text("utf-8")
    names = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    missing = [
        name
        for name in names
        if f'"{name}"' not in settings and os.path.relpath(DOCS / name, DOCS / "explain") not in inner
    ]
    assert missing == []
    assert not re.search(r'"(adr/|performance|reliability)', settings)


@pytest.mark.parametrize("name", ["howto/budget", "concepts/job", "start/airflow"])
def test_page_has_dark_mode_neighbours_and_edit_link(name: str, site: Path) -> None:
    page = built_page(site, name)
    assert 'data-md-color-scheme="slate"' in page
    assert 'rel="next"' in page
    assert 'rel="prev"' in page
    assert f"{addresses().edit}{name}.md" in page


def test_site_has_sitemap_and_llms_txt(site: Path) -> None:
    at: Address = addresses()
    mapped = re.findall(r"<loc>(.*?)</loc>", (site / "sitemap.xml").read_text("utf-8"))
    listed = re.findall(r"\]\((\S+?)\)", (site / "llms.txt").read_text("utf-8"))
    assert f"{at.site}howto/budget/" in mapped
    assert f"{at.site}howto/budget.md" in listed
    for address in listed:
        assert (site / address.removeprefix(at.site)).is_file(), address
    whole = (site / "llms-full.txt").read_text("utf-8")
    assert "# Keep to a budget" in whole


def test_addresses_of_the_project_are_in_one_file() -> None:
    at = addresses()
    hosts = {re.sub(r"^https://([^/]+)/.*", r"\1", address) for address in (at.site, at.repository)}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    holders = [
        name
        for name in listed
        if name.endswith((".py", ".md", ".toml", ".yaml")) and any(host in (ROOT / name).read_text() for host in hosts)
    ]
    assert holders in ([SETTINGS], [])


@pytest.mark.parametrize("name", page_names())
def test_page_loads_nothing_from_another_host(name: str, site: Path) -> None:
    page = built_page(site, name)
    loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert loaded == []


def test_message_of_the_troubleshooting_page_exists() -> None:
    said = "\n".join(strings_of_the_program())
    titles = re.findall(r"^### `(.+)`$", (DOCS / "help" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert len(titles) >= 20
    missing = [part for title in titles for part in re.split("…", title) if part.strip("() ;:,.") and part not in said]
    assert missing == []


def strings_of_the_program() -> Iterator[str]:
    """Yield every string of the shipped code, with `…` for each value in it."""
    import ast
    import gc

    gc.disable()  # CPython 3.11 refuses a tree during whose making a finalizer ran
    try:
        yield from _strings(ast)
    finally:
        gc.enable()


def _strings(ast: Any) -> Iterator[str]:
    for folder in ("ugen_provider", "dagster_ugen"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_links_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert len(links) >= 20
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_first_screen_of_the_readme_has_what_strangers_need() -> None:
    screen, _, _ = (ROOT / "README.md").read_text("utf-8").partition("\n## Airflow\n")
    promises = re.findall(r"^- \*\*(.+?)\*\*.*?(?=^-|\n\n)", screen, re.MULTILINE | re.DOTALL)
    assert len(promises) == 4
    for needed in ("gallery.png", "make demo", "GB", "minutes", "docs/concepts/credits.md", "| I use … | start |"):
        assert needed in screen, needed
    for promise in re.findall(r"^- \*\*.*?(?=^- |\n\n)", screen, re.MULTILINE | re.DOTALL):
        assert "](docs/" in promise, promise
