"""The helpers that an application's tests use."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from gravito.atlas import Client
from gravito.errors import HorizonError
from gravito.horizon import Rate
from gravito.horizon.horizon import Horizon
from gravito.horizon.testing import burst, travel
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


async def test_a_fake_records_and_sends_nothing() -> None:
    horizon = Horizon(Client.from_url("redis://127.0.0.1:1"))  # nobody is there

    @horizon.job(queue="mail", tags=("mail",), unique=lambda to, **_: to)
    async def send(to: str, name: str = "x") -> None: ...

    @horizon.job
    async def other() -> None: ...

    with horizon.fake() as queue:
        queue.assert_nothing_pushed()
        first = await send.delay(60).priority("high").push("ann", name="A")
        again = await send.push("ann")
        assert (again.new, again.id) == (False, first.id)
        await horizon.push_many(send.make(to) for to in ("bob", "cat"))
        await horizon.chain(other.make(), send.make("dan")).push()
        await horizon.batch([other.make(), other.make()], name="two").push()
        queue.assert_pushed(send)
        queue.assert_pushed(send, times=3)
        queue.assert_pushed("other", times=3)
        queue.assert_pushed(send, times=1, where=lambda job: job.arguments == {"to": "ann", "name": "A"})
        queue.assert_not_pushed(send, where=lambda job: job.arguments["to"] == "eve")
        queue.assert_chained(other, send)
        [job] = queue.pushed(send, where=lambda job: job.delay > 0)
        assert (job.id, job.queue, job.delay, job.priority, job.tags) == (
            first.id,
            "mail",
            60,
            "high",
            ("mail",),
        )
        assert (await first.status()).state == "delayed"
        with pytest.raises(HorizonError, match="'mail' is faked"):
            await first.result(timeout=1)
        with pytest.raises(HorizonError, match="'mail' is faked"):
            await horizon.broker("mail").sizes()
        with pytest.raises(HorizonError, match="faked already"):
            horizon.fake().__enter__()
        queue.clear()
        queue.assert_nothing_pushed()
    assert horizon.faked is None
    await horizon.client.aclose()


async def test_a_fake_tells_where_a_job_would_be() -> None:
    horizon = Horizon(Client.from_url("redis://127.0.0.1:1"))

    @horizon.job
    async def send(to: str) -> None: ...

    soon, before = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
    with horizon.fake() as queue:
        handles = [
            await send.push("ann"),
            await send.delay(60).push("bob"),
            await send.at(soon).push("cat"),
            await send.at(before).push("dan"),
        ]
        statuses = [await handle.status() for handle in handles]
        assert [status.state for status in statuses] == ["ready", "delayed", "delayed", "ready"]
        due = statuses[2].due
        assert due is not None
        assert abs((due - soon).total_seconds()) < 0.01
        queue.clear()
        assert (await handles[0].status()).state == "unknown"
    await horizon.client.aclose()


async def test_a_fake_records_what_follows_a_batch() -> None:
    horizon = Horizon(Client.from_url("redis://127.0.0.1:1"))

    @horizon.job
    async def part(number: int) -> None: ...

    @horizon.job(queue="mail")
    async def tell(text: str) -> None: ...

    with horizon.fake() as queue:
        chain = horizon.chain(part.make(8), tell.make("cleaned"))
        await (
            horizon.batch([part.make(1), part.make(2)], name="import")
            .then(tell.make("done"))
            .catch(chain)
            .finally_(part.make(9))
            .allow_failures(1)
            .push()
        )
        await horizon.batch([]).push()
        batch, empty = queue.batches
        assert (batch.name, batch.allowed) == ("import", 1)
        assert [job.arguments["number"] for job in batch.jobs] == [1, 2]
        assert batch.then is not None
        assert (batch.then.name, batch.then.queue, batch.then.arguments) == ("tell", "mail", {"text": "done"})
        assert batch.catch is not None
        assert batch.catch.then is not None
        assert (batch.catch.name, batch.catch.then.arguments) == ("part", {"text": "cleaned"})
        assert batch.finally_ is not None
        assert batch.finally_.arguments == {"number": 9}
        assert (empty.jobs, empty.then, empty.catch, empty.finally_) == ((), None, None, None)
        queue.assert_not_pushed(tell)  # nothing has ended
        queue.clear()
        assert queue.batches == []
    await horizon.client.aclose()


async def test_what_a_fake_asserts_can_fail() -> None:
    horizon = Horizon(Client.from_url("redis://127.0.0.1:1"))

    @horizon.job
    async def send(to: str) -> None: ...

    @horizon.job
    async def other() -> None: ...

    with horizon.fake() as queue:
        await send.push("ann")
        with pytest.raises(AssertionError, match=r"nothing was to be pushed; pushed: \n  send {'to': 'ann'}"):
            queue.assert_nothing_pushed()
        with pytest.raises(AssertionError, match="send was to be pushed 2 times, and was 1 times"):
            queue.assert_pushed(send, times=2)
        with pytest.raises(AssertionError, match="other was to be pushed at least once, and was 0 times"):
            queue.assert_pushed(other)
        with pytest.raises(AssertionError, match="at least once so that `where` holds, and was 0"):
            queue.assert_pushed(send, where=lambda job: job.arguments["to"] == "bob")
        with pytest.raises(AssertionError, match="send was to be pushed 0 times"):
            queue.assert_not_pushed(send)
        with pytest.raises(AssertionError, match="a chain of send, other was to be pushed"):
            queue.assert_chained(send, other)
    await horizon.client.aclose()


async def test_work_drains_all_queues_and_what_jobs_push(horizon: Horizon) -> None:
    ran: list[str] = []

    @horizon.job(queue="one")
    async def first() -> None:
        ran.append("first")
        await second.push()

    @horizon.job(queue="two")
    async def second() -> None:
        ran.append("second")
        await third.delay(3600).push()

    @horizon.job(queue="three")
    async def third() -> None:
        ran.append("third")

    await first.push()
    tally = await horizon.work()
    assert (ran, tally.done) == (["first", "second"], 2)
    await travel(horizon, hours=1)
    await horizon.work("two")
    assert ran == ["first", "second"]
    assert (await horizon.work("three")).done == 1
    assert ran == ["first", "second", "third"]


async def test_work_can_move_time_to_what_is_due_later(horizon: Horizon) -> None:
    attempts: list[int] = []

    @horizon.job(retries=3, backoff=3600)
    async def flaky() -> None:
        attempts.append(1)
        if len(attempts) < 4:
            raise LookupError("again")

    @horizon.job(rate=Rate(1, per=86_400))
    async def daily(number: int) -> None:
        days.append(number)

    days: list[int] = []
    handle = await flaky.push()
    for number in range(3):
        await daily.push(number)
    async with asyncio.timeout(20):
        tally = await burst(horizon, everything=True)
    assert (len(attempts), tally.retried) == (4, 3)
    assert (await handle.status()).state == "ok"
    assert days == [0, 1, 2], "a rate limit is waited for as well"
    await daily.push(3)
    await horizon.work()
    await travel(horizon, hours=20)
    await horizon.work()
    assert days == [0, 1, 2]
    await travel(horizon, hours=5)
    await horizon.work()
    assert days == [0, 1, 2, 3]


async def test_travel_goes_forward_only(horizon: Horizon) -> None:
    with pytest.raises(HorizonError, match="travel goes forward; -1 seconds"):
        await travel(horizon, -1)


async def test_travel_ends_unique_keys(horizon: Horizon) -> None:
    @horizon.job(unique=True, unique_for=3600)
    async def once() -> None: ...

    first = await once.push()
    assert (await once.push()).id == first.id
    await travel(horizon, 3500)
    assert (await once.push()).id == first.id
    await travel(horizon, 200)
    assert (await once.push()).id != first.id


async def test_ten_thousand_jobs_delayed_up_to_two_days_run_once_each_and_not_too_soon(
    horizon: Horizon,
) -> None:
    ran: Counter[int] = Counter()
    early: list[int] = []
    passed = 0.0  # seconds

    @horizon.job(results=False)
    async def late(number: int, due: float) -> None:
        ran[number] += 1
        if due > passed + 60:  # the test itself takes some time
            early.append(number)

    delays = [random.Random(number).uniform(1000, 172_800) for number in range(10_000)]
    start = datetime.now(UTC)
    await horizon.push_many(
        late.delay(delay).make(number, delay)
        if number % 2
        else late.at(start + timedelta(seconds=delay)).make(number, delay)
        for number, delay in enumerate(delays)
    )
    worker = Worker(horizon, WorkerOptions(concurrency=500))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while passed < 172_800 + 3600:
            step = random.Random(passed).uniform(600, 14_400)
            passed += step
            await travel(horizon, step)
            due = sum(delay <= passed for delay in delays)
            while len(ran) < due:  # noqa: ASYNC110  # jobs set no event
                await asyncio.sleep(0.01)
    worker.stop()
    await task
    assert early == []
    assert len(ran) == 10_000
    assert set(ran.values()) == {1}
    assert worker.tally.done == 10_000
