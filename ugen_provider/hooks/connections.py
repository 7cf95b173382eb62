# SPDX-License-Identifier: Apache-2.0
"""What a connection says, as checked settings. Pure: nothing is looked up or called here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ugen_provider.core.api.config import ClientConfig, resolve
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.secrets import Secret

_TYPES = frozenset({"ugen", "generic"})
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


class ConnectionLike(Protocol):
    """The fields of Airflow's `Connection` that count."""

    conn_id: str
    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None

    @property
    def password(self) -> str | None:
        """The API key."""
        ...


@dataclass(frozen=True, slots=True)
class UGenSettings:
    """What a connection of type `ugen` says.

    Attributes:
        config: For the client.
        webhook_secret: Verifies deliveries; None where the connection has none.
    """

    config: ClientConfig
    webhook_secret: Secret | None = field(default=None, repr=False)


def read_connection(connection: ConnectionLike, *, extra: Mapping[str, Any]) -> UGenSettings:
    """Read a connection, from the form, JSON or a URI alike.

    The base URL is the extra `base_url`, else the host, else the real service. Extras of a URI are text; they count by
    their meaning.

    Args:
        connection: Its plain fields.
        extra: Its extra, as a dict.

    Raises:
        ConfigError: A field is missing or wrong; the message names the connection and the field.
    """
    where = f"connection {connection.conn_id!r}"
    if connection.conn_type and connection.conn_type not in _TYPES:
        raise ConfigError(f"{where} is of type {connection.conn_type!r}: U-Gen needs one of the type 'ugen'")
    key = (connection.password or "").strip()
    if not key:
        raise ConfigError(f"{where} has no API key: set it as the connection's password")
    try:
        config = resolve(
            api_key=key,
            base_url=_text(extra, "base_url") or _address(connection),
            timeout=_number(extra, "timeout"),
            retries=_whole(extra, "retries"),
            video_model=_text(extra, "video_model"),
            namespace=_text(extra, "namespace"),
            spending=_text(extra, "spending"),
            allow_insecure=_flag(extra, "allow_insecure"),
            source=f"the password of {where}",
            environ={},
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    secret = _text(extra, "webhook_secret")
    return UGenSettings(config, Secret(secret) if secret else None)


def _address(connection: ConnectionLike) -> str | None:
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return None
    if "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    path = (connection.schema or "api/v1").strip("/")
    return f"https://{host}{port}/{path}"


def _text(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{name}: must be text")
    return value.strip() or None


def _number(extra: Mapping[str, Any], name: str) -> float | None:
    value = extra.get(name)
    if value is None or value == "":
        return None
    try:
        return float(str(value))
    except ValueError:
        raise ConfigError(f"{name}: must be a number, got {value!r}") from None


def _whole(extra: Mapping[str, Any], name: str) -> int | None:
    number = _number(extra, name)
    if number is None:
        return None
    if number != int(number):
        raise ConfigError(f"{name}: must be a whole number, got {extra[name]!r}")
    return int(number)


def _flag(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigError(f"{name}: must be true or false, got {value!r}")
