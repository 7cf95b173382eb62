# SPDX-License-Identifier: Apache-2.0
"""`UGenHook`: a U-Gen client from the checked settings of an Airflow connection, and the ledger that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from airflow.configuration import conf

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
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS, AirflowNotFoundException, BaseHook, mask_secret

if TYPE_CHECKING:
    from ugen_provider.core.api.async_client import AsyncUGenClient
    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.clock import Clock
    from ugen_provider.core.api.config import ClientConfig, Secret
    from ugen_provider.core.ledger.record import RecordSigner
    from ugen_provider.core.ledger.store import Ledger


_TYPES = frozenset({"ugen", "generic"})
_PREFIX = "extra__ugen__"
"""Before the names of extras in connections that old forms and exports of Airflow wrote."""

EXTRAS = (
    "base_url",
    "ledger_conn_id",
    "namespace",
    "video_model",
    "timeout",
    "retries",
    "spending",
    "webhook_secret",
    "record_secret",
    "previous_secrets",
    "allow_insecure",
    "service_profile",
    "proxy",
    "ca_bundle",
)
"""The extras of a connection. Any other is refused: a typo in `spending` costs money."""

_CA = "certificates are always verified; name the file of your own CA as ca_bundle"
_CORRECTIONS: Mapping[str, str] = {
    **dict.fromkeys(("api_key", "apikey", "token", "key", "x_api_key", "password"), "put the key into the password"),
    **dict.fromkeys(("url", "host", "endpoint", "api_url", "base", "address"), "name the address as base_url"),
    **dict.fromkeys(("proxies", "https_proxy", "http_proxy"), "name one proxy for all requests as proxy"),
    "no_proxy": "the environment of Airflow's processes sets it, and the extra proxy replaces all of that",
    **dict.fromkeys(("verify", "verify_ssl", "ca", "ca_file", "cert", "ssl", "cafile", "ca_cert"), _CA),
    **dict.fromkeys(("ledger", "ledger_url", "database"), "name an Airflow connection as ledger_conn_id"),
    **dict.fromkeys(("budget", "max_credits", "daily_budget"), "it is an argument of the operators"),
    **dict.fromkeys(("deferrable", "poll_interval", "output_path"), "it is an argument of the operators"),
}
"""What to do about extras that users of other providers expect."""

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


class ConnectionUnreadableError(UGenError):
    """Airflow could not read a connection, as while its own database restarts; a retry of the task can."""

    retryable = True


class ConnectionLike(Protocol):
    """The fields of Airflow's `Connection` that count."""

    conn_id: str
    conn_type: str | None
    host: str | None
    login: str | None
    port: int | None
    schema: str | None

    @property
    def password(self) -> str | None:
        """The API key, under the name of Airflow's form."""
        ...


@dataclass(frozen=True, slots=True)
class UGenSettings:
    """The settings of a connection of type `ugen`.

    Attributes:
        config: For the client.
        ledger_conn_id: The Airflow connection of the ledger's database; None where the connection names none.
        webhook_secret: Verifies deliveries; None where the connection has none.
        signer: Signs and verifies order records: with `record_secret`, else with a key derived from the API key.
    """

    config: ClientConfig
    signer: RecordSigner = field(repr=False)
    ledger_conn_id: str | None = None
    webhook_secret: Secret | None = field(default=None, repr=False)


