# SPDX-License-Identifier: Apache-2.0
"""The plugin, as Airflow finds it by its entry point `airflow.plugins`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from ugen_provider.links.ugen import PAGES
from ugen_provider.plugins import listener

Message = MutableMapping[str, Any]


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Serve the pages, imported when the first request comes: every process of Airflow loads its plugins."""
    from ugen_provider.plugins.app import app

    await app(scope, receive, send)


class UGenPlugin(AirflowPlugin):
    """A page per job, the webhook endpoint, and the listener for kills.

    Airflow shows an external view on every task instance of every DAG. So the page is reached by the operators' extra
    links, which only tasks of this provider have.
    """

    name = "ugen"
    listeners = [listener]
    fastapi_apps = [{"app": application, "url_prefix": PAGES, "name": "U-Gen"}]
