"""Batches: jobs that belong together, what follows when all of them have ended, and how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from gravito.errors import PayloadError
from gravito.horizon._batches import Batches, BatchStatus
from gravito.horizon._packing import Place, new_id
from gravito.horizon._payload import Travel
from gravito.horizon.call import Call

if TYPE_CHECKING:
    from gravito.horizon.chain import Chain
    from gravito.horizon.handle import JobHandle
    from gravito.horizon.horizon import Horizon

__all__ = ["Batch", "BatchHandle"]

_CHUNK = 500  # jobs that are on their way at the same time


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    then: Call[Any] | Chain | None = None
    catch: Call[Any] | Chain | None = None
    finally_: Call[Any] | Chain | None = None
    allowed: float = 0  # failures; below 1 a share of all


class Batch:
    """Jobs to be pushed together. Its methods give a new batch and leave this one as it was.

    Args:
        horizon: whose.
        calls: the jobs, of any queues.
        name: for people.
    """

    def __init__(self, horizon: Horizon, calls: Sequence[Call[Any]], name: str = "") -> None:
        for call in calls:
            if not isinstance(call, Call):
                raise PayloadError(
                    f"a batch is made of calls, as `job.make(...)` gives them; this is {call!r}"
                )
        self._horizon = horizon
        self._calls = tuple(calls)
        self._plan = _Plan(name=name)

    def __repr__(self) -> str:
        return f"<Batch {self._plan.name!r} of {len(self._calls)} jobs>"

    def then(self, call: Call[Any] | Chain) -> Self:
        """What is pushed when all jobs have ended, and no more failed than is allowed."""
        return self._with(then=call)

    def catch(self, call: Call[Any] | Chain) -> Self:
        """What is pushed, once, as soon as more jobs have failed than is allowed."""
        return self._with(catch=call)

    def finally_(self, call: Call[Any] | Chain) -> Self:
        """What is pushed when all jobs have ended, however."""
        return self._with(finally_=call)

    def allow_failures(self, most: float = 1.0) -> Self:
        """How many jobs may be dead before the batch has failed, and those of its jobs that wait are cancelled.

        Args:
            most: a number of jobs; a float up to 1.0 is a share of all.
        """
        share = isinstance(most, float) and 0.0 <= most <= 1.0
        number = isinstance(most, int) and not isinstance(most, bool) and most >= 0
        if not share and not number:
            raise PayloadError(
                f"allow_failures is {most!r}; allowed: a number of jobs, or a share from 0.0 to 1.0"
            )
        return self._with(allowed=round(most * len(self._calls)) if share else most)

    async def push(self, progress: Callable[[int], Any] | None = None) -> BatchHandle:
        """Queue all jobs. Everything is encoded before the first one is sent.

        Args:
            progress: called with how many are queued so far.

        Raises:
            PayloadError: a job that cannot be queued; then none was.
            ConnectionError, TimeoutError: as `Call.push`; the batch is then not complete, and what was queued of it runs.
        """
        batch_id = new_id()
        horizon, plan = self._horizon, self._plan
        prepared = [
            horizon.prepare(call, Place(id=call.how.id or new_id(), batch=batch_id)) for call in self._calls
        ]
        fields: dict[str, Any] = {"name": plan.name, "allowed": int(plan.allowed)}
        for what, call in (("then", plan.then), ("catch", plan.catch), ("finally", plan.finally_)):
            if call is not None:
                fields[what] = msgspec.msgpack.encode(
                    _follower(horizon, call, f"{batch_id}:{what}", batch_id)
                )
        store = horizon.batches
        await store.begin(batch_id, fields)
        for start in range(0, len(prepared), _CHUNK):
            await self._push_chunk(batch_id, prepared[start : start + _CHUNK])
            if progress is not None:
                progress(min(start + _CHUNK, len(prepared)))
        await store.seal(batch_id)
        return BatchHandle(horizon, batch_id, tuple(handle for _, handle in prepared))

    async def _push_chunk(self, batch_id: str, chunk: list[tuple[Travel, JobHandle[Any]]]) -> None:
        horizon = self._horizon
        await horizon.batches.add(batch_id, [(envelope.id, queue) for (queue, envelope), _ in chunk])
        sent = [horizon.broker(queue).push(envelope) for (queue, envelope), _ in chunk]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        elsewhere = []
        for (_, handle), answer in zip(chunk, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            if answer.state != "new":  # a job that was there before belongs to whoever pushed it
                elsewhere.append((handle.id, "discarded"))
            handle.settle(answer)
        if elsewhere:
            await horizon.batches.end(batch_id, elsewhere)

    def _with(self, **changes: Any) -> Self:
        copy = object.__new__(type(self))
        copy._horizon, copy._calls = self._horizon, self._calls
        copy._plan = msgspec.structs.replace(self._plan, **changes)
        return copy


class BatchHandle:
    """A batch that was pushed.

    Args:
        horizon: whose.
        batch_id: its id.
        jobs: handles on its jobs, where they are known.
    """

    def __init__(self, horizon: Horizon, batch_id: str, jobs: tuple[JobHandle[Any], ...] = ()) -> None:
        self.id = batch_id
        self.jobs = jobs
        self._store: Batches = horizon.batches

    def __repr__(self) -> str:
        return f"<BatchHandle {self.id}, {len(self.jobs)} jobs>"

    async def status(self) -> BatchStatus:
        """How far it is.

        Raises:
            UnknownJobError: there is no such batch, or no longer.
        """
        return await self._store.status(self.id)

    async def wait(self, timeout: float | None = None) -> BatchStatus:
        """Wait until all jobs have ended.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            ResultTimeoutError: they have not; they go on.
            UnknownJobError: there is no such batch, or no longer.
        """
        return await self._store.wait(self.id, timeout)

    async def cancel(self) -> BatchStatus:
        """Cancel the jobs that have not ended. `then` is not pushed, `finally` is when the last one has ended."""
        return await self._store.stop(self.id)


def _follower(horizon: Horizon, call: Call[Any] | Chain, job_id: str, batch_id: str) -> Travel:
    if isinstance(call, Call):
        return horizon.prepare(call, Place(id=job_id, parent=batch_id))[0]
    return call.travel(job_id)
