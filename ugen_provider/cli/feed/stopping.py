# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a feed run: at once while the feed is read, in order once there are jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.batch.report import Report


class ReadingStoppedError(UGenError):
    """Ctrl-C while the feed was read: nothing was planned or bought."""


class Stopper:
    """Stops a run when it is asked to.

    The feed is read in a thread, which nothing can cancel: it is told at its next batch. Once there is a plan, the run
    itself is cancelled, and leaves what runs in order.
    """

    def __init__(self) -> None:
        self._asked = False
        self._reading = False

    def probe(self, point: str) -> None:
        """Called by the run at each of its points, in whatever thread.

        Raises:
            ReadingStoppedError: The feed is being read, and it was asked to stop.
        """
        if point == "plan.begun":
            self._reading = True
        if self._reading and self._asked and point in {"plan.batch", "plan.written"}:
            raise ReadingStoppedError("stopped while the feed was read")
        if point == "plan.written":
            self._reading = False

    async def run(self, work: Coroutine[Any, Any, Report]) -> Report:
        """Do the work, stopping it at Ctrl-C.

        Raises:
            KeyboardInterrupt: It was stopped.
        """
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        ours = threading.current_thread() is threading.main_thread()
        if ours:
            loop.add_signal_handler(signal.SIGINT, self._interrupt, task)
        try:
            return await task
        except (asyncio.CancelledError, ReadingStoppedError):
            raise KeyboardInterrupt from None
        finally:
            if ours:
                loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self, task: asyncio.Future[Report]) -> None:
        if not self._reading:
            task.cancel()
        elif self._asked:
            # A source that gives no bytes keeps its thread for ever. Nothing is planned yet, so nothing can be lost.
            click.echo("Error: stopped while the feed was read; nothing was bought", err=True)
            os._exit(ExitCode.INTERRUPTED)
        else:
            click.echo("stopping: the feed is read to its next batch; Ctrl-C again ends it at once", err=True)
        self._asked = True
