"""Tags are versions: flushing is one write, what was flushed never comes back.

`GRAVITO_FULL=1` runs the churn at its full size: 100,000 flushes and remembers at the same time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from tests.stasis.stores import info_of_each, url_of
from tests.stasis.workers import PATIENT, worker

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, Event, Result

ROUNDS = 100_000 if os.environ.get("GRAVITO_FULL") else 6_000


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


async def test_a_flush_ends_what_bears_the_tag_and_nothing_else(cache: Cache) -> None:
    await cache.tags("users", "team:7").put("a", 1, 60)
    await cache.tags("users").put("b", 2, 60)
    await cache.tags("team:7").put_many({"c": 3, "d": 4}, 60)
    await cache.put("e", 5, 60)
    await cache.tags("team:7").flush()
    assert await cache.many(["a", "b", "c", "d", "e"]) == {"a": None, "b": 2, "c": None, "d": None, "e": 5}
    await cache.tags("nobody", "users").flush()
    assert await cache.many(["b", "e"]) == {"b": None, "e": 5}


async def test_a_key_reads_the_same_with_and_without_its_tags(cache: Cache, redis: Client) -> None:
    view = cache.tags("t")
    await view.remember("k", 60, lambda: 1)
    fresh = Cache(cache._core.store, fail_safe=PATIENT)  # as in another process: it has never seen the tags
    for reader in (cache, view, cache.tags("other"), cache.tags("other", "t"), fresh, fresh.tags("x")):
        assert await reader.get("k") == 1
        assert await reader.has("k")
        assert await reader.many(["k"]) == {"k": 1}
        assert await reader.remember("k", 60, lambda: 2) == 1
    fresh = Cache(cache._core.store, fail_safe=PATIENT)
    await view.flush()
    for reader in (cache, view, cache.tags("other"), fresh, fresh.tags("x")):
        assert await reader.get("k") is None
        assert not await reader.has("k")
        assert await reader.many(["k"]) == {"k": None}


async def test_tags_of_a_later_write_take_the_place_of_the_former(cache: Cache) -> None:
    await cache.tags("old").put("k", 1, 60)
    assert await cache.get("k") == 1
    await cache.tags("new").put("k", 2, 60)
    await cache.tags("old").flush()
    assert await cache.get("k") == 2
    await cache.put("k", 3, 60)
    await cache.tags("new").flush()
    assert await cache.get("k") == 3


async def test_tags_that_the_factory_names(cache: Cache) -> None:
    assert await cache.remember("k", 60, lambda: Result("v", tags=["late"])) == "v"
    assert await cache.get("k") == "v"
    await cache.tags("late").flush()
    assert await cache.get("k") is None


async def test_who_computes_anew_without_naming_tags_keeps_those_of_before(cache: Cache) -> None:
    view = cache.tags("t", "u")
    await view.remember("k", 60, lambda: 1)
    await cache.forget("k")
    assert await cache.remember("k", 60, lambda: 2) == 2
    await cache.tags("u").flush()
    assert await cache.get("k") is None
    other = Cache(
        cache._core.store, fail_safe=PATIENT
    )  # as in another process: what was flushed tells its tags
    assert await other.remember("k", 60, lambda: Result(3, ttl=50)) == 3
    await view.flush()
    assert await cache.get("k") is None
    assert await cache.remember("k", 60, lambda: Result(4, tags=["v"])) == 4  # these take their place
    await view.flush()
    assert await cache.get("k") == 4
    await cache.tags("v").flush()
    assert await cache.get("k") is None
    await cache.tags("t").put("k", 5, 60)
    await other.put("k", 6, 60)  # a write says all that there is to say
    assert await cache.get("k") == 6
    await cache.forget("k")
    assert await cache.remember("k", 60, lambda: 7) == 7
    await cache.tags("t").flush()
    assert await cache.get("k") == 7


async def test_a_flush_of_tags_of_before_is_seen_while_it_is_computed_anew(cache: Cache) -> None:
    """The factory names them again, and by then the flush is over."""
    await cache.remember("k", 60, lambda: Result("first", tags=["t"]))
    await cache.forget("k")

    async def load() -> Result[str]:
        await cache.tags("t").flush()
        return Result("old", tags=["t"])

    assert await cache.remember("k", 60, load) == "old"
    assert await cache.get("k") is None


@pytest.mark.one_server("counts the commands of one")
async def test_a_flush_is_one_write_for_any_number_of_keys(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        view = cache.tags("t", "u")
        await view.put_many({f"k:{number}": number for number in range(1000)}, 60)
        await redis.config_resetstat()
        await view.flush()
        calls = {name: each["calls"] for name, each in (await redis.info("commandstats")).items()}
        assert calls.pop("cmdstat_unlink") == 1
        assert set(calls) <= {"cmdstat_config|resetstat", "cmdstat_info", "cmdstat_client|tracking"}
        assert set((await cache.many([f"k:{number}" for number in range(1000)])).values()) == {None}


async def test_an_evicted_version_is_a_miss_and_never_comes_back(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        view = cache.tags("t")
        versions = set()
        for number in range(50):
            await view.put("k", number, 60)
            versions.add(await redis.with_options(decode_responses=False).get("cache:t:t"))
            assert await cache.get("k") == number
            await redis.delete("cache:t:t")  # as by eviction
            assert await cache.get("k") is None
            await view.put("other", 1, 60)  # makes a version
            assert await cache.get("k") is None
        assert len(versions) == 50


async def test_a_short_lived_key_never_shortens_a_tag(cache: Cache) -> None:
    view = cache.tags("t")
    await view.put("long", 1, 3600)
    await view.put("short", 2, 0.05)
    await view.remember("short too", 0.05, lambda: 3)
    await view.increment("n", 1, 0.05)
    (left,) = await cache._core.store.remaining(["cache:t:t"])
    assert left == -1 or left > 3_500_000
    await view.forever("forever", 4)
    assert await cache._core.store.remaining(["cache:t:t"]) == [-1]
    await view.put("short", 2, 0.05)
    assert await cache._core.store.remaining(["cache:t:t"]) == [-1]
    await asyncio.sleep(0.2)
    assert await cache.many(["long", "short", "forever"]) == {"long": 1, "short": None, "forever": 4}


async def test_a_longer_lived_key_lengthens_a_tag(cache: Cache) -> None:
    view = cache.tags("t")
    for ttl in (0.2, 0.3, 1, 3600, 7200, None):
        for key in ("a", "b"):
            await view.put(key, 1, ttl)
            left, of_tag = await cache._core.store.remaining([f"cache:k:{key}", "cache:t:t"])
            assert of_tag == -1 or of_tag >= left > 0
    assert await cache._core.store.remaining(["cache:k:b", "cache:t:t"]) == [-1, -1]


async def test_a_writer_asks_seldom_for_the_time_of_its_tags(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        view = cache.tags("t", "u")
        await view.put("k", 1, 60)
        await redis.config_resetstat()
        for number in range(50):
            await view.put(f"k:{number}", number, 60)
        assert (
            sum(
                [
                    each.get("cmdstat_evalsha", {"calls": 0})["calls"]
                    for each in await info_of_each(redis, "commandstats")
                ]
            )
            == 0
        )
        await cache.tags("u").flush()
        await view.put("new", 1, 60)
        assert await cache.many(["k:1", "new"]) == {"k:1": None, "new": 1}


async def test_a_writer_that_knows_its_tags_never_writes_what_was_flushed(cache: Cache) -> None:
    """Rounds of two writers, each with what it remembers, and a third that flushes."""
    shared = cache._core.store
    one, two, third = [Cache(shared, fail_safe=PATIENT).tags("t") for _ in range(3)]
    for number in range(100):
        await asyncio.gather(one.put("a", number, 60), two.put("b", number, 60), third.flush())
        await third.flush()
        assert await cache.many(["a", "b"]) == {"a": None, "b": None}
        await asyncio.gather(one.put("a", number, 60), two.put("b", number, 60))
        assert await cache.many(["a", "b"]) == {"a": number, "b": number}


async def test_touching_a_key_keeps_its_tags(cache: Cache) -> None:
    view = cache.tags("t")
    await view.put("k", 1, 0.2)
    assert await cache.touch("k", 3600)
    (left,) = await cache._core.store.remaining(["cache:t:t"])
    assert left == -1 or left > 3_500_000
    await asyncio.sleep(0.5)
    assert await cache.get("k") == 1


async def test_flushes_and_remembers_at_the_same_time_then_one_flush(redis: Client) -> None:
    async with AsyncExitStack() as stack:
        url = url_of(redis)
        workers = [
            await stack.enter_async_context(worker("churn", url, rounds=ROUNDS // 2, tag="t"))
            for _ in range(2)
        ]
        for each in workers:
            await each.go()
        for each in workers:
            assert await each.says(600) == "done"
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        keys = [f"k:{number}" for number in range(100)]
        await cache.tags("t").remember("k:1", 60, lambda: 1)
        await cache.tags("t").flush()
        assert set((await cache.many(keys)).values()) == {None}
        for key in keys:
            assert await cache.tags("t").get(key) is None


async def test_who_reads_after_a_flush_reads_what_is_new(cache: Cache) -> None:
    source = 0
    view = cache.tags("t")

    async def load() -> int:
        seen = source
        await asyncio.sleep(0)
        return seen

    for version in range(1, 200):
        running = [asyncio.create_task(view.remember("k", 60, load)) for _ in range(2)]
        await asyncio.sleep(0)
        source = version
        await view.flush()
        assert await view.remember("k", 60, load) == version
        await asyncio.gather(*running)
        assert await cache.get("k") == version


@pytest.mark.one_server("counts the commands of one")
async def test_clear_is_one_write_and_ends_at_its_prefix(redis: Client) -> None:
    async with (
        Cache(connection=redis, fail_safe=PATIENT) as cache,
        Cache(connection=redis, fail_safe=PATIENT, prefix="other") as other,
    ):
        reports = cache.namespace("reports")
        await redis.set("not:ours", "stays")
        await other.put("k", 1, 60)
        await cache.put_many({f"k:{number}": number for number in range(1000)}, 60)
        await cache.tags("t").put("tagged", 1, 60)
        await reports.put("r", 1, 60)
        await redis.config_resetstat()
        await cache.clear()
        calls = {name: each["calls"] for name, each in (await redis.info("commandstats")).items()}
        assert calls.pop("cmdstat_unlink") == 1
        assert set(calls) <= {"cmdstat_config|resetstat", "cmdstat_info"}
        assert set((await cache.many([f"k:{number}" for number in range(1000)])).values()) == {None}
        assert await cache.get("tagged") is None
        assert await reports.get("r") is None
        assert await other.get("k") == 1
        assert await redis.get("not:ours") == "stays"


async def test_a_namespace_has_keys_and_tags_of_its_own(cache: Cache) -> None:
    one, two = cache.namespace("one"), cache.namespace("two")
    inner = one.namespace("inner")
    for view in (cache, one, two, inner):
        await view.tags("t").put("k", repr(view), 60)
    for view in (cache, one, two, inner):
        assert await view.get("k") == repr(view)
    await one.tags("t").flush()
    assert [await view.has("k") for view in (cache, one, two, inner)] == [True, False, True, True]
    await one.put("k", 1, 60)
    await one.clear()
    assert [await view.has("k") for view in (cache, one, two, inner)] == [True, False, True, False]
    assert await inner.remember("k", 60, lambda: 2) == 2
    assert await inner.many(["k"]) == {"k": 2}


async def test_a_clear_during_a_put_does_not_lose_it_and_one_after_it_ends_it(cache: Cache) -> None:
    """The versions that a writer remembers are a guess; each write checks it."""
    writer = Cache(cache._core.store, fail_safe=PATIENT)
    for number in range(50):
        await writer.put("k", number, 60)
        assert await cache.get("k") == number
        await cache.clear()
        assert await cache.get("k") is None
        await writer.tags("t").put("tagged", number, 60)
        await writer.put_many({"a": number, "b": number}, 60)
        assert await writer.increment("n") == 1
        assert await cache.many(["tagged", "a", "b", "n"]) == {
            "tagged": number,
            "a": number,
            "b": number,
            "n": 1,
        }
        await cache.tags("t").flush()
        await cache.clear()  # so that the next `put` begins with a guess that is wrong


@pytest.mark.parametrize("tags", [[], [""], ["x" * 2000], [7], ["ok", "not\nok"]])
async def test_tags_that_cannot_be(cache: Cache, tags: list[str]) -> None:
    with pytest.raises(errors.InvalidKeyError):
        cache.tags(*tags)
    if tags:
        with pytest.raises(errors.InvalidKeyError):
            await cache.remember("k", 60, lambda: Result(1, tags=tags))
        assert await cache.missing("k")


async def test_events_name_the_tags(cache: Cache) -> None:
    events: list[Event] = []
    cache.on("flush", events.append)
    cache.on("write", events.append)
    view = cache.tags("a", "b")
    await view.put("k", 1, 60)
    await view.flush()
    await cache.clear()
    assert [(event.kind, event.key, event.tags) for event in events] == [
        ("write", "k", ("a", "b")),
        ("flush", None, ("a", "b")),
        ("flush", None, ()),
    ]
