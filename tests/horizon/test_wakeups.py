"""Nobody who waits for an end is forgotten: with the questions that would cover it up put off for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gravito.atlas import Client
from gravito.horizon import Horizon, _batches, _endings
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Claimed, Done, Envelope
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture(autouse=True)
def _never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "_LOOK_AGAIN", 3600.0)
    monkeypatch.setattr(_endings, "_EVERY", 3600.0)


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine, with a worker of two queues."""
    async with Horizon(redis) as made:
        worker = Worker(made, WorkerOptions(queues=("default", "other")))
        task = asyncio.create_task(worker.run())
        yield made
        worker.stop()
        await task


async def test_every_batch_is_told_of_its_end(horizon: Horizon) -> None:
    @horizon.job
    async def one(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    @horizon.job(queue="other")
    async def two(turns: int) -> None:
        await asyncio.sleep(turns / 10_000)

    async def round(number: int) -> None:
        calls = [one.make(number % 7), two.make(number % 5), one.make(number % 3)]
        handle = await horizon.batch(calls[: 1 + number % 3]).push()
        status = await handle.wait(20)
        assert status.ok == status.total

    for number in range(120):
        await asyncio.gather(*[round(number + other) for other in range(number % 4 + 1)])


async def test_every_job_s_result_comes(horizon: Horizon) -> None:
    @horizon.job
    async def one(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    async def round(number: int) -> None:
        handle = await one.push(number % 9)
        for _ in range(number % 5):
            await asyncio.sleep(0)
        assert await handle.result(20) == number % 9

    for number in range(200):
        await asyncio.gather(*[round(number + other) for other in range(number % 4 + 1)])


async def _end(broker: Broker, job_id: str, note: bytes) -> Claimed:
    await broker.push(Envelope(job_id, b""))
    [job] = (await broker.step("w", [], 1)).claimed
    await broker.step("w", [Done(job_id, job.fence, "ok", note=note)], 0)
    return job


async def test_a_note_that_comes_behind_the_last_look_is_carried_on(broker: Broker) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    held, go = asyncio.Event(), asyncio.Event()
    run = broker._relay._caller.run

    async def slowly(name: str, *args: Any, **options: Any) -> Any:
        answer = await run(name, *args, **options)
        if name == "relay" and len(answer) == 1 and not held.is_set():  # nothing there: it is about to end
            held.set()
            await go.wait()
        return answer

    async def take(serial: int, note: bytes) -> None:
        arrived.put_nowait(note)

    broker._relay._caller.run = slowly  # type: ignore[method-assign]  # the real one, whose answer takes long
    broker.on_note(take)
    await _end(broker, "a", b"first")
    async with asyncio.timeout(10):
        assert await arrived.get() == b"first"
        await held.wait()
        await _end(broker, "b", b"second")
        go.set()
        assert await arrived.get() == b"second"
