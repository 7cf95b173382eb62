# SPDX-License-Identifier: Apache-2.0
"""A client's settings: where they come from, which are refused, and how the key among them is kept out of sight.

Imports neither httpx nor pydantic.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.profile import DEFAULT_PROFILE, ServiceProfile
from ugen_provider.core.api.retrying import RetryPolicy

DEFAULT_BASE_URL = "https://api.u-gen.ai/api/v1"
Spending = Literal["allow", "reuse_only", "off"]


HIDDEN = "**********"
_NAME = r"api[-_ ]?key|access[-_]?key|secret|passw|authorization|credential|signature|(?<![a-z])token(?!s)|cookie|jwt"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_SECRET_TEXT = re.compile(
    rf"""
    (?P<kept>
        (?<![\w-])"?[\w-]*(?:{_NAME})[\w-]*+"?\s*+[:=]\s*(?:bearer\s+|basic\s+)?
        | \bbearer\s+
        | ://(?=[^/\s@]*@)
    )
    (?P<hidden>"[^"]*"|[^\s"'&,;<>}}@]+)
    | (?P<key>\bugen_sk_[\w.-]+)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A secret in text of any form: a named value, the credentials of a URL, a key of the service.

A name is tried from its beginning only: an answer may hold a word of any length, and the time must not grow with its
square.
"""


class Secret:
    """A value that is never shown: not by `str`, `repr`, a traceback, `vars` or pickle.

    Examples:
        >>> Secret("ugen_sk_local")
        Secret(**********)
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str) -> None:
        def reveal() -> str:
            return value

        self._reveal: Callable[[], str] = reveal

    @classmethod
    def of(cls, value: str | Secret | None) -> Secret:
        """Wrap a value, without the space around it; None becomes an empty secret."""
        return value if isinstance(value, Secret) else cls((value or "").strip())

    def reveal(self) -> str:
        """Return the value, for the transport that sends it."""
        return self._reveal()

    def redact(self, text: str) -> str:
        """Return a text with this value hidden."""
        value = self._reveal()
        return text.replace(value, HIDDEN) if value else text

    def redact_bytes(self, content: bytes) -> bytes:
        """Return content with this value hidden; the same object where it does not occur."""
        value = self._reveal().encode()
        return content.replace(value, HIDDEN.encode()) if value and value in content else content

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self.reveal()

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: a pickle would hold the secret in clear text."""
        raise TypeError("a Secret does not pickle; send the connection id and read the key where it is used")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def redact_text(text: str) -> str:
    """Return a text with everything hidden that resembles a secret.

    Examples:
        >>> redact_text("key ugen_sk_live_1 and webhook_secret=abc were sent")
        'key ********** and webhook_secret=********** were sent'
    """
    return _SECRET_TEXT.sub(lambda found: (found["kept"] or "") + HIDDEN, text)


def redact_json(value: Any) -> Any:
    """Return JSON with the values of secret names hidden at every depth, and what resembles a secret in its texts."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if _SECRET_NAME.search(str(name)) and isinstance(item, str) else redact_json(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [redact_json(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Network:
    """How hosts are reached, where that is not left to the environment.

    Attributes:
        proxy: URL of the proxy that every request passes, with its user and password if it wants them; None for those
            of the environment.
        ca_bundle: File (PEM) or folder of certificates that are trusted beside the environment's; None for no others.
    """

    proxy: Secret | None = None
    ca_bundle: str | None = None

    @classmethod
    def of(cls, *, proxy: str | None, ca_bundle: str | None) -> Network:
        """Check the settings and return them.

        Raises:
            ConfigError: The proxy is no http URL. The message does not show it, since it may hold a password.
        """
        if proxy is None:
            return cls(None, ca_bundle)
        try:
            parts = urlsplit(proxy)
            named = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
            named = named and not (parts.path.strip("/") or parts.query or parts.fragment)
        except ValueError:
            named = False
        if not named:
            raise ConfigError("proxy: must be a URL such as http://user:password@proxy.example:3128")
        return cls(Secret(proxy), ca_bundle)


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The checked settings of a client.

    Attributes:
        api_key: The key; never shown.
        base_url: Address of the API, without a slash at its end.
        timeout: Seconds for one attempt of one request.
        retries: How requests are repeated.
        video_model: The model of requests that name none; None leaves it to the service.
        namespace: Separates the orders of two environments that share one account.
        spending: `allow`, `reuse_only` (wait for existing jobs, buy nothing) or `off`.
        profile: The assumptions about the service.
        network: The proxy and the certificates.
        headers: Further headers of each request, without secrets.
    """

    api_key: Secret
    base_url: str = DEFAULT_BASE_URL
    timeout: float = 30.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    video_model: str | None = None
    namespace: str = ""
    spending: Spending = "allow"
    profile: ServiceProfile = DEFAULT_PROFILE
    network: Network = field(default_factory=Network)
    headers: tuple[tuple[str, str], ...] = ()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ClientConfig:
        """Return these settings with others for some calls; see `UGenClient.with_options`.

        Raises:
            ConfigError: An option is invalid.
        """
        return replace(
            self,
            timeout=self.timeout if timeout is None else _checked_timeout(timeout),
            retries=self.retries if retries is None else _checked_retries(retries),
            headers=tuple({**dict(self.headers), **_checked_headers(headers or {})}.items()),
        )

    @property
    def user_agent(self) -> str:
        """User agent, `ugen-provider/VERSION Python/VERSION`."""
        return f"ugen-provider/{__version__} Python/{platform.python_version()}"


@dataclass(frozen=True, slots=True)
class _Environment:
    """The settings in the environment."""

    api_key: Secret
    base_url: str | None
    spending: str | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> _Environment:
        key = Secret.of(environ.get("UGEN_API_KEY"))
        return cls(key, environ.get("UGEN_BASE_URL"), environ.get("UGEN_SPENDING"))


def _is_key(secret: Secret) -> bool:
    value = secret.reveal()
    return value.isascii() and value.isprintable() and not any(c.isspace() for c in value)


def resolve(
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    timeout: float | None = None,
    retries: RetryPolicy | int | None = None,
    video_model: str | None = None,
    namespace: str | None = None,
    spending: str | None = None,
    allow_insecure: bool = False,
    service_profile: ServiceProfile | Mapping[str, Any] | str | None = None,
    proxy: str | None = None,
    ca_bundle: str | None = None,
    source: str = "api_key=",
    environ: Mapping[str, str] | None = None,
) -> ClientConfig:
    """Read settings from arguments, else from the environment, else the defaults.

    Args:
        api_key: The key; else `UGEN_API_KEY`.
        base_url: Address of the API; else `UGEN_BASE_URL`, else the real one.
        timeout: Seconds for one attempt of one request; default 30.
        retries: A policy, or how often to repeat a request beside the first attempt; by default reads and creates are
            repeated for 180 seconds.
        video_model: The model of requests that name none.
        namespace: Separates the orders of two environments that share one account.
        spending: `allow`, `reuse_only` or `off`; else `UGEN_SPENDING`.
        allow_insecure: Whether the key may travel over plain http to a host that is not this machine.
        service_profile: Where the service differs from its documentation, as `ugen doctor --save` finds it; see
            `ServiceProfile`.
        proxy: URL of the proxy that every request passes; None for those of the environment.
        ca_bundle: File or folder of certificates that are trusted beside the environment's.
        source: Where the caller should set the key, for the error message, such as `connection 'ugen_default'`.
        environ: The environment; default `os.environ`.

    Raises:
        ConfigError: The key is missing, or a setting is invalid.

    Examples:
        >>> resolve(api_key="ugen_sk_local", base_url="http://127.0.0.1:8000/api/v1/").base_url
        'http://127.0.0.1:8000/api/v1'
    """
    # From here on no variable holds the key in clear text: error reports show the variables of a frame.
    env = _Environment.read(os.environ if environ is None else environ)
    environ = None
    api_key = Secret.of(api_key)
    secret = api_key if api_key.reveal() else env.api_key
    if not secret.reveal():
        raise ConfigError(f"no API key: set {source} or the environment variable UGEN_API_KEY")
    if not _is_key(secret):
        raise ConfigError(f"the API key has a space or a character that no key has: check {source}")
    word = spending or env.spending or "allow"
    if word not in get_args(Spending):
        raise ConfigError(f"spending: must be one of {', '.join(get_args(Spending))}, got {word!r}")
    return ClientConfig(
        api_key=secret,
        base_url=check_base_url(base_url or env.base_url or DEFAULT_BASE_URL, allow_insecure=allow_insecure),
        timeout=30.0 if timeout is None else _checked_timeout(timeout),
        retries=RetryPolicy() if retries is None else _checked_retries(retries),
        video_model=video_model or None,
        namespace=namespace or "",
        spending=word,  # type: ignore[arg-type]
        profile=ServiceProfile.of(service_profile),
        network=Network.of(proxy=proxy, ca_bundle=ca_bundle),
    )


def _checked_timeout(timeout: float) -> float:
    if timeout <= 0:
        raise ConfigError(f"timeout: must be more than 0 seconds, got {timeout:g}")
    return timeout


def _checked_retries(retries: RetryPolicy | int) -> RetryPolicy:
    if isinstance(retries, RetryPolicy):
        return retries
    if retries < 0:
        raise ConfigError(f"retries: must not be negative, got {retries}")
    return RetryPolicy(attempts=retries + 1)


_OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check further headers and return them by name in lower case."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if _SECRET_NAME.search(name) or name.lower() in _OWN_HEADERS:
            raise ConfigError(f"headers: {name} is set by the client itself, or could hold a secret")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not value.isascii() or not value.isprintable():
            raise ConfigError(f"headers: {name!r} is no name of a header, or its value has a character that none has")
        checked[name.lower()] = value
    return checked


def check_base_url(base_url: str, *, allow_insecure: bool = False) -> str:
    """Check the address and return it without a slash at its end.

    Raises:
        ConfigError: It is no http(s) URL, carries a user or a query, or would send the key in clear over a network.
    """
    parts = urlsplit(base_url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"base_url: must be an http(s) URL such as {DEFAULT_BASE_URL}, got {parts.scheme or 'no'} URL"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("base_url: must hold neither a user, a query nor a fragment; pass the key as api_key")
    if parts.scheme == "http" and not allow_insecure and not is_loopback(parts.hostname):
        raise ConfigError(
            f"base_url: http://{parts.hostname} would send the key in clear text; use https, or set allow_insecure"
        )
    return base_url.strip().rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine by its name or address.

    Examples:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("api.u-gen.ai")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
