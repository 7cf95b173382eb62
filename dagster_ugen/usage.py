# SPDX-License-Identifier: Apache-2.0
"""A client that counts what it buys, so that an asset of your own says what it cost."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.effects import Effect, Flow, Response, Send, passed_on
from ugen_provider.core.api.flows import Operation

T = TypeVar("T")


class CountingClient(UGenClient):
    """A client that counts the jobs that it was given, and the credits that were reserved for them.

    Attributes:
        reserved: Credits reserved, by job id; a job that was there already counts too, once.
    """

    reserved: dict[str, int]

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow, and count what it buys."""
        return super().run(passed_on(flow, by=self._counted))

    def call(self, operation: Operation[T]) -> T:
        """Call one endpoint, and count what it buys."""
        return self.run(self.caller.call(operation))

    def _counted(self, effect: Effect) -> Flow[Any]:
        answer = yield effect
        if isinstance(effect, Send) and effect.request.point == "create" and isinstance(answer, Response):
            self.__dict__.setdefault("reserved", {}).update(_bought(answer))
        return answer

    def usage(self) -> dict[str, Any]:
        """What was counted, as metadata."""
        counted: dict[str, int] = self.__dict__.get("reserved", {})
        return {"ugen/jobs": len(counted), "ugen/credits_reserved": sum(counted.values())}


def _bought(answer: Response) -> dict[str, int]:
    if not 200 <= answer.status < 300:
        return {}
    try:
        job = json.loads(answer.body)
        return {str(job.get("job_id") or job.get("id")): int(job.get("credits_reserved") or 0)}
    except (ValueError, AttributeError, TypeError):
        return {}
