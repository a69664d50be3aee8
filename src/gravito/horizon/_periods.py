"""Reading the counters: minutes and hours of queues, what is over kept in memory, since it changes no more."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gravito.horizon._figures import Counts, Fields, added

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["Periods"]

_OPEN: Final = 2  # latest minutes that may still be written to; as in roll.lua
_MOST: Final = 2_000_000  # counters that are remembered: 24 MB
_BEHIND: Final = 5  # minutes that may wait to be added to their hour, until a reader sees to it
_AT_ONCE: Final = 200  # hashes that are asked for in one go

_Packed = tuple["array[int]", "array[int]"]  # numbers of fields, and their counts
_Key = tuple[str, str, int]  # queue or queues, m or h, minute or hour


class Periods:
    """Counters of minutes and hours, for readers of one event loop.

    Args:
        most: counters of the past that it remembers.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.fields = Fields()
        self._most = most
        self._past: OrderedDict[_Key, _Packed] = OrderedDict()  # least recently used first
        self._size = 0  # counters in it

    def __repr__(self) -> str:
        return f"<Periods of {len(self._past)} minutes and hours>"

    async def minutes(self, brokers: Sequence[Broker], now: int, first: int, last: int) -> list[Counts]:
        """The counters of minutes since the epoch, all queues together.

        Args:
            brokers: the queues.
            now: this minute, by the server's clock.
            first: the oldest; at most three hours back.
            last: the latest.
        """
        over = now - _OPEN
        every = await self._together(brokers, "m", range(first, min(last, over) + 1), [over] * len(brokers))
        return every + await self._summed(brokers, "m", range(max(first, over + 1), last + 1), over)

    async def hours(self, brokers: Sequence[Broker], now: int, first: int, last: int) -> list[Counts]:
        """The counters of hours since the epoch, all queues together; those of the present one as far as they go.

        Args:
            brokers: the queues.
            now: this minute, by the server's clock.
            first: the oldest hour; at most seven days back.
            last: the latest.
        """
        rolled = await asyncio.gather(*[self._rolled(broker, now) for broker in brokers])
        # of each queue, the last hour that has all its minutes; a queue that has never counted has nothing to come
        over = [now // 60 - 1 if one is None else (one + 1) // 60 - 1 for one in rolled]
        whole = min(over, default=last)
        every = await self._together(brokers, "h", range(first, min(last, whole) + 1), over)
        for hour in range(max(first, whole + 1), last + 1):
            closed = [broker for broker, until in zip(brokers, over, strict=True) if hour <= until]
            others = [broker for broker, until in zip(brokers, over, strict=True) if hour > until]
            parts = await self._summed(closed, "h", range(hour, hour + 1), hour)
            parts += await self.minutes(others, now, hour * 60, min(hour * 60 + 59, now))
            every.append(added(parts))
        return every

    async def _rolled(self, broker: Broker, now: int) -> int | None:
        client = broker.client.with_options(decode_responses=False)
        rolled = await client.hget(broker.keys.part("conf"), "rolled")
        if rolled is not None and now - int(rolled) > _BEHIND:  # no worker has been there to do so
            return await broker.roll()
        return None if rolled is None else int(rolled)

    async def _together(
        self, brokers: Sequence[Broker], kind: str, wanted: Iterable[int], over: Sequence[int]
    ) -> list[Counts]:
        """Periods that are over in all queues: their sums are remembered as well."""
        if len(brokers) == 1:
            return await self._summed(brokers, kind, wanted, over[0])
        scope = " ".join(broker.queue for broker in brokers)
        sums: list[Counts] = []
        for index in wanted:
            known = self._recall((scope, kind, index))
            if known is None:
                [known] = await self._summed(brokers, kind, (index,), index)
                self._remember((scope, kind, index), known)
            sums.append(known)
        return sums

    async def _summed(
        self, brokers: Sequence[Broker], kind: str, wanted: Iterable[int], over: int
    ) -> list[Counts]:
        found: dict[tuple[int, int], Counts] = {}
        missing: list[tuple[int, int]] = []
        indexes = list(wanted)
        for index in indexes:
            for at, broker in enumerate(brokers):
                known = self._recall((broker.queue, kind, index))
                if known is None:
                    missing.append((at, index))
                else:
                    found[at, index] = known
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            reads = [self._read(brokers[at], kind, index) for at, index in part]
            for (at, index), counts in zip(part, await asyncio.gather(*reads), strict=True):
                found[at, index] = counts
                if index <= over:
                    self._remember((brokers[at].queue, kind, index), counts)
        return [added(found[at, index] for at in range(len(brokers))) for index in indexes]

    async def _read(self, broker: Broker, kind: str, index: int) -> Counts:
        client: Any = broker.client.with_options(decode_responses=False)
        name = broker.keys.minute(index) if kind == "m" else broker.keys.hour(index)
        number = self.fields.number
        return {number(field): int(count) for field, count in (await client.hgetall(name)).items()}

    # -- the past --------------------------------------------------------------------------------------------

    def _remember(self, key: _Key, counts: Counts) -> None:
        if key in self._past:  # two readers at once
            return
        self._past[key] = (array("I", counts.keys()), array("Q", counts.values()))
        self._size += len(counts) + 1
        while self._size > self._most and len(self._past) > 1:
            _, (numbers, _) = self._past.popitem(last=False)
            self._size -= len(numbers) + 1

    def _recall(self, key: _Key) -> Counts | None:
        packed = self._past.get(key)
        if packed is None:
            return None
        self._past.move_to_end(key)
        return dict(zip(*packed, strict=True))
