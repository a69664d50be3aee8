"""A queue's counters on the server: closing minutes that are over, and reading windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gravito.horizon._keys import Keys
from gravito.horizon._scripts import Caller

__all__ = ["Counts"]

_MINUTE: Final = 60_000  # ms
_HOUR: Final = 60 * _MINUTE
_OPEN: Final = 6  # minutes before this one that may wait to be closed, until a reader sees to it
_HOURS_AT_ONCE: Final = 200  # that one call of `close` goes through; more than are kept

Window = tuple[bool, int, int, int | bool]


class Counts:
    """See the module.

    Args:
        caller: runs the scripts.
        keys: the queue's.
    """

    def __init__(self, caller: Caller, keys: Keys) -> None:
        self._caller = caller
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Counts of {self._keys.queue}>"

    async def close(self) -> int | None:
        """Close the minutes that are over; see `Broker.roll`."""
        hour, last = self._caller.now_ms() // _HOUR, None
        for _ in range(_HOURS_AT_ONCE):
            minutes = [self._keys.minute(hour * 60 + minute) for minute in range(60)]
            now, rolled = await self._caller.run("roll", (hour,), *self._keys.counts, *minutes)
            if rolled < 0:
                return None
            if rolled == last or rolled >= now // _MINUTE - 2:
                return int(rolled)
            last, hour = rolled, (rolled + 1) // 60
        return last

    async def read(self, windows: Sequence[Window], job: str | None) -> list[Any] | None:
        """What was counted in some windows, as `scripts/counted.lua` gives it, without the time.

        Args:
            windows: whether it is one of hours, its first and last minute or hour since the epoch, at most 200, and the
                period from which on the sums by job are wanted, or False.
            job: of this one alone.

        Returns:
            None if some minutes have to be closed first.
        """
        eldest = self._caller.now_ms() // _MINUTE - _OPEN
        minutes = [self._keys.minute(minute) for minute in range(eldest, eldest + 8)]
        args = (eldest, job or False, windows)
        reply = await self._caller.run("counted", args, *self._keys.counts, *minutes)
        return reply[1:] if len(reply) > 2 else None
