# SPDX-License-Identifier: Apache-2.0
"""The command `ugen emulator`, also `python -m ugen_provider.emulator`. Heavy imports wait until it runs."""

import json
from pathlib import Path
from typing import Any

import click


def needs_extra(error: ModuleNotFoundError) -> str:
    """Return one sentence that names a missing package and its extra.

    Examples:
        >>> needs_extra(ModuleNotFoundError(name="uvicorn"))
        "the local U-Gen needs the package uvicorn: pip install 'ugen-provider[emulator]'"
    """
    return f"the local U-Gen needs the package {error.name}: pip install 'ugen-provider[emulator]'"


@click.command("emulator", context_settings={"auto_envvar_prefix": "UGEN_EMULATOR"})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--seed", default=7, show_default=True, help="Same seed, same ids, scores and durations.")
@click.option(
    "--speed",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Emulated seconds a real second; 1 is real time, 0 a clock moved by hand.",
)
@click.option(
    "--tick",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that each API request moves the clock; with --speed 0, pollers make the time.",
)
@click.option("--db", default=":memory:", show_default=True, help="SQLite file that survives a restart.")
@click.option("--admin/--no-admin", default=False, show_default=True, help="Whether /_emulator answers.")
@click.option("--admin-anywhere", is_flag=True, help="Allow --admin on an address that is not loopback.")
@click.option("--reading", "readings", multiple=True, metavar="NAME=VALUE", help="Turn a switch; may be repeated.")
@click.option(
    "--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON file of fault rules."
)
@click.option("--public-url", help="Start of URLs in answers, if clients see the emulator at another address.")
@click.option(
    "--key-window",
    type=click.FloatRange(min=0),
    help="Seconds of its clock for which an idempotency key is remembered.  [default: 24 h, at least 10 real minutes]",
)
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of a service profile, as `ugen doctor --save` writes it: the service to be.",
)
@click.option("--insecure-webhooks", is_flag=True, help="Allow plain http webhooks beyond loopback.")
@click.option("--credits", default=10_000_000, show_default=True, type=click.IntRange(min=0), help="Opening balance.")
@click.option("--concurrent-jobs", type=click.IntRange(min=1), help="Most active jobs at once.")
@click.option("--daily-jobs", type=click.IntRange(min=1), help="Most jobs created in a day.")
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    metavar="NAME=KEY",
    help="A further account with its key; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as a line of JSON.")
def emulator_command(
    *,
    host: str,
    port: int,
    seed: int,
    speed: float,
    tick: float,
    db: str,
    admin: bool,
    admin_anywhere: bool,
    readings: tuple[str, ...],
    faults: Path | None,
    public_url: str | None,
    key_window: float | None,
    profile: Path | None,
    insecure_webhooks: bool,
    credits: int,  # noqa: A002 - the name of the option
    concurrent_jobs: int | None,
    daily_jobs: int | None,
    tenants: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a local U-Gen: the whole API, with the key ugen_sk_local and plenty of credits.

    The first line of output says where it listens; clients take that address plus /api/v1 as base URL, people look at
    it in a browser. Each option can be given in the environment too: UGEN_EMULATOR_PORT for --port.
    """
    try:
        from ugen_provider.emulator.server import EmulatorServer
    except ModuleNotFoundError as error:
        raise Trouble(needs_extra(error)) from None
    from ugen_provider.emulator.settings import LOCAL_KEY, Settings, TenantSettings
    from ugen_provider.emulator.world.readings import Readings, from_texts
    from ugen_provider.emulator.world.store import UnusableFileError

    limits: dict[str, Any] = {
        "credits": credits,
        "concurrent_jobs": concurrent_jobs,
        "daily_jobs": daily_jobs,
    }
    accounts = [TenantSettings(**limits)]
    for text in tenants:
        name, equals, key = text.partition("=")
        if not (name and equals and key):
            raise click.UsageError(f"write --tenant as NAME=KEY, not {text!r}")
        accounts.append(TenantSettings(name=name, api_keys=(key,), bearer_tokens=(), **limits))
    try:
        settings = Settings(
            seed=seed,
            speed=speed,
            tick=tick,
            key_window=key_window,
            insecure_webhooks=insecure_webhooks,
            db=db,
            admin=admin,
            admin_anywhere=admin_anywhere,
            readings=Readings().with_values(from_texts(readings)),
            tenants=tuple(accounts),
            public_url=public_url.rstrip("/") if public_url else None,
            faults=tuple(json.loads(faults.read_text("utf-8"))) if faults else (),
            profile=_profile_in(profile) if profile else {},
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise Trouble(str(error)) from None
    try:
        server = EmulatorServer(settings, host=host, port=port)
    except UnusableFileError as error:
        raise Trouble(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise Trouble(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; --port 0 takes a free one"
        ) from None
    started = {"url": server.url, "base_url": server.base_url, "api_key": LOCAL_KEY}
    line = f"U-Gen emulator listening on {server.url} (base_url {server.base_url}, API key {LOCAL_KEY})"
    server.run(lambda: click.echo(json.dumps(started) if as_json else line))


def _profile_in(path: Path) -> dict[str, Any]:
    """Read a service profile.

    Raises:
        ValueError: The file holds none.
    """
    rows = json.loads(path.read_text("utf-8"))
    if not isinstance(rows, dict):
        raise ValueError(f"{path} is no profile: it holds no JSON object")  # noqa: TRY004  a usage error
    return rows


class Trouble(click.ClickException):
    """Something on this machine is in the way; the exit code is that of `ugen` for it."""

    exit_code = 6
