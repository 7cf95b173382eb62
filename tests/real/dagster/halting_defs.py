# SPDX-License-Identifier: Apache-2.0
"""The assets, whose runs halt at the contact of the purchase that their partition is named after.

A partition is called `WHEN--POINT--NTH--ACTION`. Its first run writes its process id into the folder `UGEN_HALTS` when
it gets there, and halts; its second run passes. Every run writes the contacts that it makes into `NAME.steps`, and,
when it waits for its job, its process id and that of its parent into `NAME.waits`.

Points are the contacts of a partition's world, `event` for each event that is written, and the contacts of an
interrupted run that ends its job, with `stop.` before them.
"""

import asyncio
import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_ugen import UGenOptions, UGenResource, build_ugen_assets
from dagster_ugen.execution import RunExecutor
from dagster_ugen.partition import PartitionWorld

HALTS = Path(os.environ["UGEN_HALTS"])
doing: ContextVar[str] = ContextVar("doing", default="")
partition = ""
executor: RunExecutor | None = None
seen: dict[str, int] = {}

run_executor = RunExecutor.run
end_job = RunExecutor._end
contact = PartitionWorld.contact
log_event = dg.OpExecutionContext.log_event


async def run_named(self: RunExecutor) -> Any:
    global partition, executor
    partition, executor = self._config.partitions[0], self
    return await run_executor(self)


async def end_named(self: RunExecutor, *arguments: Any) -> None:
    doing.set("stop.")
    await end_job(self, *arguments)


def arrives(when: str, point: str, number: int) -> bool:
    """Write the step down, and return whether to halt there."""
    with (HALTS / f"{partition}.steps").open("a") as steps:
        steps.write(f"{when}--{point}--{number}\n")
    marker = HALTS / partition
    halts = partition.startswith(f"{when}--{point}--{number}--") and not marker.exists()
    if halts:
        marker.write_text(str(os.getpid()))
    return halts


async def contact_or_halt(self: PartitionWorld, name: str, call: Any) -> Any:
    point = doing.get() + name
    number = seen[point] = seen.get(point, 0) + 1
    if arrives("before", point, number):
        await asyncio.sleep(3600)
    if name == "wait":
        with (HALTS / f"{partition}.waits").open("a") as file:
            file.write(f"{os.getpid()} {os.getppid()}\n")
    answer = await contact(self, name, call)
    if arrives("after", point, number):
        await asyncio.sleep(3600)
    return answer


def log_or_halt(self: dg.OpExecutionContext, event: Any) -> None:
    number = seen["event"] = seen.get("event", 0) + 1
    for when in ("before", "after"):
        if arrives(when, "event", number):
            # A write is not cut off by an interrupt of its run: it ends, and then the run does.
            while executor is not None and not executor._is_stopping:
                time.sleep(0.05)
        if when == "before":
            log_event(self, event)


RunExecutor.run = run_named  # type: ignore[method-assign]
RunExecutor._end = end_named  # type: ignore[method-assign,assignment]
PartitionWorld.contact = contact_or_halt  # type: ignore[method-assign]
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
