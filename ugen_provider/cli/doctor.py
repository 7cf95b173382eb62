# SPDX-License-Identifier: Apache-2.0
"""`ugen doctor`: for the first hour with a real account. It looks and says what to do, free of charge."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ugen_provider.__about__ import __version__
from ugen_provider.cli.exits import ExitCode, exit_of, next_step, worst
from ugen_provider.cli.frame import command
from ugen_provider.cli.printing import Listing
from ugen_provider.cli.profiles import read_config
from ugen_provider.cli.session import Session, is_local
from ugen_provider.core.api.errors import ConfigError, UGenError

if TYPE_CHECKING:
    from ugen_provider.core.api.diagnosis import Finding

Verdict = Literal["ok", "note", "wrong"]

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "airflow": ("apache-airflow",),
    "dagster": ("dagster",),
    "emulator": ("uvicorn", "starlette"),
    "media": ("av", "pillow"),
    "parquet": ("pyarrow",),
    "postgres": ("psycopg",),
}
"""What each extra brings, by the names of the packages."""

_FOR = {
    "airflow": "the Airflow operators",
    "dagster": "the Dagster assets",
    "emulator": "`ugen emulator`",
    "media": "sizes and durations in manifests",
    "parquet": "feeds in Parquet",
    "postgres": "a ledger that several machines share",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: `ok`; `note`, which may matter to you; or `wrong`, which will.
        seen: What was seen.
        advice: What to do, where there is anything to do.
        code: What a script is told if it is wrong.
    """

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""
    code: ExitCode = field(default=ExitCode.DONE)


@command("doctor", examples=("ugen doctor", "ugen doctor --profile staging --json"))
def doctor_command(session: Session) -> ExitCode:
    """Look whether everything is in place: settings, key, network, clock, balance, and what the service does.

    Everything that is looked at is read or free. Lines that say `note` may matter to you, those that say `wrong` will.
    """
    lines = [*installed(), *_settings(session)]
    if all(line.verdict != "wrong" for line in lines):
        lines += _service(session)
    lines += _ledger(session)
    session.out.show(listing_of(lines))
    return worst(line.code for line in lines if line.verdict == "wrong")


def listing_of(lines: list[Line]) -> Listing:
    """What was looked at, one line each."""
    rows = [(line.name, line.verdict, line.seen, line.advice) for line in lines]
    data = [{**asdict(line), "code": int(line.code)} for line in lines]
    return Listing(("CHECK", "", "SEEN", "WHAT TO DO"), rows, data=data)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed() -> Iterator[Line]:
    """What is installed, and what is missing for what."""
    yield Line("ugen-provider", "ok", f"{__version__} on Python {platform.python_version()}, {platform.system()}")
    for extra, packages in EXTRAS.items():
        found = {package: _version_of(package) for package in packages}
        yield extra_line(extra, found)


def extra_line(extra: str, found: Mapping[str, str | None]) -> Line:
    """Whether an extra is there.

    Examples:
        >>> extra_line("parquet", {"pyarrow": None}).advice
        "for feeds in Parquet: pip install 'ugen-provider[parquet]'"
    """
    seen = ", ".join(f"{name} {number}" for name, number in found.items() if number is not None)
    if None not in found.values():
        return Line(f"[{extra}]", "ok", seen)
    missing = ", ".join(name for name, number in found.items() if number is None)
    advice = f"for {_FOR[extra]}: pip install 'ugen-provider[{extra}]'"
    return Line(f"[{extra}]", "note", "; ".join(filter(None, (seen, f"without {missing}"))), advice)


def _settings(session: Session) -> Iterator[Line]:
    try:
        config = read_config(session.surroundings.environ)
        if config.there:
            yield Line("config file", "ok", f"{config.path}: profiles {', '.join(sorted(config.profiles)) or 'none'}")
        else:
            yield Line("config file", "ok", f"none; {config.path} may hold profiles")
        chosen = session.chosen
        settings = session.config
    except ConfigError as error:
        missing = str(error).startswith("no API key")
        advice = "export UGEN_API_KEY=…, or write it into config.toml and chmod 600 it" if missing else "correct it"
        yield Line("settings", "wrong", str(error), advice, exit_of(error))
        return
    yield Line("key from", "ok", chosen.source if chosen.profile.api_key is not None else "the prompt")
    yield Line("base URL", "ok", settings.base_url)
    if settings.spending != "allow":
        yield Line("spending", "note", settings.spending, "nothing is bought until it is `allow`")


def _service(session: Session) -> Iterator[Line]:
    try:
        with session.client() as client:
            findings = client.diagnose().findings
    except UGenError as error:
        yield Line("reachable", "wrong", str(error), next_step(error), exit_of(error))
        return
    yield from (line_of(finding) for finding in findings)
    if any(finding.name == "key" and finding.holds for finding in findings):
        yield Line(
            "limits",
            "ok",
            "the service tells limits of concurrent and daily jobs by 429 alone",
            "`ugen feed run` finds them by itself; --in-flight keeps below them",
        )


_WRONG: Mapping[str, ExitCode] = {
    "key": ExitCode.REFUSED,
    "reachable": ExitCode.TROUBLE,
    "balance": ExitCode.NO_CREDITS,
    "clock": ExitCode.TROUBLE,
}
"""Without these nothing works; everything else that is otherwise than assumed costs a convenience."""


def line_of(finding: Finding) -> Line:
    """A finding of `client.diagnose()` as a line.

    Examples:
        >>> from ugen_provider.core.api.diagnosis import Finding
        >>> line_of(Finding("balance", False, "0 credits available", "buy credits before you start")).code
        <ExitCode.NO_CREDITS: 4>
    """
    name = finding.name.replace("_", " ")
    if finding.holds:
        return Line(name, "ok", finding.seen, finding.means)
    if finding.holds is None or finding.name not in _WRONG:
        return Line(name, "note", finding.seen, finding.means)
    return Line(name, "wrong", finding.seen, finding.means, _WRONG[finding.name])


def _ledger(session: Session) -> Iterator[Line]:
    from ugen_provider.core.batch.ledger import Ledger

    try:
        address = session.ledger_address(None)
    except ConfigError:
        return  # said above
    if is_local(address) and not Path(address).expanduser().exists():
        folder = next(parent for parent in Path(address).absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free
        yield Line("ledger", "ok", f"{address} is made by the first `ugen feed run`; {free / 1e9:,.1f} GB are free")
        return
    try:
        with Ledger(address) as opened:
            names = ", ".join(catalogue.name for catalogue in opened.catalogues()) or "none"
            yield Line("ledger", "ok", f"{address}: catalogues {names}")
    except (UGenError, OSError) as error:
        yield Line("ledger", "wrong", str(error), "--ledger or UGEN_LEDGER names another one", exit_of(error))
