"""What each worker process says of itself every two seconds, and how it is told to end.

A record is one key that expires when its worker is silent, and one command writes it: the same SET brings back what
somebody has put in its place, which is how an order reaches the worker without another question.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gravito.errors import GravitoError, HorizonError

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.worker import Worker

__all__ = [
    "Heartbeat",
    "Order",
    "RunningJob",
    "WorkerKeys",
    "WorkerRecord",
    "describe",
    "order",
    "read_workers",
]

_log = logging.getLogger("gravito.horizon")

_EVERY: Final = 2.0  # seconds between two beats
_LIFE: Final = 15_000  # ms after which a silent worker is no longer listed
_GOODBYE: Final = 1.0  # seconds that an ending worker takes to strike itself out
_ENLIST: Final = 15  # beats between two entries in the list of workers
_MOST: Final = 10_000  # workers in that list
_JOBS: Final = 100  # running jobs in a record: those that run longest

Order = Literal["drain", "restart"]
State = Literal["working", "draining"]


class RunningJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that a worker runs now."""

    id: str
    queue: str
    name: str
    since: int  # epoch ms, the server's clock
    attempt: int


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process, as it described itself last.

    Args:
        id: the worker's.
        host: its machine.
        pid: its process there.
        queues: which it serves, the first one goes first.
        concurrency: jobs that it runs at the same time.
        started: epoch ms, the server's clock, as all times here.
        at: when it said this.
        state: working, or draining: it claims no more and ends when its jobs have.
        cpu: per cent of one core since the beat before.
        memory: resident bytes.
        running: how many jobs run now.
        waiting: how many it has claimed and not begun.
        jobs: of those that run, the hundred that run longest.
        tally: how its runs ended so far: done, retried, dead, released, cancelled, refused.
    """

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    started: int
    at: int
    state: State = "working"
    cpu: float = 0.0
    memory: int = 0
    running: int = 0
    waiting: int = 0
    jobs: tuple[RunningJob, ...] = ()
    tally: dict[str, int] = {}

    @property
    def since(self) -> datetime:
        """When it started."""
        return datetime.fromtimestamp(self.started / 1000, UTC)


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """What stands in a worker's key."""

    record: WorkerRecord
    order: Order | None = None  # somebody's, until the worker has read it


class WorkerKeys:
    """The names of what is kept of workers: one slot for all of them.

    Args:
        prefix: as of the queues.
    """

    def __init__(self, prefix: str) -> None:
        self.base = f"{prefix}:{{gravito.workers}}:"
        self.list = self.base + "list"  # ZSET, worker -> ms of its latest entry

    def record(self, worker: str) -> str:
        """The key of a worker's record."""
        return f"{self.base}w:{worker}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Note).decode


