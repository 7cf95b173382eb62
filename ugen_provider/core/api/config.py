# SPDX-License-Identifier: Apache-2.0
"""Where a client's settings come from, and which of them are refused. Imports neither httpx nor pydantic."""

from __future__ import annotations

import ipaddress
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.retries import RetryPolicy
from ugen_provider.core.api.secrets import Secret

DEFAULT_BASE_URL = "https://api.u-gen.ai/api/v1"
Spending = Literal["allow", "attach_only", "off"]


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Everything that a client needs to know, checked.

    Attributes:
        api_key: The key; never shown.
        base_url: Address of the API, without a slash at its end.
        timeout: Seconds for one attempt of one request.
        retries: How requests are repeated.
        video_model: The model of requests that name none; None leaves it to the service.
        namespace: What keeps the orders of two environments apart that share one account.
        spending: `allow`, `attach_only` (wait for what exists, buy nothing) or `off`.
    """

    api_key: Secret
    base_url: str = DEFAULT_BASE_URL
    timeout: float = 30.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    video_model: str | None = None
    namespace: str = ""
    spending: Spending = "allow"

    @property
    def user_agent(self) -> str:
        """`ugen-provider/VERSION Python/VERSION`."""
        return f"ugen-provider/{__version__} Python/{platform.python_version()}"


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
    source: str = "api_key=",
    environ: Mapping[str, str] | None = None,
) -> ClientConfig:
    """Settings from arguments, else from the environment, else the defaults.

    Args:
        api_key: The key; else `UGEN_API_KEY`.
        base_url: Address of the API; else `UGEN_BASE_URL`, else the real one.
        timeout: Seconds for one attempt of one request; default 30.
        retries: A policy, or how often to repeat a request beside the first attempt; default 3.
        video_model: The model of requests that name none.
        namespace: Keeps the orders of two environments apart that share one account.
        spending: `allow`, `attach_only` or `off`; else `UGEN_SPENDING`.
        allow_insecure: Whether the key may travel over plain http to a host that is not this machine.
        source: Where the caller should set the key, for the error message, such as `connection 'ugen_default'`.
        environ: The environment; default `os.environ`.

    Raises:
        ConfigError: The key is missing, or a setting is out of the question.

    Examples:
        >>> resolve(api_key="ugen_sk_local", base_url="http://127.0.0.1:8000/api/v1/").base_url
        'http://127.0.0.1:8000/api/v1'
    """
    env = os.environ if environ is None else environ
    secret = api_key if isinstance(api_key, Secret) else Secret((api_key or env.get("UGEN_API_KEY") or "").strip())
    if not secret.reveal():
        raise ConfigError(f"no API key: set {source} or the environment variable UGEN_API_KEY")
    if not secret.reveal().isascii() or any(c.isspace() for c in secret.reveal()):
        raise ConfigError(f"the API key has a space or a character that no key has: check {source}")
    word = spending or env.get("UGEN_SPENDING") or "allow"
    if word not in get_args(Spending):
        raise ConfigError(f"spending: must be one of {', '.join(get_args(Spending))}, got {word!r}")
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"timeout: must be more than 0 seconds, got {timeout:g}")
    if isinstance(retries, int):
        if retries < 0:
            raise ConfigError(f"retries: must not be negative, got {retries}")
        retries = RetryPolicy(attempts=retries + 1)
    return ClientConfig(
        api_key=secret,
        base_url=check_base_url(
            base_url or env.get("UGEN_BASE_URL") or DEFAULT_BASE_URL, allow_insecure=allow_insecure
        ),
        timeout=30.0 if timeout is None else timeout,
        retries=retries or RetryPolicy(),
        video_model=video_model or None,
        namespace=namespace or "",
        spending=word,  # type: ignore[arg-type]
    )


def check_base_url(base_url: str, *, allow_insecure: bool = False) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigError: It is no http(s) URL, carries a user or a query, or would send the key in clear over a network.
    """
    parts = urlsplit(base_url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"base_url: must be an http(s) URL such as {DEFAULT_BASE_URL}, got {parts.scheme or 'no'} URL"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("base_url: must hold neither a user, a query nor a fragment; the key has a place of its own")
    if parts.scheme == "http" and not allow_insecure and not is_loopback(parts.hostname):
        raise ConfigError(
            f"base_url: http://{parts.hostname} would send the key in clear; use https, or say allow_insecure"
        )
    return base_url.strip().rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name or number.

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
