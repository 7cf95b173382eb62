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
    """The pages, imported when the first request comes: every process of Airflow loads its plugins."""
    from ugen_provider.plugins.app import app

    await app(scope, receive, send)


class UGenPlugin(AirflowPlugin):
    """A page per job, the webhook endpoint, and the listener for kills."""

    name = "ugen"
    listeners = [listener]
    fastapi_apps = [{"app": application, "url_prefix": PAGES, "name": "U-Gen"}]
    external_views = [
        {
            "name": "U-Gen job",
            "href": f"{PAGES}/job?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "ugen_job",
        }
    ]
