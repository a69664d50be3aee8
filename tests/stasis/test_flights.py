"""One run of a factory, however many wait for it, and nothing written back that was invalidated meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.stasis.stores import url_of
from tests.stasis.workers import PATIENT, worker
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, MemoryStore, RedisStore, Result


@pytest.fixture
def url(redis: Client) -> str:
    return url_of(redis)


@pytest.fixture(params=["redis", "tiered", "memory", "cluster"])
async def cache(request: pytest.FixtureRequest, redis: Client) -> AsyncIterator[Cache]:
    if request.param != "cluster":
        async with Cache(request.param, connection=redis, fail_safe=PATIENT) as cache:
            yield cache
        return
    async with Client.from_url(request.getfixturevalue("cluster").url) as client:
        await client.flushall()
        async with Cache(connection=client, fail_safe=PATIENT) as cache:
            yield cache


class Slow:
    """A factory that waits until it is told to go on."""

    def __init__(self, value: Any = "value", error: Exception | None = None) -> None:
        self.runs = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self._value = value
        self._error = error

    async def __call__(self) -> Any:
        self.runs += 1
        self.begun.set()
        await self.go.wait()
        if self._error is not None:
            raise self._error
        return self._value


# -- one run -------------------------------------------------------------------------------------------------


async def test_one_run_for_all_callers_of_a_process(cache: Cache) -> None:
    slow = Slow({"name": "Alice"})
    callers = [asyncio.create_task(cache.remember("k", 60, slow)) for _ in range(50)]
    await slow.begun.wait()
    callers += [asyncio.create_task(cache.remember("k", 60, slow)) for _ in range(50)]
    await asyncio.sleep(0)
    slow.go.set()
    values = await asyncio.gather(*callers)
    assert values == [{"name": "Alice"}] * 100
    assert slow.runs == 1
    assert await cache.get("k") == {"name": "Alice"}


async def test_each_caller_has_a_value_of_its_own(cache: Cache) -> None:
    slow = Slow(["a"])
    callers = [asyncio.create_task(cache.remember("k", 60, slow)) for _ in range(3)]
    slow.go.set()
    values = await asyncio.gather(*callers)
    values[0].append("b")
    values[1].append("c")
    assert values == [["a", "b"], ["a", "c"], ["a"]]
    assert await cache.get("k") == ["a"]


async def test_one_run_in_three_processes(url: str, redis: Client) -> None:
    callers, seconds = 20, 0.5
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(worker("crowd", url, callers=callers, seconds=seconds))
            for _ in range(3)
        ]
        for each in workers:
            await each.go()
        told = [await each.says() for each in workers]
    assert [value for each in told for value in each["values"]] == [1] * 60
    assert sum(each["runs"] for each in told) == 1
    for each in told:
        if (
            not each["runs"] and redis.settings.driver != "cluster"
        ):  # one read for each caller, one try to claim; then all wait together
            assert each["commands"] <= callers + 4 + 20 * seconds


async def test_another_process_takes_over_from_one_that_was_killed(url: str, redis: Client) -> None:
    async with worker("compute", url, key="k", value="never", seconds=600, lease=1.0) as doomed:
        await doomed.go()
        assert await doomed.says() == "computing"
        cache = Cache(connection=redis, fail_safe=PATIENT, lease=1.0)
        waiting = asyncio.create_task(cache.remember("k", 60, lambda: "ours"))
        await until(lambda: cache.stats().misses)
        await asyncio.sleep(1.2)  # longer than the lease: it is renewed
        assert not waiting.done()
        await doomed.kill()
        assert await asyncio.wait_for(waiting, 10) == "ours"
    assert await cache.get("k") == "ours"
    await cache.aclose()


async def test_waiting_for_another_process(url: str, redis: Client) -> None:
    async with worker("compute", url, key="k", value="theirs", seconds=0.3, lease=5.0) as other:
        await other.go()
        assert await other.says() == "computing"
        async with Cache(connection=redis, fail_safe=PATIENT) as cache:
            values = await asyncio.gather(*[cache.remember("k", 60, _unwanted) for _ in range(5)])
            assert values == ["theirs"] * 5
            assert cache.stats().runs == 0


async def _unwanted() -> None:
    raise AssertionError("this factory must not run")


# -- cancelled callers, failing factories --------------------------------------------------------------------


async def test_a_cancelled_caller_leaves_the_run_to_the_others(cache: Cache) -> None:
    slow = Slow()
    first = asyncio.create_task(cache.remember("k", 60, slow))
    await slow.begun.wait()
    other = asyncio.create_task(cache.remember("k", 60, slow))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    slow.go.set()
    assert await other == "value"
    assert slow.runs == 1


async def test_a_run_whose_callers_are_all_gone_is_stored(cache: Cache) -> None:
    slow = Slow()
    caller = asyncio.create_task(cache.remember("k", 60, slow))
    await slow.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    slow.go.set()
    assert await cache.remember("k", 60, _unwanted) == "value"


async def test_a_failed_run_fails_all_callers_and_leaves_no_claim(cache: Cache) -> None:
    slow = Slow(error=LookupError("no such user"))
    callers = [asyncio.create_task(cache.remember("k", 60, slow)) for _ in range(3)]
    await slow.begun.wait()
    slow.go.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(result) for result in results] == ["no such user"] * 3
    assert slow.runs == 1
    assert await cache.remember("k", 60, lambda: "again") == "again"


async def test_a_factory_that_is_cancelled_is_no_cancelled_caller(cache: Cache) -> None:
    async def factory() -> None:
        raise asyncio.CancelledError

    with pytest.raises(errors.CacheError, match="'k': its factory was cancelled"):
        await cache.remember("k", 60, factory)
    assert await cache.remember("k", 60, lambda: 1) == 1


async def test_a_factory_that_waits_for_itself_is_an_error(cache: Cache) -> None:
    async def factory() -> Any:
        return await cache.remember("k", 60, factory)

    with pytest.raises(errors.CacheError, match="'k': its factory waits for its own value"):
        await asyncio.wait_for(cache.remember("k", 60, factory), 10)


async def test_factories_that_wait_for_each_other_are_an_error(cache: Cache) -> None:
    both = asyncio.Barrier(2)

    async def one() -> Any:
        await both.wait()
        return await cache.remember("b", 60, two)

    async def two() -> Any:
        await both.wait()
        return await cache.remember("a", 60, one)

    calls = asyncio.gather(cache.remember("a", 60, one), cache.remember("b", 60, two), return_exceptions=True)
    results = await asyncio.wait_for(calls, 10)
    assert all(isinstance(result, errors.CacheError) for result in results)


async def test_factories_may_use_other_keys(cache: Cache) -> None:
    async def outer() -> Any:
        return [await cache.remember(f"part:{number}", 60, lambda: 7) for number in range(3)]

    assert await cache.remember("all", 60, outer) == [7, 7, 7]


async def test_the_factory_sees_the_callers_context(cache: Cache) -> None:
    user = contextvars.ContextVar[str]("user")
    user.set("Alice")
    assert await cache.remember("k", 60, user.get) == "Alice"


# -- no stale write-back -------------------------------------------------------------------------------------

INVALIDATIONS: dict[str, Callable[[Cache], Any]] = {
    "forget": lambda cache: cache.forget("k"),
    "put": lambda cache: cache.put("k", "put", 60),
    "its tag": lambda cache: cache.tags("t").flush(),
    "its other tag": lambda cache: cache.tags("u").flush(),
    "a tag that the factory names": lambda cache: cache.tags("late").flush(),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("way", INVALIDATIONS)
async def test_what_is_invalidated_while_it_is_computed_is_computed_anew(cache: Cache, way: str) -> None:
    slow = Slow(Result("old", tags=["late"]))
    view = cache.tags("t", "u")
    old = asyncio.create_task(view.remember("k", 60, slow))
    await slow.begun.wait()
    await INVALIDATIONS[way](cache)
    expected = "put" if way == "put" else "new"
    if way != "a tag that the factory names":  # of which nobody knows before it has come back
        assert await asyncio.wait_for(view.remember("k", 60, lambda: "new"), 10) == expected
    slow.go.set()
    assert await old == "old"
    assert await view.remember("k", 60, lambda: "new") == expected
    assert await cache.get("k") == expected


async def test_who_reads_after_an_invalidation_never_joins_an_older_run(cache: Cache) -> None:
    """Many rounds of a source that changes, an invalidation, and a read at once."""
    source = 0

    async def load() -> int:
        seen = source
        await asyncio.sleep(0.001)
        return seen

    for version in range(1, 100):
        running = [asyncio.create_task(cache.remember("k", 60, load)) for _ in range(3)]
        await asyncio.sleep(0 if version % 3 else 0.0005)
        source = version
        await cache.forget("k")
        assert await cache.remember("k", 60, load) == version
        await asyncio.gather(*running)
        assert await cache.get("k") == version


@pytest.mark.parametrize("store", ["redis", "memory"])
async def test_a_value_of_an_old_run_is_not_put_over_a_newer_one(redis: Client, store: str) -> None:
    """Two caches, as in two processes, on one store."""
    shared = RedisStore(redis) if store == "redis" else MemoryStore()
    one, two = Cache(shared, fail_safe=PATIENT), Cache(shared, fail_safe=PATIENT)
    slow = Slow("old")
    old = asyncio.create_task(one.remember("k", 60, slow))
    await slow.begun.wait()
    await two.forget("k")
    assert await two.remember("k", 60, lambda: "new") == "new"
    slow.go.set()
    assert await old == "old"
    assert await one.get("k") == "new"
    await one.aclose()
