# SPDX-License-Identifier: Apache-2.0
"""The session of a command: profiles and settings, clients, the ledger, a printer, and the user's folders.

The key comes from the environment, from `config.toml`, which no other user may read, or from a prompt; never from an
argument, which every user of the machine could see.
"""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ugen_provider.cli.printer import Printer
from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.profile import DEFAULT_PROFILE, ServiceProfile
from ugen_provider.core.text import without_passwords

if TYPE_CHECKING:
    from ugen_provider.core.api.async_client import AsyncUGenClient
    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.clock import Clock
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.core.ledger.store import Ledger

CONFIG_NAME = "config.toml"
_TEXTS = ("api_key", "base_url", "video_model", "namespace", "spending", "ledger", "ledger_id")


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings under a name; None leaves them to the environment or the defaults.

    Attributes:
        name: Its name.
        api_key: The key; never shown.
        base_url: Address of the API.
        video_model: The model of requests that name none.
        namespace: Keeps the orders of two environments of one account apart.
        spending: `allow`, `reuse_only` or `off`.
        ledger: Path or URL of the ledger.
        ledger_id: The id that the ledger must have; another ledger is refused.
        allow_insecure: Whether the key may travel over plain http to another machine.
        service_profile: Where the service differs from its documentation, as `ugen doctor --save` writes it.
    """

    name: str
    api_key: Secret | None = None
    base_url: str | None = None
    video_model: str | None = None
    namespace: str | None = None
    spending: str | None = None
    ledger: str | None = field(default=None, repr=False)
    ledger_id: str | None = None
    allow_insecure: bool = False
    service_profile: ServiceProfile = DEFAULT_PROFILE


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of the configuration file.

    Attributes:
        path: Its path, also if it does not exist.
        there: Whether it exists.
        default: The profile that is used if none is named.
        profiles: All profiles by name.
    """

    path: Path
    there: bool
    default: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the configuration: `~/.config/ugen`, or below `XDG_CONFIG_HOME`."""
    return Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config", "ugen")


def data_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's data folder, where the default ledger is: `~/.local/share/ugen`, or below `XDG_DATA_HOME`."""
    if sys.platform != "linux":
        from platformdirs import user_data_path

        return user_data_path("ugen")
    return Path(environ.get("XDG_DATA_HOME") or _home(environ) / ".local" / "share", "ugen")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def read_config(environ: Mapping[str, str]) -> ConfigFile:
    """Read the configuration file with its profiles.

    Raises:
        ConfigError: It cannot be read, has an unknown entry, or holds a key that others can read.
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
    if mode & 0o077 and any(_has_secret(profile) for profile in made.profiles.values()):
        raise ConfigError(
            f"{path} holds an API key or a password, and other users can read it (mode {mode:03o}): chmod 600 {path}"
        )
    return made


def _has_secret(profile: Profile) -> bool:
    """Return whether a profile holds an API key, or a ledger's address with a password."""
    ledger = profile.ledger or ""
    return profile.api_key is not None or without_passwords(ledger) != ledger


def parse_config(path: Path, written: Mapping[str, Any]) -> ConfigFile:
    """Parse the content of the configuration file.

    Raises:
        ConfigError: It has an unknown entry, or a value of the wrong type.
    """
    if unknown := sorted(set(written) - {"default", "profiles"}):
        raise ConfigError(
            f"{unknown[0]}: is unknown; the known entries are `default` and a table [profiles.NAME] per profile"
        )
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
    known = (*_TEXTS, "allow_insecure", "service_profile")
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"profiles.{name}.{unknown[0]}: is unknown; the known entries are {', '.join(known)}")
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
    try:
        service = ServiceProfile.of(table.get("service_profile"))
    except ConfigError as error:
        raise ConfigError(f"profiles.{name}.{error}") from None
    hidden = Secret(secret) if secret else None
    return Profile(name, api_key=hidden, allow_insecure=insecure, service_profile=service, **texts)


def _names(profiles: Mapping[str, Profile]) -> str:
    return ", ".join(sorted(profiles)) or "none"


@dataclass(frozen=True, slots=True)
class SettingsInUse:
    """The settings in use, and the source of the key.

    Attributes:
        profile: The settings; a key that is None has to be asked for.
        source: Where the key comes from, or should come from, in words.
        ledger_source: What names the ledger: `UGEN_LEDGER` or a profile; '' for the default ledger.
    """

    profile: Profile
    source: str
    ledger_source: str = ""


