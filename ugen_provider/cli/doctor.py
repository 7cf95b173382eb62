# SPDX-License-Identifier: Apache-2.0
"""`ugen doctor`: check the settings, the key, the service and the ledger, and say what to do. Free."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ugen_provider.__about__ import __version__
from ugen_provider.cli.exits import ExitCode, exit_of, next_step, worst
from ugen_provider.cli.frame import command
from ugen_provider.cli.printer import Listing
from ugen_provider.cli.session import LedgerChoice, Session, read_config
from ugen_provider.core.api.config import redact_text
from ugen_provider.core.api.errors import ConfigError, UGenError

if TYPE_CHECKING:
    from ugen_provider.core.api.diagnostics import Finding, RowFinding
    from ugen_provider.core.ledger.store import Ledger

Verdict = Literal["ok", "note", "wrong"]

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "airflow": ("apache-airflow",),
    "dagster": ("dagster",),
    "emulator": ("uvicorn", "starlette"),
    "media": ("av", "pillow"),
    "parquet": ("pyarrow",),
    "postgres": ("psycopg",),
}
"""The packages that each extra installs."""

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
    """Result of one check of `ugen doctor`.

    Attributes:
        name: What was checked.
        verdict: `ok`; `note`, which can matter; or `wrong`, which does.
        seen: What was found.
        advice: What to do; '' if nothing.
        code: The exit code if it is wrong.
    """

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""
    code: ExitCode = field(default=ExitCode.DONE)


@command(
    "doctor",
    examples=("ugen doctor", "ugen doctor --profile staging --json", "ugen doctor --profile staging --save"),
)
@click.option("--save", is_flag=True, help="Write the rows of the service profile that were found into the profile.")
def doctor_command(session: Session, *, save: bool) -> ExitCode:
    """Check the settings, the key, the network, the clock, the balance, the service's behaviour and the ledger. Free.

    A line that says `note` can matter; one that says `wrong` must be corrected. It exits with 0 only if nothing shows
    that a purchase would not end here. Its output holds no secret.
    """
    lines = [*installed(), *_settings(session)]
    if all(line.verdict != "wrong" for line in lines):
        lines += _service(session, save=save)
    lines += _ledger(session)
    home = str(Path(session.surroundings.environ.get("HOME") or Path.home()))
    session.out.show(listing_of([_without_home(line, home) for line in lines]))
    return worst(line.code for line in lines if line.verdict == "wrong")


def _without_home(line: Line, home: str) -> Line:
    """Leave out the name of the user, so that the output can be pasted into an issue."""
    return replace(line, seen=line.seen.replace(home, "~"), advice=line.advice.replace(home, "~"))


def listing_of(lines: list[Line]) -> Listing:
    """Return the checks as a table."""
    rows = [(line.name, line.verdict, line.seen, line.advice) for line in lines]
    data = [{**asdict(line), "code": int(line.code)} for line in lines]
    return Listing(("CHECK", "", "FOUND", "WHAT TO DO"), rows, data=data)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed() -> Iterator[Line]:
    """Check which extras are installed."""
    yield Line("ugen-provider", "ok", f"{__version__} on Python {platform.python_version()}, {platform.system()}")
    for extra, packages in EXTRAS.items():
        found = {package: _version_of(package) for package in packages}
        yield extra_line(extra, found)


def extra_line(extra: str, found: Mapping[str, str | None]) -> Line:
    """Check that the packages of one extra are installed.

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
        if str(error).startswith("no API key"):
            yield Line("key", "wrong", "no API key is set", next_step(error), exit_of(error))
        else:
            yield Line("settings", "wrong", str(error), "correct it", exit_of(error))
        return
    yield Line("key from", "ok", chosen.source if chosen.profile.api_key is not None else "the prompt")
    yield Line("base URL", "ok", settings.base_url)
    if settings.spending != "allow":
        yield Line("spending", "note", settings.spending, "nothing is bought until it is `allow`")


