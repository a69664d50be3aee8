"""When a wire's replies are due. One timer a wire, not one a command.

Replies come in order, so the oldest write is the one that is due first. A wire that misses a deadline in silence is
suspect: its late replies are still taken, but if it goes on saying nothing it is replaced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from gravito import errors
from gravito.atlas.wire import failures

if TYPE_CHECKING:
    from gravito.atlas.wire.connection import Wire

_PROBE_SHARE = 0.5  # of the timeout: how much longer a wire is given that missed a deadline in silence


class Mark(msgspec.Struct, gc=False):
    """One write: which entries it ended with, what it weighed, and when it was made."""

    last: int  # number of the last entry in it, counted over the wire's life
    size: int  # bytes
    weight: int  # commands
    at: float  # monotonic time
    read: int  # bytes read before it


class Deadlines:
    """Watches one wire's clock."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        self.timeout = timeout  # seconds a reply may take; None: as long as it likes
        self.marks: deque[Mark] = deque()  # writes not wholly answered, oldest first
        # The one timer; not cancelled when the queue runs empty.
        self.timer: asyncio.TimerHandle | None = None
        self._wire = wire
        self._loop = loop
        # When a wire that missed a deadline is replaced unless it speaks; 0: it missed none.
        self._suspect = 0.0
        self._suspect_read = 0  # bytes read when that was set
        self._expired = 0  # entries up to this number have had their deadline; late replies are dropped

    def arm(self, now: float) -> None:
        """Set the timer for whatever is due first, unless it is set."""
        timeout, waiting = self.timeout, self._wire.waiting
        if self.timer is not None or timeout is None or self._wire.ended is not None:
            return
        due = [mark.at + timeout for mark in self.marks if mark.last > self._expired][:1]
        if waiting:
            due.append(waiting[0].since + timeout)
        if self._suspect:
            due.append(self._suspect)
        if due:
            self.timer = self._loop.call_later(max(min(due) - now, 0.001), self._tick)

    def reset(self, timeout: float | None) -> None:
        """Change the timeout."""
        self.timeout = timeout
        self.cancel()
        self.arm(monotonic())

    def cancel(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _tick(self) -> None:
        self.timer = None
        timeout, wire = self.timeout, self._wire
        if timeout is None or wire.ended is not None:
            return
        now = monotonic()
        if self._suspect and now >= self._suspect and not self._cleared(now, timeout):
            return
        self._expire_sent(now, timeout)
        waiting = wire.waiting
        while waiting and (waiting[0].future.done() or waiting[0].since + timeout <= now):
            waiting.popleft().fail(failures.no_room(wire.address, timeout, *wire.load))
        self.arm(now)

    def _expire_sent(self, now: float, timeout: float) -> None:
        """Fail the callers whose reply is late. Their entries stay, so that late replies find their place."""
        late = [mark for mark in self.marks if mark.last > self._expired and mark.at + timeout <= now]
        if not late:
            return
        wire = self._wire
        self._expired = late[-1].last
        for entry in islice(wire.queue, max(0, self._expired - wire.answered)):
            if not entry.future.done():
                wire.meter.timeouts += 1
                entry.fail(failures.late_reply(entry, wire.address, timeout))
        silent = wire.read == late[-1].read  # not a byte since it was written: that is `timeout` by now
        due = now + timeout * (_PROBE_SHARE if silent else 1.0)
        if not self._suspect or due < self._suspect or wire.read != self._suspect_read:
            self._suspect, self._suspect_read = due, wire.read

    def _cleared(self, now: float, timeout: float) -> bool:
        """The time of a suspect wire is up: it goes on if it has spoken meanwhile, else it is replaced."""
        wire = self._wire
        if wire.read == self._suspect_read:
            silence = now - self.marks[0].at
            wire.fail(
                errors.TimeoutError(f"{wire.address} has not answered for {silence:.3g} s; wire replaced")
            )
            return False
        overdue = self._expired > wire.answered
        self._suspect, self._suspect_read = (now + timeout if overdue else 0.0), wire.read
        return True
