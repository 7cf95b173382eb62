# SPDX-License-Identifier: Apache-2.0
"""Links that follow from the task instance alone, so that they work while the job runs and after it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/ugen"
"""Where the plugin's pages are mounted."""


class _TaskInstance(Protocol):
    @property
    def dag_id(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def map_index(self) -> int | None: ...


def base_of() -> str:
    """Return the address of Airflow's pages, with the path prefix that it is served under."""
    from airflow.configuration import conf

    return str(conf.get("api", "base_url", fallback="") or "").rstrip("/")


def page_of(page: str, ti: _TaskInstance) -> str:
    """Address of one of the plugin's pages for a task instance."""
    index = -1 if ti.map_index is None else ti.map_index
    query = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": index}
    return f"{base_of()}{PAGES}/{page}?{urlencode(query)}"


class UGenJobLink(BaseOperatorLink):
    """To the job's page: stage, progress, keyframes with their scores, credits."""

    @property
    def name(self) -> str:
        """Return what the button says."""
        return "U-Gen job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address of the page of a task's job."""
        return page_of("job", ti_key)


class UGenVideoLink(BaseOperatorLink):
    """To the finished video; it asks for a fresh link when it is followed."""

    @property
    def name(self) -> str:
        """Return what the button says."""
        return "U-Gen video"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address that leads to the video."""
        return page_of("video", ti_key)


LINKS = (UGenJobLink(), UGenVideoLink())
