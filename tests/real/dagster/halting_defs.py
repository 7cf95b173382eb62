# SPDX-License-Identifier: Apache-2.0
"""The assets, whose runs stand still at the step of the protocol that their partition is named after.

A partition is called `WHEN--POINT--NTH--ACTION`. Its first run leaves its process id in the folder `UGEN_HALTS` when it
gets there, and goes no further; its second run passes. Every run writes the steps that it takes into `NAME.steps`, and,
when it waits for its job, its process id and that of its parent into `NAME.waits`.

Points are the effects of the flow, `record` for each event that is written, and the effects of an interrupted run that
deals with its job, with `stop.` before them. What the watcher sends while it waits is no step: it depends on the time.
"""

import asyncio
import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_ugen import UGenOptions, UGenResource, build_ugen_assets
from dagster_ugen.engine import Engine
from ugen_provider.core.api import _transport
from ugen_provider.core.api.effects import Send

HALTS = Path(os.environ["UGEN_HALTS"])
WATCHES = "watches"
doing: ContextVar[str] = ContextVar("doing", default="")
partition = ""
engine: Engine | None = None
seen: dict[str, int] = {}

run_engine = Engine.run
end_job = Engine._end
perform = _transport.AsyncDriver.perform
log_event = dg.OpExecutionContext.log_event


async def run_named(self: Engine) -> Any:
    global partition, engine
    partition, engine = self._work.partitions[0], self
    return await run_engine(self)


async def end_named(self: Engine, *arguments: Any) -> None:
    doing.set("stop.")
    await end_job(self, *arguments)


def arrives(when: str, point: str, number: int) -> bool:
    """Write the step down, and say whether to stand still there."""
    with (HALTS / f"{partition}.steps").open("a") as steps:
        steps.write(f"{when}--{point}--{number}\n")
    marker = HALTS / partition
    halts = partition.startswith(f"{when}--{point}--{number}--") and not marker.exists()
    if halts:
        marker.write_text(str(os.getpid()))
    return halts


async def perform_or_halt(self: _transport.AsyncDriver, effect: Any) -> Any:
    name = effect.request.point if isinstance(effect, Send) else getattr(effect, "point", "")
    if not name or doing.get() == WATCHES:
        return await perform(self, effect)
    point = doing.get() + name
    number = seen[point] = seen.get(point, 0) + 1
    if arrives("before", point, number):
        await asyncio.sleep(3600)
    if point == "wait":
        waits = HALTS / f"{partition}.waits"
        with waits.open("a") as file:
            file.write(f"{os.getpid()} {os.getppid()}\n")
        before = doing.set(WATCHES)
        try:
            answer = await perform(self, effect)
        finally:
            doing.reset(before)
    else:
        answer = await perform(self, effect)
    if arrives("after", point, number):
        await asyncio.sleep(3600)
    return answer


def log_or_halt(self: dg.OpExecutionContext, event: Any) -> None:
    number = seen["record"] = seen.get("record", 0) + 1
    for when in ("before", "after"):
        if arrives(when, "record", number):
            # A write is not cut off by an interrupt of its run: it ends, and then the run does.
            while engine is not None and not engine._stopping:
                time.sleep(0.05)
        if when == "before":
            log_event(self, event)


Engine.run = run_named  # type: ignore[method-assign]
Engine._end = end_named  # type: ignore[method-assign,assignment]
_transport.AsyncDriver.perform = perform_or_halt  # type: ignore[method-assign]
dg.OpExecutionContext.log_event = log_or_halt  # type: ignore[method-assign]


def request_of(product: str) -> dict[str, object]:
    return {"product_name": product, "product_image_url": "https://shop.example/p.jpg", "segment_count": 1}


defs = dg.Definitions(
    assets=build_ugen_assets(
        requests=request_of,
        partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products"),
        options=UGenOptions(interrupt_grace=20.0),
    ),
    resources={
        "ugen": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=os.environ["UGEN_BASE_URL"], poll_interval=1.0)
    },
)
