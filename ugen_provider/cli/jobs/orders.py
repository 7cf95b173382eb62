# SPDX-License-Identifier: Apache-2.0
"""The orders of `ugen jobs create`, written down on this machine before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ugen_provider.core.jobs.intent import FileIntentStore, Intent


class Orders:
    """The folder of orders.

    Args:
        folder: Where they are; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = FileIntentStore(folder)

    def all(self) -> Iterator[Intent]:
        """Every order; a file that is none is passed over."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield Intent.from_dict(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, AttributeError):
                continue

    def of_job(self, job_id: str) -> Intent | None:
        """The order that bought a job."""
        return next((intent for intent in self.all() if intent.job_id == job_id), None)


def order_name(intent: Intent) -> str:
    """What `--order` called it.

    Examples:
        >>> from ugen_provider.core.jobs.scope import named_scope
        >>> scope = str(named_scope("spring lamp"))
        >>> order_name(Intent(scope, 0, "k", {}, "", 1, 0.0))
        'spring lamp'
    """
    parts = json.loads(intent.scope)
    return str(parts[-1])
