"""The broker: every move that a job makes in its queue, each one script on the server.

Delivery: an accepted push is one job for its id; a claimed job is leased, and a lease that nobody renews ends, so a
job runs at least once; a completion is accepted only from the latest claim (`fence`), so at most one is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final

from gravito import errors
from gravito.atlas.client import Client
from gravito.horizon._counters import fields
from gravito.horizon._keys import Keys
from gravito.horizon._messages import Claimed, Done, Envelope, Kept, Pushed, Step
from gravito.horizon._pack import check, completions
from gravito.horizon._pusher import Pusher
from gravito.horizon._scripts import Caller

__all__ = ["Broker"]

_CRASHES: Final = 3  # claims whose worker went silent, until the job is given up


class Broker:
    """One queue on the server, for producers and workers of one event loop.

    Args:
        client: the connection.
        queue: the queue's name.
        prefix: what all keys of queues begin with.
        lease_ms: how long a claimed job is a worker's own without being renewed.
        keep_done: ended jobs whose records are kept, at most.
        patience: seconds for which a call is repeated while the server is away.
    """

    def __init__(
        self,
        client: Client,
        queue: str,
        *,
        prefix: str = "horizon",
        lease_ms: int = 10_000,
        keep_done: int = 10_000,
        patience: float = 30.0,
    ) -> None:
        self.queue = queue
        self.keys = Keys(queue, prefix, client.settings.key_prefix)
        self.client = client
        self.lease_ms = lease_ms
        self._keep_done = keep_done
        self._caller = Caller(client, self.keys, patience)
        self._pusher = Pusher(self._caller)
        self._serials: dict[str, int] = {}  # of each worker's steps
        self._offset = time.time() * 1000 - time.monotonic() * 1000  # server's ms less our monotonic ones

    def __repr__(self) -> str:
        return f"<Broker {self.queue} at {self.client.settings.address}>"

    def now_ms(self) -> int:
        """The server's clock as its last answer told it."""
        return int(self._offset + time.monotonic() * 1000)

    # -- producers -------------------------------------------------------------------------------------------

    def push(self, job: Envelope) -> Awaitable[Pushed]:
        """Push a job; all pushes of a loop turn travel together.

        Raises:
            PayloadError: a field that the queue cannot take; at once, and nothing is sent.
            OutOfMemoryError: the server has no room; nothing was written. From the awaitable.
        """
        return self._pusher.push(check(job))

    async def push_many(self, jobs: Iterable[Envelope]) -> list[Pushed]:
        """Push many jobs, some hundred in a call; answers in their order."""
        return await asyncio.gather(*[self.push(job) for job in jobs])

    # -- workers ---------------------------------------------------------------------------------------------

    async def step(self, worker: str, done: Sequence[Done], want: int) -> Step:
        """Hand in ended jobs and claim further ones, in one call. One step of a worker at a time.

        Args:
            worker: the worker's id; no `;`, no space.
            done: completions, at most some hundred.
            want: jobs to claim at most.
        """
        serial = self._serials[worker] = self._serials.get(worker, 0) + 1
        blobs: list[bytes] = []
        ended = completions(done, fields, self.queue, blobs) if done else None
        args = (worker, serial, self.lease_ms, want, self._keep_done, ended)
        minute = self.now_ms() // 60_000
        reply = await self._caller.run("step", args, self.keys.minute(minute), blobs=blobs)
        if len(reply) < 2:
            raise errors.HorizonError(f"worker {worker}: a later step came first; is its id used twice?")
        now, due, fence, ids, bodies, odd, refused, _outbox = reply
        self._told(now)
        return Step(
            now, None if due < 0 else due, _claimed(fence, ids, bodies, odd), refused.decode().split()
        )

    async def keep(self, worker: str, running: Sequence[Claimed]) -> Kept:
        """Renew the leases of running jobs and do the queue's housekeeping; about once a second."""
        ids, fences = [job.id for job in running], [job.fence for job in running]
        args = (worker, self.lease_ms, ids, fences, _CRASHES, False)
        now, due, lost, cancel, outbox = await self._caller.run("keep", args)
        self._told(now)
        return Kept(now, None if due < 0 else due, _texts(lost), _texts(cancel), outbox)

    async def wait(self, timeout: float) -> bool:
        """Wait for something to claim; True if there may be. https://redis.io/commands/blpop

        Args:
            timeout: seconds.
        """
        return await self.client.blpop([self.keys.wake], timeout) is not None

    async def aclose(self) -> None:
        """Wait for the pushes on their way."""
        await self._pusher.drain()

    def _told(self, now: int) -> None:
        self._offset = now - time.monotonic() * 1000


def _claimed(fence: int, ids: bytes, bodies: list[bytes | None], odd: list[int]) -> list[Claimed]:
    if not bodies:
        return []
    names = ids.decode().split(" ")
    if not odd:
        return [
            Claimed(name, fence, 1, 0, body)
            for name, body in zip(names, bodies, strict=True)
            if body is not None
        ]
    tries = {
        at: (attempts, crashes) for at, attempts, crashes in zip(odd[::3], odd[1::3], odd[2::3], strict=True)
    }
    claimed = []
    for at, (name, body) in enumerate(zip(names, bodies, strict=True)):
        attempts, crashes = tries.get(at, (0, 0))
        if body is not None:
            claimed.append(Claimed(name, fence, attempts + 1, crashes, body))
    return claimed


def _texts(values: Iterable[Any]) -> list[str]:
    return [value.decode() for value in values]
