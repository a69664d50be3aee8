"""How far running jobs are: from the job to the queue, and back to whoever asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gravito.atlas.script import Script
from gravito.errors import GravitoError
from gravito.horizon.context import JobContext, Progress

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["Teller", "read_many", "read_progress"]

log = logging.getLogger("gravito.horizon")

_TEXT: Final = (Path(__file__).parent / "scripts" / "progress.lua").read_text("utf-8")
_PAUSE: Final = 0.1  # seconds; of what a job tells in this time, the last is sent
_KEPT: Final = 86_400  # seconds; what a crashed worker left does not stay for ever
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Progress).decode


class Teller:
    """Sends what the jobs of one queue tell, for one worker: at most ten calls a second.

    Args:
        broker: the queue's.
    """

    def __init__(self, broker: Broker) -> None:
        client = broker.client.with_options(decode_responses=False)
        self._script = Script(client, _TEXT, "progress.lua")
        self._keys = [broker.keys.part("active"), broker.keys.part("progress")]
        self._news: dict[str, tuple[int, bytes]] = {}  # by job: fence, and what it tells; empty to forget
        self._task: asyncio.Task[None] | None = None

    def tell(self, job: JobContext) -> None:
        """Take what the job told last; on the event loop."""
        self._put(job.id, job.fence, _encode(job.progressed))

    def forget(self, job: JobContext) -> None:
        """The job has ended."""
        self._put(job.id, job.fence, b"")

    async def drain(self) -> None:
        """Wait until everything was sent."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _put(self, job_id: str, fence: int, told: bytes) -> None:
        self._news[job_id] = (fence, told)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._news:
            news, self._news = self._news, {}
            flat = [part for job_id, (fence, told) in news.items() for part in (job_id, fence, told)]
            try:
                await self._script(keys=self._keys, args=[_KEPT, *flat])
            except GravitoError as error:  # the next one says more than this one did
                log.debug("progress of %d jobs was not sent: %s", len(news), error)
            await asyncio.sleep(_PAUSE)


async def read_progress(broker: Broker, job_id: str) -> Progress | None:
    """What a job told last."""
    client = broker.client.with_options(decode_responses=False)
    told = await client.hget(broker.keys.part("progress"), job_id)
    return _read(told)


async def read_many(broker: Broker, ids: Sequence[str]) -> dict[str, Progress]:
    """What each of these jobs of a queue told last, of those that told something."""
    client = broker.client.with_options(decode_responses=False)
    told = await client.hmget(broker.keys.part("progress"), list(ids))
    found = ((name, _read(one)) for name, one in zip(ids, told, strict=True))
    return {name: one for name, one in found if one is not None}


def _read(told: object) -> Progress | None:
    try:
        return _decode(told) if isinstance(told, bytes) else None
    except (msgspec.DecodeError, ValueError):  # of another release
        return None
