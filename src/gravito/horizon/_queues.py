"""Queues and their limits as readers see them now."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gravito.errors import HorizonError, PayloadError
from gravito.horizon._heartbeat import WorkerRecord, read_workers
from gravito.horizon._keys import check_queue
from gravito.horizon._messages import Sizes
from gravito.horizon._payload import read_body
from gravito.horizon._rows import moment
from gravito.horizon.call import Call

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["LimitRow", "QueueRow", "Queues"]


_NAMED: Final = 20  # queues that an error names


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

    async def check(self, name: str) -> None:
        """Refuse a queue that nobody knows: it never had a job, is not in the application's code, and no worker serves it.

        Raises:
            ConfigurationError: it is no name for a queue.
            HorizonError: there is none; with those that there are, the closest first.
        """
        check_queue(name)
        names = set(await self.names())
        if name in names:
            return
        names |= self._declared()
        names |= {queue for worker in (await read_workers(self._horizon))[1] for queue in worker.queues}
        if name in names or await self._used(name):
            return
        close = difflib.get_close_matches(name, names, 3)
        shown = [*close, *sorted(names.difference(close))]
        more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
        raise HorizonError(f"there is no queue {name!r}; there are: {', '.join(shown[:_NAMED])}{more}")

    async def _used(self, name: str) -> bool:
        """Whether it ever had a job: also one that was taken off the list by `forget`."""
        keys = self._horizon.broker(name).keys
        return bool(await self._horizon.client.exists(keys.part("totals"), keys.part("conf")))

    def _declared(self) -> set[str]:
        """The queues of the application's jobs and schedules."""
        jobs = {job.options.queue for job in self._horizon.jobs.values()}
        schedules = self._horizon.schedules.values()
        return jobs | {each.what.queue for each in schedules if isinstance(each.what, Call)}

    async def enter(self, name: str) -> None:
        """Put a queue on the list, ahead of its first job."""
        await self._horizon.client.sadd(self._known, name)

    async def forget(self, name: str) -> None:
        """Take an empty queue off the list.

        Raises:
            HorizonError: it is not empty, or paused, which nobody could see any more.
        """
        sizes = await self._horizon.broker(name).sizes()
        waiting = sum(sizes.ready) + sizes.fair + sizes.delayed + sizes.running + sizes.parked + sizes.dead
        if waiting:
            raise HorizonError(f"queue {name!r} has {waiting} jobs; purge it first")
        if sizes.paused:
            raise HorizonError(f"queue {name!r} is paused; resume it first")
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
