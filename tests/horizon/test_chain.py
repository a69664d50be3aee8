"""Chains: one job after the other, across queues."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from tests.horizon.driving import drain

from gravito.atlas import Client
from gravito.errors import JobCancelledError, JobFailedError, PayloadError, ResultTimeoutError
from gravito.horizon import Horizon, new_key


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
async def horizon(redis: Client, request: pytest.FixtureRequest) -> AsyncIterator[Horizon]:
    gc.collect()
    async with Horizon(redis, keys=[new_key()] if request.param else ()) as made:
        yield made


async def work_on(horizon: Horizon, *queues: str) -> None:
    for queue in queues:
        await drain(horizon, queue)
        await horizon.broker(queue).relay()


async def test_in_order_and_each_once(horizon: Horizon) -> None:
    ran = []

    @horizon.job
    async def step(n: int) -> int:
        ran.append(n)
        return n

    chain = await horizon.chain(step.make(1), step.make(2).on("b"), step.make(3).on("b"), step.make(4)).push()
    with pytest.raises(ResultTimeoutError, match="chain"):
        await chain.result(0.05)
    waiting = asyncio.create_task(chain.result(30))
    assert [status.state for status in await chain.status()] == ["ready", "unknown", "unknown", "unknown"]
    await work_on(horizon, "default", "b", "default")
    assert await waiting == 4
    assert ran == [1, 2, 3, 4]
    assert [status.state for status in await chain.status()] == ["ok"] * 4
    assert await chain.cancel() is False


async def test_a_failure_ends_it(horizon: Horizon) -> None:
    ran = []

    @horizon.job(retries=1, backoff=0)
    async def step(n: int) -> int:
        ran.append(n)
        if n == 2:
            raise ValueError("two")
        return n

    chain = await horizon.chain(step.make(1), step.make(2), step.make(3)).catch(step.make(9)).push()
    await work_on(horizon, "default")
    with pytest.raises(JobFailedError, match="ValueError: two"):
        await chain.result(5)
    assert ran == [1, 2, 2, 9]


async def test_cancelling_it_where_it_is(horizon: Horizon) -> None:
    ran = []

    @horizon.job
    async def step(n: int) -> None:
        ran.append(n)

    chain = await horizon.chain(step.make(1), step.make(2).delay(1000), step.make(3)).push()
    await drain(horizon, most=1)
    assert await chain.cancel()
    assert await drain(horizon) == []
    assert ran == [1]
    with pytest.raises(JobCancelledError):
        await chain.result(5)


async def test_a_job_that_gives_up_by_its_own_rules_ends_it_too(horizon: Horizon) -> None:
    ran = []

    @horizon.job(discard_on=LookupError)
    async def step(n: int) -> None:
        ran.append(n)
        raise LookupError

    chain = await horizon.chain(step.make(1), step.make(2)).catch(step.make(9)).push()
    await work_on(horizon, "default")
    with pytest.raises(JobCancelledError, match="LookupError"):
        await chain.result(5)
    assert ran == [1]


async def test_waiting_times_count_from_the_departure(horizon: Horizon) -> None:
    @horizon.job
    async def step(seconds: float) -> None:
        await asyncio.sleep(seconds)

    await horizon.chain(step.make(0.3), step.make(0)).push()
    first, second = await drain(horizon)
    assert first.run_ms >= 290
    assert second.wait_ms < first.run_ms  # else it would be counted from the chain's push


def test_what_is_no_chain(redis: Client) -> None:
    horizon = Horizon(redis)

    @horizon.job
    async def step() -> None: ...

    with pytest.raises(PayloadError, match="1 to 1000"):
        horizon.chain()
    with pytest.raises(PayloadError, match=r"job\.make"):
        horizon.chain(step)  # type: ignore[arg-type]  # the mistake that is tested
    assert repr(horizon.chain(step.make(), step.make())) == "<Chain of step -> step>"
