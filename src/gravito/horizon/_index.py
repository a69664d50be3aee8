"""The jobs of one state of one queue, in order, a page at a time. Each page costs the same wherever it is.

Pages by number are for people who leaf through. A search reads on from a mark instead, so that jobs which come and go
meanwhile make it miss none that stays where it is.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gravito.errors import HorizonError

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["INDEXES", "Claims", "Index", "Lines", "Parked", "State", "Timed"]

State = Literal["ready", "delayed", "running", "parked", "done", "dead"]
Mark = list[Any]
Entry = tuple[float, str]  # ms by which the list is ordered, or 0; id of the job
Bounds = tuple[int | None, int | None]  # ms

_AT_ONCE: Final = 1_000  # members that are read in one go
_SLACK: Final = 10_000  # jobs that may have been put in front of a line since a mark was made


class Index:
    """See the module.

    Args:
        broker: the queue.
        bounds: of the time by which it is ordered, where it is.
    """

    def __init__(self, broker: Broker, bounds: Bounds = (None, None)) -> None:
        self.broker = broker
        self.bounds = bounds
        self._client: Any = broker.client.with_options(decode_responses=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.broker.queue}>"

    def _key(self, part: str) -> str:
        return self.broker.keys.part(part)

    async def count(self) -> int:
        """How many there are."""
        raise NotImplementedError

    async def page(self, offset: int, limit: int) -> list[Entry]:
        """So many, from a place on."""
        raise NotImplementedError

    async def after(self, mark: Mark | None, limit: int) -> tuple[list[Entry], Mark | None]:
        """So many behind a mark, and the next mark; None at the end."""
        raise NotImplementedError


class Timed(Index):
    """Delayed jobs, the soonest first; ended and dead ones, the latest first."""

    def __init__(self, broker: Broker, part: str, bounds: Bounds = (None, None)) -> None:
        super().__init__(broker, bounds)
        self.newest_first = part != "delayed"
        self._part = part
        self._name = self._key(part)

    async def count(self) -> int:
        low, high = self._range()
        if self.bounds != (None, None):
            return int(await self._client.zcount(self._name, low, high))
        if self._part != "delayed":
            return int(await self._client.zcard(self._name))
        waits = await self._client.hget(
            self._key("limits"), "waits"
        )  # entries of rate limits, which are no jobs
        return int(await self._client.zcard(self._name)) - int(waits or 0)

    async def page(self, offset: int, limit: int) -> list[Entry]:
        if self.bounds == (None, None):
            found = await self._client.zrange(
                self._name, offset, offset + limit - 1, desc=self.newest_first, withscores=True
            )
        else:
            found = await self._by_score(*self._range(), offset, limit)
        return self._entries(found)

    async def after(self, mark: Mark | None, limit: int) -> tuple[list[Entry], Mark | None]:
        low, high = self._range()
        offset = 0
        while True:
            if mark is None:
                found = await self._by_score(low, high, offset, limit)
            elif self.newest_first:
                found = await self._by_score(low, mark[0], offset, limit)
            else:
                found = await self._by_score(mark[0], high, offset, limit)
            if not found:
                return [], None
            fresh = [one for one in found if mark is None or self._behind(one, mark)]
            if fresh:
                return self._entries(fresh), [fresh[-1][1], fresh[-1][0]]
            offset += len(found)  # all of the mark's own moment

    async def ahead(self, ms: int) -> int:
        """How many stand before all that have this time."""
        low, high = self._range()
        if self.newest_first:
            return int(await self._client.zcount(self._name, f"({ms}", high))
        return int(await self._client.zcount(self._name, low, f"({ms}"))

    async def during(self, ms: int) -> int:
        """How many have this time."""
        return int(await self._client.zcount(self._name, ms, ms))

    async def starting(self, ms: int, limit: int, offset: int = 0) -> list[Entry]:
        """So many, from this time on, or from so many behind its first."""
        low, high = self._range()
        if self.newest_first:
            return self._entries(await self._by_score(low, ms, offset, limit))
        return self._entries(await self._by_score(ms, high, offset, limit))

    async def edges(self) -> tuple[int, int] | None:
        """The earliest and the latest time; None if there is nothing."""
        low, high = self._range()
        first = await self._client.zrangebyscore(self._name, low, high, 0, 1, withscores=True)
        last = await self._client.zrevrangebyscore(self._name, high, low, 0, 1, withscores=True)
        return (int(first[0][1]), int(last[0][1])) if first and last else None

    def _behind(self, one: tuple[bytes, float], mark: Mark) -> bool:
        here, there = (one[1], one[0]), (float(mark[0]), bytes(mark[1]))
        return here < there if self.newest_first else here > there

    def _range(self) -> tuple[str | int, str | int]:
        low, high = self.bounds
        return "-inf" if low is None else low, "+inf" if high is None else high

    async def _by_score(self, low: Any, high: Any, offset: int, limit: int) -> list[tuple[bytes, float]]:
        if self.newest_first:
            return list(
                await self._client.zrevrangebyscore(self._name, high, low, offset, limit, withscores=True)
            )
        return list(await self._client.zrangebyscore(self._name, low, high, offset, limit, withscores=True))

    def _entries(self, found: list[Any]) -> list[Entry]:
        if self._part != "delayed":
            return [(score, member.decode()) for member, score in found]
        return [(score, member[1:].decode()) for member, score in found if member[:1] != b"L"]


class Parked(Index):
    """Jobs that a limit holds back, by the limit's name, the oldest first."""

    async def count(self) -> int:
        return int(await self._client.zcard(self._key("parked")))

    async def page(self, offset: int, limit: int) -> list[Entry]:
        return _spots(await self._client.zrange(self._key("parked"), offset, offset + limit - 1))

    async def after(self, mark: Mark | None, limit: int) -> tuple[list[Entry], Mark | None]:
        low = b"-" if mark is None else b"(" + mark[0]
        found = await self._client.zrangebylex(self._key("parked"), low, "+", 0, limit)
        return _spots(found), [found[-1]] if found else None


