"""A job whose worker died twice runs alone, so that its next crash is nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito.atlas import Client
from gravito.horizon._messages import Claimed
from gravito.horizon._quarantine import Quarantine
from gravito.horizon.horizon import Horizon, HorizonSettings
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine, with leases that end soon."""
    async with Horizon(redis, settings=HorizonSettings(lease=1.0)) as made:
        yield made


async def crashed(horizon: Horizon, ids: list[str]) -> None:
    """Let a worker die with these, as the queue sees it."""
    broker = horizon.broker("default")
    await broker.client.hset(broker.keys.part("tries"), mapping=dict.fromkeys(ids, "0:2"))


async def test_a_suspect_runs_alone_and_the_others_go_on_behind_it(horizon: Horizon) -> None:
    running: set[int] = set()
    beside: dict[int, int] = {}

    @horizon.job
    async def work(number: int) -> None:
        running.add(number)
        await asyncio.sleep(0.05)
        beside[number] = len(running) - 1
        running.discard(number)

    handles = await horizon.push_many(work.make(number) for number in range(30))
    await crashed(horizon, [handles[number].id for number in (3, 4, 20)])
    worker = Worker(horizon, WorkerOptions(concurrency=10))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        for handle in handles:
            await handle.wait()
    worker.stop()
    await task
    assert sorted(beside) == list(range(30))
    assert [beside[number] for number in (3, 4, 20)] == [0, 0, 0]
    assert max(beside.values()) > 0
    assert (worker.tally.done, worker.tally.refused) == (30, 0)
    assert {(await handle.status()).attempt for handle in handles} == {1}


async def test_a_suspect_that_waits_goes_back_when_the_worker_stops(horizon: Horizon) -> None:
    began = asyncio.Event()
    ran: list[int] = []

    @horizon.job
    async def work(number: int) -> None:
        began.set()
        await asyncio.sleep(0.3)
        ran.append(number)

    first = await horizon.push(work.make(1))
    worker = Worker(horizon, WorkerOptions(concurrency=2))
    task = asyncio.create_task(worker.run())
    await began.wait()
    await horizon.broker("default").pause()  # else it would be claimed before it counts as a suspect
    second = await horizon.push(work.make(2))
    await crashed(horizon, [second.id])
    await horizon.broker("default").resume()
    async with asyncio.timeout(10):
        while worker.quarantine.job is None:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.01)
        worker.stop()
        await task
    assert ran == [1]
    assert (await first.status()).state == "ok"
    assert (await second.status()).state == "ready"


@given(st.lists(st.integers(0, 2), max_size=20))
def test_nothing_is_dropped_and_one_is_held(crashes: list[int]) -> None:
    claims = [Claimed(str(at), 1, 1, count, b"") for at, count in enumerate(crashes)]
    quarantine = Quarantine()
    fit, back = quarantine.sort(object(), claims, 0.0)  # type: ignore[arg-type]
    held = [quarantine.job.id] if quarantine.job is not None else []
    assert sorted([*(job.id for job in fit), *(done.id for done in back), *held]) == sorted(
        job.id for job in claims
    )
    assert len(held) == (2 in crashes)
    assert all(done.outcome == "release" for done in back)


def test_it_begins_behind_what_runs_and_behind_what_went_back() -> None:
    quarantine = Quarantine()
    one, two = (Claimed(name, 1, 1, 2, b"") for name in ("one", "two"))
    _, back = quarantine.sort(object(), [one, two], 0.0)  # type: ignore[arg-type]
    quarantine.wait_for(back)
    assert quarantine.due(0, 1.0) is None
    quarantine.handed_in(back)
    assert quarantine.due(3, 1.0) is None
    assert quarantine.due(3, 11.0) is one
    assert quarantine.due(0, 11.0) is None
    assert not quarantine.over(12.0)
    assert quarantine.over(21.5)
    assert quarantine.drop(one)
    assert not quarantine.drop(one)
