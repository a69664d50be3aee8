"""Reading the counters: minutes and hours of a queue, what is over kept in memory, since it changes no more."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gravito.horizon._figures import Counts

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["Periods"]

_OPEN: Final = 2  # latest minutes that may still be written to; as in roll.lua
_MOST: Final = 1_000_000  # counters that are remembered: 12 MB
_BEHIND: Final = 5  # minutes that may wait to be added to their hour, until a reader sees to it

_Packed = tuple["array[int]", "array[int]"]  # numbers of fields, and their counts
_NOTHING: Final[_Packed] = (array("I"), array("Q"))


class Periods:
    """Counters of minutes and hours, for readers of one event loop.

    Args:
        most: counters of the past that it remembers.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._past: OrderedDict[tuple[str, str, int], _Packed] = OrderedDict()  # least recently used first
        self._size = 0  # counters in it
        self._numbers: dict[str, int] = {}  # of field names, which are the same in every period
        self._names: list[str] = []

    def __repr__(self) -> str:
        return f"<Periods of {len(self._past)} minutes and hours>"

    async def minutes(self, broker: Broker, now: int, first: int, last: int) -> list[Counts]:
        """The counters of minutes since the epoch.

        Args:
            broker: the queue.
            now: this minute, by the server's clock.
            first: the oldest; at most three hours back.
            last: the latest.
        """
        wanted = list(range(first, last + 1))
        return await self._read(broker, "m", wanted, now - _OPEN)

    async def hours(self, broker: Broker, now: int, first: int, last: int) -> list[Counts]:
        """The counters of hours since the epoch, those of the present one as far as they go.

        Args:
            broker: the queue.
            now: this minute, by the server's clock.
            first: the oldest hour; at most seven days back.
            last: the latest.
        """
        rolled = await self._rolled(broker, now)
        if rolled is None:
            return [{} for _ in range(first, last + 1)]
        over = (rolled + 1) // 60 - 1  # the last hour that has all its minutes
        closed = await self._read(broker, "h", list(range(first, min(last, over) + 1)), over)
        return closed + [
            _added(await self.minutes(broker, now, hour * 60, min(hour * 60 + 59, now)))
            for hour in range(max(first, over + 1), last + 1)
        ]

    async def _rolled(self, broker: Broker, now: int) -> int | None:
        client = broker.client.with_options(decode_responses=False)
        rolled = await client.hget(broker.keys.part("conf"), "rolled")
        if rolled is None:
            return None
        if now - int(rolled) > _BEHIND:  # no worker has been there to do so
            return await broker.roll()
        return int(rolled)

    async def _read(self, broker: Broker, kind: str, wanted: Sequence[int], final: int) -> list[Counts]:
        client = broker.client.with_options(decode_responses=False)
        name = broker.keys.minute if kind == "m" else broker.keys.hour
        found = {index: self._recall((broker.queue, kind, index)) for index in wanted}
        missing = [index for index, counts in found.items() if counts is None]
        replies: list[Any] = await asyncio.gather(*[client.hgetall(name(index)) for index in missing])
        for index, reply in zip(missing, replies, strict=True):
            found[index] = counts = {field.decode(): int(count) for field, count in reply.items()}
            if index <= final:
                self._remember((broker.queue, kind, index), counts)
        return [found[index] or {} for index in wanted]

    def _remember(self, key: tuple[str, str, int], counts: Counts) -> None:
        if len(self._names) > self._most:  # names that come and go: begin again
            self._past.clear()
            self._numbers.clear()
            self._names.clear()
            self._size = 0
        if key in self._past:  # two readers at once
            return
        self._past[key] = self._packed(counts)
        self._size += len(counts) + 1
        while self._size > self._most and len(self._past) > 1:
            _, (numbers, _) = self._past.popitem(last=False)
            self._size -= len(numbers) + 1

    def _packed(self, counts: Counts) -> _Packed:
        if not counts:
            return _NOTHING
        numbers = array("I")
        for field in counts:
            number = self._numbers.get(field)
            if number is None:
                number = self._numbers[field] = len(self._names)
                self._names.append(field)
            numbers.append(number)
        return numbers, array("Q", counts.values())

    def _recall(self, key: tuple[str, str, int]) -> Counts | None:
        packed = self._past.get(key)
        if packed is None:
            return None
        self._past.move_to_end(key)
        names = self._names
        return {names[number]: count for number, count in zip(*packed, strict=True)}


def _added(parts: Sequence[Counts]) -> Counts:
    sums: dict[str, int] = {}
    for part in parts:
        for field, count in part.items():
            sums[field] = sums.get(field, 0) + count
    return sums