class Lines(Index):
    """Ready jobs: critical, high, default, low, and then those that take turns between tenants."""

    async def count(self) -> int:
        return max(0, sum(await self._lengths()) - await self._gone())

    async def page(self, offset: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        if await self._gone():
            return await self._page_of_those_there(offset, limit)
        for line, length in enumerate(await self._lengths()):
            if offset < length and len(found) < limit:
                found += await self._part(line, offset, limit - len(found))
            offset = max(0, offset - length)
        return found

    async def after(self, mark: Mark | None, limit: int) -> tuple[list[Entry], Mark | None]:
        line, offset, anchor = mark or [0, 0, None]
        if anchor is not None:
            offset = await self._behind(line, offset, anchor)
        while line <= 4:
            raw = await self._raw(line, offset, limit)
            if raw:
                there = await self._there([self._entry(line, one) for one in raw])
                return there, [line, offset + len(raw) - 1, raw[-1]]
            line, offset = line + 1, 0
        return [], None

    async def _page_of_those_there(self, offset: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        entries, mark = await self.after(None, _AT_ONCE)
        while mark is not None and len(found) < offset + limit:
            found += entries
            entries, mark = await self.after(mark, _AT_ONCE)
        return [*found, *entries][offset : offset + limit]

    async def _gone(self) -> int:
        """Members of jobs that were cancelled: they stay in their line until a worker comes to them."""
        return int(await self._client.scard(self._key("gone")))

    async def _there(self, entries: list[Entry]) -> list[Entry]:
        if not await self._gone():
            return entries
        flags = await self._client.smismember(self._key("gone"), [job_id for _, job_id in entries])
        return [entry for entry, flag in zip(entries, flags, strict=True) if not flag]

    async def _behind(self, line: int, offset: int, anchor: bytes) -> int:
        """Where to go on. A job that is gone was at the head, and with it all before it."""
        if line == 4:
            rank = await self._client.zrank(self._key("fair"), anchor)
        else:
            rank = await self._client.lpos(self._key(f"ready:{line}"), anchor, maxlen=offset + _SLACK)
        return 0 if rank is None else int(rank) + 1

    async def _lengths(self) -> list[int]:
        lines = [self._client.llen(self._key(f"ready:{line}")) for line in range(4)]
        return list(await asyncio.gather(*lines, self._client.zcard(self._key("fair"))))

    async def _part(self, line: int, offset: int, limit: int) -> list[Entry]:
        return [self._entry(line, one) for one in await self._raw(line, offset, limit)]

    async def _raw(self, line: int, offset: int, limit: int) -> list[bytes]:
        if line == 4:
            return list(await self._client.zrange(self._key("fair"), offset, offset + limit - 1))
        return list(await self._client.lrange(self._key(f"ready:{line}"), offset, offset + limit - 1))

    def _entry(self, line: int, raw: bytes) -> Entry:
        return 0.0, (raw[1:] if line == 4 or raw[:1] == b"!" else raw).decode()


class Claims(Index):
    """Running jobs, those that were claimed first in front. There are as many as the workers may run."""

    async def count(self) -> int:
        return int(await self._client.hlen(self._key("active")))

    async def page(self, offset: int, limit: int) -> list[Entry]:
        return [(0.0, job_id) for _, job_id in (await self._all())[offset : offset + limit]]

    async def after(self, mark: Mark | None, limit: int) -> tuple[list[Entry], Mark | None]:
        found = [one for one in await self._all() if mark is None or one > tuple(mark)][:limit]
        return [(0.0, job_id) for _, job_id in found], list(found[-1]) if found else None

    async def _all(self) -> list[tuple[int, str]]:
        held = await self._client.hgetall(self._key("active"))
        return sorted((int(value[1:].partition(b":")[0]), name.decode()) for name, value in held.items())


def index(broker: Broker, state: State, bounds: Bounds = (None, None)) -> Index:
    """The index of a state.

    Raises:
        HorizonError: there is no such state.
    """
    if state in ("delayed", "done", "dead"):
        return Timed(broker, state, bounds)
    kind = INDEXES.get(state)
    if kind is None:
        raise HorizonError(
            f"{state!r} is no state to list; allowed: ready, delayed, running, parked, done, dead"
        )
    return kind(broker, bounds)


INDEXES: Final[dict[str, type[Index]]] = {"ready": Lines, "running": Claims, "parked": Parked}


def _spots(found: list[bytes]) -> list[Entry]:
    return [(0.0, spot.split(b"\0", 2)[2][1:].decode()) for spot in found]


def seal_mark(mark: Any) -> str:
    """A mark as text that fits into an address."""
    return urlsafe_b64encode(msgspec.msgpack.encode(mark)).decode().rstrip("=")


def open_mark(text: str) -> Any:
    """The mark in a text.

    Raises:
        HorizonError: it is none.
    """
    try:
        return msgspec.msgpack.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (Base64Error, ValueError, msgspec.DecodeError) as error:
        raise HorizonError(f"{text[:50]!r} is no mark of an earlier page") from error
