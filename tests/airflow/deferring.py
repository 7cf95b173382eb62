# SPDX-License-Identifier: Apache-2.0
"""The work of a scheduler and a triggerer on a task, without either."""

from __future__ import annotations

import asyncio
from typing import Any

from ugen_provider.version_compat import TaskDeferred


async def _event(trigger: Any) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def through(trigger: Any) -> dict[str, Any]:
    """Make a trigger again from what would be stored, and run it to its event."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    made = getattr(__import__(module, fromlist=[name]), name)(**arguments)
    return asyncio.run(_event(made))


def run(task: Any, context: dict[str, Any]) -> Any:
    """One attempt of a task, deferring as often as it likes."""
    try:
        return task.execute(context)
    except TaskDeferred as first:
        deferred = first
    while True:
        event = through(deferred.trigger)
        try:
            return task.resume_execution(deferred.method_name, {"event": event}, context)
        except TaskDeferred as again:
            deferred = again
