"""Sees from a thread when a job blocks the event loop, names it, and keeps the leases meanwhile.

While the loop stands still nothing in it can renew a lease; without this every job of the worker would be run again
elsewhere because one of them calls `time.sleep`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable

_log = logging.getLogger("gravito.horizon")


class StallWatch:
    """Watches one event loop.

    Args:
        name: what the loop is doing now, for the log; called in the thread.
        renew: keeps the leases, in a loop of the thread's own.
        after: seconds of silence that count as a stall.
        patience: seconds for which leases are kept in a stall; then the jobs are given up to other workers.
        every: seconds between two renewals.
    """

    def __init__(
        self,
        name: Callable[[], str],
        renew: Callable[[], Awaitable[object]],
        *,
        after: float,
        patience: float,
        every: float,
    ) -> None:
        self._name = name
        self._renew = renew
        self._after = after
        self._patience = patience
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._main = threading.get_ident()
        self._beat = time.monotonic()  # when the loop last turned, as far as is known
        self._asked = False  # a beat is on its way
        self._stop = threading.Event()
        self.stalls = 0  # how often the loop stood still
        self._thread = threading.Thread(target=self._run, name="gravito-stall", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        tick = min(self._after / 4, 0.25)
        renewed = 0.0
        stalled = False
        while not self._stop.wait(tick):
            if not self._asked:
                self._asked = True
                try:
                    self._loop.call_soon_threadsafe(self._turned)
                except RuntimeError:  # the loop is closed
                    return
            silent = time.monotonic() - self._beat
            if silent < self._after:
                stalled = False
                continue
            if not stalled:
                stalled = True
                self.stalls += 1
                self._tell(silent)
            if silent < self._patience and time.monotonic() - renewed >= self._every:
                renewed = time.monotonic()
                self._keep()

    def _turned(self) -> None:
        self._beat = time.monotonic()
        self._asked = False

    def _tell(self, silent: float) -> None:
        frame = sys._current_frames().get(self._main)
        where = "".join(traceback.format_stack(frame)[-4:]) if frame is not None else ""
        _log.warning(
            "the event loop has stood still for %.1f s in %s; its leases are kept for %.0f s. Use a sync function, "
            "which runs in a thread, or `await` what blocks:\n%s",
            silent,
            self._name(),
            self._patience,
            where,
        )

    def _keep(self) -> None:
        try:
            asyncio.run(asyncio.wait_for(_once(self._renew), self._every))
        except Exception as error:
            _log.warning("leases could not be renewed while the event loop stood still: %s", error)


async def _once(renew: Callable[[], Awaitable[object]]) -> None:
    await renew()