def _service(session: Session, *, save: bool) -> Iterator[Line]:
    try:
        with session.client() as client:
            diagnosis = client.diagnose()
    except UGenError as error:
        yield Line("reachable", "wrong", redact_text(str(error)), next_step(error), exit_of(error))
        return
    findings = diagnosis.findings
    yield from (line_of(finding) for finding in findings)
    if any(finding.name == "key" and finding.holds for finding in findings):
        yield Line(
            "limits",
            "ok",
            "the service reports its limits of concurrent and daily jobs only by 429",
            "`ugen feed run` adapts to them; --in-flight sets a lower limit",
        )
    verdicts = Counter(row.verdict for row in diagnosis.rows)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    if counted:
        verdict: Verdict = "note" if verdicts["contradicted"] else "ok"
        yield Line("service profile", verdict, f"{counted}; the rows follow", "the rest shows with the first jobs")
    yield from (row_line(row) for row in diagnosis.rows)
    if diagnosis.profile:
        yield _found_rows(session, diagnosis.profile, save=save)


def row_line(row: RowFinding) -> Line:
    """Return what was found of one row of the service profile as a line."""
    seen = f"{row.verdict}: {row.seen}" if row.seen else row.verdict
    advice = f"see service_profile.{row.row} in docs/explain/assumptions.md" if row.verdict == "contradicted" else ""
    return Line(f"profile.{row.row}", "note" if row.verdict == "contradicted" else "ok", redact_text(seen), advice)


def _found_rows(session: Session, rows: Mapping[str, Any], *, save: bool) -> Line:
    shown = json.dumps(rows, ensure_ascii=False)
    if not save:
        advice = "`ugen doctor --save` writes it into the profile; connections and resources take it as service_profile"
        return Line("service profile", "note", shown, advice)
    try:
        path = save_rows(session, rows)
    except (ConfigError, OSError) as error:
        return Line("service profile", "wrong", str(error), f"write it yourself: {shown}", ExitCode.TROUBLE)
    return Line("service profile", "ok", f"{shown} was written into {path}", "run `ugen doctor` again")


def save_rows(session: Session, rows: Mapping[str, Any]) -> Path:
    """Add rows to the profile in use, in the configuration file.

    Raises:
        ConfigError: No profile is in use, or it holds rows already.
        OSError: The file cannot be written.
    """
    config = read_config(session.surroundings.environ)
    name = session.chosen.profile.name
    if name not in config.profiles:
        raise ConfigError("no profile of the configuration file is in use")
    if config.profiles[name].service_profile.as_dict():
        raise ConfigError(f"profile {name!r} has a service_profile already")
    lines = ["", f"[profiles.{json.dumps(name)}.service_profile]"]
    for row, value in rows.items():
        if isinstance(value, Mapping):
            pairs = ", ".join(f"{json.dumps(word)} = {json.dumps(meaning)}" for word, meaning in value.items())
            lines.append(f"{row} = {{ {pairs} }}")
        else:
            lines.append(f"{row} = {json.dumps(value)}")
    with config.path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return config.path


_WRONG: Mapping[str, ExitCode] = {
    "a_purchase": ExitCode.TROUBLE,
    "balance_readable": ExitCode.TROUBLE,
    "jobs_readable": ExitCode.TROUBLE,
    "key": ExitCode.REFUSED,
    "reachable": ExitCode.TROUBLE,
    "balance": ExitCode.NO_CREDITS,
    "clock": ExitCode.TROUBLE,
}
"""Checks without which nothing works; the others concern single features."""


def line_of(finding: Finding) -> Line:
    """Return a finding of `client.diagnose()` as a line.

    Examples:
        >>> from ugen_provider.core.api.diagnostics import Finding
        >>> line_of(Finding("balance", False, "0 credits available", "buy credits before you start")).code
        <ExitCode.NO_CREDITS: 4>
    """
    name = finding.name.replace("_", " ")
    seen = redact_text(finding.seen)
    if finding.holds:
        return Line(name, "ok", seen, finding.means)
    if finding.holds is None or finding.name not in _WRONG:
        return Line(name, "note", seen, finding.means)
    return Line(name, "wrong", seen, finding.means, _WRONG[finding.name])


