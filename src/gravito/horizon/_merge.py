"""Pages of the lists of several queues, merged by time. A deep one costs about what the first one does."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from gravito.horizon._index import Entry, Timed

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["merged"]

_NEAR: Final = 50  # jobs that a page leaves out by reading them


async def merged(indexes: Sequence[Timed], offset: int, limit: int, total: int) -> list[tuple[Broker, str]]:
    """A page: jobs of the same moment stand queue by queue.

    Args:
        indexes: of the queues; all are of the same state.
        offset: jobs to leave out.
        limit: jobs on the page.
        total: jobs in all of them.
    """
    if offset >= total:
        return []
    if offset <= _NEAR:
        pages = await asyncio.gather(*[one.page(0, offset + limit) for one in indexes])
        return _first(indexes, pages, offset, limit)
    moment, before = await _moment_at(indexes, offset, total)
    if offset - before <= _NEAR:
        pages = await asyncio.gather(*[one.starting(moment, offset - before + limit) for one in indexes])
        return _first(indexes, pages, offset - before, limit)
    return _first(indexes, await _within(indexes, moment, offset - before, limit), 0, limit)


def _first(
    indexes: Sequence[Timed], pages: Sequence[list[Entry]], skip: int, limit: int
) -> list[tuple[Broker, str]]:
    sign = -1 if indexes[0].newest_first else 1
    lines = [[(sign * at, number, job_id) for at, job_id in page] for number, page in enumerate(pages)]
    every = heapq.merge(*lines, key=lambda entry: entry[:2])
    return [(indexes[number].broker, job_id) for _, number, job_id in islice(every, skip, skip + limit)]


async def _moment_at(indexes: Sequence[Timed], offset: int, total: int) -> tuple[int, int]:
    """A time with at most `offset` jobs before it: so few less that they can be read, or else the latest such time."""
    edges = [one for one in await asyncio.gather(*[one.edges() for one in indexes]) if one is not None]
    if not edges:
        return 0, 0
    first, last = min(low for low, _ in edges), max(high for _, high in edges)
    newest_first = indexes[0].newest_first

    def moment(distance: int) -> int:
        return last - distance if newest_first else first + distance

    async def before(distance: int) -> int:
        return sum(await asyncio.gather(*[one.ahead(moment(distance)) for one in indexes]))

    low, high, below, above = 0, last - first + 1, 0, max(total, offset + 1)
    turn = 0
    while high - low > 1 and offset - below > _NEAR:
        # Where it would be if jobs came evenly; each other time the middle, for they may not.
        share = (offset - below) / (above - below) if turn % 2 == 0 else 0.5
        guess, turn = min(max(low + int((high - low) * share), low + 1), high - 1), turn + 1
        found = await before(guess)
        if found <= offset:
            low, below = guess, found
        else:
            high, above = guess, found
    return moment(low), below


async def _within(indexes: Sequence[Timed], moment: int, skip: int, limit: int) -> list[list[Entry]]:
    """What follows behind so many of the jobs of one moment, of each queue."""
    step, pages = -1 if indexes[0].newest_first else 1, []
    for one, count in zip(
        indexes, await asyncio.gather(*[one.during(moment) for one in indexes]), strict=True
    ):
        passed = min(skip, count)
        skip -= passed
        pages.append(
            one.starting(moment + step, limit) if passed == count else one.starting(moment, limit, passed)
        )
    return list(await asyncio.gather(*pages))
