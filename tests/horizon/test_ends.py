"""Ends that go wrong themselves: no job loops for it, and no worker is taken down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.waiting import until

from gravito.atlas import Client
from gravito.horizon import Horizon, HorizonSettings, Job, JobHandle, Middleware, current_job
from gravito.horizon.handle import JobStatus
from gravito.horizon.repository import Repository
from gravito.horizon.worker import Tally, Worker, WorkerOptions

CENTURY = 100 * 365 * 86_400


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


async def ended(horizon: Horizon, handle: JobHandle[Any], most: int = 5) -> tuple[JobStatus, Tally]:
    """How a job ended under a worker that takes so many jobs at most; one that loops would not end with one run."""
    worker = Worker(horizon, WorkerOptions(burst=True, max_jobs=most))
    async with asyncio.timeout(20):
        tally = await worker.run()
    return await handle.status(), tally


# -- a delay that is none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["release", "retry"])
@pytest.mark.parametrize("delay", ["5", float("nan"), float("inf"), -1, CENTURY + 1, 1e15, True, object()])
async def test_a_delay_that_is_none_is_a_failure_of_the_job(horizon: Horizon, word: str, delay: Any) -> None:
    @horizon.job(retries=1, backoff=0)
    async def later() -> None:
        getattr(current_job(), word)(delay)

    status, tally = await ended(horizon, await later.push())
    assert (status.state, status.attempt, tally.retried, tally.dead) == ("dead", 2, 1, 1)
    assert status.error_type == "gravito.errors.PayloadError"
    assert f"{word}: the delay is {delay!r}; allowed: seconds from 0 to 100 years" in str(status.error)


@pytest.mark.parametrize("word", ["release", "retry"])
@pytest.mark.parametrize("plain", [True, False])
async def test_a_timedelta_puts_a_job_off(horizon: Horizon, word: str, plain: bool) -> None:
    def put_off() -> None:
        getattr(current_job(), word)(timedelta(minutes=5))

    async def put_off_async() -> None:
        put_off()

    later = horizon.job(put_off if plain else put_off_async)
    status, tally = await ended(horizon, await later.push())
    assert status.state == "delayed"
    assert tally.released + tally.retried == 1
    assert status.due is not None
    assert 240 < (status.due - datetime.now(UTC)).total_seconds() <= 300


# -- hooks and failed() that exit or release ---------------------------------------------------------------------


def leave() -> None:
    """End the process, from inside of a job."""
    sys.exit(3)


def put_back() -> None:
    """Release a job that has ended."""
    current_job().release(5)


@pytest.mark.parametrize("what", [leave, put_back])
@pytest.mark.parametrize("plain", [True, False])
async def test_a_failed_that_exits_or_releases_leaves_the_job_dead(
    horizon: Horizon, caplog: pytest.LogCaptureFixture, what: Any, plain: bool
) -> None:
    class Bad(Job):
        retries = 0

        async def handle(self) -> None:
            raise ValueError("why")

        if plain:

            def failed(self, error: BaseException) -> None:
                what()
        else:

            async def failed(self, error: BaseException) -> None:
                what()

    status, tally = await ended(horizon, await Bad.push())
    assert (status.state, status.error, tally.dead, tally.released) == ("dead", "why", 1, 0)
    assert "failed() of job Bad" in caplog.text


@pytest.mark.parametrize("what", [leave, put_back])
@pytest.mark.parametrize("hook", ["succeeded", "retried", "died", "released", "cancelled"])
async def test_a_hook_that_exits_or_releases_changes_nothing(redis: Client, hook: str, what: Any) -> None:
    told: list[str] = []

    class Bad(Middleware):
        pass

    setattr(Bad, hook, lambda self, job, *rest: what())

    class Good(Middleware):
        pass

    setattr(Good, hook, lambda self, job, *rest: told.append(hook))
    async with Horizon(redis, middleware=[Bad(), Good()]) as horizon:

        @horizon.job(retries=1, backoff=3600, discard_on=KeyError)
        async def end(how: str) -> None:
            if how == "retried":
                raise OSError
            if how == "died":
                current_job().fail("enough")
            if how == "released":
                current_job().release(3600)
            if how == "cancelled":
                raise KeyError

        status, _ = await ended(horizon, await end.push(hook))
    wanted = {"succeeded": "ok", "died": "dead", "cancelled": "cancelled"}.get(hook, "delayed")
    assert (status.state, told) == (wanted, [hook])


async def test_an_end_that_cannot_be_made_is_the_job_s_death(horizon: Horizon) -> None:
    @horizon.job(retries=3, backoff=lambda attempt: sys.exit(3))
    async def fail() -> None:
        raise ValueError("why")

    status, tally = await ended(horizon, await fail.push())
    assert (status.state, status.error_type, status.error, tally.dead) == ("dead", "SystemExit", "3", 1)


async def test_a_failed_that_hangs_does_not_hold_up_the_worker_s_end(
    horizon: Horizon, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    class Hanging(Job):
        retries = 0

        async def handle(self) -> None:
            raise ValueError("why")

        async def failed(self, error: BaseException) -> None:
            begun.set()
            await asyncio.Event().wait()

    handle = await Hanging.push()
    worker = Worker(horizon, WorkerOptions(grace=0.05))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await begun.wait()
        worker.stop()
        await task
    assert (await handle.status()).state == "dead"


# -- jobs that are given up for their dead workers ---------------------------------------------------------------


async def bury(horizon: Horizon, redis: Client, handle: JobHandle[Any]) -> None:
    """Let the job have lost its third worker."""
    broker = horizon.broker("default")
    await redis.hset(broker.keys.part("tries"), handle.id, "0:2")
    assert (await broker.step("ghost", [], 1)).claimed[0].crashes == 2


async def test_mourning_takes_no_worker_down(redis: Client, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    class Listening(Middleware):
        async def died(self, job: Any, error: BaseException) -> None:
            told.append(str(error))

    settings = HorizonSettings(lease=1.0)
    async with Horizon(redis, settings=settings, middleware=[Listening()]) as horizon:

        class Deadly(Job):
            async def handle(self) -> None: ...

            async def failed(self, error: BaseException) -> None:
                leave()

        handle = await Deadly.push()
        await bury(horizon, redis, handle)
        worker = Worker(horizon)
        task = asyncio.create_task(worker.run())
        await until(lambda: told, timeout=20)
        assert not task.done()
        worker.stop()
        async with asyncio.timeout(20):
            await task
    assert told == ["its worker died 3 times while it ran"]
    assert "failed() of job Deadly" in caplog.text


async def test_a_failed_that_hangs_holds_up_no_housekeeping_and_no_end(redis: Client) -> None:
    begun = asyncio.Event()
    async with Horizon(redis, settings=HorizonSettings(lease=1.0)) as horizon:

        class Deadly(Job):
            async def handle(self) -> None: ...

            async def failed(self, error: BaseException) -> None:
                begun.set()
                await asyncio.Event().wait()

        @horizon.job
        async def long() -> int:
            await begun.wait()
            await asyncio.sleep(2.5)  # more than two leases: somebody has to renew them
            return current_job().crashes

        handle = await Deadly.push()
        await bury(horizon, redis, handle)
        worker = Worker(horizon)
        task = asyncio.create_task(worker.run())
        running = await long.push()
        await asyncio.wait_for(begun.wait(), 20)
        other = Worker(horizon)  # it would take over what nobody renews
        other_task = asyncio.create_task(other.run())
        assert await running.result(timeout=20) == 0
        for each in (worker, other):
            each.stop()
        async with asyncio.timeout(20):
            await asyncio.gather(task, other_task)
    assert worker.tally.refused == 0


# -- what a thread cannot raise ----------------------------------------------------------------------------------


async def test_a_plain_job_that_raises_stop_iteration_has_failed(horizon: Horizon) -> None:
    @horizon.job(retries=0)
    def first() -> object:
        return next(iter(()))

    status, _ = await ended(horizon, await first.push())
    assert (status.state, status.error_type) == ("dead", "RuntimeError")
    assert str(status.error).endswith("first raised StopIteration")
    assert "return next(iter(()))" in str(status.traceback)


async def test_a_plain_failed_that_raises_stop_iteration_holds_nothing_up(
    horizon: Horizon, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Job):
        retries = 0

        def handle(self) -> None:
            raise ValueError("why")

        def failed(self, error: BaseException) -> None:
            next(iter(()))

    status, _ = await ended(horizon, await Bad.push())
    assert (status.state, status.error) == ("dead", "why")
    assert "failed() of job Bad" in caplog.text


# -- what is kept of it ------------------------------------------------------------------------------------------


async def test_a_long_message_is_cut(horizon: Horizon, redis: Client) -> None:
    @horizon.job(retries=2, backoff=0)
    async def fail() -> None:
        raise ValueError("begin " + "x" * 1_000_000 + " end")

    handle = await fail.push()
    status, _ = await ended(horizon, handle)
    message = str(status.error)
    assert message.startswith("begin x")
    assert message.endswith("x end")
    assert "... 996010 characters left out ..." in message
    kept = await redis.memory_usage(horizon.broker("default").keys.part("notes"))
    assert kept is not None
    assert kept < 60_000


async def test_a_moment_that_is_in_no_calendar_breaks_no_reader(horizon: Horizon, redis: Client) -> None:
    @horizon.job
    async def later() -> None: ...

    handle = await later.delay(3600).push()
    key = horizon.broker("default").keys.part("delayed")
    await redis.zadd(key, dict.fromkeys(await redis.zrange(key, 0, -1), 1e16))
    assert (await handle.status()).due is None
    assert [row.due for row in (await Repository(horizon).delayed()).jobs] == [None]
