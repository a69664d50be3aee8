"""Helpers for the tests of an application: pushes that are recorded, queues that are drained here and now, moved time.

Example::

    with horizon.fake() as queue:
        await register("ann@example.org")
        queue.assert_pushed(send_welcome, where=lambda job: job.arguments["to"] == "ann@example.org")

    await register("ann@example.org")
    await horizon.work()                       # in this process, on the embedded engine
    await travel(horizon, hours=24)            # what is due within a day is due now
    await horizon.work()
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import msgspec

from gravito.errors import HorizonError
from gravito.horizon import _payload
from gravito.horizon._broker import Broker
from gravito.horizon._keys import Keys, check_queue
from gravito.horizon._messages import Envelope, Look, Pushed
from gravito.horizon._pack import check
from gravito.horizon.options import PRIORITIES
from gravito.horizon.worker import Tally, Worker, WorkerOptions

if TYPE_CHECKING:
    from gravito.horizon._payload import Travel
    from gravito.horizon.horizon import Horizon

__all__ = ["Fake", "PushedBatch", "PushedJob", "burst", "travel"]

_travel = msgspec.msgpack.Decoder(tuple[str, Envelope]).decode
_NAMES = {number: name for name, number in PRIORITIES.items()}


class PushedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A push that was recorded.

    Args:
        id: the job's.
        name: the job's name.
        queue: where it went.
        arguments: by name, as they are encoded: a date is a text, a tuple a list.
        delay: seconds from the push.
        at: when it is to run, if a moment was given.
        priority: critical, high, default or low.
        tags: words to find it by.
        meta: as given by `.meta(...)`.
        unique: its unique key.
        batch: id of its batch.
        then: what follows it in its chain.
    """

    id: str
    name: str
    queue: str
    arguments: dict[str, Any]
    delay: float = 0.0
    at: datetime | None = None
    priority: str = "default"
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = {}
    unique: str | None = None
    batch: str | None = None
    then: PushedJob | None = None


class PushedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was recorded.

    Args:
        id: the batch's.
        name: for people.
        jobs: what it is made of, without those that were there before.
        allowed: how many of them may be dead.
        then: what is pushed when all went well.
        catch: what is pushed when too many failed.
        finally_: what is pushed when all have ended.
    """

    id: str
    name: str
    jobs: tuple[PushedJob, ...]
    allowed: int = 0
    then: PushedJob | None = None
    catch: PushedJob | None = None
    finally_: PushedJob | None = None


Where = Callable[[PushedJob], bool]


class Fake:
    """Takes the pushes of a Horizon instead of its queues. `horizon.fake()` makes it.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._jobs: list[PushedJob] = []
        self._batches: dict[str, Mapping[str, Any]] = {}  # what was said of each
        self._dues: dict[tuple[str, str], int] = {}  # epoch ms, by queue and id
        self._kept: Any = None  # the Horizon's own batches, while this one stands in for them

    def __repr__(self) -> str:
        return f"<Fake {len(self._jobs)} jobs pushed>"

    def __enter__(self) -> Self:
        horizon = self._horizon
        if horizon.faked is not None:
            raise HorizonError("this Horizon is faked already")
        horizon.faked = self
        self._kept, horizon.batches = horizon.batches, _FakeBatches(self._batches)  # type: ignore[assignment]  # stands in for them
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._horizon.faked = None
        self._horizon.batches = self._kept

    def pushed(self, job: Any = None, where: Where | None = None) -> list[PushedJob]:
        """What was pushed so far, in order.

        Args:
            job: a function or class that is a job, or a job's name; None for all.
            where: of those, the ones for which it is true.
        """
        name = None if job is None else _name(job)
        return [
            one for one in self._jobs if (name is None or one.name == name) and (where is None or where(one))
        ]

    def assert_pushed(self, job: Any, times: int | None = None, where: Where | None = None) -> None:
        """Fail unless it was pushed.

        Args:
            job: as of `pushed`.
            times: exactly so often; None for at least once.
            where: as of `pushed`.

        Raises:
            AssertionError: with what was pushed.
        """
        found = len(self.pushed(job, where))
        if (found == 0) if times is None else (found != times):
            wanted = "at least once" if times is None else f"{times} times"
            such = "" if where is None else " so that `where` holds"
            self._fail(f"{_name(job)} was to be pushed {wanted}{such}, and was {found} times")

    def assert_not_pushed(self, job: Any, where: Where | None = None) -> None:
        """Fail if it was pushed."""
        self.assert_pushed(job, 0, where)

    def assert_nothing_pushed(self) -> None:
        """Fail if any job was pushed."""
        if self._jobs:
            self._fail("nothing was to be pushed")

    def assert_chained(self, *jobs: Any) -> None:
        """Fail unless a chain of these jobs was pushed."""
        names = [_name(job) for job in jobs]
        if not any(_chain(one) == names for one in self._jobs):
            self._fail(f"a chain of {', '.join(names)} was to be pushed")

    @property
    def batches(self) -> list[PushedBatch]:
        """The batches that were pushed so far, in order, with what is to follow them."""
        return [self._batch(batch_id, fields) for batch_id, fields in self._batches.items()]

    def clear(self) -> None:
        """Forget what was pushed so far."""
        self._jobs.clear()
        self._batches.clear()
        self._dues.clear()

    def _fail(self, what: str) -> NoReturn:
        said = "".join(f"\n  {one.name} {one.arguments} on {one.queue!r}" for one in self._jobs[:50])
        more = f"\n  and {len(self._jobs) - 50} more" if len(self._jobs) > 50 else ""
        raise AssertionError(f"{what}; pushed: {said or 'nothing'}{more}")

    # -- what the Horizon asks -------------------------------------------------------------------------------

    def broker(self, queue: str) -> Broker:
        """Stands in for the queue's."""
        return _FakeBroker(self, queue)

    def take(self, queue: str, envelope: Envelope) -> Pushed:
        """Record a push, as the server would take it."""
        job = self._recorded(queue, envelope)
        for one in self._jobs:
            if one.queue == queue and one.id == job.id:
                return Pushed(one.id, "exists")
            if one.queue == queue and job.unique is not None and one.unique == job.unique:
                return Pushed(one.id, "unique")
        self._jobs.append(job)
        self._dues[queue, job.id] = _now_ms() + envelope.delay if envelope.at is None else envelope.at
        return Pushed(job.id, "new")

    def look(self, queue: str, job_id: str) -> Look:
        """Where such a job would be."""
        due = self._dues.get((queue, job_id))
        if due is None:
            return Look(job_id, "unknown")
        return Look(job_id, "delayed", due_ms=due) if due > _now_ms() else Look(job_id, "ready")

    def _batch(self, batch_id: str, fields: Mapping[str, Any]) -> PushedBatch:
        followers = {
            name: self._recorded(*_travel(fields[name]))
            for name in ("then", "catch", "finally")
            if name in fields
        }
        return PushedBatch(
            id=batch_id,
            name=fields["name"],
            jobs=tuple(job for job in self._jobs if job.batch == batch_id),
            allowed=fields["allowed"],
            then=followers.get("then"),
            catch=followers.get("catch"),
            finally_=followers.get("finally"),
        )

    def _recorded(self, queue: str, envelope: Envelope) -> PushedJob:
        body = _payload.read_body(envelope.body)
        extra = body.extra
        following: Travel | None = extra.then if extra is not None else None
        return PushedJob(
            id=envelope.id,
            name=body.name,
            queue=queue,
            arguments=msgspec.msgpack.decode(self._horizon.vault.arguments(body, envelope.id)),
            delay=envelope.delay / 1000,
            at=None if envelope.at is None else datetime.fromtimestamp(envelope.at / 1000, UTC),
            priority=_NAMES[envelope.priority],
            tags=extra.tags if extra is not None else (),
            meta=(extra.meta if extra is not None else None) or {},
            unique=envelope.unique,
            batch=envelope.batch,
            then=None if following is None else self._recorded(*following),
        )


class _FakeBroker(Broker):
    """A queue that takes pushes, and runs nothing."""

    def __init__(self, fake: Fake, queue: str) -> None:
        self.queue = check_queue(queue)
        self.keys = Keys(queue)
        self._fake = fake

    def __getattr__(self, name: str) -> NoReturn:
        raise HorizonError(f"queue {self.queue!r} is faked: it takes pushes, and nothing else")

    def now_ms(self) -> int:
        return _now_ms()

    def push(self, job: Envelope) -> Awaitable[Pushed]:
        future: asyncio.Future[Pushed] = asyncio.get_running_loop().create_future()
        future.set_result(self._fake.take(self.queue, check(job)))
        return future

    async def push_all(self, jobs: Sequence[Envelope]) -> list[Pushed | BaseException]:
        return [await self.push(job) for job in jobs]

    def look(self, job_id: str) -> Awaitable[Look]:
        future: asyncio.Future[Look] = asyncio.get_running_loop().create_future()
        future.set_result(self._fake.look(self.queue, job_id))
        return future

    async def result(self, job_id: str, timeout: float | None = None) -> Look:
        raise HorizonError(f"queue {self.queue!r} is faked: job {job_id} was recorded, and will not run")

    async def aclose(self) -> None:
        pass


