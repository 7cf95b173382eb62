# SPDX-License-Identifier: Apache-2.0
"""Sends webhooks when the clock says so, over sockets of its own: the emulator has no HTTP client."""

import asyncio
import contextlib
import ssl
from typing import Any
from urllib.parse import urlsplit

from ugen_provider.emulator.patience import pause
from ugen_provider.emulator.world.outbox import ANSWER_WITHIN, Delivery, Outbox
from ugen_provider.emulator.world.world import World

_AT_ONCE = 64
_SHORTEST = 0.01
"""Real seconds between two looks, so that a fast clock does not keep the loop busy."""


class Dispatcher:
    """Lets time pass and sends what is due, for as long as the loop runs.

    Args:
        world: Whose webhooks.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look after every jump of the clock, every change, and whenever something is due."""
        forget = [
            self._world.clock.listen(self._nudge),
            self._world.listen(self._nudge),
        ]
        try:
            while True:
                self._moved.clear()
                self._send_due()
                await self._rest()
        finally:
            for stop in forget:
                stop()
            for task in self._sending:
                task.cancel()

    async def settle(self) -> None:
        """Return when everything that is due has been sent and answered, retries that are due by now included."""
        while True:
            self._send_due()
            if not self._sending:
                return
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)

    def _nudge(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._moved.set)

    async def _rest(self) -> None:
        with self._world.lock:
            coming = [self._world.desk.next_due(), self._world.outbox.next_due()]
        moments = [moment for moment in coming if moment is not None]
        delay = self._world.clock.wall_delay(min(moments)) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if delay is None else max(_SHORTEST, delay)):
                await self._moved.wait()

    def _send_due(self) -> None:
        # A clock moved by hand may jump over much that is due: one after the other, as if it had run.
        most = 1 if self._world.clock.mode == "manual" else _AT_ONCE
        with self._world.lock:
            due = self._world.outbox.take_due(self._world.now(), most=most)
            self._world.commit()
        for delivery in due:
            task = asyncio.create_task(self._send(self._world.outbox, delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, outbox: Outbox, delivery: Delivery) -> None:
        clock = self._world.clock
        begun = clock.now()
        with self._world.lock:
            headers = outbox.headers(delivery, clock.stamp())
        status, error = None, None
        try:
            status = await self._within_time(delivery, headers)
        except TimeoutError:
            error = f"no answer within {ANSWER_WITHIN:g} s"
        except (OSError, ValueError, EOFError, ssl.SSLError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        with self._world.lock:
            if outbox is self._world.outbox:  # else it was reset meanwhile
                outbox.answered(delivery, status=status, error=error, took=clock.now() - begun)
                self._world.commit()
        self._nudge()

    async def _within_time(self, delivery: Delivery, headers: dict[str, str]) -> int:
        """Ask, and give up after 10 s: real ones, since the receiver lives in them, or ten that a test lets pass."""
        asking = asyncio.create_task(_post(delivery.url, headers, delivery.body.encode()))
        racing: set[asyncio.Task[Any]] = {asking}
        if self._world.clock.mode == "manual":
            racing.add(asyncio.create_task(pause(self._world.clock, ANSWER_WITHIN)))
        try:
            await asyncio.wait(racing, timeout=ANSWER_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise TimeoutError
            return asking.result()
        finally:
            for task in racing:
                task.cancel()


async def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    """POST a body and return the status of the answer."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        await writer.drain()
        answer = (await reader.readline()).decode("latin-1").split()
        if len(answer) < 2 or not answer[0].startswith("HTTP/") or not answer[1].isdigit():
            raise ValueError("the receiver's answer is no HTTP")
        return int(answer[1])
    finally:
        writer.close()
