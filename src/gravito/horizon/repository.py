"""What readers ask: the console, the terminal, and whoever wants to know how the work goes.

Everything is read from what the queues keep anyhow; a reader costs the workers nothing, and any number of readers says
the same. No request looks through the server's keys, and each page costs the same however many jobs there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from gravito.horizon._acts import Acted, Action, Acts
from gravito.horizon._chains import ChainPart, Chains, ChainStatus
from gravito.horizon._figures import Figures
from gravito.horizon._heartbeat import Order, WorkerRecord, order, read_workers
from gravito.horizon._index import State
from gravito.horizon._messages import Sizes
from gravito.horizon._progress import read_many, read_progress
from gravito.horizon._queues import LimitRow, QueueRow, Queues
from gravito.horizon._rows import Filter, JobDetail, read_detail
from gravito.horizon._search import DeadGroup, JobPage, Search
from gravito.horizon._statistics import Metrics, Point, Statistics, Window, by_queue, last_minute
from gravito.horizon._tags import TagPage, Tags
from gravito.horizon._timetable import ScheduleRow, Timetable
from gravito.horizon.context import Progress

if TYPE_CHECKING:
    from gravito.horizon._batches import BatchStatus
    from gravito.horizon._broker import Broker
    from gravito.horizon.horizon import Horizon

__all__ = ["DeadGroup", "LimitRow", "Metrics", "Point", "QueueRow", "Repository", "Window"]


class Repository:
    """Reads the queues of a Horizon, and does what readers may do to jobs.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self.horizon = horizon
        self.statistics = Statistics(horizon)
        self._queues = Queues(horizon)
        self._search = Search(horizon)
        self._acts = Acts(horizon, self._search)
        self._timetable = Timetable(horizon)

    def __repr__(self) -> str:
        return f"<Repository of {self.horizon!r}>"

    # -- queues ----------------------------------------------------------------------------------------------

    async def names(self) -> list[str]:
        """All queues that ever got a job or a worker, by name."""
        return await self._queues.names()

    async def queues(
        self, workers: Sequence[WorkerRecord] | None = None, names: Sequence[str] | None = None
    ) -> list[QueueRow]:
        """All queues, by name.

        Args:
            workers: for a reader who has them already.
            names: these queues alone, in their order; all sizes are 0 of one that there is none of.
        """
        if workers is None:
            workers = await self.workers()
        return await self._queues.rows(await self.names() if names is None else names, workers)

    async def sizes(self) -> dict[str, Sizes]:
        """How many jobs are where, by queue: what `queues` says, without what takes longer to find out."""
        return await self._queues.sizes()

    async def queue(self, name: str, workers: Sequence[WorkerRecord] | None = None) -> QueueRow:
        """One queue; see `queues`."""
        [row] = await self.queues(workers, [name])
        return row

    async def forget(self, name: str) -> None:
        """Take an empty queue off the list; its next job puts it there again.

        Raises:
            HorizonError: it is not empty, it is paused, or there is none.
        """
        await self._queues.check(name)
        await self._queues.forget(name)

    async def pause(self, name: str) -> None:
        """No worker claims jobs of this queue until `resume`; running ones go on.

        It may be one that only the application's code knows, ahead of its first job; from now on it is on the list.

        Raises:
            HorizonError: there is no such queue: it never had a job or a worker, and no job or schedule of this
                application names it. `resume`, `purging` and `forget` say so likewise.
        """
        await self._queues.check(name)
        await self._queues.enter(name)
        await self._broker(name).pause()

    async def resume(self, name: str) -> None:
        """Let workers claim again."""
        await self._queues.check(name)
        await self._broker(name).resume()

    async def purging(
        self, name: str, part: Literal["ready", "delayed", "parked", "done", "dead"]
    ) -> AsyncIterator[tuple[int, int]]:
        """Forget all jobs of a part of a queue; after each step, how many are gone by it and how many are left."""
        await self._queues.check(name)
        async for step in self._broker(name).purging(part):
            yield step

    async def limits(self, name: str, most: int = 100) -> list[LimitRow]:
        """Limits of a queue that are in use now, at most so many."""
        return await self._queues.limits(name, most)

    # -- figures ---------------------------------------------------------------------------------------------

    async def metrics(self, window: Window, queue: str | None = None, job: str | None = None) -> Metrics:
        """Throughput, run time and waiting time, from the counters that finishing a job keeps.

        Args:
            window: 1h, 24h or 7d.
            queue: of this one; None for all together.
            job: of this one alone.

        Raises:
            HorizonError: there is no such window.
        """
        return await self.statistics.metrics(window, await self._these(queue), job)

    async def totals_of(self, window: Window, queues: Sequence[str]) -> dict[str, Figures]:
        """The figures of a whole window, by queue.

        Args:
            window: as for `metrics`.
            queues: names.
        """
        return await self.statistics.totals(window, queues)

    async def last_minute(self, queues: Sequence[str]) -> dict[str, Figures]:
        """What ended in the last minute that is over, by queue.

        Args:
            queues: names.
        """
        span = last_minute(await self.statistics.span("1h"))
        return by_queue(span, queues, await self.statistics.counted(span, queues))

    async def totals(self) -> dict[str, int]:
        """Of all queues since their first job: pushed, ok, retry, dead, release, cancelled, crashed."""
        sizes = (await self.sizes()).values()
        sums = dict.fromkeys(("pushed", "ok", "retry", "dead", "release", "cancelled", "crashed"), 0)
        for one in sizes:
            for name, count in one.totals.items():
                sums[name] = sums.get(name, 0) + count
        return sums

    # -- workers ---------------------------------------------------------------------------------------------

    async def workers(self, offset: int = 0, limit: int = 1000) -> list[WorkerRecord]:
        """Worker processes that said something in the last 15 seconds, by host and start."""
        return (await read_workers(self.horizon, offset, limit))[1]

    async def order(self, worker: str, what: Order) -> None:
        """Tell a worker to drain (finish its jobs and end) or restart (the same, and be replaced by its supervisor).

        Raises:
            HorizonError: there is no such worker, or no longer.
        """
        await order(self.horizon, worker, what)

    # -- jobs ------------------------------------------------------------------------------------------------

    async def jobs(
        self,
        state: State,
        queue: str | None = None,
        *,
        offset: int = 0,
        limit: int = 50,
        filter: Filter | None = None,
        mark: str | None = None,
    ) -> JobPage:
        """A page of jobs.

        Without a filter, or with one by time alone, pages go by `offset`. A search gives a `mark` instead, to be handed
        in for what follows; a page of it may be short, or empty, as long as there is a mark.

        Args:
            state: ready, delayed (the soonest first), running, parked, done (ended ones that are kept, the latest
                first), dead (the latest first).
            queue: of this one; None for all.
            offset: jobs to leave out.
            limit: jobs on the page, at most 1000.
            filter: what to search for.
            mark: of the page before.

        Raises:
            HorizonError: a state or a mark that there is none of.
        """
        names = await self._these(queue)
        limit = max(1, min(limit, 1000))
        wanted = filter or Filter()
        by_time = (wanted.since, wanted.until) == (None, None) or state in ("delayed", "done", "dead")
        if mark is None and not wanted.looks_inside and by_time:
            return await self._search.page(names, state, max(0, offset), limit, wanted)
        return await self._search.search(names, state, limit, wanted, mark)

    async def recent(self, limit: int = 50, offset: int = 0) -> JobPage:
        """Jobs that ended lately and are kept, of all queues."""
        return await self.jobs("done", offset=offset, limit=limit)

    async def failed(self, limit: int = 50, offset: int = 0) -> JobPage:
        """Dead jobs of all queues, the latest first."""
        return await self.jobs("dead", offset=offset, limit=limit)

    async def delayed(self, limit: int = 50, offset: int = 0) -> JobPage:
        """Jobs that are due later, of all queues, the soonest first."""
        return await self.jobs("delayed", offset=offset, limit=limit)

    async def job(self, job_id: str, queue: str | None = None) -> JobDetail | None:
        """All that is known of a job; None if no queue has it.

        Args:
            job_id: its id.
            queue: where to look; None for everywhere.
        """
        names = await self._these(queue)
        looks = await asyncio.gather(*[self._broker(name).look(job_id) for name in names])
        for name, look in zip(names, looks, strict=True):
            if look.state != "unknown":
                found = read_detail(self.horizon, name, look)
                if found.state == "running":
                    told = await read_progress(self._broker(name), job_id)
                    found = msgspec.structs.replace(found, progress=told)
                return found
        return None

    async def progress(self, jobs: Iterable[tuple[str, str]]) -> dict[str, Progress]:
        """What running jobs, `(queue, id)`, told last of how far they are; by id, of those that told something."""
        by_queue: dict[str, list[str]] = {}
        for name, job_id in jobs:
            by_queue.setdefault(name, []).append(job_id)
        told = await asyncio.gather(*[read_many(self._broker(name), ids) for name, ids in by_queue.items()])
        return {job_id: one for part in told for job_id, one in part.items()}

    async def dead_groups(self, queue: str | None = None, limit: int = 200) -> list[DeadGroup]:
        """Dead jobs by name and class of error, the largest groups first."""
        names = await self._these(queue)
        found = await asyncio.gather(*[self._search.dead_groups(name) for name in names])
        groups = [group for part in found for group in part]
        groups.sort(key=lambda group: (-group.count, group.queue, group.name, group.error))
        return await self._search.explained(groups[:limit])

    # -- what readers may do ---------------------------------------------------------------------------------

    async def act(self, action: Action, queue: str, ids: Sequence[str]) -> Acted:
        """Do something to jobs of a queue.

        Args:
            action: retry (dead ones), discard (ended and dead ones), cancel, run_now (delayed ones), delete (whatever
                they are; running ones are asked to end).
            queue: where they are.
            ids: which.
        """
        return await self._acts.do(action, queue, ids)

    def acting(
        self, action: Action, state: State, queue: str | None = None, filter: Filter | None = None
    ) -> AsyncIterator[Acted]:
        """Do something to all jobs that a search finds; what was done so far, after each step."""
        return self._acts.all(action, state, queue, filter or Filter())

    async def count(self, state: State, queue: str | None = None, filter: Filter | None = None) -> int:
        """How many jobs a search finds; it reads them all."""
        names = await self._these(queue)
        return await self._search.count(names, state, filter or Filter())

    # -- watched tags ----------------------------------------------------------------------------------------

    async def tags(self) -> TagPage:
        """The tags that people watch, and which jobs have them among the latest thousand of each state."""
        return await Tags(self.horizon).read(await self.names())

    async def watch_tag(self, tag: str, watched: bool = True) -> None:
        """Watch a tag, or watch it no longer.

        Raises:
            HorizonError: it is none, or there are as many as can be.
        """
        await (Tags(self.horizon).watch(tag) if watched else Tags(self.horizon).unwatch(tag))

    # -- batches and schedules -------------------------------------------------------------------------------

    async def batches(self, offset: int = 0, limit: int = 50) -> tuple[int, list[BatchStatus]]:
        """How many batches are known, and some of them, the latest first."""
        return await self.horizon.batches.listed(offset, limit)

    async def batch(self, batch_id: str) -> BatchStatus:
        """One batch.

        Raises:
            UnknownJobError: there is none, or no longer.
        """
        return await self.horizon.batches.status(batch_id)

    async def cancel_batch(self, batch_id: str) -> BatchStatus:
        """Cancel what has not ended of a batch."""
        return await self.horizon.batches.stop(batch_id)

    async def chains(self, offset: int = 0, limit: int = 20) -> tuple[int, list[ChainStatus]]:
        """How many chains were pushed in the last week, and some of them, the latest first.

        Chains that something else pushed, as a batch at its end, are not among them.
        """
        return await Chains(self.horizon).listed(offset, limit)

    async def chain(self, chain_id: str) -> ChainStatus:
        """One chain, with each of its jobs.

        Raises:
            UnknownJobError: there is none, or no longer.
        """
        return await Chains(self.horizon).status(chain_id)

    async def chain_near(self, chain_id: str, job_id: str, most: int = 5) -> ChainPart | None:
        """The jobs of a chain around one of them; None if the chain is on no list.

        Args:
            chain_id: the chain's.
            job_id: the job's.
            most: jobs before it, and behind it.
        """
        return await Chains(self.horizon).near(chain_id, job_id, most)

    async def schedules(self) -> list[ScheduleRow]:
        """This application's schedules, and those that the server remembers of others."""
        return await self._timetable.rows()

    async def pause_schedule(self, name: str, paused: bool = True) -> None:
        """Stop a schedule from firing, or let it fire again."""
        await self._timetable.pause(name, paused)

    async def run_schedule(self, name: str) -> str:
        """Push a schedule's job now, out of turn; the job's id.

        Raises:
            HorizonError: this application has no such schedule.
        """
        return await self._timetable.run(name)

    # -- parts -----------------------------------------------------------------------------------------------

    def _broker(self, queue: str) -> Broker:
        return self.horizon.broker(queue)

    async def _these(self, queue: str | None) -> list[str]:
        return await self.names() if queue is None else [queue]
