# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks connections at any byte, by a seed.

TCP itself delivers each byte once and in order, or fails. So the proxy never changes the bytes of one connection; it
does what networks, load balancers and dying processes do: it drops a connection, lets one direction end early, waits,
or sends what a client sent a second time on a connection of its own, whose answer is lost.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Self

KINDS = ("drop", "truncate", "delay", "duplicate")
_PIECE = 1 << 14
_DELAY = 0.02


@dataclass(frozen=True)
class Fate:
    """Fate of a connection.

    Attributes:
        kind: One of `KINDS`, or `none`.
        upward: Whether it happens to the bytes of the client; else to those of the server.
        at: After how many bytes of that direction.
    """

    kind: str
    upward: bool
    at: int


def draw_fate(draw: random.Random, *, rate: float, largest: int) -> Fate:
    """Draw the fate of a connection; small offsets are as likely as large ones, so that heads are cut too."""
    if draw.random() >= rate:
        return Fate("none", upward=False, at=0)
    kind = draw.choice(KINDS)
    return Fate(kind, upward=kind == "duplicate" or draw.random() < 0.5, at=int(largest ** draw.random()) - 1)


class FaultProxy:
    """Passes connections on to a port of this machine, in a thread of its own.

    Args:
        port: Where to.
        seed: Decides the fates, connection by connection.
        rate: Share of connections that something happens to.
        largest: The largest offset at which it happens.
    """

    def __init__(self, port: int, *, seed: int, rate: float = 0.5, largest: int = 4096) -> None:
        self.fates: Counter[str] = Counter()
        self.rate = rate
        self._target = port
        self._draw = random.Random(seed)
        self._largest = largest
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task)
        self._socket.close()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = draw_fate(self._draw, rate=self.rate, largest=self._largest)
        self.fates[fate.kind] += 1
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends = (writer, up_writer)
            none = Fate("none", upward=False, at=0)
            try:
                await asyncio.gather(
                    self._pump(reader, up_writer, fate if fate.upward else none, ends),
                    self._pump(up_reader, writer, none if fate.upward else fate, ends),
                )
            finally:
                for end in ends:
                    end.close()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        fate: Fate,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        passed, copy, armed = 0, bytearray(), fate.kind != "none"
        with contextlib.suppress(OSError):
            while piece := await source.read(_PIECE):
                if armed and passed + len(piece) > fate.at:
                    armed = False
                    before = piece[: fate.at - passed]
                    target.write(before)
                    if fate.kind == "drop":
                        _reset(*ends)
                        return
                    if fate.kind == "truncate":
                        break
                    if fate.kind == "delay":
                        await target.drain()
                        await asyncio.sleep(_DELAY)
                    else:
                        await self._send_again(bytes(copy) + piece)
                    target.write(piece[len(before) :])
                else:
                    target.write(piece)
                if fate.kind == "duplicate":
                    copy += piece
                passed += len(piece)
                await target.drain()
        with contextlib.suppress(OSError, RuntimeError):
            target.write_eof()

    async def _send_again(self, sent: bytes) -> None:
        """Send what the client sent so far on another connection too; its answer is lost."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
            writer.write(sent)
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), _DELAY)
            writer.close()


def _reset(*ends: asyncio.StreamWriter) -> None:
    for end in ends:
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()
