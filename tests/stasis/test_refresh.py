"""Refreshing without a stampede: stale while revalidate, early refresh, jitter; by the server's clock alone.

`GRAVITO_FULL=1` runs the load at its full size: a minute of 1,000 requests a second.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.stasis.stores import url_of
from tests.stasis.workers import PATIENT, worker
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, Event, cached
from gravito.stasis._policy import early_now

FULL = bool(os.environ.get("GRAVITO_FULL"))


@pytest.fixture(params=["redis", "tiered", "memory"])
async def cache(request: pytest.FixtureRequest, redis: Client) -> AsyncIterator[Cache]:
    async with Cache(request.param, connection=redis, fail_safe=PATIENT, lease=0.5, retry=0.2) as cache:
        yield cache


class Counter:
    """A factory that counts its runs, and waits while it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.at_once = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> int:
        self.runs += 1
        run = self.runs
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        return run


async def test_two_processes_whose_clocks_are_a_minute_apart(redis: Client) -> None:
    fresh, cost, seconds = (2.0, 0.2, 60.0) if FULL else (0.5, 0.1, 2.5)
    load = {"fresh": fresh, "stale": 60, "cost": cost, "seconds": seconds, "per_second": 500}
    url = url_of(redis)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(worker("readers", url, ahead=ahead, **load)) for ahead in (0, 60)
        ]
        for each in workers:
            await each.go()
        told = [await each.says(seconds + 30) for each in workers]
    starts = [int(start) for start in await redis.lrange("starts", 0, -1)]
    for each in told:
        assert each["misses"] == 0  # after the first call nobody waited for the factory
        assert not each["backward"]
    assert len(starts) >= 3
    # one run at a time, and none before the value of the last one was no longer fresh
    assert all(later - earlier >= (cost + fresh) * 1000 - 1 for earlier, later in pairwise(starts))


async def test_stale_values_are_served_while_one_run_refreshes(cache: Cache) -> None:
    counter = Counter()
    stale: list[Event] = []
    cache.on("stale", stale.append)

    async def read() -> Any:
        return await cache.flexible("k", 0.1, 600, counter)

    assert await read() == 1
    await asyncio.sleep(0.15)
    counter.go.clear()
    assert await asyncio.gather(*[read() for _ in range(100)]) == [1] * 100
    await until(lambda: counter.runs == 2)
    assert await asyncio.gather(*[read() for _ in range(100)]) == [1] * 100
    assert await cache.get("k") == 1  # by contract, what is stale is good enough
    assert await cache.many(["k"]) == {"k": 1}
    await asyncio.sleep(0.8)  # longer than the lease: it is renewed
    assert await read() == 1
    assert counter.runs == 2
    assert len(stale) == 203
    counter.go.set()
    async with asyncio.timeout(10):
        while await read() == 1:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.01)
    assert counter.most == 1


async def test_a_refresh_that_fails_is_tried_again_after_a_pause(cache: Cache) -> None:
    down = False
    runs = 0

    async def factory() -> int:
        nonlocal runs
        runs += 1
        if down:
            raise ConnectionRefusedError
        return runs

    failed: list[Event] = []
    cache.on("error", failed.append)
    await cache.flexible("k", 0.05, 600, factory)
    await asyncio.sleep(0.1)
    down = True
    since = time.monotonic()
    for _ in range(50):
        assert await cache.flexible("k", 0.05, 600, factory) == 1
        await asyncio.sleep(0.01)
    assert 2 <= runs <= 3 + (time.monotonic() - since) / 0.2  # the pause
    assert {type(each.error) for each in failed} == {ConnectionRefusedError}


async def test_what_is_invalidated_while_it_is_refreshed_is_computed_anew(cache: Cache) -> None:
    counter = Counter()
    view = cache.tags("t")
    for invalidate in (lambda: cache.forget("k"), view.flush, cache.clear):
        before = await view.flexible("k", 0.05, 600, counter)
        await asyncio.sleep(0.1)
        counter.go.clear()
        runs = counter.runs
        assert await view.flexible("k", 0.05, 600, counter) == before
        await until(lambda runs=runs: counter.runs == runs + 1)
        await invalidate()
        assert await cache.get("k") is None
        new = asyncio.create_task(view.flexible("k", 600, 600, counter))
        await until(lambda runs=runs: counter.runs == runs + 2)
        counter.go.set()
        assert await new == runs + 2
        await until(lambda: counter.at_once == 0)
        assert await cache.get("k") == runs + 2
        await cache.forget("k")


