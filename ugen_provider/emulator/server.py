# SPDX-License-Identifier: Apache-2.0
"""The emulator behind a real socket: uvicorn, in a thread of ours or as the whole process."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from ugen_provider.emulator.api.service import PREFIX, Service
from ugen_provider.emulator.app import CONNECTION, app_over
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.world import World

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Hands its transport to the application, which may have to reset it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION: transport}  # type: ignore[has-type]


class _Uvicorn(uvicorn.Server):
    """Tells when it listens, and leaves signals to whoever runs it."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


class EmulatorServer:
    """An emulator that listens on a socket.

    As a context manager it runs in a thread of its own:

        with EmulatorServer(Settings(speed=0, admin=True)) as server:
            client = UGenClient(api_key="ugen_sk_local", base_url=server.base_url)

    Args:
        settings: What to start with.
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Raises:
        OSError: The port is taken.
        ValueError: `/_emulator` would answer beyond loopback, or the database cannot be used.
    """

    def __init__(self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        settings = settings or Settings()
        if settings.admin and host not in LOOPBACK and not settings.admin_anywhere:
            raise ValueError(f"admin on {host} lets anybody there steer it: set admin_anywhere if you mean it")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only for sockets that name the protocol; with it each answer takes 40 ms.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self.emulator = World(settings)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self.emulator.set_base_url(self.url)
        self.service = Service(self.emulator)
        self.app = app_over(self.service)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._up = threading.Event()
        self._server: _Uvicorn | None = None

    @property
    def base_url(self) -> str:
        """What a client is given as its base URL."""
        return self.url + PREFIX

    def run(self, listening: Callable[[], None] | None = None) -> None:
        """Serve in this thread until `stop`, SIGTERM or SIGINT.

        Args:
            listening: Called once connections are accepted.
        """
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            # Longer than any client of ours keeps an idle connection, so that none is closed under a request.
            timeout_keep_alive=120,
            http=_Protocol,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = server = _Uvicorn(config, listening or (lambda: None))

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._loop.add_signal_handler(number, self.stop)
            await server.serve(sockets=[self._socket])

        try:
            # uvicorn's own choice of loop: uvloop where it is installed.
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(serve())
        finally:
            self._socket.close()
            self.emulator.close()

    def stop(self) -> None:
        """Stop accepting, let open requests end, commit, and return from `run`."""
        if self._server is not None:
            self._server.should_exit = True

    def settle(self) -> None:
        """Wait until every webhook that is due by now has been sent and answered."""
        if self._loop is not None and self._loop.is_running() and self._up.is_set():
            asyncio.run_coroutine_threadsafe(self.app.state.dispatcher.settle(), self._loop).result(timeout=120)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, args=(self._up.set,), name="ugen-emulator", daemon=True)
        self._thread.start()
        if not self._up.wait(timeout=30):
            raise RuntimeError("the emulator did not start within 30 seconds: see its log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=10)