def choose(config: ConfigFile, *, named: str | None, environ: Mapping[str, str]) -> SettingsInUse:
    """Choose between file and environment.

    A named profile comes before the environment. Without one, `UGEN_API_KEY` and `UGEN_BASE_URL` come before the
    file's default profile, and they belong together: a key is never sent to an address that another source gives
    with its own key. `UGEN_LEDGER` and `UGEN_LEDGER_ID` belong together in the same way.

    Args:
        config: The file.
        named: The profile that `--profile` or `UGEN_PROFILE` names.
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
    spending = environ.get("UGEN_SPENDING") or None
    from_file = base.api_key is not None and (wanted is not None or not key)
    if from_file:
        api_key, base_url = base.api_key, base.base_url
        source = f"profile {base.name!r} in {config.path}"
    else:
        api_key = Secret(key) if key else None
        base_url = (base.base_url or url) if wanted is not None else (url or (None if base.api_key else base.base_url))
        source = "the environment variable UGEN_API_KEY" if key else f"api_key in a profile of {config.path}"
    spending = (base.spending or spending) if wanted is not None else (spending or base.spending)
    ledger, ledger_id, ledger_source = _choose_ledger(base, environ, profile_first=wanted is not None)
    chosen = Profile(
        base.name,
        api_key=api_key,
        base_url=base_url,
        video_model=base.video_model,
        namespace=base.namespace,
        spending=spending,
        ledger=ledger,
        ledger_id=ledger_id,
        allow_insecure=base.allow_insecure,
        service_profile=base.service_profile,
    )
    return SettingsInUse(chosen, source, ledger_source)


def _choose_ledger(
    base: Profile, environ: Mapping[str, str], *, profile_first: bool
) -> tuple[str | None, str | None, str]:
    """Choose the ledger's address, the id that it must have, and the source of both."""
    of_profile = (base.ledger, base.ledger_id, f"profile {base.name!r}")
    address = (environ.get("UGEN_LEDGER") or "").strip() or None
    of_environment = (address, environ.get("UGEN_LEDGER_ID") or None, "UGEN_LEDGER")
    sources = (of_profile, of_environment) if profile_first else (of_environment, of_profile)
    for address, ledger_id, source in sources:
        if address is not None:
            return address, ledger_id, source
    # The default file has no address to name, but it may have been replaced as well.
    return None, of_environment[1] or base.ledger_id, ""