_RECONCILER_SILENCE = 3600.0


def _ledger(session: Session) -> Iterator[Line]:
    from ugen_provider.core.ledger.store import Ledger

    try:
        choice = session.ledger_choice(None)
    except ConfigError:
        return  # reported above
    named = f" ({choice.source})" if choice.source else " (default)"
    if choice.is_default and not Path(choice.address).exists():
        folder = next(parent for parent in Path(choice.address).absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free
        yield Line(
            "ledger",
            "ok",
            f"{choice.shown}{named} is created by the first purchase; {free / 1e9:,.1f} GB are free",
            "`ugen feed run` needs a named ledger: ugen ledger init PATH|URL",
        )
        yield from _disk(choice)
        return
    try:
        with Ledger(choice.address, expected_id=choice.expected_id) as opened:
            names = ", ".join(sorted({catalogue.name for catalogue in opened.catalogues()})) or "none"
            yield Line("ledger", "ok", f"{choice.shown}{named}: id {opened.ledger_id}, catalogs {names}")
            yield from _disk(choice)
            yield from _reconciler(opened)
    except (UGenError, OSError) as error:
        yield Line("ledger", "wrong", str(error), "--ledger or UGEN_LEDGER names another one", exit_of(error))


def _disk(choice: LedgerChoice) -> Iterator[Line]:
    """Check the kind of disk that the ledger's file is on."""
    from ugen_provider.core.ledger.database import ephemeral_filesystem_of, filesystem_of, sqlite_file

    file = sqlite_file(choice.address)
    if file is None:
        yield Line("ledger disk", "ok", "PostgreSQL: several machines can share it")
        return
    kind = filesystem_of(next(parent for parent in file.parents if parent.exists())) or "unknown file system"
    if ephemeral_filesystem_of(file):
        advice = f"purchases recorded there are lost with the container: mount a volume at {file.parent}"
        yield Line("ledger disk", "note", kind, advice)
    else:
        yield Line("ledger disk", "ok", f"{kind}: one machine can use it")


def _reconciler(ledger: Ledger) -> Iterator[Line]:
    """Check that a reconciler runs, and since when cancels are owed."""
    from ugen_provider.core.jobs.reconciler import LEASE
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.core.ledger.store import last_taken

    now = ledger.now()
    owed = [action for action in LedgerOrderStore(ledger).owed_actions(now=now) if action.kind != "collect"]
    yield reconciler_line(now=now, last_run=last_taken(ledger, LEASE), owed_since=[action.at for action in owed])


def reconciler_line(*, now: float, last_run: float | None, owed_since: Sequence[float]) -> Line:
    """Judge when the ledger's reconciler ran last.

    Args:
        now: Seconds since the epoch.
        last_run: When it ran last; None for never.
        owed_since: When each cancel that is owed was recorded.

    Examples:
        >>> reconciler_line(now=10_000.0, last_run=9_000.0, owed_since=[]).verdict
        'ok'
        >>> reconciler_line(now=10_000.0, last_run=None, owed_since=[9_000.0]).seen
        'no reconciler has run; 1 cancel is owed since 1970-01-01 02:30:00Z'
    """
    ran = "no reconciler has run" if last_run is None else f"last run {_utc(last_run)}"
    owed = ""
    if owed_since:
        verb = "cancel is" if len(owed_since) == 1 else "cancels are"
        owed = f"; {len(owed_since)} {verb} owed since {_utc(min(owed_since))}"
    silent = last_run is None or now - last_run > _RECONCILER_SILENCE
    if not silent:
        return Line("reconciler", "ok", ran + owed)
    advice = "run `ugen reconcile`, or on a schedule `ugen reconcile --watch`"
    return Line("reconciler", "note", ran + owed, advice)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
