# SPDX-License-Identifier: Apache-2.0
"""The assets, whose runs stand still at the step of the protocol that their partition is named after.

A partition is called `WHEN--POINT--NTH--ACTION`. Its first run leaves its process id in the folder `UGEN_HALTS` when it
gets there, and goes no further; its second run passes.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_ugen import UGenOptions, UGenResource, build_ugen_assets
from dagster_ugen.engine import Engine
from ugen_provider.core.api import _transport
from ugen_provider.core.api.effects import Send

HALTS = Path(os.environ["UGEN_HALTS"])
partition = ""
seen: dict[str, int] = {}

run_engine = Engine.run
perform = _transport.AsyncDriver.perform


async def run_named(self: Engine) -> Any:
    global partition  # noqa: PLW0603  a run's process works on one partition
    partition = self._work.partitions[0]
    return await run_engine(self)


async def halt(when: str, point: str, number: int) -> None:
    marker = HALTS / partition
    if partition.startswith(f"{when}--{point}--{number}--") and not marker.exists():
        marker.write_text(str(os.getpid()))
        await asyncio.sleep(3600)


async def perform_or_halt(self: _transport.AsyncDriver, effect: Any) -> Any:
    point = effect.request.point if isinstance(effect, Send) else getattr(effect, "point", "")
    number = seen[point] = seen.get(point, 0) + 1
    await halt("before", point, number)
    answer = await perform(self, effect)
    await halt("after", point, number)
    return answer


Engine.run = run_named  # type: ignore[method-assign]
_transport.AsyncDriver.perform = perform_or_halt  # type: ignore[method-assign]


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
