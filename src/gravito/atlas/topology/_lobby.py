"""Where entries of a cluster wait while nobody is known to serve their slot: before the first map, and while a
node is lost and its replica has not taken over yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import retry
from gravito.atlas.wire.entry import Entry, anew
from gravito.atlas.wire.failures import lost_reply


class Lobby:
    """Keeps entries, first in, first out, until there is a new map or their deadline has passed."""

    connected = False  # a node has this, too

    def __init__(self, settings: Settings, wanted: Callable[[], None]) -> None:
        self._settings = settings
        self._wanted = wanted  # told that somebody waits for a map
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Entry] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.reason: Exception | None = None  # why nobody could be asked, as far as it is known
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, entry: Entry) -> None:
        """Take an entry. It stands in for a node's `send` in the table of slots."""
        if self.closed:
            entry.fail(errors.LoopError(f"connection '{self._settings.name}' is closed"))
            return
        now = self._loop.time()
        entry.since = now
        if not entry.deadline:
            entry.deadline = now + (self._settings.timeouts.command or retry.NO_TIMEOUT)
        self._waiting.append(entry)
        if self._timer is None:
            self._watch()
        self._wanted()

    def send_apart(self, entry: Entry, hold: float, clean: bool, patience: float = 0.0) -> None:
        """The same; which wire it needs is seen again when it leaves."""
        self.send(entry)

    def leave(self) -> list[Entry]:
        """All who wait and are still wanted; they wait no more."""
        waiting, self._waiting = self._waiting, deque()
        return [anew(entry) for entry in waiting if not entry.future.done()]

    def fail(self, cause: Exception) -> None:
        """Fail all who wait."""
        for entry in self.leave():
            entry.fail(lost_reply(entry, cause, written=False))

    def _watch(self) -> None:
        self._timer = None
        if self._waiting and not self.closed:
            first = min(entry.deadline for entry in self._waiting)
            self._timer = self._loop.call_at(max(first, self._loop.time() + 0.01), self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        late = [entry for entry in self._waiting if entry.deadline <= now]
        self._waiting = deque(
            entry for entry in self._waiting if entry.deadline > now and not entry.future.done()
        )
        why = f" ({self.reason})" if self.reason is not None else ""
        for entry in late:
            entry.fail(
                errors.ConnectTimeoutError(
                    f"connection '{self._settings.name}' ({self._settings.address}): no node served "
                    f"{entry.spec.name}'s slot within its deadline; it was not applied{why}"
                ).about(node=self._settings.address)
            )
        self._watch()

    def close(self) -> None:
        """Fail all who wait, now and later."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.fail(errors.LoopError(f"connection '{self._settings.name}' was closed"))
