# SPDX-License-Identifier: Apache-2.0
"""Profiles: `config.toml` in the user's configuration folder, and how they and the environment become settings.

The key comes from the environment, from this file, which nobody else may read, or from a prompt; never from an
argument, which every user of the machine could see.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.secrets import Secret

CONFIG_NAME = "config.toml"
_TEXTS = ("api_key", "base_url", "video_model", "namespace", "spending", "ledger")


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings under a name; None leaves them to the environment or the defaults.

    Attributes:
        name: What it is called.
        api_key: The key; never shown.
        base_url: Address of the API.
        video_model: The model of requests that name none.
        namespace: Keeps the orders of two environments apart that share one account.
        spending: `allow`, `attach_only` or `off`.
        ledger: Path or URL of the ledger of its feeds.
        allow_insecure: Whether the key may travel over plain http to another machine.
    """

    name: str
    api_key: Secret | None = None
    base_url: str | None = None
    video_model: str | None = None
    namespace: str | None = None
    spending: str | None = None
    ledger: str | None = None
    allow_insecure: bool = False


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What the file says.

    Attributes:
        path: Where it is, or would be.
        there: Whether it is there.
        default: The profile where none is named.
        profiles: All of them.
    """

    path: Path
    there: bool
    default: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)


def config_folder(environ: Mapping[str, str]) -> Path:
    """Where the configuration lives: `~/.config/ugen`, or below `XDG_CONFIG_HOME`."""
    return Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config", "ugen")


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where ledgers and orders live: `~/.local/share/ugen`, or below `XDG_DATA_HOME`."""
    return Path(environ.get("XDG_DATA_HOME") or _home(environ) / ".local" / "share", "ugen")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def read_config(environ: Mapping[str, str]) -> ConfigFile:
    """Read the file.

    Raises:
        ConfigError: It cannot be read, says something that there is not, or holds a key that others can read.
    """
    path = config_folder(environ) / CONFIG_NAME
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            written = tomllib.load(file)
    except FileNotFoundError:
        return ConfigFile(path, there=False)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        made = parse_config(path, written)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if mode & 0o077 and any(profile.api_key is not None for profile in made.profiles.values()):
        raise ConfigError(f"{path} holds an API key and others may read it (mode {mode:03o}): chmod 600 {path}")
    return made


def parse_config(path: Path, written: Mapping[str, Any]) -> ConfigFile:
    """The file's content as values.

    Raises:
        ConfigError: It says something that there is not.
    """
    if unknown := sorted(set(written) - {"default", "profiles"}):
        raise ConfigError(f"{unknown[0]}: is unknown; there are `default` and a table [profiles.NAME] per profile")
    tables = written.get("profiles", {})
    if not isinstance(tables, Mapping):
        raise ConfigError("profiles: write a table [profiles.NAME] per profile")
    profiles = {name: _profile(name, table) for name, table in tables.items()}
    default = written.get("default")
    if default is not None and default not in profiles:
        raise ConfigError(f"default: there is no profile {default!r}; there are {_names(profiles)}")
    return ConfigFile(path, there=True, default=default, profiles=profiles)


def _profile(name: str, table: Any) -> Profile:
    if not isinstance(table, Mapping):
        raise ConfigError(f"profiles.{name}: must be a table")
    known = (*_TEXTS, "allow_insecure")
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"profiles.{name}.{unknown[0]}: is unknown; there are {', '.join(known)}")
    texts: dict[str, str] = {}
    for key in _TEXTS:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ConfigError(f"profiles.{name}.{key}: must be a text")
        if value is not None:
            texts[key] = value.strip()
    insecure = table.get("allow_insecure", False)
    if not isinstance(insecure, bool):
        raise ConfigError(f"profiles.{name}.allow_insecure: must be true or false")
    secret = texts.pop("api_key", None)
    return Profile(name, api_key=Secret(secret) if secret else None, allow_insecure=insecure, **texts)


def _names(profiles: Mapping[str, Profile]) -> str:
    return ", ".join(sorted(profiles)) or "none"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The settings that count, and where the key comes from.

    Attributes:
        profile: The settings; a key that is None has to be asked for.
        source: Where the key comes from, or should, in words.
    """

    profile: Profile
    source: str


def choose(config: ConfigFile, *, named: str | None, environ: Mapping[str, str]) -> Chosen:
    """Settle file against environment.

    A profile that was named goes before the environment. Without one, `UGEN_API_KEY` and `UGEN_BASE_URL` go before
    the file's default profile, and they go together: a key is never sent to an address that another source gave
    beside a key of its own.

    Args:
        config: The file.
        named: The profile that was asked for, by `--profile` or `UGEN_PROFILE`.
        environ: The environment.

    Raises:
        ConfigError: There is no profile of that name.
    """
    wanted = named or environ.get("UGEN_PROFILE") or None
    if wanted is not None and wanted not in config.profiles:
        raise ConfigError(f"there is no profile {wanted!r} in {config.path}; there are {_names(config.profiles)}")
    name = wanted or config.default
    base = config.profiles[name] if name is not None else Profile("")
    key = (environ.get("UGEN_API_KEY") or "").strip()
    url = environ.get("UGEN_BASE_URL") or None
    spending, ledger = environ.get("UGEN_SPENDING") or None, environ.get("UGEN_LEDGER") or None
    from_file = base.api_key is not None and (wanted is not None or not key)
    if from_file:
        api_key, base_url = base.api_key, base.base_url
        source = f"profile {base.name!r} in {config.path}"
    else:
        api_key = Secret(key) if key else None
        base_url = (base.base_url or url) if wanted is not None else (url or (None if base.api_key else base.base_url))
        source = "the environment variable UGEN_API_KEY" if key else f"api_key in a profile of {config.path}"
    if wanted is not None:
        spending, ledger = base.spending or spending, base.ledger or ledger
    else:
        spending, ledger = spending or base.spending, ledger or base.ledger
    settled = Profile(
        base.name,
        api_key=api_key,
        base_url=base_url,
        video_model=base.video_model,
        namespace=base.namespace,
        spending=spending,
        ledger=ledger,
        allow_insecure=base.allow_insecure,
    )
    return Chosen(settled, source)
