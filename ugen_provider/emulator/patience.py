# SPDX-License-Identifier: Apache-2.0
"""Waiting by the emulator's clock, on an event loop."""

import asyncio
import contextlib
import functools

from ugen_provider.emulator.world.clock import Clock


async def pause(clock: Clock, seconds: float) -> None:
    """Wait until the emulator's clock has moved on by `seconds`, by itself or by hand."""
    moment = clock.now() + seconds
    loop = asyncio.get_running_loop()
    moved = asyncio.Event()
    # Listening comes before looking, or a jump in between would be missed.
    forget = clock.listen(functools.partial(loop.call_soon_threadsafe, moved.set))
    try:
        while (delay := clock.wall_delay(moment)) != 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await moved.wait()
            moved.clear()
    finally:
        forget()