class UGenHook(BaseHook):
    """Make a U-Gen client from an Airflow connection.

    The connection has the type `ugen` and the API key as its password. Its extras: `base_url` (empty for the real
    service), `ledger_conn_id`, `namespace`, `video_model`, `timeout`, `retries`, `spending`, `webhook_secret`,
    `record_secret`, `previous_secrets`, `allow_insecure`, `service_profile`, `proxy`, `ca_bundle`. Unknown extras, a
    login, and an address that is named twice are refused with the correction; no field is ignored.

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
        """Read the connection and check it.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
            ConnectionUnreadableError: Airflow could not read it.
        """
        try:
            connection = self.get_connection(self.ugen_conn_id)
        except AirflowNotFoundException:
            raise not_found(self.ugen_conn_id, advice=self._advice) from None
        settings = read_connection(connection, extra=connection.extra_dejson)
        if settings.config.network.proxy is not None:
            # Airflow masks the extra as a whole; its password alone, as a library may report it, is masked here.
            mask_secret(unquote(urlsplit(settings.config.network.proxy.reveal()).password or ""))
        return settings

    async def aget_settings(self) -> UGenSettings:
        """Read the connection without blocking the event loop; else as `get_settings`.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
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

    def get_conn(self, *, config: ClientConfig | None = None, clock: Clock | None = None) -> UGenClient:
        """Return a client; use it in a `with` block, which closes its connections.

        Args:
            config: The settings, if they were read already.
            clock: The clock that the client waits by. Default the machine's.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
        from ugen_provider.core.api.client import UGenClient

        return UGenClient(config=config or self.config, clock=clock)

    async def get_async_conn(self) -> AsyncUGenClient:
        """Return an async client; use it in an `async with` block.

        Raises:
            ConfigError: The connection is missing, or a field of it is wrong.
        """
        import asyncio

        # Importing the client reads many files, which would delay every other trigger of this loop.
        await asyncio.to_thread(_import_client)
        from ugen_provider.core.api.async_client import AsyncUGenClient

        return AsyncUGenClient(config=(await self.aget_settings()).config)

    def test_connection(self) -> tuple[bool, str]:
        """Check what `ugen doctor` checks: key, balance, clock, the service's behavior and the ledger. Free.

        Returns:
            Whether it worked, and what to correct if not. The connection has no name there: the one that Airflow's
            form tests has a temporary id.
        """
        try:
            settings = self.get_settings()
            with self.get_conn(config=settings.config) as client:
                balance = client.credits.balance()
                findings = client.diagnose().findings
            said = [f"Connected to {settings.config.base_url}: {balance.available_credits} credits available"]
            if settings.ledger_conn_id is not None:
                with open_ledger(settings.ledger_conn_id) as ledger:
                    said.append(f"ledger {settings.ledger_conn_id!r} has the id {ledger.ledger_id}")
        except UGenError as error:
            message = explain(error, conn_id=self.ugen_conn_id)
            return False, message.replace(f"connection {self.ugen_conn_id!r}", "this connection")
        if settings.config.spending != "allow":
            said.append(f"spending is {settings.config.spending}: nothing is bought")
        failed = [finding for finding in findings if finding.holds is False]
        said += [f"{finding.name.replace('_', ' ')}: {finding.seen}, {finding.means}" for finding in failed]
        return not any(finding.name in _NEEDED for finding in failed), "; ".join(said)


_NEEDED = frozenset({"key", "reachable", "balance", "clock"})
"""Checks without which nothing works; the others concern single features."""


def read_connection(connection: ConnectionLike, *, extra: Mapping[str, Any]) -> UGenSettings:
    """Check the fields of a connection, from the form, JSON or a URI alike.

    The base URL is the extra `base_url`, else host, port and schema, else the real service. Extras of a URI are text;
    they count by their meaning.

    Args:
        connection: Its plain fields.
        extra: Its extra, as a dict.

    Raises:
        ConfigError: A field is missing or wrong; the message names the connection and the field.
    """
    from ugen_provider.core.api.config import Secret, resolve
    from ugen_provider.core.ledger.record import RecordSigner

    where = f"connection {connection.conn_id!r}"
    if connection.conn_type and connection.conn_type not in _TYPES:
        raise ConfigError(f"{where} is of type {connection.conn_type!r}: U-Gen needs one of the type 'ugen'")
    if (connection.login or "").strip():
        raise ConfigError(f"{where}: login: is not used; leave it empty, and set the API key as the password")
    key = Secret.of((connection.password or "").strip())
    if not key.reveal():
        raise ConfigError(f"{where} has no API key: set it as the connection's password")
    try:
        extra = _known_extras(extra)
        config = resolve(
            api_key=key,
            base_url=_base_url(connection, named=_text(extra, "base_url")),
            timeout=_number(extra, "timeout"),
            retries=_whole(extra, "retries"),
            video_model=_text(extra, "video_model"),
            namespace=_text(extra, "namespace"),
            spending=_text(extra, "spending"),
            allow_insecure=_flag(extra, "allow_insecure"),
            service_profile=extra.get("service_profile"),
            proxy=_text(extra, "proxy"),
            ca_bundle=_text(extra, "ca_bundle"),
            source=f"the password of {where}",
            environ={},
        )
        signer = RecordSigner(_secret(extra, "record_secret") or key, previous=_secrets(extra, "previous_secrets"))
        webhook_secret = _secret(extra, "webhook_secret")
        ledger_conn_id = _text(extra, "ledger_conn_id")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return UGenSettings(config, signer, ledger_conn_id, webhook_secret)


def explain(error: UGenError, *, conn_id: str) -> str:
    """Say what to correct after an error whose reason can be the connection."""
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


def not_found(conn_id: str, *, advice: str) -> UGenError:
    """Return the error for a connection that Airflow reports as not defined.

    Airflow reports the same to a task where its API server gave no answer. A task that fails without a retry for that
    reason would need a person once the server works again.

    Args:
        conn_id: The connection.
        advice: How to define it.
    """
    if _is_surely_missing(conn_id):
        return ConfigError(f"connection {conn_id!r} is not defined: {advice}")
    return ConnectionUnreadableError(f"connection {conn_id!r} could not be read: Airflow's API server gave no answer")


def _is_surely_missing(conn_id: str) -> bool:
    try:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

        ask = task_runner.SUPERVISOR_COMMS.send
    except (ImportError, AttributeError):  # not in a task: the lookup was made in this process
        return True
    try:
        answer = ask(GetConnection(conn_id=conn_id))
    except Exception:  # noqa: BLE001  any error means that there was no answer
        return False
    return isinstance(answer, ErrorResponse) and answer.error is ErrorType.CONNECTION_NOT_FOUND


def _known_extras(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extras under their plain names.

    Raises:
        ConfigError: One is unknown, or is named twice with two values.
    """
    known: dict[str, Any] = {}
    for given, value in extra.items():
        name = given.removeprefix(_PREFIX)
        if name not in EXTRAS:
            raise ConfigError(f"{given}: is no extra of a U-Gen connection; {_correction(name)}")
        if name in known and known[name] != value and value not in (None, ""):
            if known[name] not in (None, ""):
                raise ConfigError(f"{name}: is given twice, as {name} and {_PREFIX}{name}, with two values")
            known[name] = value
        known.setdefault(name, value)
    return known


