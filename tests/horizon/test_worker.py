"""The worker: what it does with jobs that succeed, fail, hang, block, and with its own end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.horizon import tasks
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import ConfigurationError, GravitoError, JobCancelledError, JobFailedError
from gravito.horizon import Job
from gravito.horizon.context import current_job
from gravito.horizon.horizon import Horizon, HorizonSettings
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


@asynccontextmanager
async def working(horizon: Horizon, **options: Any) -> AsyncIterator[Worker]:
    """A worker that runs while the block does."""
    worker = Worker(horizon, WorkerOptions(**options))
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def burst(horizon: Horizon, **options: Any) -> Worker:
    """A worker that has done all there is."""
    worker = Worker(horizon, WorkerOptions(burst=True, **options))
    async with asyncio.timeout(20):
        await worker.run()
    return worker


async def test_jobs_run_and_their_results_come_back(horizon: Horizon) -> None:
    @horizon.job
    async def double(number: int) -> int:
        return 2 * number

    async with working(horizon) as worker:
        handles = [await double.push(number) for number in range(20)]
        results = [await handle.result(timeout=10) for handle in handles]
    assert results == [2 * number for number in range(20)]
    assert worker.tally.done == 20


async def test_a_sync_job_runs_in_a_thread_with_the_job_s_context(horizon: Horizon) -> None:
    @horizon.job
    def where() -> tuple[str, int]:
        return threading.current_thread().name, current_job().attempt

    async with working(horizon):
        name, attempt = await (await where.push()).result(timeout=10)
    assert name.startswith("gravito-job")
    assert attempt == 1


async def test_a_cpu_job_runs_in_a_process(horizon: Horizon) -> None:
    double = horizon.job(name="double", cpu=True)(tasks.double)
    async with working(horizon):
        assert await (await double.push(21)).result(timeout=20) == 42


async def test_a_process_that_dies_is_told_by_the_job_s_name(horizon: Horizon) -> None:
    die = horizon.job(name="die", cpu=True, retries=0)(tasks.die)
    async with working(horizon):
        with pytest.raises(JobFailedError, match=r"the process of job 'die' ended \(SIGKILL\)"):
            await (await die.push()).result(timeout=20)


@pytest.mark.parametrize("kind", ["local", "module", "unreadable"])
async def test_a_process_s_result_that_cannot_be_sent_is_dead_after_one_run(
    horizon: Horizon, tmp_path: Path, kind: str
) -> None:
    mark = tmp_path / "runs"
    unsendable = horizon.job(name="unsendable", cpu=True, retries=3, backoff=0)(tasks.unsendable)
    handle = await unsendable.push(kind, str(mark))
    await burst(horizon)
    status = await handle.status()
    assert (status.state, status.attempt, status.error_type) == ("dead", 1, "gravito.errors.PayloadError")
    assert "the result of job 'unsendable': " in str(status.error)
    assert "results=False" in str(status.error)
    assert mark.read_text() == "ran\n"


async def test_without_results_a_process_sends_none(horizon: Horizon) -> None:
    unsendable = horizon.job(name="unsendable", cpu=True, retries=0, results=False)(tasks.unsendable)
    handle = await unsendable.push()
    await burst(horizon)
    assert (await handle.status()).state == "ok"


async def test_retry_on_knows_an_error_of_a_process(horizon: Horizon) -> None:
    fail = tasks.fail_at_the_api
    again = horizon.job(name="again", cpu=True, retries=1, backoff=0, retry_on=tasks.ApiError)(fail)
    never = horizon.job(name="never", cpu=True, retries=1, discard_on=tasks.ApiError)(fail)
    handles = await again.push(1), await never.push(2)
    await burst(horizon)
    await horizon.work(everything=True)
    retried, discarded = [await handle.status() for handle in handles]
    assert (retried.state, retried.attempt) == ("dead", 2)
    assert (retried.error_type, retried.error) == ("tests.horizon.tasks.ApiError", "no answer")
    assert (discarded.state, discarded.attempt) == ("cancelled", 1)


async def test_a_thread_s_traceback_begins_at_the_job_s_own_code(horizon: Horizon) -> None:
    @horizon.job(retries=0)
    def wrong() -> None:
        raise LookupError("here")

    handle = await wrong.push()
    await burst(horizon)
    lines = ((await handle.status()).traceback or "").splitlines()
    assert "test_worker.py" in lines[1]
    assert lines[-1] == "LookupError: here"


async def test_no_more_jobs_run_at_once_than_the_worker_may(horizon: Horizon) -> None:
    most = now = 0

    @horizon.job
    async def busy() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    await horizon.push_many(busy.make() for _ in range(50))
    worker = await burst(horizon, concurrency=7)
    assert worker.tally.done == 50
    assert most == 7


async def test_a_failing_job_is_tried_again_and_then_dead(horizon: Horizon) -> None:
    attempts: list[int] = []

    @horizon.job(retries=2, backoff=0.01)
    async def fail() -> None:
        attempts.append(current_job().attempt)
        raise LookupError("nothing there")

    async with working(horizon) as worker:
        handle = await fail.push()
        with pytest.raises(JobFailedError, match="nothing there") as caught:
            await handle.result(timeout=10)
    assert attempts == [1, 2, 3]
    assert "raise LookupError" in caught.value.traceback
    assert (worker.tally.retried, worker.tally.dead) == (2, 1)


async def test_an_unknown_job_is_parked_with_the_reason_and_does_not_loop(
    horizon: Horizon, redis: Client
) -> None:
    @horizon.job
    async def known() -> None: ...

    async with Horizon(redis) as other:

        @other.job
        async def newer() -> None: ...

        handle = await newer.push()
        worker = await burst(horizon)
        status = await handle.status()
    assert status.state == "dead"
    assert "there is no job 'newer'" in str(status.error)
    assert worker.tally.runs == 1


async def test_a_job_over_its_time_is_stopped_and_tried_again(horizon: Horizon) -> None:
    stopped: list[float] = []

    @horizon.job(timeout=0.2, retries=1, backoff=0.01)
    async def slow() -> str:
        if current_job().attempt == 2:
            return "second"
        began = time.monotonic()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.append(time.monotonic() - began)
        return "first"

    async with working(horizon):
        assert await (await slow.push()).result(timeout=10) == "second"
    assert 0.2 <= stopped[0] < 5


async def test_a_process_over_its_time_is_killed(horizon: Horizon, tmp_path: Any) -> None:
    spin = horizon.job(name="spin", cpu=True, timeout=6.0, retries=0)(tasks.spin)
    mark = tmp_path / "began"
    async with working(horizon):
        handle = await spin.push(str(mark))
        with pytest.raises(JobFailedError, match="longer than its timeout"):
            await handle.result(timeout=20)
    assert not tasks.alive(int(mark.read_text()))


async def test_a_thread_over_its_time_is_reported_as_still_running(horizon: Horizon) -> None:
    release = threading.Event()

    @horizon.job(timeout=0.1, retries=0)
    def stuck() -> None:
        release.wait(20)

    async with working(horizon):
        handle = await stuck.push()
        with pytest.raises(JobFailedError, match="may still be running"):
            await handle.result(timeout=10)
        release.set()


async def test_a_thread_that_was_cancelled_is_reported_as_still_running(horizon: Horizon) -> None:
    began, release = threading.Event(), threading.Event()

    @horizon.job
    def stuck() -> None:
        began.set()
        release.wait(20)

    async with working(horizon):
        handle = await stuck.push()
        assert await asyncio.to_thread(began.wait, 20)
        assert await handle.cancel()
        with pytest.raises(JobCancelledError, match=r"while it ran; its thread .* may still be running"):
            await handle.result(timeout=10)
        release.set()


async def test_a_plain_failed_method_runs_in_a_thread(horizon: Horizon, caplog: Any) -> None:
    told: list[tuple[str, bool, str]] = []

    class Sync(Job):
        retries = 0

        def handle(self) -> None:
            raise ValueError("no")

        def failed(self, error: Exception) -> None:
            told.append(
                (str(error), threading.current_thread() is threading.main_thread(), current_job().name)
            )

    handle = await Sync.push()
    await burst(horizon)
    assert (await handle.status()).state == "dead"
    assert told == [("no", False, "Sync")]
    assert "failed() of job" not in caplog.text


async def test_a_worker_refuses_a_server_that_evicts(redis: Client) -> None:
    await redis.config_set("maxmemory", "100mb")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    ended = []
    try:
        async with Horizon(redis) as horizon:
            horizon.on_shutdown(lambda: ended.append(True))
            with pytest.raises(ConfigurationError, match=r"evicts keys .* pass allow_eviction=True"):
                async with asyncio.timeout(20):
                    await Worker(horizon, WorkerOptions(queues=("default", "other"))).run()
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", "0")
    assert ended == [True]


async def test_a_queue_of_a_wrong_name_is_refused_before_anything_starts(horizon: Horizon) -> None:
    events: list[str] = []
    horizon.on_startup(lambda: events.append("up"))
    with pytest.raises(GravitoError, match="'a b' is no name for a queue"):
        await burst(horizon, queues=("default", "a b"))
    assert events == []


async def test_a_start_that_failed_ends_what_it_began_and_can_be_repeated(horizon: Horizon) -> None:
    events: list[str] = []

    @horizon.provider
    async def database() -> AsyncIterator[list[str]]:
        events.append("open")
        yield []
        events.append("close")

    @horizon.on_startup
    async def check() -> None:
        if len(events) < 3:
            raise OSError("no such host")

    with pytest.raises(OSError, match="no such host"):
        await burst(horizon)
    assert events == ["open", "close"]
    await burst(horizon)
    assert events == ["open", "close", "open", "close"]


async def test_a_running_job_is_cancelled(horizon: Horizon) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @horizon.job
    async def forever() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with working(horizon):
        handle = await forever.push()
        await began.wait()
        assert await handle.cancel()
        with pytest.raises(JobCancelledError):
            await handle.result(timeout=10)
        assert ended.is_set()


async def test_a_waiting_job_is_cancelled(horizon: Horizon) -> None:
    ran: list[int] = []

    @horizon.job
    async def note(number: int) -> None:
        ran.append(number)

    handles = [await note.push(number) for number in range(3)]
    assert await handles[1].cancel()
    await burst(horizon)
    assert sorted(ran) == [0, 2]
    with pytest.raises(JobCancelledError):
        await handles[1].result(timeout=1)


async def test_a_delayed_job_runs_when_it_is_due(horizon: Horizon) -> None:
    late: list[float] = []

    @horizon.job
    async def note(due: float) -> None:
        late.append(time.time() - due)

    async with working(horizon):
        for delay in (0.5, 0.2):
            await note.delay(delay).push(time.time() + delay)
        await until(lambda: len(late) == 2)
    assert all(-0.01 <= seconds < 2 for seconds in late)


async def test_a_stopped_worker_finishes_what_runs_and_gives_back_the_rest(horizon: Horizon) -> None:
    began = asyncio.Event()
    ran: list[int] = []

    @horizon.job
    async def work(number: int) -> None:
        began.set()
        await asyncio.sleep(0.2)
        ran.append(number)

    await horizon.push_many(work.make(number) for number in range(10))
    worker = Worker(horizon, WorkerOptions(concurrency=2))
    task = asyncio.create_task(worker.run())
    await began.wait()
    worker.stop()
    await task
    assert len(ran) == worker.tally.done == 2
    await burst(horizon)
    assert sorted(ran) == list(range(10))


async def test_what_outlives_the_grace_time_goes_back_without_a_charge(horizon: Horizon) -> None:
    began = asyncio.Event()
    attempts: list[int] = []

    @horizon.job(retries=0)
    async def work() -> None:
        attempts.append(current_job().attempt)
        began.set()
        if len(attempts) == 1:
            await asyncio.sleep(60)

    handle = await work.push()
    worker = Worker(horizon, WorkerOptions(grace=0.1))
    task = asyncio.create_task(worker.run())
    await began.wait()
    worker.stop()
    await task
    assert worker.tally.released == 1
    await burst(horizon)
    assert attempts == [1, 1]
    assert (await handle.status()).state == "ok"


async def test_a_worker_ends_after_its_share_and_asks_to_be_replaced(horizon: Horizon) -> None:
    @horizon.job
    async def nothing() -> None: ...

    await horizon.push_many(nothing.make() for _ in range(500))
    worker = Worker(horizon, WorkerOptions(max_jobs=10, concurrency=5))
    async with asyncio.timeout(20):
        await worker.run()
    assert worker.recycle
    assert 10 <= worker.tally.done < 30
    rest = await burst(horizon)
    assert worker.tally.done + rest.tally.done == 500


async def test_a_worker_that_grew_too_large_ends_likewise(horizon: Horizon) -> None:
    worker = Worker(horizon, WorkerOptions(max_memory=1))
    async with asyncio.timeout(20):
        await worker.run()
    assert worker.recycle


async def test_a_job_that_blocks_the_loop_is_named_and_keeps_its_lease(
    redis: Client, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0
    began = threading.Event()
    async with Horizon(redis, settings=HorizonSettings(lease=1.0)) as horizon:

        @horizon.job
        async def blocks() -> None:
            nonlocal runs
            runs += 1
            began.set()
            time.sleep(2.5)  # noqa: ASYNC251  # this is what is tested

        with caplog.at_level(logging.WARNING, "gravito.horizon"):
            async with working(horizon, stall=0.3) as worker:
                # another worker that would take the job over if its lease ran out
                rival = asyncio.create_task(asyncio.to_thread(_rival, redis.settings, began, 3.5))
                handle = await blocks.push()
                await handle.result(timeout=20)
                taken = await rival
    assert runs == 1
    assert taken == 0
    assert worker.tally.refused == 0
    assert "job blocks" in caplog.text
    assert "time.sleep(2.5)" in caplog.text


def _rival(settings: Any, began: threading.Event, seconds: float) -> int:
    """Jobs that a worker in another loop could take within this time, once a job has begun."""
    began.wait(20)

    async def main() -> int:
        async with (
            Client(settings) as client,
            Horizon(client, settings=HorizonSettings(lease=1.0)) as horizon,
        ):
            worker = Worker(horizon)
            asyncio.get_running_loop().call_later(seconds, worker.stop)
            return (await worker.run()).runs

    return asyncio.run(main())


async def test_a_job_that_is_given_up_for_its_dead_workers_is_told_of_once(redis: Client) -> None:
    told: list[str] = []
    async with Horizon(redis, settings=HorizonSettings(lease=1.0)) as horizon:

        @horizon.job
        async def after(what: str) -> None:
            told.append(what)

        class Deadly(Job):
            async def handle(self) -> None: ...

            async def failed(self, error: BaseException) -> None:
                told.append(str(error))

        handle = await horizon.chain(Deadly.make(), after.make("not this")).catch(after.make("caught")).push()
        job_id = (await handle.status())[0].id
        broker = horizon.broker("default")
        await redis.hset(broker.keys.part("tries"), job_id, "0:2")
        assert (await broker.step("ghost", [], 1)).claimed[0].crashes == 2
        async with working(horizon), working(horizon):
            await until(lambda: len(told) == 2)
    assert sorted(told) == ["caught", "its worker died 3 times while it ran"]


async def test_low_queues_are_served_while_the_first_has_no_end(horizon: Horizon) -> None:
    seen: list[str] = []

    @horizon.job(queue="first")
    async def first() -> None:
        seen.append("first")
        if len(seen) < 400:
            await first.push()

    @horizon.job(queue="second")
    async def second() -> None:
        seen.append("second")

    await horizon.push_many(first.make() for _ in range(200))
    await second.push()
    await burst(horizon, queues=("first", "second"), concurrency=10)
    assert "second" in seen[:-100]


async def test_context_variables_do_not_leak_between_jobs(horizon: Horizon) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    @horizon.job
    async def work(number: int) -> None:
        seen.append(variable.get())
        variable.set(number)

    await horizon.push_many(work.make(number) for number in range(1, 20))
    await burst(horizon)
    assert seen == [0] * 19


@pytest.mark.parametrize(
    ("field", "value"),
    [("queues", ()), ("queues", "default"), ("concurrency", 0), ("grace", -1), ("max_jobs", 0)],
)
def test_options_that_make_no_sense_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"worker: {field}"):
        WorkerOptions(**{field: value})


async def test_a_queue_that_had_no_place_goes_on_when_another_one_s_jobs_end(horizon: Horizon) -> None:
    release = asyncio.Event()

    @horizon.job(queue="first", timeout=None)
    async def hold() -> None:
        await release.wait()

    @horizon.job(queue="second")
    async def quick() -> str:
        return "ran"

    async with working(horizon, queues=("first", "second"), concurrency=2) as worker:
        held = [await hold.push() for _ in range(2)]
        second = worker.lanes[1]
        await until(lambda: len(worker.running) == 2)
        more = [await hold.push() for _ in range(10)]
        handles = [await quick.push() for _ in range(10)]
        await until(lambda: worker.room(second) <= 0 and second.crowded)
        release.set()
        assert [await handle.result(timeout=10) for handle in handles] == ["ran"] * 10
        for handle in held + more:
            await handle.result(timeout=10)
