# SPDX-License-Identifier: Apache-2.0
"""`ugen init` and `ugen login`: the first two commands. Both are free, and neither overwrites a file.

Allowed here: what a newcomer needs once. Settings themselves are read in `cli.session`.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Template

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.printer import Sheet
from ugen_provider.cli.session import ConfigFile, Session, read_config
from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import AuthenticationError, ConfigError, UGenError

_SAMPLE = {"product_name": "Estimate only", "product_image_url": "https://example.com/estimate.jpg"}
_DEFAULT_NAME = "default"


# The key.


@command("login", examples=("ugen login", "ugen login --profile staging < key.txt"))
@click.option("--base-url", metavar="URL", help="Address of the API, stored with the key; default: UGEN_BASE_URL.")
@click.option("--replace", is_flag=True, help="Replace the key that the profile has.")
@click.option("--segment-count", type=click.IntRange(1, 10), default=2, show_default=True, metavar="N",
              help="Segments of the video whose cost is shown.")  # fmt: skip
def login_command(session: Session, *, base_url: str | None, replace: bool, segment_count: int) -> None:
    """Ask for an API key, check it, and store it in a profile of the configuration file (mode 600). Free.

    The key is typed at a hidden prompt, or comes from the standard input; it is never an argument. It is checked by
    `GET /credits/balance` before it is stored, and the cost of a first video is shown.
    """
    environ = session.surroundings.environ
    config = read_config(environ)
    name = session.named or environ.get("UGEN_PROFILE") or config.default or _DEFAULT_NAME
    known = config.profiles.get(name)
    address = base_url or (known.base_url if known is not None else None) or environ.get("UGEN_BASE_URL") or None
    key = _typed_key()
    facts, data = _checked(session, key, base_url=address, segment_count=segment_count)
    older = known.api_key if known is not None else None
    is_other = older is not None and older.reveal() != key.reveal()
    if is_other and not (replace or _agreed(f"Profile {name!r} has another key. Replace it?")):
        raise CommandFailedError(
            f"profile {name!r} in {config.path} has another key; nothing was stored",
            code=ExitCode.USAGE,
            advice="--replace replaces it; --profile NAME stores this one under another name",
            kind="other_key",
        )
    entries = {"api_key": key.reveal(), **({"base_url": address} if address else {})}
    store_profile(config, name, entries)
    shown = [("profile", f"{name} in {config.path}"), *facts]
    session.out.show(Sheet(shown, data={"profile": name, "file": str(config.path), **data}))
    if environ.get("UGEN_API_KEY"):
        session.out.note("Note: UGEN_API_KEY is set and is used before the default profile; --profile names this one")
    session.out.note("Next: ugen init, or ugen feed check FEED --segment-count 2")


def _typed_key() -> Secret:
    """Read the key from a hidden prompt, or from the first line of the standard input."""
    if sys.stdin.isatty():
        typed = str(click.prompt("U-Gen API key", hide_input=True, err=True))
    else:
        typed = sys.stdin.readline()
    if not typed.strip():
        raise CommandFailedError(
            "no key was given; nothing was stored",
            code=ExitCode.USAGE,
            advice="type it at the prompt, or give it on the standard input: ugen login < key.txt",
            kind="no_key",
        )
    return Secret(typed.strip())


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and click.confirm(question, err=True)


def _checked(
    session: Session, key: Secret, *, base_url: str | None, segment_count: int
) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """Check a key by free calls; return the balance and the first estimate as facts and as data.

    Raises:
        CommandFailedError: The service refuses the key.
        UGenError: The service cannot be asked, or an address is invalid.
    """
    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.config import resolve
    from ugen_provider.core.api.models import CreateJob

    config = resolve(api_key=key, base_url=base_url, source="the prompt", environ={})
    with UGenClient(config=config, clock=session.clock) as client:
        try:
            available = client.credits.balance().available_credits
        except AuthenticationError as error:
            raise CommandFailedError(
                f"{config.base_url} refused the key; nothing was stored ({error})",
                code=ExitCode.REFUSED,
                advice="copy the key again, whole; keys are made in the U-Gen dashboard",
                kind=type(error).__name__,
            ) from None
        try:
            job = CreateJob.model_validate({**_SAMPLE, "segment_count": segment_count})
            cost: int | None = client.credits.estimate(job).total_credits
        except UGenError:
            cost = None  # an estimate is no condition for a key
    facts = [("service", config.base_url), ("available", f"{available:,} credits")]
    if cost:
        enough = f"{available // cost:,} such videos" if available >= cost else "no such video: buy credits first"
        facts.append((f"a video of {segment_count} segments", f"{cost:,} credits; the balance is enough for {enough}"))
    data = {"base_url": config.base_url, "available_credits": available, "segment_count": segment_count}
    return facts, {**data, "estimated_credits": cost}


def store_profile(config: ConfigFile, name: str, entries: Mapping[str, str]) -> None:
    """Write entries of a profile into the configuration file; all else in it stays, comments too.

    The file is replaced as a whole, and only its owner can read it (mode 600). A new file names the profile as its
    default.

    Args:
        config: The file as it was read.
        name: The profile.
        entries: Its entries.

    Raises:
        ConfigError: The file is written in a form that cannot be edited safely.
        OSError: The file cannot be written.
    """
    text = config.path.read_text("utf-8") if config.there else f"default = {json.dumps(name)}\n"
    changed = with_entries(text, name, entries)
    wanted = tomllib.loads(text)
    wanted.setdefault("profiles", {}).setdefault(name, {}).update(entries)
    try:
        is_right = tomllib.loads(changed) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        names = ", ".join(entries)
        raise ConfigError(f"{config.path} is written in a form that cannot be edited here: write {names} into it")
    config.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = config.path.with_name(f".{config.path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(changed)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(config.path)
    finally:
        beside.unlink(missing_ok=True)


def with_entries(text: str, name: str, entries: Mapping[str, str]) -> str:
    r"""Return the text of a configuration file with entries of a profile set.

    Examples:
        >>> print(with_entries('[profiles.shop]\nnamespace = "a"\n', "shop", {"api_key": "k"}))
        [profiles.shop]
        api_key = "k"
        namespace = "a"
        <BLANKLINE>
    """
    lines = text.splitlines()
    heads = {f"[profiles.{name}]", f"[profiles.{json.dumps(name)}]"}
    start = next((place for place, line in enumerate(lines) if line.split("#")[0].strip() in heads), None)
    written = [f"{entry} = {json.dumps(value)}" for entry, value in entries.items()]
    if start is None:
        head = f"[profiles.{json.dumps(name)}]"
        return "\n".join([*lines, *([""] if lines else []), head, *written]) + "\n"
    end = next((place for place in range(start + 1, len(lines)) if lines[place].lstrip().startswith("[")), len(lines))
    kept = [line for line in lines[start + 1 : end] if line.partition("=")[0].strip() not in entries]
    return "\n".join([*lines[: start + 1], *written, *kept, *lines[end:]]) + "\n"


# The starter.

_PYTHON = '''"""Buy the videos of new and changed products, within a budget. Run it again: it buys nothing twice."""

from datetime import date

from ugen_provider.core.api.config import resolve
from ugen_provider.core.batch import Budget, FeedRun, run_feed
from ugen_provider.core.batch.spec import Outputs
from ugen_provider.ledger import Ledger

run = FeedRun(
    $feed,
    catalogue=$catalogue,
    run_id=date.today().isoformat(),  # the same name continues a run
    job_defaults={"segment_count": $segments},
    budget=Budget(credits=$budget),
    outputs=Outputs("videos", allow_private=$local),
)
with Ledger("videos.db") as ledger:
    report = run_feed(run, config=resolve(), ledger=ledger)
print(report.table())
'''
_AIRFLOW = '''"""Buy the videos of the new and changed products of a feed every night, within a budget."""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG

from ugen_provider.operators.feeds import UGenCreateJobsFromFeedOperator

with DAG(
    $dag_id,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
) as dag:
    UGenCreateJobsFromFeedOperator(
        task_id="make_videos",
        feed=$feed,
        catalogue=$catalogue,
        ledger_conn_id="ugen_ledger",
        budget=$budget,
        job_defaults={"segment_count": $segments},
        output_path=str(Path(__file__).parent / "videos"),
        deferrable=True,
    )
'''
_DAGSTER = '''"""A product feed becomes videos: one partition per product. Run one again: nothing is bought twice."""

import dagster as dg

from dagster_ugen import FeedRequests, UGenResource, build_ugen_assets

feed = FeedRequests($feed, job_defaults={"segment_count": $segments})

defs = dg.Definitions(
    assets=build_ugen_assets(
        requests=feed,
        partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products"),
        destination="videos",
    ),
    resources={
        "ugen": UGenResource(
            api_key=dg.EnvVar("UGEN_API_KEY"),
            base_url=$base_url,
            ledger="videos.db",
            daily_budget=$budget,
        )
    },
)
'''
_PARTITIONS = '''"""Add a partition for each product of the feed."""

import dagster as dg
from definitions import feed

from dagster_ugen import sync_product_partitions

synced = sync_product_partitions(dg.DagsterInstance.get(), feed, name="ugen_products")
print(f"{synced.added} new products, {synced.rejected_count} rows refused")
'''
STARTERS: Mapping[str, Mapping[str, str]] = {
    "airflow": {"ugen_videos.py": _AIRFLOW},
    "dagster": {"definitions.py": _DAGSTER, "add_partitions.py": _PARTITIONS},
    "python": {"make_videos.py": _PYTHON},
}
"""The files of each starter."""

_NEXT = {
    "airflow": (
        'export AIRFLOW_CONN_UGEN_DEFAULT=\'{"conn_type": "ugen", "password": "YOUR_API_KEY"}\'',
        'export AIRFLOW_CONN_UGEN_LEDGER=\'{"conn_type": "sqlite", "host": "$ledger"}\'',
        "copy ugen_videos.py into your DAGs folder",
    ),
    "dagster": (
        "export UGEN_API_KEY=YOUR_API_KEY DAGSTER_HOME=$folder/dagster_home && mkdir -p $folder/dagster_home",
        "cd $folder && python add_partitions.py && dagster dev -f definitions.py",
    ),
    "python": ("export UGEN_API_KEY=YOUR_API_KEY", "cd $folder && python make_videos.py"),
}


@command(
    "init",
    examples=(
        "ugen init videos --for python --feed feed.xml",
        "ugen init videos --for dagster --feed https://shop.example/feed.csv --segment-count 2 --budget 500",
        "ugen init dags --for airflow --feed feed.xml --profile staging",
    ),
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("ugen-videos"))
@click.option("--for", "kind", type=click.Choice(tuple(STARTERS)), help="What runs the pipeline.")
@click.option("--feed", metavar="PATH|URL", help="Your product feed; an empty one takes a feed of five examples.")
@click.option("--catalogue", metavar="CATALOG", default="shop", show_default=True, help="Name of the catalog.")
@click.option("--segment-count", type=click.IntRange(1, 10), metavar="N", help="Segments of each video.")
@click.option("--budget", type=click.IntRange(min=0), help="Credits that a night may spend.")
@click.option("--allow-ephemeral", is_flag=True, help="Accept a ledger on a disk that is lost with the container.")
def init_command(
    session: Session,
    *,
    folder: Path,
    kind: str | None,
    feed: str | None,
    catalogue: str,
    segment_count: int | None,
    budget: int | None,
    allow_ephemeral: bool,
) -> None:
    """Write a starter into FOLDER: a DAG, a Dagster project or a Python script, with a ledger and a profile. Free.

    On a terminal it asks for what is not given. It never overwrites: if one of the files exists, nothing is written.
    The profile gets the address of the ledger; `ugen login` adds the key.
    """
    kind = kind or _asked("What runs the pipeline?", option="--for", choices=tuple(STARTERS))
    if feed is None:
        feed = _asked("Product feed (path or URL; empty for an example)", option="--feed", default="")
    segments = segment_count or int(_asked("Segments of each video", option="--segment-count", default="1"))
    credits_ = budget if budget is not None else int(_asked("Credits a night", option="--budget", default="500"))
    folder = folder.absolute()
    ledger = folder / "videos.db"
    environ = session.surroundings.environ
    config = read_config(environ)
    name = session.named or config.default or _DEFAULT_NAME
    base_url = session.chosen.profile.base_url if session.named is None else _base_url_of(config, name)
    is_local = base_url is not None and any(host in base_url for host in ("//127.", "//localhost", "//[::1]"))
    values = {
        "feed": json.dumps(_feed_address(feed, folder)),
        "catalogue": json.dumps(catalogue),
        "dag_id": json.dumps(f"{catalogue}_videos"),
        "segments": str(segments),
        "budget": str(credits_),
        "base_url": "None" if base_url is None else json.dumps(base_url),
        "local": str(is_local),
    }
    texts = {folder / file: Template(text).substitute(values) for file, text in STARTERS[kind].items()}
    if not feed:
        texts[folder / "feed.xml"] = _example_feed()
    _require_none_exists([*texts, ledger])
    _write_starter(texts, ledger, allow_ephemeral=allow_ephemeral)
    has_profile = name in config.profiles
    if not has_profile:
        store_profile(config, name, {"ledger": str(ledger), **({"base_url": base_url} if base_url else {})})
    written = [*map(str, texts), str(ledger)]
    following = [Template(line).safe_substitute(folder=folder, ledger=ledger) for line in _NEXT[kind]]
    profile = f"{name} in {config.path}" + (" (unchanged)" if has_profile else "")
    facts = [*(("written", path) for path in written), ("profile", profile)]
    data = {"written": written, "profile": name, "file": str(config.path), "ledger": str(ledger), "next": following}
    session.out.show(Sheet(facts, data=data))
    if not has_profile or config.profiles[name].api_key is None:
        login = "ugen login" if session.named is None else f"ugen login --profile {name}"
        session.out.note(f"Next: {login}    # checks your API key and stores it")
    if not session.out.as_json:
        for line in following:
            session.out.note(f"Next: {line}")


def _asked(question: str, *, option: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
    """Ask on a terminal; elsewhere take the default.

    Raises:
        click.UsageError: There is neither a terminal nor a default.
    """
    if sys.stdin.isatty() and sys.stderr.isatty():
        kind = click.Choice(choices) if choices else None
        return str(click.prompt(question, type=kind, default=default, err=True))
    if default is None:
        raise click.UsageError(f"give {option}: {', '.join(choices)}")
    return default


def _base_url_of(config: ConfigFile, name: str) -> str | None:
    profile = config.profiles.get(name)
    return None if profile is None else profile.base_url


def _feed_address(feed: str, folder: Path) -> str:
    if not feed:
        return str(folder / "feed.xml")
    return feed if "://" in feed else str(Path(feed).expanduser().absolute())


def _example_feed() -> str:
    from ugen_provider.cli.demo.sides import demo_parts

    return demo_parts().feed.read_text("utf-8")


def _require_none_exists(paths: list[Path]) -> None:
    """Refuse to overwrite.

    Raises:
        CommandFailedError: One of the files exists.
    """
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise CommandFailedError(
            f"{', '.join(existing)} exists already; nothing was written",
            code=ExitCode.USAGE,
            advice="name another FOLDER: ugen init FOLDER",
            kind="exists",
        )


def _write_starter(texts: Mapping[Path, str], ledger: Path, *, allow_ephemeral: bool) -> None:
    """Write the files and create the ledger: all, or none."""
    from ugen_provider.core.ledger.store import Ledger

    ledger.parent.mkdir(parents=True, exist_ok=True)
    Ledger.init(str(ledger), allow_ephemeral=allow_ephemeral).close()
    done: list[Path] = []
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                done.append(path)
                file.write(text)
    except BaseException:
        for path in [*done, ledger]:
            path.unlink(missing_ok=True)
        raise