class Heartbeat:
    """Writes one worker's record until it is cancelled.

    Args:
        worker: whose.
        obey: called with an order that somebody gave.
    """

    def __init__(self, worker: Worker, obey: Callable[[Order], None]) -> None:
        self._worker = worker
        self._horizon = horizon = worker.horizon
        self._obey = obey
        self._keys = WorkerKeys(horizon.settings.prefix)
        self._started: int | None = None  # epoch ms
        self._beats = 0
        self._used = (time.monotonic(), _cpu())  # at the beat before
        self._latest: WorkerRecord | None = None

    def __repr__(self) -> str:
        return f"<Heartbeat {self._beats}>"

    async def run(self) -> None:
        """Beat until cancelled; a server that is away is no reason to end."""
        while True:
            try:
                await self.beat()
            except GravitoError as error:
                _log.debug("no heartbeat: %s", error)
            except Exception:
                _log.exception("no heartbeat")
            await asyncio.sleep(_EVERY)

    async def beat(self) -> None:
        """Write the record, and follow the order that was there."""
        client = self._horizon.client.with_options(decode_responses=False)
        record = self._latest = self._filled()
        if self._beats % _ENLIST == 0:
            await self._enlist(record)
        self._beats += 1
        before: Any = await client.set(
            self._keys.record(record.id), _encode(_Note(record)), px=_LIFE, get=True
        )
        if before is None:
            return
        given = _decode(before).order
        if given is not None:
            _log.info("worker %s: somebody asked it to %s", record.id, given)
            self._obey(given)

    async def end(self) -> None:
        """The worker has ended: nobody has to wait until its record expires."""
        if self._latest is None:
            return
        client = self._horizon.client
        try:
            async with asyncio.timeout(_GOODBYE):
                await client.delete(self._keys.record(self._latest.id))
                await client.zrem(self._keys.list, self._latest.id)
        except (GravitoError, TimeoutError) as error:
            _log.debug("the heartbeat's record stays until it expires: %s", error)

    async def _enlist(self, record: WorkerRecord) -> None:
        client, name = self._horizon.client, self._keys.list
        await asyncio.gather(
            client.zadd(name, {record.id: record.at}),
            client.zremrangebyscore(name, "-inf", record.at - 3 * _ENLIST * round(_EVERY * 1000)),
            client.zremrangebyrank(name, 0, -_MOST - 1),
            *[client.sadd(self._horizon.broker(queue).keys.known, queue) for queue in record.queues],
        )

    def _filled(self) -> WorkerRecord:
        record = describe(self._worker)
        now, used = time.monotonic(), _cpu()
        before, used_before = self._used
        self._used = (now, used)
        if self._started is None:
            self._started = record.at
        share = (used - used_before) / (now - before) if now > before else 0.0
        return msgspec.structs.replace(record, started=self._started, cpu=round(100 * share, 1))


def _cpu() -> float:
    """Seconds of CPU time of this process and of the processes that it has ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def describe(worker: Worker) -> WorkerRecord:
    """What a worker says of itself; the heartbeat adds the rest."""
    running, horizon = worker.running, worker.horizon
    jobs = heapq.nsmallest(_JOBS, running, key=lambda job: job.started)
    return WorkerRecord(
        id=worker.id,
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=tuple(worker.options.queues),
        concurrency=worker.options.concurrency,
        started=0,
        at=horizon.broker(worker.options.queues[0]).now_ms(),
        state="draining" if worker.draining else "working",
        memory=resident_memory(),
        running=len(running),
        waiting=worker.waiting,
        jobs=tuple(RunningJob(job.id, job.queue, job.name, int(job.started), job.attempt) for job in jobs),
        tally=dataclasses.asdict(worker.tally),
    )


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # every two seconds, on the event loop
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # noqa: PLC0415  # macOS has no /proc

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def read_workers(
    horizon: Horizon, offset: int = 0, limit: int = 1000
) -> tuple[int, list[WorkerRecord]]:
    """The workers that have said something lately.

    Args:
        horizon: whose.
        offset: entries of the list to leave out.
        limit: entries of the list to read.

    Returns:
        How many entries the list has, and the records; a worker that is gone has an entry for a minute, and no record.
    """
    keys = WorkerKeys(horizon.settings.prefix)
    client: Any = horizon.client.with_options(decode_responses=False)
    total, names = await asyncio.gather(
        client.zcard(keys.list), client.zrange(keys.list, offset, offset + limit - 1)
    )
    if not names:
        return total, []
    notes = await client.mget([keys.record(name.decode()) for name in names])
    records = [_decode(note).record for note in notes if note is not None]
    return total, sorted(records, key=lambda record: (record.host, record.started, record.id))


async def order(horizon: Horizon, worker: str, what: Order) -> None:
    """Tell a worker to end in order: it finishes its jobs first.

    Args:
        horizon: whose.
        worker: its id.
        what: drain, for good; or restart, to be replaced by a new process where a supervisor runs it.

    Raises:
        HorizonError: there is no such worker, or no longer.
    """
    key = WorkerKeys(horizon.settings.prefix).record(worker)
    client: Any = horizon.client.with_options(decode_responses=False)
    note = await client.get(key)
    written = note is not None and await client.set(
        key, _encode(_Note(_decode(note).record, what)), xx=True, keepttl=True
    )
    if not written:
        raise HorizonError(f"there is no worker {worker!r}, or no longer; a restarted one has another id")
