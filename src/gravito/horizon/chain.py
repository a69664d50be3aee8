"""Chains: jobs that run one after the other, as long as all goes well.

Each body holds the next job, which is pushed by the very script that accepts the completion: a chain cannot stop half
way because a worker died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from gravito.errors import PayloadError, ResultTimeoutError, UnknownJobError
from gravito.horizon._chains import Chains
from gravito.horizon._packing import Place, new_id
from gravito.horizon._payload import Travel
from gravito.horizon.call import Call

if TYPE_CHECKING:
    from gravito.horizon.handle import JobHandle, JobStatus
    from gravito.horizon.horizon import Horizon

__all__ = ["Chain", "ChainHandle"]

_LONGEST = 1000  # jobs; the first body holds all of them


class Chain:
    """Jobs in the order in which they are to run. Its methods give a new chain and leave this one as it was.

    Args:
        horizon: whose.
        calls: the jobs, at least one, of any queues.
    """

    def __init__(self, horizon: Horizon, calls: Sequence[Call[Any]]) -> None:
        for call in calls:
            if not isinstance(call, Call):
                raise PayloadError(
                    f"a chain is made of calls, as `job.make(...)` gives them; this is {call!r}"
                )
        if not 0 < len(calls) <= _LONGEST:
            raise PayloadError(f"a chain has 1 to {_LONGEST} jobs, this one has {len(calls)}")
        self._horizon = horizon
        self._calls = tuple(calls)
        self._catch: Call[Any] | None = None

    def __repr__(self) -> str:
        return f"<Chain of {' -> '.join(call.definition.name for call in self._calls)}>"

    def catch(self, call: Call[Any]) -> Self:
        """What is pushed when one of its jobs is dead; those behind it never run."""
        copy = object.__new__(type(self))
        copy._horizon, copy._calls, copy._catch = self._horizon, self._calls, call
        return copy

    async def push(self) -> ChainHandle:
        """Queue the first job; each one that ends well queues the next.

        Raises:
            PayloadError: a job that cannot be queued; then none was.
            ConnectionError, TimeoutError: as `Call.push`.
        """
        chain_id = new_id()
        (queue, envelope), handles = self._prepare(None, chain_id)
        handles[0].settle(await self._horizon.broker(queue).push(envelope))
        if self._horizon.faked is None:
            links = zip(self._calls, handles, strict=True)
            jobs = [(handle.queue, handle.id, call.definition.name) for call, handle in links]
            await Chains(self._horizon).note(chain_id, jobs)
        return ChainHandle(self._horizon, handles, chain_id)

    def travel(self, job_id: str) -> Travel:
        """The first job, to be pushed by something else under this id."""
        return self._prepare(job_id, new_id())[0]

    def _prepare(self, first_id: str | None, chain_id: str) -> tuple[Travel, list[JobHandle[Any]]]:
        horizon = self._horizon
        catch: Travel | None = None
        if self._catch is not None:
            catch, _ = horizon.prepare(self._catch, Place(id=f"{chain_id}:catch", parent=chain_id))
        following: Travel | None = None
        handles: list[JobHandle[Any]] = []
        for index, call in reversed(list(enumerate(self._calls))):
            job_id = (first_id if index == 0 else None) or call.how.id or new_id()
            place = Place(id=job_id, chain=chain_id, then=following, catch=catch)
            following, handle = horizon.prepare(call, place)
            handles.append(handle)
        assert following is not None
        return following, handles[::-1]


class ChainHandle:
    """A chain that was pushed.

    Args:
        horizon: whose.
        jobs: handles on its jobs, in order.
        chain_id: the chain's.
    """

    def __init__(self, horizon: Horizon, jobs: Sequence[JobHandle[Any]], chain_id: str = "") -> None:
        self.id = chain_id
        self.jobs = tuple(jobs)
        self._horizon = horizon

    def __repr__(self) -> str:
        return f"<ChainHandle of {len(self.jobs)} jobs, from {self.jobs[0].id}>"

    async def status(self) -> list[JobStatus]:
        """Each job's status, in order; those that were not queued yet are unknown."""
        return list(await asyncio.gather(*[job.status() for job in self.jobs]))

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for what the last job returns.

        Args:
            timeout: seconds for the whole chain; None for as long as it takes.

        Raises:
            ResultTimeoutError: it has not ended in time; it goes on.
            JobFailedError, JobCancelledError: of the job at which it stopped.
            UnknownJobError: the queue knows no such job, or no longer.
        """
        try:
            async with asyncio.timeout(timeout):
                for before, job in zip((None, *self.jobs), self.jobs[:-1], strict=False):
                    status = await self._wait(before, job)
                    if status.state != "ok":
                        return await job.result()  # raises why
                await self._wait(self.jobs[-2] if len(self.jobs) > 1 else None, self.jobs[-1])
                return await self.jobs[-1].result()
        except TimeoutError as error:
            if isinstance(error, ResultTimeoutError):
                raise
            raise ResultTimeoutError(f"the chain has not ended within {timeout:g} s") from None

    async def cancel(self) -> bool:
        """Cancel the job at which it is, and so all behind that.

        Returns:
            False if it had ended before.
        """
        for job, behind in zip(self.jobs, (*self.jobs[1:], None), strict=True):
            if await job.cancel():
                return True
            status = await job.status()
            if status.state != "ok" or behind is None:
                return False
            await self._arrived(job, behind)
        return False

    async def _wait(self, before: JobHandle[Any] | None, job: JobHandle[Any]) -> JobStatus:
        try:
            return await job.wait()
        except UnknownJobError:
            if before is None:
                raise
        await self._arrived(before, job)
        return await job.wait()

    async def _arrived(self, before: JobHandle[Any], job: JobHandle[Any]) -> None:
        """See to it that a job which goes to another queue gets there."""
        if before.queue != job.queue:
            await self._horizon.broker(before.queue).relay()
