"""The worker: claims jobs of its queues, runs them side by side, and hands in how they ended."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gravito.errors import ConfigurationError
from gravito.horizon._heartbeat import Heartbeat, Order, resident_memory
from gravito.horizon._lane import Lane
from gravito.horizon._messages import Claimed, Done
from gravito.horizon._minded import minded
from gravito.horizon._places import Places
from gravito.horizon._quarantine import Quarantine
from gravito.horizon._run import Well
from gravito.horizon._stall import StallWatch
from gravito.horizon._watch import AlertWatch
from gravito.horizon._working import Tally, WorkerOptions

if TYPE_CHECKING:
    from gravito.horizon.context import JobContext, Stop
    from gravito.horizon.horizon import Horizon

__all__ = ["Tally", "Worker", "WorkerOptions"]

_log = logging.getLogger("gravito.horizon")

_TICK: Final = 0.05  # seconds between two looks at the running jobs' deadlines
_AGAIN: Final = 1.0  # seconds until a job that did not heed its cancellation is cancelled again
_SHORT: Final = 500.0  # ms; longer jobs are not claimed ahead of a free place
_AHEAD: Final = 100.0  # ms of work to claim ahead


class Worker:
    """Works on queues until it is stopped; one for each process and event loop.

    Args:
        horizon: whose jobs.
        options: see `WorkerOptions`.
    """

    def __init__(self, horizon: Horizon, options: WorkerOptions | None = None) -> None:
        self.horizon = horizon
        self.options = options or WorkerOptions()
        # the host and process are for people; the rest makes it unique also after a restart with the same pid
        self.id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.tally = Tally()
        self.draining = False  # claims nothing more
        self.recycle = False  # it ended by its own limits or by order, and wants to be replaced
        self.retired = False  # it ended by order, and is not to be replaced
        self.lanes: list[Lane] = []
        self._running: dict[JobContext, _Run] = {}
        self._waiting = 0  # claimed jobs without a place, in all lanes
        self._mean = _SHORT  # ms that a job takes, lately; nothing is claimed ahead before that is known
        self._ended = 0  # jobs so far; tells whether a lane's last look is still true
        self.quarantine = Quarantine()
        self._places: Places  # for what is no coroutine; made by `run`, in its loop
        self.started = asyncio.Event()  # the application's start-up hooks have run
        self._stopped = asyncio.Event()  # somebody asked for the end

    def __repr__(self) -> str:
        state = "draining" if self.draining else "working"
        return f"<Worker {self.id} {state}, {len(self._running)} of {self.options.concurrency} running>"

    @property
    def running(self) -> list[JobContext]:
        """The jobs that run now."""
        return list(self._running)

    @property
    def waiting(self) -> int:
        """How many jobs it has claimed and not begun."""
        return self._waiting

    def stop(self) -> None:
        """Claim nothing more, let running jobs finish within the grace time, then `run` returns. From its loop."""
        self._stopped.set()

    async def stopping(self) -> None:
        """Wait until it is told to stop, by whatever way; it may have jobs to finish."""
        await self._stopped.wait()

    async def run(self) -> Tally:
        """Work until `stop`, or by the options until there is nothing to do or enough was done.

        Raises:
            ConfigurationError: a queue's server may evict keys.
            InjectionError: nothing provides what a job asks for.
        """
        self._places = Places(self.options.concurrency)
        for rank, queue in enumerate(self.options.queues):  # a wrong name is refused before anything starts
            self.lanes.append(Lane(self, self.horizon.broker(queue), rank))
        await self.horizon.startup()
        self.started.set()
        watch = StallWatch(
            self._busy_with,
            self._renew,
            after=self.options.stall,
            patience=self.options.stall_patience,
            every=self.lanes[0].broker.lease_ms / 3000,
        )
        heartbeat = Heartbeat(self, self._obey)
        helpers = [
            asyncio.create_task(minded("the watch on deadlines", self._watch_deadlines)),
            asyncio.create_task(minded("the drain", self._drain_when_asked)),
            asyncio.create_task(minded("the heartbeat", heartbeat.run)),
        ]
        if self.horizon.alerts:
            helpers.append(asyncio.create_task(minded("the watch on alerts", AlertWatch(self.horizon).run)))
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self.lanes:
                    group.create_task(lane.run(), name=f"lane {lane.broker.queue}")
        except BaseExceptionGroup as group_of_lanes:
            refused = group_of_lanes.exceptions[0]
            if isinstance(refused, ConfigurationError):
                raise refused from None
            raise
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await heartbeat.end()
            watch.close()
            self._places.close()
            await self.horizon.shutdown()
        return self.tally

    # -- what the lanes ask ----------------------------------------------------------------------------------

    @property
    def mean(self) -> float:
        """Milliseconds that a job took lately."""
        return self._mean

    @property
    def ahead(self) -> int:
        """How many jobs it may claim besides those that it has places for: some milliseconds' work."""
        if self._mean >= _SHORT:
            return 0
        return int(self.options.concurrency * min(1.0, _AHEAD / max(self._mean, 1.0)))

    def room(self, lane: Lane, ahead: int = 0) -> int:
        """How many jobs a lane may claim now; `ahead`: so many more than there are places."""
        if self.quarantine.job is not None:
            return 0
        concurrency = self.options.concurrency
        free = concurrency + ahead - len(self._running) - self._waiting
        if any(
            other.full for other in self.lanes[: lane.rank]
        ):  # they go first, but not to the end of the world
            share = max(1, concurrency // 10)
            free = min(free, share - len(lane.buffer) - len(self.running_in(lane)))
        return free

    def running_in(self, lane: Lane) -> list[Claimed]:
        """The claims of a lane that run now."""
        return [run.claimed for run in self._running.values() if run.lane is lane]

    def took(self, count: int) -> None:
        """A lane has claimed jobs, or given them back."""
        self._waiting += count

    def admit(self, lane: Lane, claims: Sequence[Claimed]) -> None:
        """Take what a lane has claimed."""
        before = self.quarantine.job
        fit, back = self.quarantine.sort(lane, claims, self._places.loop.time())
        lane.buffer.extend(fit)
        self.took(len(fit))
        lane.done += back
        if self.quarantine.job is not before:
            for each in self.lanes:
                each.done.extend(self.give_back(each))
                ended = (done for done in each.done if isinstance(done, Done))
                self.quarantine.wait_for(done for done in ended if done.outcome == "release")
                each.stir()
        self.pump()
        if lane.buffer:
            self._places.loop.call_soon(lane.prepare)  # behind the jobs that begin now

    def pump(self) -> None:
        """Begin jobs that wait, as far as there are places."""
        if self.quarantine.lane is not None:
            self._pump_quarantine(self.quarantine.lane)
            return
        for lane in self.lanes:
            while lane.buffer and len(self._running) < self.options.concurrency:
                self._waiting -= 1
                self._begin(lane, lane.buffer.popleft())

    def _pump_quarantine(self, lane: Lane) -> None:
        now = self._places.loop.time()
        job = self.quarantine.due(len(self._running), now)
        if job is not None:
            _log.warning("job %s has lost %d workers; it runs alone now", job.id, job.crashes)
            self._begin(lane, job)
        elif self.quarantine.over(now):
            self._leave_quarantine(self.quarantine.job)

    def _leave_quarantine(self, job: Claimed | None) -> None:
        if self.quarantine.drop(job):
            for lane in self.lanes:
                lane.stir()

    def give_back(self, lane: Lane, most: int | None = None) -> list[Done]:
        """The lane's jobs that have not begun, as completions that release them; `most`: so many, the last ones."""
        count = len(lane.buffer) if most is None else min(most, len(lane.buffer))
        released = [Done(job.id, job.fence, "release") for job in (lane.buffer.pop() for _ in range(count))]
        released.reverse()  # they go back to the front of their line, in their order
        lane.opened.clear()
        self.took(-len(released))
        self.tally.released += len(released)
        if self.draining:
            for job in self.quarantine.holds(lane):
                released.append(Done(job.id, job.fence, "release"))
                self._leave_quarantine(job)
        return released

    def refused(self, ids: Iterable[str]) -> None:
        """Completions that came too late."""
        for job_id in ids:
            self.tally.refused += 1
            _log.warning(
                "the completion of job %s was refused: its lease was gone, and it runs elsewhere", job_id
            )

    def lost(self, claims: Iterable[Claimed]) -> None:
        """Leases that somebody else has by now: what runs under them is stopped."""
        gone = {(job.id, job.fence) for job in claims}
        if not gone:
            return
        for lane in self.lanes:
            kept = [job for job in lane.buffer if (job.id, job.fence) not in gone]
            self.took(len(kept) - len(lane.buffer))
            lane.buffer.clear()
            lane.opened.clear()
            lane.buffer.extend(kept)
            for job in self.quarantine.holds(lane):
                if (job.id, job.fence) in gone:
                    self._leave_quarantine(job)
        for run in list(self._running.values()):
            if (run.claimed.id, run.claimed.fence) in gone:
                self._cancel(run, "lost")

    def cancel(self, ids: Iterable[str]) -> None:
        """Jobs that somebody wants to end."""
        wanted = set(ids)
        if wanted:
            for run in list(self._running.values()):
                if run.claimed.id in wanted:
                    self._cancel(run, "cancel")

    def looked(self, lane: Lane, found: int, since: int) -> None:
        """A lane has asked for jobs; with `burst`, the last empty answer ends the worker.

        Args:
            lane: which one.
            found: how many it got.
            since: what `ended` was when it asked.
        """
        lane.empty_since = since if not found else None
        if not self.options.burst or self._running or self._waiting or self.quarantine.job is not None:
            return
        outdated = [each for each in self.lanes if each.empty_since != self._ended]
        for each in outdated:  # what has run meanwhile may have pushed into them
            each.stir()
        if not outdated:
            self.stop()

    @property
    def ended(self) -> int:
        """Jobs that have ended in this worker so far."""
        return self._ended

    # -- jobs ------------------------------------------------------------------------------------------------

    def _begin(self, lane: Lane, claimed: Claimed) -> None:
        job = lane.open(claimed)
        run = _Run(lane, claimed, job)
        timeout = job.definition.options.timeout if job.definition is not None else None
        if timeout is not None:
            run.deadline = self._places.loop.time() + timeout
        self._running[job] = run
        run.task = self._places.loop.create_task(self._run(run))

    async def _run(self, run: _Run) -> None:
        job, lane = run.job, run.lane
        try:
            done: Done | Well = await lane.runner.run(job, self._places.run)
        except BaseException as error:
            _log.exception("job %s %s: its end was cut short", job.name, job.id)
            if job.stopped in ("shutdown", "lost", "cancel"):
                done = Done(job.id, job.fence, "release")
            else:  # it would end so again, and again
                done = lane.runner.broken_off(job, error)
        del self._running[job]
        self._ended += 1
        if job.stopped != "lost":
            self._count(done)
            lane.done.append(done)
        if self.quarantine.job is not None:
            self._leave_quarantine(run.claimed)
        if self._waiting or self.quarantine.job is not None:
            self.pump()
        lane.stir()
        if self.options.max_jobs is not None and self._ended >= self.options.max_jobs:
            self.recycle = True
            self.stop()

    def _count(self, done: Done | Well) -> None:
        tally = self.tally
        if isinstance(done, Well):
            tally.done += 1
            self._mean += 0.05 * (done.ended - done.job.started - self._mean)
        elif done.outcome == "retry":
            tally.retried += 1
        elif done.outcome == "dead":
            tally.dead += 1
        elif done.outcome == "release":
            tally.released += 1
        else:
            tally.cancelled += 1

    def _cancel(self, run: _Run, why: Stop) -> None:
        run.lane.runner.stop(run.job, why)
        run.cancelled = self._places.loop.time()
        if run.task is not None:
            run.task.cancel()

    async def _watch_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at_memory = loop.time()
        while True:
            await asyncio.sleep(_TICK)
            now = loop.time()
            if self.quarantine.job is not None:
                self.pump()
            for run in list(self._running.values()):
                if run.cancelled is not None:
                    if now - run.cancelled > _AGAIN:
                        _log.warning("job %s %s does not heed its cancellation", run.job.name, run.job.id)
                        self._cancel(run, "lost")
                elif run.deadline is not None and now >= run.deadline:
                    self._cancel(run, "timeout")
            if self.options.max_memory is not None and now - looked_at_memory > 1:
                looked_at_memory = now
                self._look_at_memory(self.options.max_memory)

    def _look_at_memory(self, most: int) -> None:
        used = resident_memory() >> 20
        if used > most and not self._stopped.is_set():
            _log.info("worker %s uses %d MiB, more than %d: it ends to be replaced", self.id, used, most)
            self.recycle = True
            self.stop()

    def _obey(self, order: Order) -> None:
        self.recycle = self.recycle or order == "restart"
        self.retired = self.retired or order == "drain"
        self.stop()

    async def _drain_when_asked(self) -> None:
        await self._stopped.wait()
        self.draining = True
        for lane in self.lanes:
            lane.stir()
        await asyncio.sleep(self.options.grace)
        for run in list(self._running.values()):
            _log.warning("job %s %s did not end within the grace time", run.job.name, run.job.id)
            self._cancel(run, "shutdown")

    # -- while the loop stands still; both are called in a thread --------------------------------------------

    def _busy_with(self) -> str:
        current = asyncio.current_task(self._places.loop)
        for run in list(self._running.values()):
            if run.task is current:
                return f"job {run.job.name} {run.job.id}"
        return "code outside of the jobs"

    async def _renew(self) -> None:
        for lane in self.lanes:
            await lane.renew()


@dataclass(slots=True, eq=False)
class _Run:
    lane: Lane
    claimed: Claimed
    job: JobContext
    task: asyncio.Task[None] | None = None
    deadline: float | None = None  # loop time at which it has run too long
    cancelled: float | None = None  # loop time of its last cancellation
