"""Handles: waiting for results, states, cancelling, progress."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.horizon.driving import drain

from gravito.atlas import Client
from gravito.errors import (
    JobCancelledError,
    JobFailedError,
    PayloadError,
    ResultGoneError,
    ResultTimeoutError,
    UnknownJobError,
)
from gravito.horizon import Horizon, HorizonSettings, Retention, current_job
from gravito.horizon._run import Runner
from gravito.horizon.worker import Worker, WorkerOptions


class Point(msgspec.Struct):
    x: int


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    gc.collect()
    async with Horizon(redis) as made:
        yield made


async def test_waiting_is_woken_by_the_end(horizon: Horizon) -> None:
    @horizon.job
    async def work(n: int) -> Point:
        return Point(n)

    handle = await work.push(3)
    waiters = [asyncio.create_task(handle.result(10)) for _ in range(5)]
    await asyncio.sleep(0.05)  # they are waiting by now; not needed for the outcome
    await drain(horizon)
    assert await asyncio.gather(*waiters) == [Point(3)] * 5
    assert await horizon.handle(handle.id).result(5) == {"x": 3}
    assert await horizon.handle(handle.id, job=work).result(5) == Point(3)


async def test_a_result_that_is_late(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    handle = await work.push()
    with pytest.raises(ResultTimeoutError, match=handle.id) as caught:
        await handle.result(0.05)
    assert isinstance(caught.value, TimeoutError)
    await drain(horizon)
    assert await handle.result(5) is None


async def test_states(horizon: Horizon) -> None:
    seen = []

    @horizon.job(retries=0)
    async def work(fail: bool = False) -> None:
        seen.append(await current_job().horizon.handle(current_job().id).status())
        if fail:
            raise ValueError("no")

    handle, later, bad = await work.push(), await work.delay(100).push(), await work.push(fail=True)
    assert (await handle.status()).state == "ready"
    assert (await later.status()).state == "delayed"
    await drain(horizon, most=2)
    assert [status.state for status in seen] == ["running", "running"]
    ended = await handle.wait(5)
    assert ended.finished
    assert (ended.state, ended.name, ended.attempt) == ("ok", "work", 1)
    assert ended.started is not None
    assert ended.pushed is not None
    assert ended.ended is not None
    assert ended.started <= ended.ended
    assert (await bad.status()).error_type == "ValueError"
    nobody = horizon.handle("nobody")
    assert (await nobody.status()).state == "unknown"
    for wait in (nobody.result, nobody.wait, nobody.cancel):
        with pytest.raises(UnknownJobError, match="knows no job 'nobody'"):
            await wait()


async def test_results_that_are_not_kept(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job(results=False)
        async def work() -> int:
            return 1

        handle = await work.push()
        await drain(horizon)
        with pytest.raises(ResultGoneError, match="not kept"):
            await handle.result(5)
        assert (await handle.wait(5)).state == "ok"
    async with Horizon(redis, settings=HorizonSettings(keep=Retention(done=0))) as horizon:
        horizon.register(work)
        handle = await horizon.push(work.make())
        waiting = asyncio.create_task(handle.wait(10))
        while not await redis.exists("horizon:{default}:waiting"):  # noqa: ASYNC110  # sets no event
            await asyncio.sleep(0)
        await drain(horizon)
        assert (await waiting).state == "ok"


async def test_a_result_of_another_type_than_annotated(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> int:
        return "text"  # type: ignore[return-value]  # the mistake that is tested

    handle = await work.push()
    await drain(horizon)
    with pytest.raises(PayloadError, match="annotated to return"):
        await handle.result(5)


async def test_cancelling_what_waits(horizon: Horizon) -> None:
    @horizon.job
    async def work(n: int) -> None:
        pytest.fail("it was cancelled")

    ready, later = await work.push(1), await work.delay(100).push(2)
    waiting = asyncio.create_task(later.result(10))
    assert await ready.cancel()
    assert await later.cancel()
    assert await drain(horizon) == []
    for handle in (ready, later):
        with pytest.raises(JobCancelledError, match="cancelled before it ran"):
            await handle.result(5)
        status = await handle.status()
        assert (status.state, status.name) == ("cancelled", "work")
        assert await handle.cancel() is False
    with pytest.raises(JobCancelledError):
        await waiting


async def test_stopping_what_runs(horizon: Horizon) -> None:
    started = asyncio.Event()
    cleaned: list[str] = []

    @horizon.job(retries=0, timeout=5)
    async def work(why: str) -> None:
        started.set()
        try:
            await asyncio.sleep(100)
        finally:
            cleaned.append(why)

    broker = horizon.broker("default")
    runner = Runner(horizon, "default", "w", broker.now_ms)
    handles, done = {}, []
    for why in ("cancel", "timeout", "shutdown", "lost"):
        handles[why] = await work.push(why)
        (claimed,) = (await broker.step("w", done, 2)).claimed  # the second one may be cancelled
        job = runner.open(claimed)
        started.clear()
        task = asyncio.create_task(runner.run(job))
        await started.wait()
        if why == "cancel":
            assert await handles[why].cancel()
            assert (await broker.keep("w", [claimed])).cancel == [handles[why].id]
        runner.stop(job, why)  # type: ignore[arg-type]  # one of its words
        task.cancel()
        done = [await task]
        assert done[0].outcome == {"cancel": "cancelled", "timeout": "dead"}.get(why, "release")
        if why == "shutdown":
            await broker.step("w", done, 0)
            done = []
            assert await handles[why].cancel()
    assert cleaned == ["cancel", "timeout", "shutdown", "lost"]
    with pytest.raises(JobCancelledError, match="cancelled while it ran"):
        await handles["cancel"].result(5)
    with pytest.raises(JobFailedError, match="JobTimeoutError: it ran longer than its timeout of 5 seconds"):
        await handles["timeout"].result(5)


@pytest.mark.parametrize("sync", [False, True])
async def test_progress(horizon: Horizon, sync: bool) -> None:
    go_on = asyncio.Event()

    if sync:

        @horizon.job(name="told")
        def work() -> None:
            current_job().progress(3, 10, "rows")
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    else:

        @horizon.job(name="told")
        async def work() -> None:
            for n in range(4):
                current_job().progress(n, 10, "rows")
            await go_on.wait()

    loop = asyncio.get_running_loop()
    handle = await work.push()
    assert await handle.progress() is None
    working = asyncio.create_task(drain(horizon))
    told: Any = None
    async with asyncio.timeout(10):
        while told is None:
            told = await handle.progress()
    assert told == (3, 10, "rows")
    go_on.set()
    await working
    assert (await handle.wait(5)).progress is None
    raw = horizon.client
    async with asyncio.timeout(10):
        while await raw.hlen("horizon:{default}:progress"):  # noqa: ASYNC110  # sets no event
            await asyncio.sleep(0)


async def test_an_overtaken_run_tells_nothing(horizon: Horizon) -> None:
    from gravito.horizon._progress import Teller

    @horizon.job
    async def work() -> None: ...

    handle = await work.push()
    broker = horizon.broker("default")
    (claimed,) = (await broker.step("w", [], 1)).claimed
    runner, teller = Runner(horizon, "default", "w", broker.now_ms), Teller(broker)
    job = runner.open(claimed)
    job.progressed = (1, None, None)
    job.fence -= 1
    teller.tell(job)
    assert teller._task is not None
    await teller._task
    assert await handle.progress() is None
    job.fence += 1
    teller.tell(job)
    await teller._task
    assert await handle.progress() == (1, None, None)


async def test_what_the_server_wrote_about_crashes(horizon: Horizon, brokers: Any) -> None:
    @horizon.job
    async def work() -> None: ...

    handle = await work.push()
    broker = brokers("default", lease_ms=1)
    for _ in range(3):
        async with asyncio.timeout(20):
            while not (await broker.step("w", [], 1)).claimed:
                await broker.keep("w", [])
    async with asyncio.timeout(20):
        while (await handle.status()).state != "dead":
            await broker.keep("w", [])
    with pytest.raises(JobFailedError, match="died 3 times") as caught:
        await handle.result(5)
    assert caught.value.error_type == "gravito.errors.ProcessDiedError"
    assert (await handle.status()).crashes == 3


async def test_no_progress_stays_behind_a_worker(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None:
        current_job().progress(1)

    await work.push()
    await Worker(horizon, WorkerOptions(burst=True)).run()
    assert not await horizon.client.exists("horizon:{default}:progress")
