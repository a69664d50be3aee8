"""Queues and their limits as readers see them now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gravito.errors import HorizonError, PayloadError
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon._messages import Sizes
from gravito.horizon._payload import read_body
from gravito.horizon._rows import moment

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["LimitRow", "QueueRow", "Queues"]


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue now.

    Args:
        name: its name.
        sizes: how many jobs are where, whether it is paused, and its totals since its first job.
        oldest: seconds since the ready job that waits longest was first due; None without one.
        workers: processes that serve it.
    """

    name: str
    sizes: Sizes
    oldest: float | None = None
    workers: int = 0

    @property
    def ready(self) -> int:
        """Jobs that could run now."""
        return sum(self.sizes.ready) + self.sizes.fair


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of a queue that is in use.

    Args:
        name: the limit's.
        kind: rate or concurrency.
        running: jobs that hold a place, of a concurrency limit.
        free_at: when a rate limit has its full burst again.
    """

    name: str
    kind: Literal["rate", "concurrency"]
    running: int | None = None
    free_at: datetime | None = None


class Queues:
    """Reads the queues of a Horizon, one call for each.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._known = f"{horizon.settings.prefix}:queues"

    def __repr__(self) -> str:
        return f"<Queues of {self._horizon!r}>"

    async def names(self) -> list[str]:
        """All queues that ever got a job or a worker, by name."""
        client: Any = self._horizon.client.with_options(decode_responses=True)
        return sorted(name for name in await client.smembers(self._known) if not name.startswith("gravito."))

    async def forget(self, name: str) -> None:
        """Take an empty queue off the list.

        Raises:
            HorizonError: it is not empty.
        """
        sizes = await self._horizon.broker(name).sizes()
        waiting = sum(sizes.ready) + sizes.fair + sizes.delayed + sizes.running + sizes.parked + sizes.dead
        if waiting:
            raise HorizonError(f"queue {name!r} has {waiting} jobs; purge it first")
        await self._horizon.client.srem(self._known, name)

    async def sizes(self) -> dict[str, Sizes]:
        """How many jobs are where, by queue."""
        names = await self.names()
        found = await asyncio.gather(*[self._horizon.broker(name).sizes() for name in names])
        return dict(zip(names, found, strict=True))

    async def rows(self, names: Sequence[str], workers: Sequence[WorkerRecord]) -> list[QueueRow]:
        """Some queues, in that order."""
        serving = [name for worker in workers for name in worker.queues]
        return list(await asyncio.gather(*[self._row(name, serving.count(name)) for name in names]))

    async def _row(self, name: str, workers: int) -> QueueRow:
        broker = self._horizon.broker(name)
        sizes, heads = await broker.standing()
        due = [at for body in heads if (at := _due(body)) is not None]
        oldest = max(0.0, (broker.now_ms() - min(due)) / 1000) if due else None
        return QueueRow(name=name, sizes=sizes, oldest=oldest, workers=workers)

    async def limits(self, name: str, most: int) -> list[LimitRow]:
        """Limits of a queue that are in use now, at most so many."""
        client: Any = self._horizon.client.with_options(decode_responses=False)
        drawn = await client.hrandfield(self._horizon.broker(name).keys.part("limits"), most, withvalues=True)
        flat = [
            part for pair in drawn or [] for part in (pair if isinstance(pair, list | tuple) else (pair,))
        ]
        rows = [_limit(field, value) for field, value in zip(flat[::2], flat[1::2], strict=True)]
        return sorted((row for row in rows if row is not None), key=lambda row: (row.kind, row.name))


def _due(body: bytes) -> int | None:
    """When a job was first due, in ms."""
    try:
        return read_body(body).due
    except PayloadError:  # a newer release's
        return None


def _limit(field: bytes, value: bytes) -> LimitRow | None:
    name = field[1:].decode()
    if field == b"waits":
        return None
    if field[:1] == b"c":
        return LimitRow(name=name, kind="concurrency", running=int(value))
    return LimitRow(name=name, kind="rate", free_at=moment(round(float(value))))
