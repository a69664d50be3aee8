"""A worker's part in one queue: what it has claimed and not begun, what has ended and is not handed in.

One step is in flight at a time. While it travels, jobs end and gather; the next step hands them all in and claims as
many new ones, so the busier the worker is, the fewer calls a job costs. An idle lane blocks on the queue's wake token.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gravito import errors
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Claimed, Done
from gravito.horizon._run import Runner

if TYPE_CHECKING:
    from gravito.horizon.worker import Worker

_log = logging.getLogger("gravito.horizon")

_MOST: Final = 200  # jobs in a step, each way: the server does nothing else meanwhile
_KEEP: Final = 1.0  # seconds between two housekeepings
_KEEP_IDLE: Final = 3.0  # the same, at most, for a lane that has no jobs
_BLOCK: Final = 5.0  # seconds that an idle lane blocks on the token at a stretch
_PAUSES: Final = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between tries while the server is away


class Lane:
    """See the module.

    Args:
        worker: whose it is.
        broker: the queue.
        rank: its place among the worker's queues; 0 goes first.
    """

    def __init__(self, worker: Worker, broker: Broker, rank: int) -> None:
        self.broker = broker
        self.rank = rank
        self.buffer: deque[Claimed] = deque()  # claimed, and waiting for a place
        self.done: list[Done] = []  # ended, and not handed in
        self.full = False  # the last claim got all it asked for, so there is more
        self.crowded = False  # it rests, and not even a token would wake it: there was no place for a job
        self.empty_since: int | None = None  # jobs that had ended when the queue was last found empty
        self.runner = Runner(worker.horizon, broker.queue, worker.id, broker.now_ms)
        self._worker = worker
        self._stirred = asyncio.Event()  # something changed that a step may be needed for
        self._listener: asyncio.Task[None] | None = None  # blocks on the wake token
        self._alarm: asyncio.TimerHandle | None = None  # rings when the next delayed job is due
        self._failures = 0  # steps in a row that did not get through
        self._renewed = 0.0  # loop time of the last renewal of leases

    def __repr__(self) -> str:
        return f"<Lane {self.broker.queue}: {len(self.buffer)} waiting, {len(self.done)} to hand in>"

    def stir(self) -> None:
        """A job has ended, a place is free, or the worker is to stop."""
        self._stirred.set()

    async def run(self) -> None:
        """Claim and hand in until the worker has drained."""
        keeper = asyncio.create_task(self._keep())
        orders = asyncio.create_task(self._obey())
        try:
            while True:
                self._stirred.clear()
                again = await self._step()
                if self._worker.draining and self._settled():
                    return
                self._make_way()
                if not again:
                    await self._rest()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            await self._end(keeper, orders, self._listener)
            await self.runner.aclose()
            with suppress(errors.GravitoError):  # what stays is dropped by its age
                await self.broker.leave(self._worker.id)

    def _settled(self) -> bool:
        return not (self.buffer or self.done or self._worker.running_in(self))

    async def _step(self) -> bool:
        """One exchange with the queue, if there is a reason for one; True if another one should follow at once."""
        worker = self._worker
        if worker.draining:
            self.done.extend(worker.give_back(self))
            want = 0
        else:
            want = min(worker.room(self), _MOST)
        done, self.done = self.done[:_MOST], self.done[_MOST:]
        if not done and want <= 0:
            return False
        ended = worker.ended
        try:
            step = await self.broker.step(worker.id, done, want)
        except (
            errors.ConfigurationError
        ):  # at the first one: the server may evict jobs, and will not change by itself
            raise
        except errors.GravitoError as error:
            self.done = done + self.done
            await self._wait_for_server(error)
            return True
        self._failures = 0
        worker.quarantine.handed_in(done)
        worker.refused(step.refused)
        self.full = 0 < want <= len(step.claimed)
        self._set_alarm(step.now_ms, step.next_due_ms)
        if want > 0:
            worker.looked(self, len(step.claimed), ended)
        if step.claimed:
            worker.admit(self, step.claimed)
            await asyncio.sleep(0)  # short jobs end in this turn, and go along with the next claim
        return bool(step.claimed or self.done)

    async def _rest(self) -> None:
        """Wait for a reason to step: an ended job, a free place, a token, a job that is due."""
        room = self._worker.room(self) > 0
        if room and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._listen())
        self.crowded = not room
        await self._stirred.wait()
        self.crowded = False

    def _make_way(self) -> None:
        """Stir the lanes that rest without a place: jobs of this one may have been what they had none for."""
        for lane in self._worker.lanes:
            if lane.crowded and self._worker.room(lane) > 0:
                lane.stir()

    async def _listen(self) -> None:
        while not self._worker.draining:
            try:
                if await self.broker.wait(_BLOCK):
                    self.stir()
                    return
            except errors.GravitoError as error:
                await self._wait_for_server(error)
                self.stir()

    async def _wait_for_server(self, error: errors.GravitoError) -> None:
        if self._failures == 0:
            _log.warning("queue %s: %s; trying again", self.broker.queue, error)
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        await asyncio.sleep(pause)

    def _set_alarm(self, now_ms: int, due_ms: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due_ms is not None:
            # a day at most: loops count in floats, and the next housekeeping tells again
            delay = min(max(due_ms - now_ms, 0) / 1000, 86_400.0)
            self._alarm = asyncio.get_running_loop().call_later(delay, self.stir)

    async def _obey(self) -> None:
        """Hear at once of jobs that are to be cancelled; housekeeping would tell within a second."""
        client = self.broker.client.with_options(decode_responses=True)
        while True:
            try:
                async with await client.subscribe(self.broker.keys.control) as subscription:
                    async for message in subscription:
                        order, _, job_id = str(message.data).partition(" ")
                        if order == "cancel":
                            self._worker.cancel([job_id])
            except errors.GravitoError as error:
                _log.debug("queue %s: its control channel: %s", self.broker.queue, error)
            await asyncio.sleep(_KEEP)

    # -- housekeeping ----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            # an idle worker of many queues asks the server no more often than one of a single queue
            idle = not self.held()
            await asyncio.sleep(min(_KEEP * len(self._worker.lanes), _KEEP_IDLE) if idle else _KEEP)
            try:
                await self.keep()
            except errors.GravitoError as error:
                _log.debug("queue %s: housekeeping failed: %s", self.broker.queue, error)
            except Exception:
                _log.exception("queue %s: housekeeping failed", self.broker.queue)

    async def keep(self) -> None:
        """Renew leases when it is time, and do the queue's housekeeping."""
        loop = asyncio.get_running_loop()
        mine: list[Claimed] = []
        if loop.time() - self._renewed >= self.broker.lease_ms / 3000:
            mine = self.held()
            self._renewed = loop.time()
        kept = await self.broker.keep(self._worker.id, mine)
        gone = set(kept.lost)
        self._worker.lost([job for job in mine if job.id in gone])
        self._worker.cancel(kept.cancel)
        for job_id in kept.buried:
            await asyncio.create_task(self._mourn(job_id))  # a task, for it sets context variables
        self._set_alarm(kept.now_ms, kept.next_due_ms)

    async def _mourn(self, job_id: str) -> None:
        """Do for a job that died with its workers what its own code would have had done: hooks, and what its chain
        does next. At most once: nobody hears of it again if this worker dies, too."""
        look = await self.broker.look(job_id)
        if look.state != "dead" or look.body is None:  # somebody has brought it back already
            return
        dead = Claimed(job_id, 0, look.attempts + 1, look.crashes, look.body)
        for queue, envelope in await self.runner.mourn(dead):
            await self._worker.horizon.broker(queue).push(envelope)

    def held(self) -> list[Claimed]:
        """Jobs whose lease is this worker's: running, and waiting for a place."""
        return [*self._worker.running_in(self), *self.buffer, *self._worker.quarantine.holds(self)]

    async def renew(self) -> None:
        """Keep the leases from another thread while the worker's loop stands still."""
        await self.broker.keep(self._worker.id, self.held())

    async def _end(self, *tasks: asyncio.Task[None] | None) -> None:
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
