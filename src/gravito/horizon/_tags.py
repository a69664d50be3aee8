"""Tags that people watch: a small set on the server, and which of the kept jobs have them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from gravito.errors import HorizonError, PayloadError
from gravito.horizon import _payload
from gravito.horizon._index import State, index
from gravito.horizon._messages import Sizes
from gravito.horizon._payload import NIL, Body
from gravito.horizon._rows import JobRow, read_row

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker
    from gravito.horizon.horizon import Horizon

__all__ = ["TagPage", "TagRow", "Tags"]

MOST: Final = 50  # tags
_LENGTH: Final = 200  # characters of one
_LATEST: Final = 5  # jobs that are shown of each
_LEAST: Final = 20  # jobs of each queue and state that are looked at, however many queues there are

_Found = tuple[float, str, str]  # ms of its end, or 0; queue, id


class TagRow(msgspec.Struct, frozen=True, kw_only=True):
    """A watched tag.

    Args:
        tag: the tag.
        counts: jobs that have it, by state, among those that were looked at.
        latest: some of them, those that ended last in front.
    """

    tag: str
    counts: dict[str, int]
    latest: list[JobRow]


class TagPage(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the watched tags.

    Args:
        tags: by name.
        looked: how many jobs were looked at: the first of each state and queue, of ended ones the latest.
        total: how many jobs there are.
    """

    tags: list[TagRow]
    looked: int
    total: int


class Tags:
    """The watched tags of a Horizon.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._key = f"{horizon.settings.prefix}:watched"

    def __repr__(self) -> str:
        return f"<Tags of {self._horizon!r}>"

    async def watch(self, tag: str) -> None:
        """Add one.

        Raises:
            HorizonError: it is none, or there are fifty.
        """
        if not 0 < len(tag) <= _LENGTH or not tag.isprintable():
            raise HorizonError(f"{tag[:50]!r} is no tag; allowed: 1 to {_LENGTH} printable characters")
        if len(await self.watched()) >= MOST and tag not in await self.watched():
            raise HorizonError(f"{MOST} tags are watched, which is as many as can be; remove one first")
        await self._horizon.client.sadd(self._key, tag)

    async def unwatch(self, tag: str) -> None:
        """Remove one."""
        await self._horizon.client.srem(self._key, tag)

    async def watched(self) -> list[str]:
        """All of them."""
        client: Any = self._horizon.client.with_options(decode_responses=True)
        return sorted(await client.smembers(self._key))

    async def read(self, queues: Sequence[str], most: int = 1000) -> TagPage:
        """Which jobs have the watched tags.

        Args:
            queues: where.
            most: jobs of each state that are looked at, over all queues; a search looks at every one.
        """
        tags = await self.watched()
        found: dict[str, dict[str, list[_Found]]] = {tag: {} for tag in tags}
        share = max(_LEAST, most // max(1, len(queues)))
        looks = await asyncio.gather(*[self._look(queue, share, found) for queue in queues]) if tags else []
        rows = [
            TagRow(
                tag=tag,
                counts={state: len(jobs) for state, jobs in found[tag].items()},
                latest=await self._latest([job for jobs in found[tag].values() for job in jobs]),
            )
            for tag in tags
        ]
        return TagPage(tags=rows, looked=sum(one for one, _ in looks), total=sum(all for _, all in looks))

    async def _look(
        self, queue: str, most: int, found: dict[str, dict[str, list[_Found]]]
    ) -> tuple[int, int]:
        """How many jobs of a queue were looked at, and how many there are."""
        broker = self._horizon.broker(queue)
        sizes = await broker.sizes()
        counts = {state: _count(sizes, state) for state in get_args(State)}
        looks = [self._look_at(broker, state, most, found) for state, count in counts.items() if count]
        return sum(await asyncio.gather(*looks)), sum(counts.values())

    async def _look_at(
        self, broker: Broker, state: State, most: int, found: dict[str, dict[str, list[_Found]]]
    ) -> int:
        entries = await index(broker, state).page(0, most)
        if not entries:
            return 0
        client = broker.client.with_options(decode_responses=False)
        part = broker.keys.part("results" if state == "done" else "jobs")
        kept: Any = await client.hmget(part, [job_id for _, job_id in entries])
        has_ended = state in ("done", "dead")
        for (at, job_id), data in zip(entries, kept, strict=True):
            body = _body(data, ended=state == "done")
            for tag in set(body.extra.tags if body is not None and body.extra is not None else ()):
                if tag in found:
                    found[tag].setdefault(state, []).append((at * has_ended, broker.queue, job_id))
        return len(entries)

    async def _latest(self, jobs: list[_Found]) -> list[JobRow]:
        first = sorted(jobs, reverse=True)[:_LATEST]
        looks = await asyncio.gather(
            *[self._horizon.broker(queue).look(job_id) for _, queue, job_id in first]
        )
        return [
            read_row(self._horizon, queue, look) for (_, queue, _), look in zip(first, looks, strict=True)
        ]


def _count(sizes: Sizes, state: State) -> int:
    return sum(sizes.ready) + sizes.fair if state == "ready" else int(getattr(sizes, state))


def _body(data: bytes | None, *, ended: bool) -> Body | None:
    if not data:
        return None
    try:
        inner = _payload.read_record(data[1:]).body if ended else data
        return None if inner == NIL else _payload.read_body(inner)
    except PayloadError:  # a newer release's
        return None
