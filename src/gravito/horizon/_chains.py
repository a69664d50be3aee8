"""Which chains were pushed, and how far each is. For readers: the chains themselves do without."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gravito.errors import GravitoError, UnknownJobError

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["ChainJob", "ChainPart", "ChainStatus", "Chains"]

_log = logging.getLogger("gravito.horizon")

_KEPT: Final = 7 * 86_400  # seconds
_LISTED: Final = 10_000  # chains that readers find by leafing
_SHOWN: Final = 50  # jobs of a chain that a list looks at
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[tuple[str, str, str]]]).decode

ChainState = Literal["running", "done", "dead", "cancelled", "unknown"]


class ChainJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a chain; its state is unknown before it is its turn, and when it is no longer kept."""

    queue: str
    id: str
    name: str
    state: str


class ChainStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A chain as it was when it was asked.

    Args:
        id: the chain's.
        state: running; done, dead or cancelled as the job with which it ended; unknown: no job is kept.
        total: jobs.
        created: when it was pushed.
        jobs: in order; in a list of chains the first ones and the last one.
    """

    id: str
    state: ChainState
    total: int
    created: datetime
    jobs: tuple[ChainJob, ...] = ()

    @property
    def place(self) -> int:
        """How many of its jobs had ended well, as far as that is known."""
        known = [number for number, job in enumerate(self.jobs, 1) if job.state != "unknown"]
        if not known:
            return 0
        return known[-1] - (self.jobs[known[-1] - 1].state != "ok") if self.state != "done" else self.total


class ChainPart(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs of a chain, one behind the other.

    Args:
        id: the chain's.
        first: the place of the first of them, from 1.
        total: jobs of the whole chain.
        jobs: in order.
    """

    id: str
    first: int
    total: int
    jobs: tuple[ChainJob, ...]


class Chains:
    """The chains of a Horizon.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon

    def __repr__(self) -> str:
        return f"<Chains of {self._horizon!r}>"

    async def note(self, chain_id: str, jobs: Sequence[tuple[str, str, str]]) -> None:
        """A chain was pushed: `(queue, id, name)` of its jobs. It runs even if this cannot be noted."""
        client = self._horizon.client
        now = self._horizon.broker("default").now_ms()
        try:
            await asyncio.gather(
                client.set(self._key(chain_id), _encode((now, jobs)), ex=_KEPT),
                client.zadd(self._known, {chain_id: now}),
                client.zremrangebyscore(self._known, "-inf", now - 1000 * _KEPT),
                client.zremrangebyrank(self._known, 0, -_LISTED - 1),
            )
        except GravitoError as error:
            _log.warning("chain %s runs, and is on no list: %s", chain_id, error)

    async def listed(self, offset: int, limit: int) -> tuple[int, list[ChainStatus]]:
        """How many are known, and some of them, the latest first."""
        client = self._bytes()
        total, names = await asyncio.gather(
            client.zcard(self._known), client.zrange(self._known, offset, offset + limit - 1, desc=True)
        )
        found = await asyncio.gather(*[self._look(name.decode(), _SHOWN) for name in names])
        return total, [one for one in found if one is not None]

    async def status(self, chain_id: str) -> ChainStatus:
        """One of them, with all its jobs.

        Raises:
            UnknownJobError: there is none, or no longer.
        """
        found = await self._look(chain_id, None)
        if found is None:
            raise UnknownJobError(f"there is no chain {chain_id!r}, or no longer")
        return found

    async def near(self, chain_id: str, job_id: str, most: int) -> ChainPart | None:
        """A job, and as many before and behind it; None if the chain is on no list."""
        data = await self._bytes().get(self._key(chain_id))
        if data is None:
            return None
        _, links = _decode(data)
        place = next((at for at, (_, one, _) in enumerate(links) if one == job_id), 0)
        first = max(0, place - most)
        shown = await self._jobs(links[first : place + most + 1])
        return ChainPart(id=chain_id, first=first + 1, total=len(links), jobs=shown)

    async def _look(self, chain_id: str, most: int | None) -> ChainStatus | None:
        data = await self._bytes().get(self._key(chain_id))
        if data is None:
            return None
        created, links = _decode(data)
        shown = links if most is None or len(links) <= most else [*links[: most - 1], links[-1]]
        jobs = await self._jobs(shown)
        created_at = datetime.fromtimestamp(created / 1000, UTC)
        state = _state([job.state for job in jobs])
        return ChainStatus(id=chain_id, state=state, total=len(links), created=created_at, jobs=jobs)

    async def _jobs(self, links: Sequence[tuple[str, str, str]]) -> tuple[ChainJob, ...]:
        looks = await asyncio.gather(
            *[self._horizon.broker(queue).look(job_id) for queue, job_id, _ in links]
        )
        return tuple(
            ChainJob(queue=queue, id=job_id, name=name, state=look.state)
            for (queue, job_id, name), look in zip(links, looks, strict=True)
        )

    @property
    def _known(self) -> str:
        return f"{self._horizon.settings.prefix}:chains:known"

    def _key(self, chain_id: str) -> str:
        return f"{self._horizon.settings.prefix}:{{chain:{chain_id}}}:jobs"

    def _bytes(self) -> Any:
        return self._horizon.client.with_options(decode_responses=False)


def _state(states: Sequence[str]) -> ChainState:
    if states[-1] == "ok":
        return "done"
    for ended in ("dead", "cancelled"):
        if ended in states:
            return ended
    return "unknown" if all(state == "unknown" for state in states) else "running"