@dataclass(frozen=True)
class Surroundings:
    """The environment and clock of a command; tests bring their own.

    Attributes:
        environ: The environment.
        clock: The clock; None is the machine's.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock | None = None


class Session:
    """Settings, clients and ledger of one command.

    Args:
        surroundings: The environment and the clock.
        profile: The profile that `--profile` names.
        as_json: Whether results are JSON.
        arguments: The command as it was called, to show how to continue.
    """

    def __init__(
        self, surroundings: Surroundings, *, profile: str | None, as_json: bool, arguments: tuple[str, ...]
    ) -> None:
        self.surroundings = surroundings
        self.arguments = arguments
        self.out = Printer(as_json=as_json)
        self.named = profile
        self._warned = False

    @cached_property
    def chosen(self) -> SettingsInUse:
        """Settings of the profile in use.

        Raises:
            ConfigError: The configuration file cannot be used.
        """
        environ = self.surroundings.environ
        return choose(read_config(environ), named=self.named, environ=environ)

    @cached_property
    def config(self) -> ClientConfig:
        """Checked settings of a client; on a terminal, a missing key is asked for.

        Raises:
            ConfigError: The key is missing, or a setting is invalid.
        """
        chosen = self.chosen
        if chosen.profile.api_key is None and sys.stdin.isatty() and sys.stderr.isatty():
            typed = click.prompt("U-Gen API key", hide_input=True, err=True)
            chosen = replace(chosen, profile=replace(chosen.profile, api_key=Secret(typed.strip())))
        return config_of(chosen)

    @property
    def clock(self) -> Clock:
        """Clock by which this command waits."""
        from ugen_provider.core.api.clock import SystemClock

        return self.surroundings.clock or SystemClock()

    def client(self) -> UGenClient:
        """Make a client; the caller closes it."""
        from ugen_provider.core.api.client import UGenClient

        return UGenClient(config=self.config, clock=self.clock)

    def async_client(self) -> AsyncUGenClient:
        """Make an async client; the caller closes it."""
        from ugen_provider.core.api.async_client import AsyncUGenClient

        return AsyncUGenClient(config=self.config, clock=self.clock)

    @property
    def namespace(self) -> str:
        """The namespace that begins every order key."""
        return self.chosen.profile.namespace or ""

    @property
    def data(self) -> Path:
        """The user's data folder, where the default ledger is."""
        return data_folder(self.surroundings.environ)

    # The ledger. Only its default file is created without being asked for.

    def ledger_choice(self, given: str | None) -> LedgerChoice:
        """Return which ledger a command uses: `--ledger`, `UGEN_LEDGER`, the profile's, or the default file."""
        if given is not None:
            if without_passwords(given) != given and not self._warned:
                self._warned = True
                self.out.note(
                    "Note: other users see a password in --ledger in the process list; set UGEN_LEDGER instead"
                )
            return LedgerChoice(given, "--ledger")
        profile, source = self.chosen.profile, self.chosen.ledger_source
        return LedgerChoice(profile.ledger or str(self.data / "ledger.db"), source, profile.ledger_id)

    def ledger(self, given: str | None) -> Ledger:
        """Open the ledger, and create the default file if that is used; the caller closes it.

        Raises:
            ConfigError: It does not exist, cannot be opened, has another id, or its disk is unsuitable.
            LedgerUnavailableError: Its server does not answer.
        """
        choice = self.ledger_choice(given)
        if choice.is_default and not Path(choice.address).exists():
            from ugen_provider.core.ledger.store import Ledger

            Path(choice.address).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            Ledger.init(choice.address, allow_ephemeral=True).close()
        return self._open(choice)

    def existing_ledger(self, given: str | None) -> Ledger:
        """Open the ledger to read it, without creating any; the caller closes it.

        Raises:
            ConfigError: It does not exist, cannot be opened, has another id, or its disk is unsuitable.
            LedgerUnavailableError: Its server does not answer.
        """
        return self._open(self.ledger_choice(given))

    def named_ledger(self, given: str | None) -> Ledger:
        """Open the ledger of a feed run, for which there is no default; the caller closes it.

        Raises:
            ConfigError: None is named, or as `existing_ledger`.
            LedgerUnavailableError: Its server does not answer.
        """
        choice = self.ledger_choice(given)
        if choice.is_default:
            raise ConfigError(
                "ledger: a feed run needs a named ledger, so that the next run finds the purchases of this one. Create "
                f"one with: ugen ledger init {self.data / 'shop.db'}; then name it by --ledger, UGEN_LEDGER or the "
                "profile's `ledger`"
            )
        return self._open(choice)

    def known_ledger(self, given: str | None) -> Ledger | None:
        """Open the ledger if there is one, for a note beside the work; the caller closes it.

        Returns:
            The ledger; None where there is no default file, or where the configured ledger cannot be opened, which is
            reported.

        Raises:
            ConfigError: The ledger of `--ledger` does not exist or cannot be opened.
            LedgerUnavailableError: The server of the ledger of `--ledger` does not answer.
        """
        from ugen_provider.core.ledger.errors import LedgerUnavailableError

        choice = self.ledger_choice(given)
        if choice.is_default and not Path(choice.address).exists():
            return None
        try:
            return self._open(choice)
        except (ConfigError, LedgerUnavailableError) as error:
            if given is not None:
                raise
            self.out.note(f"Warning: {error}. Continuing without the ledger")
            return None

    def _open(self, choice: LedgerChoice) -> Ledger:
        from ugen_provider.core.ledger.store import Ledger

        if choice.is_default:
            self._warn_if_ephemeral(Path(choice.address))
        return Ledger(choice.address, expected_id=choice.expected_id)

    def _warn_if_ephemeral(self, file: Path) -> None:
        from ugen_provider.core.ledger.database import ephemeral_filesystem_of

        if kind := ephemeral_filesystem_of(file):
            self.out.note(
                f"Warning: the default ledger {file} is on a temporary disk ({kind}); purchases recorded there are "
                f"lost with the container. Mount a volume at {file.parent}, or set UGEN_LEDGER"
            )

    def order_store(self, ledger: Ledger) -> LedgerOrderStore:
        """Return the store of orders in a ledger; records are signed if a key is configured.

        Orders that earlier versions kept as files in the data folder are imported when they are first used.
        """
        from ugen_provider.core.ledger.order_files import OrderFiles
        from ugen_provider.core.ledger.orders import LedgerOrderStore
        from ugen_provider.core.ledger.record import RecordSigner

        key = self.chosen.profile.api_key
        signer = RecordSigner(key) if key is not None else None
        return LedgerOrderStore(ledger, signer=signer, older=[OrderFiles(self.data / "orders").find])


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """The ledger that a command uses.

    Attributes:
        address: A path or a URL; a URL may hold a password, so it is never printed.
        source: What names it: `--ledger`, `UGEN_LEDGER` or a profile; '' for the default file.
        expected_id: The id that it must have; None accepts any.
    """

    address: str = field(repr=False)
    source: str = ""
    expected_id: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether it is the default file in the user's data folder."""
        return not self.source

    @property
    def shown(self) -> str:
        """The address without password and options."""
        return shown_address(self.address)


def shown_address(address: str) -> str:
    """Return a ledger's address without password and options.

    Examples:
        >>> shown_address("postgresql://me:secret@db/shop?sslpassword=secret"), shown_address("shop.db")
        ('postgresql://me:***@db/shop', 'shop.db')
        >>> shown_address("postgresql://me:se cret@db:port/shop")
        'a ledger URL that cannot be read'
    """
    if "://" not in address:
        return address
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from ugen_provider.core.ledger.database import shown

    try:
        return shown(make_url(address))
    except (ArgumentError, ValueError):
        return "a ledger URL that cannot be read"


def config_of(chosen: SettingsInUse) -> ClientConfig:
    """Return the settings of a client.

    Raises:
        ConfigError: The key is missing, or a setting is invalid.
    """
    from ugen_provider.core.api.config import resolve

    profile = chosen.profile
    return resolve(
        api_key=profile.api_key,
        base_url=profile.base_url,
        video_model=profile.video_model,
        namespace=profile.namespace,
        spending=profile.spending,
        allow_insecure=profile.allow_insecure,
        service_profile=profile.service_profile,
        source=chosen.source,
        environ={},
    )
