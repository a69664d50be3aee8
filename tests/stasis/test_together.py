"""Reads and writes that go out together: what is sent, and that nobody is touched by another one's fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.stasis.workers import PATIENT

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, FailSafe

pytestmark = pytest.mark.one_server("on a cluster nothing is joined: its nodes share nothing")
MANY = [f"k:{number}" for number in range(50)]
STRICT = FailSafe(timeout=30.0, on_error="raise")


@pytest.fixture
async def cache(redis: Client) -> AsyncIterator[Cache]:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        yield cache


async def commands(redis: Client, work: Callable[[], Awaitable[Any]]) -> dict[str, int]:
    """How often the server got each command meanwhile."""

    async def count() -> dict[str, int]:
        told = await redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): each["calls"] for name, each in told.items()}

    before = await count()
    await work()
    after = await count()
    more = {name: calls - before.get(name, 0) for name, calls in after.items() if name != "info"}
    return {name: calls for name, calls in more.items() if calls}


async def limited(redis: Client, *rules: str) -> Client:
    """A client of a user with few rights."""
    await redis.execute("ACL", "SETUSER", "few", "RESET", "ON", ">pw", "+@all", *rules)
    return Client.from_url(f"unix://{redis.settings.path}", username="few", password="pw")


async def test_reads_of_one_turn_are_one_command(redis: Client, cache: Cache) -> None:
    await cache.put_many({key: [key] for key in MANY}, 60)
    await cache.get("k:0")

    async def read() -> None:
        assert await asyncio.gather(*[cache.get(key) for key in MANY]) == [[key] for key in MANY]

    # the first one does not wait for company
    assert await commands(redis, read) == {"mget": 2}
    assert cache.stats().hits == 1 + len(MANY)


async def test_remember_and_get_share_a_command(redis: Client, cache: Cache) -> None:
    tagged = cache.tags("a", "b")

    async def load() -> int:
        return 7

    await asyncio.gather(tagged.remember("t", 60, load), cache.put("k", 8, 60))

    async def read() -> None:
        reads = [cache.get("k"), tagged.remember("t", 60, load), cache.get("t"), cache.get("none", "nothing")]
        assert await asyncio.gather(*reads) == [8, 7, 7, "nothing"]

    assert await commands(redis, read) == {"mget": 2}


async def test_one_key_for_many_is_read_once_and_each_has_a_value_of_its_own(cache: Cache) -> None:
    await cache.put("k", [1], 60)
    values = await asyncio.gather(*[cache.get("k") for _ in range(20)])
    assert values == [[1]] * 20
    assert len({id(value) for value in values}) == 20


async def test_who_asks_alone_sends_at_once(redis: Client, cache: Cache) -> None:
    await cache.put("k", 1, 60)

    async def read() -> None:
        for _ in range(10):
            assert await cache.get("k") == 1

    assert await commands(redis, read) == {"mget": 10}


async def test_large_values_are_read_in_portions(redis: Client, cache: Cache) -> None:
    large = {key: key * 30_000 for key in MANY[:20]}
    await cache.put_many(large, 60)

    async def read() -> None:
        assert await asyncio.gather(*[cache.get(key) for key in large]) == [*large.values()]

    await read()  # tells how large they are: now two of them are enough for one reply
    sent = await commands(redis, read)
    assert 8 <= sent["mget"] <= len(large)


async def test_a_reader_that_is_cancelled_takes_nobody_along(cache: Cache) -> None:
    await cache.put_many({key: key for key in MANY}, 60)
    tasks = [asyncio.create_task(cache.get(key)) for key in MANY]
    await asyncio.sleep(0)  # all have asked
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1::2] == MANY[1::2]
    assert all(isinstance(each, asyncio.CancelledError) for each in found[::2])


async def test_a_key_that_may_not_be_read_is_no_matter_of_the_others(redis: Client, cache: Cache) -> None:
    await cache.put_many({key: key for key in MANY}, 60)
    async with await limited(redis, "~cache:r", "~cache:k:k:1*") as client:
        few = Cache(connection=client, fail_safe=STRICT)
        found = await asyncio.gather(*[few.get(key) for key in MANY], return_exceptions=True)
        for key, each in zip(MANY, found, strict=True):
            assert each == key if key.startswith("k:1") else isinstance(each, errors.NoPermissionError)


async def test_a_store_that_is_gone_is_told_to_all(redis: Client) -> None:
    async with Client.from_url("redis://127.0.0.1:1", retry={"attempts": 0}) as client:
        cache = Cache(connection=client, fail_safe=STRICT)
        found = await asyncio.gather(*[cache.get(key) for key in MANY], return_exceptions=True)
        assert all(isinstance(each, errors.ConnectionError | errors.TimeoutError) for each in found), found[0]
        written = await asyncio.gather(*[cache.put(key, 1, 60) for key in MANY], return_exceptions=True)
        assert not any(each is True for each in written)


async def test_what_is_flushed_before_a_read_is_not_found_by_it(cache: Cache) -> None:
    tagged = cache.tags("t")
    for number in range(30):
        await tagged.put_many(dict.fromkeys(MANY, number), 60)
        around = [asyncio.create_task(cache.get(key)) for key in MANY]
        await tagged.flush()
        assert await asyncio.gather(*[cache.get(key) for key in MANY]) == [None] * len(MANY)
        await asyncio.gather(*around)


# -- writes --------------------------------------------------------------------------------------------------


async def test_puts_of_one_turn_ask_for_the_versions_once(redis: Client, cache: Cache) -> None:
    await cache.put("k:0", 0, 60)  # from here on the versions are known

    async def write() -> None:
        assert await asyncio.gather(*[cache.put(key, key, 60) for key in MANY]) == [True] * len(MANY)

    assert await commands(redis, write) == {"set": len(MANY), "mget": 2}
    assert await cache.many(MANY) == {key: key for key in MANY}
    assert cache.stats().writes == 1 + len(MANY)


async def test_puts_with_other_tags_and_times_go_together(redis: Client, cache: Cache) -> None:
    views = [cache, cache.tags("a"), cache.tags("b", "a"), cache.namespace("n")]
    for view in views:
        await view.put("first", 0, 600)
    await asyncio.gather(*[view.put(f"k:{at}", at, 10 + at) for at, view in enumerate(views)])
    for at, view in enumerate(views):
        assert await view.get(f"k:{at}") == at
        assert 9_000 + 1_000 * at < await redis.pttl(view._entry(f"k:{at}")) <= 10_000 + 1_000 * at
    await cache.tags("a").flush()
    assert [await view.get(f"k:{at}") for at, view in enumerate(views)] == [0, None, None, 3]


async def test_puts_that_a_flush_or_clear_meets_are_written_once_more(redis: Client, cache: Cache) -> None:
    tagged = cache.tags("t")
    await tagged.put("k:0", 0, 60)
    other = Cache(connection=redis, fail_safe=PATIENT)
    await asyncio.gather(other.clear(), other.tags("t").flush())  # `tagged` does not know
    assert await asyncio.gather(*[tagged.put(key, key, 60) for key in MANY]) == [True] * len(MANY)
    assert await other.many(MANY) == {key: key for key in MANY}
    await other.tags("t").flush()
    assert await other.many(MANY) == dict.fromkeys(MANY)


async def test_a_key_that_may_not_be_written_is_no_matter_of_the_others(redis: Client) -> None:
    async with await limited(redis, "~cache:r", "~cache:k:k:1*") as client:
        few = Cache(connection=client, fail_safe=STRICT)
        await few.put("k:1", 1, 60)
        done = await asyncio.gather(*[few.put(key, key, 60) for key in MANY], return_exceptions=True)
        for key, each in zip(MANY, done, strict=True):
            assert each is True if key.startswith("k:1") else isinstance(each, errors.NoPermissionError)


async def test_a_writer_that_is_cancelled_takes_nobody_along(cache: Cache) -> None:
    await cache.put("k:0", 0, 60)
    tasks = [asyncio.create_task(cache.put(key, key, 60)) for key in MANY]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[1::2] == [True] * 25
    assert [await cache.get(key) for key in MANY[1::2]] == MANY[1::2]


async def test_large_and_small_values_are_written_side_by_side(cache: Cache) -> None:
    await cache.put("k:0", 0, 60)
    values = {key: key * (30_000 if at % 7 == 0 else 9_000 if at % 2 else 1) for at, key in enumerate(MANY)}
    assert all(await asyncio.gather(*[cache.put(key, value, 60) for key, value in values.items()]))
    assert await cache.many(MANY) == values


@pytest.mark.parametrize("options", [{"key_prefix": "app:"}, {"protocol": 2}])
async def test_a_client_with_options_of_its_own(redis: Client, options: dict[str, Any]) -> None:
    async with Client.from_url(f"unix://{redis.settings.path}", **options) as client:
        cache = Cache(connection=client, fail_safe=PATIENT)
        await cache.put("k:0", 0, 60)
        assert all(await asyncio.gather(*[cache.put(key, key, 60) for key in MANY]))
        assert await asyncio.gather(*[cache.get(key) for key in MANY]) == MANY
