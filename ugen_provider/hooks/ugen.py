# SPDX-License-Identifier: Apache-2.0
"""`UGenHook`: a U-Gen client out of an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    ResponseError,
    TransportError,
    UGenError,
)
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS, AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from ugen_provider.core.api._async_client import AsyncUGenClient
    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.hooks.connections import UGenSettings


class UGenHook(BaseHook):
    """A U-Gen client out of an Airflow connection.

    The connection has the type `ugen` and the API key as its password. Its extras: `base_url` (empty for the real
    service), `namespace`, `video_model`, `timeout`, `retries`, `spending`, `webhook_secret`, `allow_insecure`.

    Args:
        ugen_conn_id: The connection.

    Examples:
        >>> with UGenHook(ugen_conn_id="ugen_default").get_conn() as client:
        ...     client.credits.balance().available_credits
        1000000
    """

    conn_name_attr = "ugen_conn_id"
    default_conn_name = "ugen_default"
    conn_type = "ugen"
    hook_name = "U-Gen"

    def __init__(self, ugen_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ugen_conn_id = ugen_conn_id

    def get_settings(self) -> UGenSettings:
        """What the connection says, checked.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
            ConnectionUnreadableError: Airflow could not look for it.
        """
        from ugen_provider.hooks.connections import read_connection

        try:
            connection = self.get_connection(self.ugen_conn_id)
        except AirflowNotFoundException:
            from ugen_provider.hooks.missing import not_found

            raise not_found(self.ugen_conn_id, advice=self._advice) from None
        return read_connection(connection, extra=connection.extra_dejson)

    async def aget_settings(self) -> UGenSettings:
        """As `get_settings`, without blocking the event loop.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
        from ugen_provider.hooks.connections import read_connection

        if not AIRFLOW_3_1_PLUS:
            from asgiref.sync import sync_to_async

            return await sync_to_async(self.get_settings)()
        try:
            connection = await self.aget_connection(self.ugen_conn_id)
            # From 3.3.2 on the masking of extras has an async form; the blocking one could lock the loop.
            has_async_form = hasattr(connection, "aextra_dejson")
            extra = await connection.aextra_dejson() if has_async_form else _plain_extra(connection.extra)
        except AirflowNotFoundException:
            raise ConfigError(f"connection {self.ugen_conn_id!r} is not defined: {self._advice}") from None
        return read_connection(connection, extra=extra)

    @property
    def _advice(self) -> str:
        return (
            "add it with the type 'ugen' and the API key as its password, or set "
            f"AIRFLOW_CONN_{self.ugen_conn_id.upper()}"
        )

    @property
    def config(self) -> ClientConfig:
        """The client's settings, read from the connection now."""
        return self.get_settings().config

    def get_conn(self) -> UGenClient:
        """A client; use it in a `with` block, which closes its connections.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
        from ugen_provider.core.api._sync_client import UGenClient

        return UGenClient(config=self.config)

    async def get_async_conn(self) -> AsyncUGenClient:
        """An async client; use it in an `async with` block.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
        import asyncio

        # Importing the client reads many files, which would hold up everybody else on this loop.
        await asyncio.to_thread(_import_client)
        from ugen_provider.core.api._async_client import AsyncUGenClient

        return AsyncUGenClient(config=(await self.aget_settings()).config)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the balance. Free; `GET /credits/balance`.

        Returns:
            Whether it worked, and what a person can do about it if not. The connection has no name there: the one that
            Airflow's form tests has an id that the person has never seen.
        """
        try:
            config = self.config
            with self.get_conn() as client:
                balance = client.credits.balance()
        except UGenError as error:
            said = explain(error, conn_id=self.ugen_conn_id)
            return False, said.replace(f"connection {self.ugen_conn_id!r}", "this connection")
        return True, f"Connected to {config.base_url}: {balance.available_credits} credits available"


def explain(error: UGenError, *, conn_id: str) -> str:
    """What a person can do about an error that its connection may be the reason of."""
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return (
                f"U-Gen refused the API key ({error.status}: {error.message}): put a valid key into the password of "
                f"connection {conn_id!r}; keys are made in the U-Gen dashboard"
            )
        case NotFoundError() | ResponseError():
            return (
                f"That address answers, but not as U-Gen does ({error.status}): check base_url of connection "
                f"{conn_id!r}; it ends in /api/v1"
            )
        case TransportError():
            return (
                f"U-Gen could not be reached ({error}): check the network, a proxy, and base_url of "
                f"connection {conn_id!r}"
            )
        case APIError():
            return f"U-Gen answered {error.status}: {error.message}"
        case _:
            return str(error)


def _plain_extra(extra: str | None) -> dict[str, Any]:
    import json

    if not extra:
        return {}
    try:
        read = json.loads(extra)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _import_client() -> None:
    import ugen_provider.core.api._async_client  # noqa: F401
