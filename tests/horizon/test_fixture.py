"""The fixture `horizon` of gravito.testing, as an application takes it."""

from __future__ import annotations

from gravito.horizon import Horizon, job
from gravito.testing import horizon

__all__ = ["horizon"]


@job(name="test_fixture.greet")
async def greet(name: str) -> str:
    """A job of the application, which belongs to no Horizon in particular."""
    return f"Hello {name}"


async def test_jobs_mean_the_horizon_of_the_fixture(horizon: Horizon) -> None:
    handle = await greet.push("Ann")
    await horizon.work()
    assert await handle.result(timeout=5) == "Hello Ann"


async def test_each_test_begins_with_empty_queues(horizon: Horizon) -> None:
    assert (await horizon.work()).runs == 0
    with horizon.fake() as queue:
        await greet.push("Bob")
        queue.assert_pushed(greet, times=1)
    assert (await horizon.broker("default").sizes()).totals == {}