def _correction(name: str) -> str:
    """Say what was probably meant by an unknown extra.

    Examples:
        >>> _correction("spendings"), _correction("token")
        ("is 'spending' meant?", 'put the key into the password')
    """
    plain = name.strip().lower().replace("-", "_")
    if plain in EXTRAS:
        return f"is {plain!r} meant?"
    if plain in _CORRECTIONS:
        return _CORRECTIONS[plain]
    from difflib import get_close_matches

    near = get_close_matches(plain, EXTRAS, n=1, cutoff=0.7)
    return f"is {near[0]!r} meant?" if near else f"known are {', '.join(EXTRAS)}"


def _base_url(connection: ConnectionLike, *, named: str | None) -> str | None:
    """Return the address of a connection; None for the real service.

    Raises:
        ConfigError: Two fields name different addresses, or a part of one has no host.
    """
    built = _address(connection)
    if named is not None and built is not None and named.rstrip("/") != built:
        raise ConfigError(f"base_url: is {named}, and host, port and schema say {built}; leave one of the two out")
    return named or built


def _address(connection: ConnectionLike) -> str | None:
    """Return the address that host, port and schema say; the schema is a scheme, as in HTTP connections, or a path."""
    host = (connection.host or "").strip().rstrip("/")
    schema = (connection.schema or "").strip().strip("/")
    port = connection.port or None  # Airflow's form sends port 0 for none
    if not host:
        for name, value in (("port", port), ("schema", schema)):
            if value:
                raise ConfigError(f"{name}: needs a host; name the whole address as base_url")
        return None
    scheme = schema.lower() if schema.lower() in {"http", "https"} else ""
    path = "" if scheme else schema
    try:
        parts = urlsplit(host if "://" in host else f"//{host}")
        own_port = parts.port
    except ValueError as error:
        raise ConfigError(f"host: {error}; name the whole address as base_url") from None
    for name, one, other in (
        ("schema", scheme, parts.scheme),
        ("schema", path, parts.path.strip("/")),
        ("port", port, own_port),
    ):
        if one and other and one != other:
            raise ConfigError(f"{name}: is {one}, and host says {other}; name the whole address as base_url")
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    number = port or own_port
    at = f":{number}" if number else ""
    return f"{parts.scheme or scheme or 'https'}://{name}{at}/{parts.path.strip('/') or path or 'api/v1'}"


