# SPDX-License-Identifier: Apache-2.0
"""What a command works with: settings, a client, a printer, and where things live on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ugen_provider.cli.printing import Printer
from ugen_provider.cli.profiles import Chosen, choose, data_folder, read_config

if TYPE_CHECKING:
    from ugen_provider.core.api._async_client import AsyncUGenClient
    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.clock import Clock
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.batch.ledger import Ledger


@dataclass(frozen=True)
class Surroundings:
    """The world that a command runs in; tests bring their own.

    Attributes:
        environ: The environment.
        clock: The clock to live by; None is the machine's.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock | None = None


class Session:
    """What a command works with.

    Args:
        surroundings: The world.
        profile: The profile that was named.
        as_json: Whether results are JSON.
        arguments: The command as it was called, to say how to go on.
    """

    def __init__(
        self, surroundings: Surroundings, *, profile: str | None, as_json: bool, arguments: tuple[str, ...]
    ) -> None:
        self.surroundings = surroundings
        self.arguments = arguments
        self.out = Printer(as_json=as_json)
        self._named = profile

    @cached_property
    def chosen(self) -> Chosen:
        """The settings that count.

        Raises:
            ConfigError: The configuration file is of no use.
        """
        environ = self.surroundings.environ
        return choose(read_config(environ), named=self._named, environ=environ)

    @cached_property
    def config(self) -> ClientConfig:
        """Checked settings of a client; a key that is nowhere is asked for where a person sits at a terminal.

        Raises:
            ConfigError: The key is missing, or a setting is out of the question.
        """
        chosen = self.chosen
        if chosen.profile.api_key is None and sys.stdin.isatty() and sys.stderr.isatty():
            from ugen_provider.core.api.secrets import Secret

            typed = click.prompt("U-Gen API key", hide_input=True, err=True)
            chosen = replace(chosen, profile=replace(chosen.profile, api_key=Secret(typed.strip())))
        return config_of(chosen)

    @property
    def clock(self) -> Clock:
        """The clock to live by."""
        from ugen_provider.core.api.clock import SystemClock

        return self.surroundings.clock or SystemClock()

    def client(self) -> UGenClient:
        """A client; the caller closes it."""
        from ugen_provider.core.api._sync_client import UGenClient

        return UGenClient(config=self.config, clock=self.clock)

    def async_client(self) -> AsyncUGenClient:
        """An async client; the caller closes it."""
        from ugen_provider.core.api._async_client import AsyncUGenClient

        return AsyncUGenClient(config=self.config, clock=self.clock)

    @property
    def namespace(self) -> str:
        """What keeps the orders of two environments apart."""
        return self.chosen.profile.namespace or ""

    @property
    def data(self) -> Path:
        """The folder in which ledgers and orders live."""
        return data_folder(self.surroundings.environ)

    def ledger_address(self, given: str | None) -> str:
        """Where the ledger is: as given, as the environment or the profile say, or in the data folder."""
        return given or self.chosen.profile.ledger or str(self.data / "ledger.db")

    def ledger(self, given: str | None) -> Ledger:
        """Open the ledger; the caller closes it.

        Raises:
            ConfigError: It cannot be opened, or would not be safe where it is.
            LedgerUnavailableError: Its server does not answer.
        """
        from ugen_provider.core.batch.ledger import Ledger

        return Ledger(self.ledger_address(given))

    def existing_ledger(self, given: str | None) -> Ledger:
        """Open a ledger to look at it, which shall not make one where there is none; the caller closes it.

        Raises:
            ConfigError: It is not there, or cannot be opened.
            LedgerUnavailableError: Its server does not answer.
        """
        from ugen_provider.core.api.errors import ConfigError

        address = self.ledger_address(given)
        if is_local(address) and not Path(address).expanduser().exists():
            raise ConfigError(f"ledger: there is none at {address}; `ugen feed run` makes it, --ledger names another")
        return self.ledger(given)

    def known_ledger(self, given: str | None) -> Ledger | None:
        """The ledger where one is there, for what is only written down beside the work; the caller closes it.

        Raises:
            ConfigError: The one that was named is not there, or cannot be opened.
            LedgerUnavailableError: The server of the one that was named does not answer.
        """
        if given is not None:
            return self.existing_ledger(given)
        from ugen_provider.core.api.errors import ConfigError
        from ugen_provider.core.batch.errors import LedgerUnavailableError

        address = self.ledger_address(None)
        if is_local(address) and not Path(address).expanduser().exists():
            return None
        try:
            return self.ledger(None)
        except (ConfigError, LedgerUnavailableError) as error:
            self.out.note(f"Note: {error}; it is done without the ledger")
            return None


def is_local(address: str) -> bool:
    """Whether a ledger's address is the path of a file.

    Examples:
        >>> is_local("shop.db"), is_local(":memory:"), is_local("postgresql://db/shop")
        (True, False, False)
    """
    return "://" not in address and address != ":memory:"


def config_of(chosen: Chosen) -> ClientConfig:
    """The settings of a client.

    Raises:
        ConfigError: The key is missing, or a setting is out of the question.
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
        source=chosen.source,
        environ={},
    )
