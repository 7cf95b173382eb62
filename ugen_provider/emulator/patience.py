# SPDX-License-Identifier: Apache-2.0
"""Waiting by the emulator's clock, on an event loop."""

import asyncio
import functools

from ugen_provider.emulator.world.clock import Clock


async def pause(clock: Clock, seconds: float) -> None:
    """Wait until the emulator's clock has moved on by `seconds`, by itself or by hand."""
    moment = clock.now() + seconds
    loop = asyncio.get_running_loop()
    while (delay := clock.wall_delay(moment)) != 0:
        moved = asyncio.Event()
        forget = clock.listen(functools.partial(loop.call_soon_threadsafe, moved.set))
        try:
            async with asyncio.timeout(delay):
                await moved.wait()
        except TimeoutError:
            pass
        finally:
            forget()
