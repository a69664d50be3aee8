"""A handle on a job: where it is, what came of it, and a way to stop it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from gravito.errors import (
    JobCancelledError,
    JobFailedError,
    PayloadError,
    ResultGoneError,
    UnknownJobError,
)
from gravito.horizon import _payload
from gravito.horizon._messages import Look, Pushed, State
from gravito.horizon._payload import FORMAT, NIL, Attempt, Body, End, Failure, Record
from gravito.horizon._progress import read_progress
from gravito.horizon.context import Progress

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.job import Definition

__all__ = ["JobHandle", "JobStatus"]

R_co = TypeVar("R_co", covariant=True)

_ENDED: Final = ("ok", "dead", "cancelled")
_AT_ONCE: Final = 500  # jobs that are looked at and cancelled together


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its queue had it when it was asked.

    Args:
        id: the job's.
        state: ready, delayed, running, parked (a limit holds it back), ok, dead, cancelled, or unknown: never pushed, or
            no longer kept.
        name: the job's name; empty for an unknown one.
        attempt: runs that were counted so far.
        crashes: runs whose worker died.
        pushed: when it was pushed, by the pusher's clock.
        due: when a delayed one is due, and a running one's lease ends.
        started: when its latest run began, of those that ended.
        ended: when it ended.
        worker: who runs it, or ran it last.
        error: its latest failure.
        error_type: the class of that.
        traceback: of that, as text.
        progress: what it told last while it runs: done, of how much, a note.
        tags: words to find it by.
        meta: as given by `.meta(...)`.
    """

    id: str
    state: State
    name: str = ""
    attempt: int = 0
    crashes: int = 0
    pushed: datetime | None = None
    due: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    worker: str | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    progress: Progress | None = None
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether it runs no more and waits no more."""
        return self.state in _ENDED


class JobHandle(Generic[R_co]):
    """One job in its queue. `await handle` is `await handle.result()`.

    Args:
        horizon: whose.
        queue: where it is.
        job_id: its id.
        definition: what it is, if that is known; decides the result's type.
    """

    __slots__ = ("_definition", "_horizon", "id", "new", "queue")

    def __init__(self, horizon: Horizon, queue: str, job_id: str, definition: Definition | None) -> None:
        self.id = job_id
        self.queue = queue
        self.new = (
            True  # False: the push found a job of this id or unique key, and this is a handle on that one
        )
        self._horizon = horizon
        self._definition = definition

    def __repr__(self) -> str:
        name = self._definition.name if self._definition is not None else "job"
        return f"<JobHandle {name} {self.id} on {self.queue!r}>"

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.result().__await__()

    def settle(self, pushed: Pushed) -> None:
        """Note what became of the push."""
        self.id = pushed.id
        self.new = pushed.state == "new"

    async def status(self) -> JobStatus:
        """Where it is, and what is known of it."""
        broker = self._horizon.broker(self.queue)
        status = read_status(self._horizon, await broker.look(self.id))
        if status.state == "running":
            status = msgspec.structs.replace(status, progress=await read_progress(broker, self.id))
        return status

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until it has ended, well or not.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            ResultTimeoutError: it has not ended in time; it goes on.
            UnknownJobError: the queue knows no such job, or no longer.
        """
        return read_status(self._horizon, await self._ended(timeout))

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait for what it returns.

        Args:
            timeout: seconds; None for as long as it takes.

        Returns:
            The job's result, decoded to its annotated type.

        Raises:
            ResultTimeoutError: it has not ended in time; it goes on.
            JobFailedError: it is dead; with the error's class and the traceback.
            JobCancelledError: it was cancelled, or discarded.
            ResultGoneError: it ended well, and its result was not kept.
            UnknownJobError: the queue knows no such job, or no longer.
        """
        look = await self._ended(timeout)
        record = read_end(look)
        if look.state == "ok":
            return self._decoded(look, record)
        raise self._error(look, record)

    async def cancel(self) -> bool:
        """Cancel it. One that waits ends at once; one that runs is asked to, and ends as soon as its code lets go (a
        thread cannot be stopped).

        Returns:
            True if it is cancelled or was asked to end; False if it had ended before.

        Raises:
            UnknownJobError: the queue knows no such job.
        """
        batches: dict[str, str] = {}
        state = (await cancel(self._horizon, self.queue, [self.id], batches))[self.id]
        if state == "unknown":
            raise self._unknown()
        for job_id, batch_id in batches.items():
            await self._horizon.batches.end(batch_id, [(job_id, "cancelled")])
        return state in ("cancelled", "running")

    async def progress(self) -> Progress | None:
        """What it told last: done, of how much, a note; None if it told nothing, or does not run."""
        return (await self.status()).progress

    async def _ended(self, timeout: float | None) -> Look:
        broker, clock = self._horizon.broker(self.queue), asyncio.get_running_loop().time
        end = None if timeout is None else clock() + timeout
        look = await broker.result(self.id, timeout)
        while look.state not in _ENDED:  # unknown, or pushed only just now: the next job of a chain
            if look.state == "unknown":
                raise self._unknown()
            look = await broker.result(self.id, None if end is None else max(0.0, end - clock()))
        return look

    def _decoded(self, look: Look, record: Record) -> R_co:
        if record.end is None or not record.end.kept:
            raise self._about(
                ResultGoneError(f"job {self.id} ended well; its result was not kept, or is no longer")
            )
        body = _body(look, record)
        data: bytes | msgspec.Raw = record.end.result
        if body is not None and body.extra is not None and body.extra.sealed and data != NIL:
            sealed = msgspec.msgpack.decode(data, type=bytes)
            data = self._horizon.vault.open(f"result of {self.id}", sealed)
        try:
            if self._definition is None:
                result: R_co = msgspec.msgpack.decode(data)
            else:
                result = self._definition.result.decode(data)
        except msgspec.DecodeError as error:
            message = f"the result of job {self.id} does not fit what the job is annotated to return: {error}"
            raise self._about(PayloadError(message)) from error
        return result

    def _error(self, look: Look, record: Record) -> JobFailedError:
        kind = JobCancelledError if look.state == "cancelled" else JobFailedError
        failure = read_failure(self._horizon, look.id, record)
        name = self._definition.name if self._definition is not None else "the job"
        if failure is None:
            return self._about(kind(f"{name} {self.id} is {look.state}"))
        message = f"{name} {self.id} is {look.state}: {failure.type}: {failure.message}"
        return self._about(kind(message, error_type=failure.type, traceback=failure.traceback))

    def _unknown(self) -> UnknownJobError:
        return self._about(
            UnknownJobError(f"queue {self.queue!r} knows no job {self.id!r}: never pushed, or no longer kept")
        )

    def _about(self, error: E) -> E:
        error.job_id = self.id  # type: ignore[attr-defined]  # all are HorizonErrors
        error.job = self._definition.name if self._definition is not None else None  # type: ignore[attr-defined]
        return error


E = TypeVar("E", bound=builtins.Exception)


async def cancel(
    horizon: Horizon, queue: str, ids: list[str], batches: dict[str, str] | None = None
) -> dict[str, str]:
    """Cancel jobs of a queue, and keep a record of those that end by it.

    Args:
        horizon: whose.
        queue: where they are.
        ids: theirs.
        batches: is filled with the batch of each job that ended by it and is part of one.

    Returns:
        The broker's answer for each.
    """
    broker = horizon.broker(queue)
    states: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        looks = await asyncio.gather(*[broker.look(job_id) for job_id in part])
        records = {look.id: _cancelled(look, broker.now_ms()) for look in looks if look.body is not None}
        states.update(await broker.cancel(part, records))
        if batches is not None:
            batches.update(_batches_of(looks, states))
    return states


def _batches_of(looks: list[Look], states: dict[str, str]) -> dict[str, str]:
    found = {}
    for look in looks:
        if look.body is not None and states[look.id] == "cancelled":
            extra = _payload.read_body(look.body).extra
            if extra is not None and extra.batch is not None:
                found[look.id] = extra.batch
    return found


def _cancelled(look: Look, now_ms: int) -> bytes:
    assert look.body is not None
    failure = Failure("gravito.errors.JobCancelledError", "cancelled before it ran")
    end = End("cancelled", look.attempts, 0, now_ms, "", failure)
    return _payload.encode(Record(FORMAT, (), end, msgspec.Raw(look.body)))


def read_end(look: Look) -> Record:
    """The record of a look; an empty one where there is none, or where the server wrote why a job was given up."""
    if look.record is None:
        return Record(FORMAT)
    try:
        return _payload.read_record(look.record)
    except PayloadError:
        reason = _given_up(look.record)
        if reason is None:
            raise
        failure = Failure("gravito.errors.ProcessDiedError", reason)
        return Record(FORMAT, (), End("dead", look.attempts, 0, look.due_ms or 0, "", failure))


def read_failure(horizon: Horizon, job_id: str, record: Record) -> Failure | None:
    """What went wrong last, decrypted if the keys are here."""
    failure = record.end.error if record.end is not None else None
    if failure is None and record.trail:
        failure = record.trail[-1].error
    if failure is None or failure.sealed is None:
        return failure
    try:
        message, text = msgspec.msgpack.decode(
            horizon.vault.open(f"error of {job_id}", failure.sealed), type=tuple[str, str]
        )
    except PayloadError:
        return failure
    return Failure(failure.type, message, text)


def read_status(horizon: Horizon, look: Look) -> JobStatus:
    """A status from what the queue says."""
    record = read_end(look)
    body = _body(look, record)
    failure = read_failure(horizon, look.id, record)
    extra = body.extra if body is not None else None
    last: End | Attempt | None = record.end or (record.trail[-1] if record.trail else None)
    ended = look.state in _ENDED
    return JobStatus(
        id=look.id,
        state=look.state,
        name=body.name if body is not None else "",
        attempt=record.end.attempt if ended and record.end is not None else look.attempts,
        crashes=look.crashes,
        pushed=moment(body.pushed) if body is not None else None,
        due=None if ended else moment(look.due_ms),
        started=moment(last.started) if last is not None else None,
        ended=moment(look.due_ms) if ended else None,
        worker=look.worker or (last.worker if last is not None else None) or None,
        error=failure.message if failure is not None else None,
        error_type=failure.type if failure is not None else None,
        traceback=failure.traceback if failure is not None else None,
        progress=None,
        tags=extra.tags if extra is not None else (),
        meta=(extra.meta if extra is not None else None) or {},
    )


def _body(look: Look, record: Record) -> Body | None:
    data = look.body if look.body is not None else record.body
    return None if data == NIL else _payload.read_body(data)


def _given_up(record: bytes) -> str | None:
    try:
        return msgspec.msgpack.decode(record, type=dict[str, str]).get("reason")
    except msgspec.DecodeError:
        return None


def moment(ms: int | None) -> datetime | None:
    """From milliseconds since the epoch; None also for what is in no calendar."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
    except (ValueError, OverflowError, OSError):
        return None