class _FakeBatches:
    """Batches whose jobs are recorded one by one."""

    def __init__(self, kept: dict[str, Mapping[str, Any]]) -> None:
        self._kept = kept

    async def begin(self, batch_id: str, fields: Mapping[str, Any]) -> None:
        self._kept[batch_id] = fields

    async def add(self, batch_id: str, jobs: Sequence[tuple[str, str]]) -> None:
        pass

    async def seal(self, batch_id: str) -> None:
        pass

    async def end(self, batch_id: str, ended: Sequence[tuple[str, str]]) -> None:
        pass

    def __getattr__(self, name: str) -> NoReturn:
        raise HorizonError("this Horizon is faked: its batches are recorded, and will not run")


async def burst(
    horizon: Horizon, queues: Iterable[str] | None = None, *, everything: bool = False, concurrency: int = 100
) -> Tally:
    """Run what there is to run, in this process, until nothing is ready.

    Jobs that are due later stay, retries that wait for their backoff among them.

    Args:
        horizon: whose jobs.
        queues: of these; None for all.
        everything: jobs that are due later, too; time is moved on to each.
        concurrency: jobs that run at the same time.

    Returns:
        How the runs ended.
    """
    total = Tally()
    while True:
        names = tuple(queues) if queues is not None else await _queues(horizon)
        tally = await Worker(horizon, WorkerOptions(queues=names, concurrency=concurrency, burst=True)).run()
        for field in Tally.__dataclass_fields__:
            setattr(total, field, getattr(total, field) + getattr(tally, field))
        sent = sum([await horizon.broker(name).relay() for name in names])
        sizes = [await horizon.broker(name).sizes() for name in names]
        if sent or any(sum(one.ready) + one.fair for one in sizes if not one.paused):
            continue
        if queues is None and set(await _queues(horizon)) != set(names):
            continue
        going = [name for name, one in zip(names, sizes, strict=True) if not one.paused]
        if not everything or not await _move_to_next(horizon, going):
            return total


async def travel(
    horizon: Horizon,
    seconds: float = 0.0,
    *,
    hours: float = 0.0,
    days: float = 0.0,
    queues: Iterable[str] | None = None,
) -> None:
    """Let time pass for the queues: delayed jobs become due, rate limits and unique keys run out, ended jobs age.

    The leases of running jobs stay as they are.

    Args:
        horizon: whose.
        seconds: how far, with `hours` and `days`.
        hours: see there.
        days: see there.
        queues: of these; None for all.

    Raises:
        HorizonError: it goes backwards.
    """
    by = round((seconds + 3600 * hours + 86_400 * days) * 1000)
    if by < 0:
        raise HorizonError(f"travel goes forward; {by / 1000:g} seconds are less than 0")
    for name in queues if queues is not None else await _queues(horizon):
        await horizon.broker(name).travel(by)


async def _move_to_next(horizon: Horizon, names: Sequence[str]) -> bool:
    """Let as much time pass as the soonest delayed job, or rate limit, has to wait; False if there is none."""
    dues = [await horizon.broker(name).travel(0) for name in names]
    waits = [
        due - horizon.broker(name).now_ms() for name, due in zip(names, dues, strict=True) if due is not None
    ]
    if waits:
        await travel(horizon, max(0, min(waits) + 1) / 1000, queues=names)
    return bool(waits)


async def _queues(horizon: Horizon) -> tuple[str, ...]:
    client = horizon.client.with_options(decode_responses=True)
    known = await client.smembers(f"{horizon.settings.prefix}:queues")
    names = sorted(str(name) for name in known if not str(name).startswith("gravito."))
    return tuple(names) or ("default",)


def _now_ms() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)


def _name(job: Any) -> str:
    definition = getattr(job, "definition", None)
    return job if isinstance(job, str) else definition.name if definition is not None else repr(job)


def _chain(job: PushedJob) -> list[str]:
    names = [job.name]
    following = job.then
    while following is not None:
        names.append(following.name)
        following = following.then
    return names
