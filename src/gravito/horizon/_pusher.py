"""Pushes: those of a loop turn become one call or two, and a call whose answer was lost is repeated as it was."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.horizon._messages import Envelope, Pushed
from gravito.horizon._pack import envelopes
from gravito.horizon._scripts import Caller

__all__ = ["Pusher"]

_MOST: Final = 500  # jobs in a call: the server does nothing else meanwhile
_SPECIAL: Final = 4  # what a job with a unique key, a tenant or limits counts as
_MOST_BYTES: Final = 512 * 1024  # of bodies in a call, so that it stays on the shared wire
_LANES: Final = 2  # calls in flight: one is carried out while the other one travels
_FEW: Final = 8  # jobs: fewer are not worth two calls
_decode = msgspec.msgpack.Decoder(strict=False).decode

Waiting = tuple[Envelope, "asyncio.Future[Pushed]"]


class Pusher:
    """Pushes of one event loop into one queue.

    A lane has one call in flight, with its own serial: that is what lets the server recognise a repetition.

    Args:
        caller: runs the scripts.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._line: deque[Waiting] = deque()
        self._bulks: deque[tuple[list[Envelope], asyncio.Future[list[Pushed]]]] = deque()  # one call each
        self._lanes = [_Lane() for _ in range(_LANES)]
        self._idle = list(self._lanes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._waking = False  # callers were answered in this turn, and may push again
        self._lone = True  # the latest call of lone pushes had one of them

    def push(self, job: Envelope) -> asyncio.Future[Pushed]:
        """Take a job; the future has what became of it.

        Jobs of a loop turn travel together. A lone caller's travels at once: nothing else would join it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Pushed] = loop.create_future()
        self._line.append((job, future))
        if self._lone and not self._scheduled and len(self._idle) == _LANES and not self._bulks:
            self._flush()
        else:
            self._schedule(loop)
        return future

    def push_all(self, jobs: Iterable[Envelope]) -> list[tuple[list[Envelope], asyncio.Future[list[Pushed]]]]:
        """Take many jobs: what is sent together, and a future for each such part; so a job costs no future."""
        loop = asyncio.get_running_loop()
        parts: list[tuple[list[Envelope], asyncio.Future[list[Pushed]]]] = []
        part: list[Envelope] = []
        size = cost = 0
        for job in jobs:
            if not part or cost >= _MOST or size >= _MOST_BYTES:
                part, size, cost = [], 0, 0
                parts.append((part, loop.create_future()))
            part.append(job)
            size += len(job.body)
            cost += _cost(job)
        self._bulks.extend(parts)
        self._schedule(loop)
        return parts

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and self._idle:
            self._scheduled = True
            loop.call_soon(self._flush)

    def clients(self) -> list[str]:
        """The names under which the server knows the lanes that were used."""
        return [lane.client for lane in self._lanes if lane.serial]

    async def drain(self) -> None:
        """Wait until everything that was taken is answered."""
        while self._tasks or self._line or self._bulks:
            await (asyncio.wait(self._tasks) if self._tasks else asyncio.sleep(0))

    def _flush(self) -> None:
        self._scheduled = False
        while self._idle and (self._line or self._bulks):
            if self._line:  # lone pushes go first: somebody waits for each of them
                batch = self._take()
                self._lone = len(batch) <= 1
                if batch:
                    self._start([job for job, _ in batch], partial(_settle, batch))
            else:
                jobs, future = self._bulks.popleft()
                if not future.cancelled():
                    self._start(jobs, partial(_settle_one, future))

    def _start(self, jobs: list[Envelope], settle: Callable[[list[Pushed] | BaseException], None]) -> None:
        lane = self._idle.pop()
        try:
            answer = lane.push(self._caller, jobs)  # it is on its way
        except Exception as error:
            self._idle.append(lane)
            settle(error)
            return
        lane.load = len(jobs)
        task = asyncio.get_running_loop().create_task(self._finish(lane, jobs, answer, settle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(
        self,
        lane: _Lane,
        jobs: list[Envelope],
        answer: Awaitable[Any],
        settle: Callable[[list[Pushed] | BaseException], None],
    ) -> None:
        try:
            pushed = _read(jobs, await answer)
            if self._waking:  # else the pushes of both would go out in one write, and be answered in one
                await asyncio.sleep(0)
            settle(pushed)
        except BaseException as error:
            settle(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._release, lane)

    def _release(self, lane: _Lane) -> None:
        """Behind those who were answered, who may have pushed again by now."""
        self._waking = False
        lane.load = 0
        self._idle.append(lane)
        self._flush()

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = cost = 0
        # Lanes of one size, or else all callers end up in one of them, and the server waits while these push.
        most = max(_FEW, -(-(len(self._line) + sum(lane.load for lane in self._lanes)) // _LANES))
        while self._line and len(batch) < most and cost < _MOST and size < _MOST_BYTES:
            waiting = self._line.popleft()
            if not waiting[1].cancelled():  # its caller went away before it was sent
                batch.append(waiting)
                job = waiting[0]
                size += len(job.body)
                cost += _cost(job)
        return batch


def _settle(batch: list[Waiting], answer: list[Pushed] | BaseException) -> None:
    if isinstance(answer, BaseException):
        for _, future in batch:
            _settle_one(future, answer)
        return
    for (_, future), pushed in zip(batch, answer, strict=True):
        _settle_one(future, pushed)


def _settle_one(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if not isinstance(answer, BaseException):
        future.set_result(answer)
    elif isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.cancel()


def _cost(job: Envelope) -> int:
    return 1 if job.unique is None and job.tenant is None and not job.limits else _SPECIAL


class _Lane:
    """Calls one after the other, counted."""

    def __init__(self) -> None:
        self._owner = 0  # the process whose serials these are
        self.client = ""
        self.serial = 0
        self.load = 0  # jobs on their way

    def push(self, caller: Caller, jobs: Sequence[Envelope]) -> Awaitable[Any]:
        """Send a call; its answer, to be read with `_read`."""
        if self._owner != os.getpid():  # a fork's serials would be taken for repetitions of its parent's
            self._owner, self.client, self.serial = os.getpid(), secrets.token_urlsafe(9), 0
        self.serial += 1
        return caller.begin("push", (self.client, self.serial, *envelopes(jobs)))


def _read(jobs: Sequence[Envelope], reply: list[Any]) -> list[Pushed]:
    if len(reply) < 2:
        raise errors.HorizonError(
            "push: a later call with the same client id came first; was the process forked?"
        )
    answer = [Pushed(job.id, "new") for job in jobs]
    if reply[1]:
        odd = _decode(reply[1])
        for at, holder in zip(odd[::2], odd[1::2], strict=True):
            answer[at - 1] = Pushed(holder, "unique") if holder else Pushed(jobs[at - 1].id, "exists")
    return answer