def _text(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{name}: must be text")
    return value.strip() or None


def _secret(extra: Mapping[str, Any], name: str) -> Secret | None:
    from ugen_provider.core.api.config import Secret

    return Secret.of(_text(extra, name)) if _text(extra, name) else None


def _secrets(extra: Mapping[str, Any], name: str) -> tuple[Secret, ...]:
    """Several secrets: a list, or text with one on each line or between commas."""
    from ugen_provider.core.api.config import Secret

    value = extra.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.replace(",", "\n").splitlines()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{name}: must be a list of texts")
    return tuple(Secret.of(item.strip()) for item in value if item.strip())


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
    import ugen_provider.core.api.async_client  # noqa: F401


_ADVICE = "add it for the ledger's database, PostgreSQL or SQLite"
_ON_ONE_MACHINE = frozenset({"LocalExecutor", "SequentialExecutor"})


def open_ledger(ledger_conn_id: str, *, expected_id: str | None = None) -> Ledger:
    """Open the ledger of a connection; use it in a `with` block. It must exist: `ugen ledger init` creates one.

    Args:
        ledger_conn_id: The connection.
        expected_id: The id that the ledger must have, as a trigger or an XCom carries it; None accepts any.

    Raises:
        ConfigError: The connection or the ledger is missing or unsuitable, or the ledger is another one.
        ConnectionUnreadableError: Airflow could not read the connection.
        LedgerUnavailableError: The database does not answer.
    """
    return open_address(ledger_address(ledger_conn_id), expected_id=expected_id)


def open_address(address: Secret, *, expected_id: str | None = None) -> Ledger:
    """Open the ledger at an address; else as `open_ledger`."""
    from ugen_provider.core.ledger.store import Ledger

    return Ledger(address, shared=tasks_span_machines(), expected_id=expected_id or None)


def ledger_address(ledger_conn_id: str) -> Secret:
    """Return the address of a ledger, from an Airflow connection to PostgreSQL or SQLite; it may hold a password.

    Raises:
        ConfigError: The connection is missing or of another kind.
        ConnectionUnreadableError: Airflow could not read it.
    """
    try:
        found = _address_of(BaseHook.get_connection(ledger_conn_id))
    except AirflowNotFoundException:
        raise not_found(ledger_conn_id, advice=_ADVICE) from None
    return _of_a_database(found, ledger_conn_id)


async def aledger_address(ledger_conn_id: str) -> Secret:
    """Return the address of a ledger without blocking the event loop; else as `ledger_address`."""
    if not AIRFLOW_3_1_PLUS:
        from asgiref.sync import sync_to_async

        return await sync_to_async(ledger_address)(ledger_conn_id)
    try:
        found = _address_of(await BaseHook.aget_connection(ledger_conn_id))
    except AirflowNotFoundException:
        raise ConfigError(f"connection {ledger_conn_id!r} is not defined: {_ADVICE}") from None
    return _of_a_database(found, ledger_conn_id)


def _address_of(connection: Any) -> Secret | str:
    """Return the address, or the type of a connection that leads to no database that can be a ledger."""
    from ugen_provider.core.api.config import Secret

    if connection.conn_type == "sqlite":
        return Secret(str(connection.host or connection.schema or ""))
    if connection.conn_type in {"postgres", "postgresql"}:
        return Secret("postgresql://" + str(connection.get_uri()).split("://", 1)[1])
    return str(connection.conn_type)


def _of_a_database(found: Secret | str, conn_id: str) -> Secret:
    if isinstance(found, str):
        raise ConfigError(f"connection {conn_id!r} is of type {found!r}; use postgres or sqlite")
    return found


def tasks_span_machines() -> bool:
    """Return whether tasks of this Airflow may run on several machines."""
    return spans_machines(str(conf.get("core", "executor", fallback="LocalExecutor")))


def spans_machines(executors: str) -> bool:
    """Return whether tasks may run on several machines, where a ledger in a file would be another one on each.

    Args:
        executors: The setting `[core] executor`: one or several, with aliases, perhaps by team.

    Examples:
        >>> spans_machines("LocalExecutor"), spans_machines("LocalExecutor,CeleryExecutor"), spans_machines("my.Own")
        (False, True, True)
    """
    names = (name for name in re.split(r"[,;=]", executors) if "Executor" in name or "." in name)
    return any(name.partition(":")[0].strip().rpartition(".")[2] not in _ON_ONE_MACHINE for name in names)
