"""A worker's part in one queue: what it has claimed and not begun, what has ended and is not handed in.

One step is in flight at a time. While it travels, jobs end and gather; the next step hands them all in and claims as
many new ones, so the busier the worker is, the fewer calls a job costs. A lane with free places blocks on the queue's
wake token, with a small claim right behind it: what is pushed is on its way to the idle worker at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gravito import errors
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Claimed, Done, Step
from gravito.horizon._run import Runner, Well

if TYPE_CHECKING:
    from gravito.horizon.context import JobContext
    from gravito.horizon.worker import Worker

_log = logging.getLogger("gravito.horizon")

_MOST: Final = 200  # jobs in a step, each way: the server does nothing else meanwhile
_SPECIAL: Final = 64  # jobs with a unique key, a tenant or limits in a step, as step.lua bounds them
_KEEP: Final = 1.0  # seconds between two housekeepings
_KEEP_IDLE: Final = (1.5, 3.0)  # the same for a lane that has no jobs: of a single queue, and at most
_BLOCK: Final = 7.0  # seconds that an idle lane blocks on the token at a stretch
_SHARE: Final = 10  # a claim behind the wake token asks for this part of the worker's places
_GATHER: Final = 0.01  # seconds, at most, for which ended jobs gather where nobody waits for the next ones
_LAST: Final = 1.0  # seconds that an ending lane gives the server to say what was claimed
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
        self.opened: dict[str, JobContext] = {}  # of these, by id, those that are ready to begin
        self.done: list[Done | Well] = []  # ended, and not handed in
        self.full = False  # the last claim got all it asked for, so there is more
        self.crowded = False  # it rests, and not even a token would wake it: there was no place for a job
        self.empty_since: int | None = None  # jobs that had ended when the queue was last found empty
        self.runner = Runner(worker.horizon, broker.queue, worker.id, broker.now_ms)
        self._worker = worker
        self._stirred = asyncio.Event()  # something changed that a step may be needed for
        self._listener: asyncio.Task[None] | None = None  # blocks on the wake token, and claims behind it
        self._mourning: set[asyncio.Task[None]] = set()  # jobs that were given up, while their code is told
        self._alarm: asyncio.TimerHandle | None = None  # rings when the next delayed job is due
        self._told = 0  # server's ms of the answer that the alarm was set by
        self._failures = 0  # steps in a row that did not get through
        self._renewed = 0.0  # loop time of the last renewal of leases

    def __repr__(self) -> str:
        return f"<Lane {self.broker.queue}: {len(self.buffer)} waiting, {len(self.done)} to hand in>"

    def stir(self) -> None:
        """A job has ended, a place is free, or the worker is to stop."""
        self._stirred.set()

    def prepare(self) -> None:
        """Open what waits for a place: there is time for it now, and none when a place comes free."""
        for claimed in self.buffer:
            if claimed.id not in self.opened:
                self.opened[claimed.id] = self.runner.open(claimed)

    def open(self, claimed: Claimed) -> JobContext:
        """The job of a claim."""
        job = self.opened.pop(claimed.id, None)
        return job if job is not None and job.fence == claimed.fence else self.runner.open(claimed)

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
            await self._end(keeper, orders, self._listener, *self._mourning)
            await self.runner.aclose()
            with suppress(errors.GravitoError):  # what stays is dropped by its age
                await self.broker.leave(self._worker.id)

    def _settled(self) -> bool:
        return not (self.buffer or self.done or self._worker.running_in(self))

    async def _step(self) -> bool:
        """One exchange with the queue, if there is a reason for one; True if another one should follow at once."""
        worker = self._worker
        if worker.draining:
            await self._stop_listening()
            self.done.extend(worker.give_back(self))
            want = free = 0
        else:
            want = min(worker.room(self, worker.ahead), _MOST)
            free = max(0, min(worker.room(self), want))
        ended, self.done = self.done[:_MOST], self.done[_MOST:]
        if not ended and want <= 0:
            return False
        done = [each.done() if isinstance(each, Well) else each for each in ended]
        so_far = worker.ended
        try:
            step = await self.broker.step(worker.id, done, want, free)
        except (
            errors.ConfigurationError
        ):  # at the first one: the server may evict jobs, and will not change by itself
            raise
        except errors.GravitoError as error:
            self.done = [*done, *self.done]
            await self._wait_for_server(error)
            return True
        self._failures = 0
        worker.quarantine.handed_in(done)
        worker.refused(step.refused)
        self.full = 0 < want <= len(step.claimed)
        self._set_alarm(step.now_ms, step.next_due_ms)
        if want > 0:
            worker.looked(self, len(step.claimed), so_far)
        if step.claimed:
            worker.admit(self, step.claimed)
            await asyncio.sleep(0)  # short jobs end in this turn, and go along with the next claim
        return len(step.claimed) >= min(want, _SPECIAL) > 0 or bool(self.done)

    async def _rest(self) -> None:
        """Wait for a reason to step: an ended job, a free place, a token, a job that is due."""
        room = self._worker.room(self) > 0
        if room and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._listen())
        self.crowded = not room
        await self._stirred.wait()
        self.crowded = False
        if leisure := self._leisure():
            await asyncio.sleep(leisure)

    def _leisure(self) -> float:
        """Seconds for which what ends may gather for a step that is worth it: jobs enough wait here for the next places."""
        worker = self._worker
        places = worker.options.concurrency
        if worker.draining or len(self.buffer) * 2 < places or len(self.done) * 4 >= places:
            return 0.0
        lasts = worker.mean / 1000 * len(self.buffer) / places
        return min(lasts / 2, _GATHER)

    def _make_way(self) -> None:
        """Stir the lanes that rest without a place: jobs of this one may have been what they had none for."""
        for lane in self._worker.lanes:
            if lane.crowded and self._worker.room(lane) > 0:
                lane.stir()

    async def _listen(self) -> None:
        """Wait for tokens, for as long as there is room; what comes with them is taken in here."""
        worker, failed, step = self._worker, False, None
        while not worker.draining and (room := worker.room(self)) > 0:
            want = min(room, max(1, worker.options.concurrency // _SHARE))
            try:
                if failed:
                    step = await self.broker.settle(worker.id)
                elif not worker.options.burst:
                    step = await self.broker.claim_on_wake(worker.id, want, _BLOCK)
                elif await self.broker.wait(
                    _BLOCK
                ):  # its end is when a step finds nothing: no claim may hide that
                    self.stir()
                    return
                failed = False
            except errors.GravitoError as error:
                failed = True
                await self._wait_for_server(error)
                self.stir()  # a token may have been lost
                continue
            if step is not None:
                self._take(step)
                if len(step.claimed) >= want:
                    self.full = True
                    self.stir()
                    return
                await asyncio.sleep(0)  # the jobs begin before the next wait is made ready
        self.crowded = True

    def _take(self, step: Step) -> None:
        """Take in what was claimed behind a token."""
        worker = self._worker
        self._failures = 0
        self._set_alarm(step.now_ms, step.next_due_ms)
        if not step.claimed:
            return
        self.empty_since = None
        worker.admit(self, step.claimed)
        # A step may have claimed for the same places meanwhile: what would have to wait for one goes back.
        over = min(-worker.room(self, worker.ahead), len(step.claimed))
        if over > 0 and worker.quarantine.job is None:
            self.done.extend(worker.give_back(self, over))
        if self.done:
            self.stir()

    async def _stop_listening(self) -> None:
        """Give up waiting, and take in what was claimed meanwhile."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await self._end(listener)
        try:
            step = await self.broker.settle(self._worker.id, _LAST)
        except errors.GravitoError as error:  # what was claimed comes back when its lease ends
            _log.debug("queue %s: %s", self.broker.queue, error)
        else:
            if step is not None:  # they do not begin any more
                self.buffer.extend(step.claimed)
                self._worker.took(len(step.claimed))

    async def _wait_for_server(self, error: errors.GravitoError) -> None:
        if self._failures == 0:
            _log.warning("queue %s: %s; trying again", self.broker.queue, error)
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        await asyncio.sleep(pause)

    def _set_alarm(self, now_ms: int, due_ms: int | None) -> None:
        if now_ms < self._told:  # answers of two wires may overtake each other
            return
        self._told = now_ms
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
            except Exception:
                _log.exception("queue %s: its control channel", self.broker.queue)
            await asyncio.sleep(_KEEP)

    # -- housekeeping ----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        least, most = _KEEP_IDLE
        pause = _KEEP
        while True:
            await asyncio.sleep(pause)
            # an idle worker of many queues asks the server no more often than one of a single queue
            lanes = len(self._worker.lanes)
            pause = _KEEP if self.held() else min(max(least, _KEEP * lanes), most)
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
            # a task, for it sets context variables, and what the job's code does now may take long
            task = asyncio.create_task(self._mourn(job_id))
            self._mourning.add(task)
            task.add_done_callback(self._mourning.discard)
        self._set_alarm(kept.now_ms, kept.next_due_ms)

    async def _mourn(self, job_id: str) -> None:
        """Do for a job that died with its workers what its own code would have had done: hooks, and what its chain
        does next. At most once: nobody hears of it again if this worker dies, too."""
        try:
            look = await self.broker.look(job_id)
            if look.state != "dead" or look.body is None:  # somebody has brought it back already
                return
            dead = Claimed(job_id, 0, look.attempts + 1, look.crashes, look.body)
            for queue, envelope in await self.runner.mourn(dead):
                await self._worker.horizon.broker(queue).push(envelope)
        except Exception:
            _log.exception("queue %s: job %s is dead, and nobody could be told", self.broker.queue, job_id)

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
