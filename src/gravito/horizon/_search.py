"""Finding jobs: pages of a state, searches that read on until they have looked at every job, dead jobs by error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.errors import PayloadError
from gravito.horizon import _payload
from gravito.horizon._index import State, Timed, index, open_mark, seal_mark
from gravito.horizon._merge import merged
from gravito.horizon._payload import NIL, Body, Record
from gravito.horizon._rows import Filter, JobRow, moment, read_row

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker
    from gravito.horizon.horizon import Horizon

__all__ = ["DeadGroup", "JobPage", "Search"]

_CHUNK: Final = 500  # jobs that are looked at in one go
_SCANNED: Final = 3_000  # jobs that one call looks at, before it answers with what it has


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs of a list.

    Args:
        jobs: rows; those that have moved on meanwhile show where they are now.
        total: how many the list has without the conditions of a search.
        mark: hand it in for what follows; None at the end, and on pages that go by offset.
        scanned: how many were looked at for this page of a search.
    """

    jobs: list[JobRow]
    total: int
    mark: str | None = None
    scanned: int = 0


class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Dead jobs of a queue with the same name and the same class of error.

    Args:
        queue: where they are.
        name: the job's name; empty for those whose worker died, and could not say.
        error: the class of the error.
        count: how many.
        latest: when the latest one died.
        sample: id of that.
        message: its error's text, while it is dead.
    """

    queue: str
    name: str
    error: str
    count: int
    latest: datetime | None
    sample: str
    message: str | None = None


class Search:
    """See the module.

    Args:
        horizon: whose queues.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon

    def __repr__(self) -> str:
        return f"<Search of {self._horizon!r}>"

    async def page(
        self, queues: Sequence[str], state: State, offset: int, limit: int, wanted: Filter
    ) -> JobPage:
        """A page by offset; over several queues, merged by time where the state has one, else queue by queue."""
        indexes = [index(self._broker(queue), state, wanted.bounds) for queue in queues]
        counts = await asyncio.gather(*[one.count() for one in indexes])
        timed = [one for one in indexes if isinstance(one, Timed)]
        if len(timed) > 1:
            found = await merged(timed, offset, limit, sum(counts))
        else:
            found = []
            for one, count in zip(indexes, counts, strict=True):
                if offset < count and len(found) < limit:
                    entries = await one.page(offset, limit - len(found))
                    found += [(one.broker, job_id) for _, job_id in entries]
                offset = max(0, offset - count)
        return JobPage(jobs=await self._rows(found), total=sum(counts))

    async def search(
        self, queues: Sequence[str], state: State, limit: int, wanted: Filter, mark: str | None
    ) -> JobPage:
        """A page of what a filter admits, queue by queue; it ends early when it has looked at many jobs."""
        start, inner = open_mark(mark) if mark is not None else ("", None)
        found: list[tuple[Broker, str]] = []
        scanned = 0
        rest = [queue for queue in sorted(queues) if queue >= start]
        counts = await asyncio.gather(*[index(self._broker(q), state, wanted.bounds).count() for q in queues])
        following: str | None = None
        for queue in rest:
            line = index(self._broker(queue), state, wanted.bounds)
            position = inner if queue == start else None
            while True:
                size = min(_CHUNK, max(50, 4 * (limit - len(found))))
                entries, position = await line.after(position, size)
                if position is None:
                    break
                scanned += len(entries)
                ids = [job_id for _, job_id in entries]
                hits = [
                    (line.broker, job_id) for job_id in await self._matching(line.broker, state, ids, wanted)
                ]
                found += hits
                if len(found) >= limit or scanned >= _SCANNED:
                    following = seal_mark((queue, position))
                    break
            if following is not None:
                break
        return JobPage(jobs=await self._rows(found), total=sum(counts), mark=following, scanned=scanned)

    async def each(self, queue: str, state: State, wanted: Filter) -> AsyncIterator[list[str]]:
        """The ids of all jobs of a queue that a filter admits, some at a time; every job is looked at."""
        line = index(self._broker(queue), state, wanted.bounds)
        position: Any = None
        while True:
            entries, position = await line.after(position, _CHUNK)
            if position is None:
                return
            yield await self._matching(line.broker, state, [job_id for _, job_id in entries], wanted)

    async def count(self, queues: Sequence[str], state: State, wanted: Filter) -> int:
        """How many jobs a filter admits."""
        by_time = (wanted.since, wanted.until) == (None, None) or state in ("delayed", "done", "dead")
        if not wanted.looks_inside and by_time:
            indexes = [index(self._broker(queue), state, wanted.bounds) for queue in queues]
            return sum(await asyncio.gather(*[one.count() for one in indexes]))
        total = 0
        for queue in queues:
            async for ids in self.each(queue, state, wanted):
                total += len(ids)
        return total

    async def dead_groups(self, queue: str) -> list[DeadGroup]:
        """Dead jobs of a queue by name and class of error, as they are counted when they die; without messages."""
        causes = await self._bytes.hgetall(self._broker(queue).keys.part("causes"))
        return [_group(queue, cause.decode(), value.decode()) for cause, value in causes.items()]

    async def explained(self, groups: Sequence[DeadGroup]) -> list[DeadGroup]:
        """The same with the message of each group's latest job, while that is dead."""
        rows = await self._rows([(self._broker(group.queue), group.sample) for group in groups])
        return [
            msgspec.structs.replace(group, message=row.error if row.state == "dead" else None)
            for group, row in zip(groups, rows, strict=True)
        ]

    # -- looking inside --------------------------------------------------------------------------------------

    async def _matching(self, broker: Broker, state: State, ids: list[str], wanted: Filter) -> list[str]:
        if not ids or not (wanted.looks_inside or wanted.bounds != (None, None)):
            return ids
        if state == "done":
            kept = await self._bytes.hmget(broker.keys.part("results"), ids)
            ended = [(_outcome(data), _record(data[1:] if data else None)) for data in kept]
            return [
                job_id
                for job_id, (outcome, record) in zip(ids, ended, strict=True)
                if wanted.admits(_inner(record), outcome) and wanted.failed_with(record)
            ]
        if state == "dead" and wanted.by_cause:
            tries = await self._bytes.hmget(broker.keys.part("tries"), ids)
            ids = [job_id for job_id, one in zip(ids, tries, strict=True) if _died_of(one, wanted)]
            if not wanted.beyond_cause or not ids:
                return ids
        pairs = await self._live(broker, ids, records=wanted.error is not None and state != "dead")
        timed = state in ("delayed", "dead")
        return [
            job_id
            for job_id, (body, record) in zip(ids, pairs, strict=True)
            if (state == "dead" or wanted.failed_with(record))
            and wanted.admits(body)
            and (timed or body is None or wanted.in_time(body.due))
        ]

    async def _live(
        self, broker: Broker, ids: list[str], *, records: bool
    ) -> list[tuple[Body | None, Record | None]]:
        jobs = self._bytes.hmget(broker.keys.part("jobs"), ids)
        if not records:
            return [(_body(data), None) for data in await jobs]
        bodies, notes = await asyncio.gather(jobs, self._bytes.hmget(broker.keys.part("notes"), ids))
        return [(_body(data), _record(note)) for data, note in zip(bodies, notes, strict=True)]

    async def _rows(self, found: Sequence[tuple[Broker, str]]) -> list[JobRow]:
        looks = await asyncio.gather(*[broker.look(job_id) for broker, job_id in found])
        return [
            read_row(self._horizon, broker.queue, look)
            for (broker, _), look in zip(found, looks, strict=True)
        ]

    def _broker(self, queue: str) -> Broker:
        return self._horizon.broker(queue)

    @property
    def _bytes(self) -> Any:
        return self._horizon.client.with_options(decode_responses=False)


def _body(data: bytes | msgspec.Raw | None) -> Body | None:
    if data is None or data == NIL:
        return None
    try:
        return _payload.read_body(data)
    except PayloadError:  # a newer release's
        return None


def _record(data: bytes | None) -> Record | None:
    if not data:
        return None
    try:
        return _payload.read_record(data)
    except PayloadError:  # a newer release's, or what the server wrote of a job whose worker died
        return None


def _inner(record: Record | None) -> Body | None:
    return None if record is None else _body(record.body)


def _outcome(data: bytes | None) -> str | None:
    return None if not data else "ok" if data[:1] == b"o" else "cancelled"


def _group(queue: str, cause: str, value: str) -> DeadGroup:
    name, _, error = cause.partition("|")
    count, at, sample = value.split(":", 2)
    return DeadGroup(
        queue=queue, name=name, error=error, count=int(count), latest=moment(int(at)), sample=sample
    )


def _died_of(tries: bytes | None, wanted: Filter) -> bool:
    """Whether a dead job's entry among the tries, '<attempts>:<crashes>:<mark>:<cause>', is what a filter asks for."""
    name, _, error = (tries or b"").decode().split(":", 3)[-1].partition("|")
    return wanted.name in (None, name) and wanted.error in (None, error)