async def test_another_process_takes_over_a_refresh_from_one_that_was_killed(redis: Client) -> None:
    url = url_of(redis)
    async with Cache(connection=redis, fail_safe=PATIENT, lease=0.5) as cache:
        await cache.flexible("k", 0.05, 600, lambda: "old")
        await asyncio.sleep(0.1)
        async with worker("refresh", url, key="k", lease=0.5) as doomed:
            await doomed.go()
            assert await doomed.says() == "computing"
            assert await cache.flexible("k", 0.05, 600, lambda: "new") == "old"
            assert cache.stats().runs == 1
            await doomed.kill()
        async with asyncio.timeout(10):
            while await cache.flexible("k", 600, 600, lambda: "new") != "new":  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.02)


# -- early ---------------------------------------------------------------------------------------------------


def test_the_chance_of_an_early_refresh_grows_to_certainty() -> None:
    def share(left: int, cost: int = 0) -> float:
        return sum(early_now(left, 1000, cost) for _ in range(2000)) / 2000

    assert share(1000) == share(5000) == 0
    assert share(900) < 0.05
    assert 0.05 < share(500) < 0.2
    assert 0.4 < share(200) < 0.6
    assert share(0) == 1
    assert share(2000, cost=2000) > 0.3  # what takes long is begun earlier
    assert share(100_000, cost=2000) == 0


async def test_early_refreshes_keep_everybody_from_waiting(cache: Cache) -> None:
    counter = Counter()
    misses: list[Event] = []

    async def read() -> Any:
        return await cache.remember("k", 1.5, counter, early=0.8)

    await read()
    cache.on("miss", misses.append)
    loop = asyncio.get_running_loop()
    end = loop.time() + 3.5
    while loop.time() < end:
        await asyncio.gather(*[read() for _ in range(5)])
        await asyncio.sleep(0.005)
    assert not misses
    assert 3 <= counter.runs <= 12
    assert counter.most == 1


async def test_no_early_refresh_before_its_time(cache: Cache) -> None:
    counter = Counter()
    for _ in range(200):
        assert await cache.remember("k", 600, counter, early=0.5) == 1
    assert counter.runs == 1


# -- jitter, options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [0, 0.0, timedelta(0), None])
async def test_no_stale_window(cache: Cache, stale: Any) -> None:
    assert await cache.remember("r", 0.05, lambda: 1, stale=stale) == 1
    assert await cache.remember("forever", None, lambda: 1, stale=stale) == 1
    assert await cache.flexible("f", 0.05, stale, lambda: 1) == 1
    counter = Counter()

    @cached(0.05, "d", cache=cache, flexible=True, stale=0)
    async def load() -> int:
        return await counter()

    assert await load() == 1
    await asyncio.sleep(0.1)
    assert await cache.many(["r", "f", "d"]) == {"r": None, "f": None, "d": None}
    assert await cache.flexible("f", 60, stale, lambda: 2) == 2
    assert await load() == 2


async def test_jitter_spreads_the_ends(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        await cache.put_many({f"k:{number}": number for number in range(100)}, 100, jitter=0.5)
        left = [await redis.pttl(f"cache:k:k:{number}") for number in range(100)]
        assert len(set(left)) > 50
        assert min(left) > 49_000
        assert max(left) <= 100_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early": 2}, "early is 2"),
        ({"jitter": -1}, "jitter -1"),
        ({"stale": -1}, "^stale -1 is not positive: give more than 0 seconds$"),
        ({"stale": "60"}, "^stale '60' is a str: give seconds or a timedelta$"),
        ({"stale": True}, "^stale True is a bool: give seconds or a timedelta$"),
        ({"none_ttl": -1}, "^none_ttl -1 is not positive: give more than 0 seconds$"),
        ({"none_ttl": "60"}, "^none_ttl '60' is a str"),
        ({"errors": {KeyError: -1}}, r"^errors\[KeyError\] -1 is not positive: give more than 0 seconds$"),
        (
            {"errors": {KeyError: None}},
            r"^errors\[KeyError\] None is a NoneType: give seconds or a timedelta$",
        ),
        ({"errors": {int: 3}}, "no class of exceptions"),
        ({"errors": [ValueError]}, "errors is of type list"),
        ({"colour": 1}, "there is no option 'colour'"),
    ],
)
async def test_options_that_cannot_be(redis: Client, options: dict[str, Any], message: str) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        with pytest.raises(errors.GravitoError, match=message):
            await cache.remember("k", 60, lambda: 1, **options)
        assert await cache.missing("k")
