"""The cache's face: every method on every store, bad input, events, statistics, and the tier in this process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.stasis.stores import url_of
from tests.stasis.workers import PATIENT, ROOT, worker
from tests.waiting import until

import gravito.stasis
from gravito import errors
from gravito.atlas import Client, Redis
from gravito.stasis import Cache, Codec, Event, MemoryStore, NullStore, Result
from gravito.stasis._compression import compress

KEPT = ["redis", "tiered", "memory"]
WRONG_NUMBERS: list[Any] = [0, -1, None, "x", 1.5, True]


@pytest.fixture(params=KEPT)
async def cache(request: pytest.FixtureRequest, redis: Client) -> AsyncIterator[Cache]:
    async with Cache(request.param, connection=redis, fail_safe=PATIENT) as cache:
        yield cache


class User(msgspec.Struct):
    id: int
    name: str


def test_the_rooms_names() -> None:
    assert gravito.stasis.__all__ == [
        "KEEP",
        "Cache",
        "CacheStats",
        "CachedFunction",
        "Codec",
        "Counts",
        "Decision",
        "Event",
        "FailSafe",
        "Lease",
        "Limiter",
        "Lock",
        "MemoryStore",
        "NullStore",
        "RedisStore",
        "Result",
        "Store",
        "StoreDownError",
        "SyncCache",
        "SyncLimiter",
        "SyncTaggedCache",
        "TaggedCache",
        "TieredStore",
        "cached",
        "default_cache",
        "set_default_cache",
    ]
    assert all(hasattr(gravito.stasis, name) for name in gravito.stasis.__all__)


# -- reading and writing -------------------------------------------------------------------------------------


async def test_put_and_get(cache: Cache) -> None:
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    assert await cache.get("k", default=7) == 7
    assert await cache.put("k", {"a": [1, 2.5, None, "x", b"y"]}, 60)
    assert await cache.get("k") == {"a": [1, 2.5, None, "x", b"y"]}
    assert await cache.has("k")
    assert not await cache.missing("k")
    assert await cache.forget("k")
    assert not await cache.forget("k")
    assert await cache.missing("k")


@pytest.mark.parametrize("value", [None, False, 0, "", b"", [], {}, "7", b"7", -1, 2**70, (1, 2), {3}])
async def test_falsy_and_odd_values_are_values(cache: Cache, value: Any) -> None:
    await cache.put("k", value, 60)
    found = await cache.get("k", "default")
    assert found == value
    assert type(found) is type(value)
    assert await cache.remember("k", 60, lambda: "not this") == value
    assert await cache.has("k")
    assert not await cache.add("k", 1, 60)


async def test_types_that_a_reader_names(cache: Cache) -> None:
    await cache.put("k", {"id": 1, "name": "Alice"}, 60)
    assert await cache.get("k", type=User) == User(1, "Alice")
    assert await cache.remember("k", 60, lambda: None, type=User) == User(1, "Alice")
    assert await cache.many(["k"], type=User) == {"k": User(1, "Alice")}
    failed: list[Event] = []
    cache.on("error", failed.append)
    assert await cache.get("k", type=int) is None
    assert isinstance(failed[0].error, errors.UnreadableValueError)
    assert await cache.remember("k", 60, lambda: 5, type=int) == 5
    assert await cache.get("k") == 5


async def test_times_to_live(cache: Cache) -> None:
    for ttl in (0.1, timedelta(milliseconds=100), None):
        await cache.put("short", 1, ttl or datetime.now(UTC) + timedelta(milliseconds=100))
        assert await cache.get("short") == 1
        await asyncio.sleep(0.15)
        assert await cache.get("short") is None
    await cache.put("k", 1)
    await cache.forever("f", 1)
    assert await cache._core.store.remaining(["cache:k:k", "cache:k:f"]) == [-1, -1]
    default = Cache(cache._core.store, fail_safe=PATIENT, ttl=timedelta(minutes=1))
    await default.put("k", 1)
    await default.remember("r", factory=lambda: 1)
    left = await cache._core.store.remaining(["cache:k:k", "cache:k:r"])
    assert all(59_000 < each <= 60_000 for each in left)


async def test_many(cache: Cache) -> None:
    assert await cache.many([]) == {}
    assert await cache.put_many({}, 60)
    assert await cache.put_many({"a": 1, "b": None}, 60)
    assert await cache.many(["a", "b", "c", "a"], "default") == {"a": 1, "b": None, "c": "default"}
    assert await cache.forget_many(["a", "b", "c"]) == 2
    assert await cache.forget_many([]) == 0


async def test_very_many_go_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a store that is there would exceed the soft timeout."""
    store = MemoryStore()
    sizes: list[int] = []
    write, read = store.write, store.read

    def writing(items: Sequence[tuple[str, bytes, int | None]]) -> Awaitable[object]:
        sizes.append(len(items))
        return write(items)

    def reading(keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        sizes.append(len(keys))
        return read(keys)

    monkeypatch.setattr(store, "write", writing)
    monkeypatch.setattr(store, "read", reading)
    values = {f"k:{number}": number for number in range(4321)}
    async with Cache(store) as cache:
        assert await cache.tags("t").put_many(values, 60)
        assert await cache.many(values) == values
        assert await Cache(store).many(values) == values
    assert 1000 <= max(sizes) <= 1002  # and the versions


@pytest.mark.one_server("on a cluster it is one for each node; see test_cluster.py")
async def test_many_is_one_round_trip(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        keys = [f"k:{number}" for number in range(1000)]
        await cache.tags("t").put_many(dict.fromkeys(keys, 1), 60)
        before = redis.stats().commands
        assert await cache.many(keys) == dict.fromkeys(keys, 1)
        assert redis.stats().commands - before == 1


async def test_large_values_are_compressed_in_a_thread(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def noting(data: bytes, number: int) -> bytes:
        threads.append(threading.get_ident())
        return compress(data, number)

    monkeypatch.setattr("gravito.stasis._codec.compress", noting)
    here = threading.get_ident()
    packed = Cache(cache._core.store, codec=Codec(compression="zlib"), fail_safe=PATIENT)
    small, large = "x" * 5_000, "x" * 500_000
    await packed.put_many({"small": small, "k": 1}, 60)
    assert threads == [here]
    writers: list[Callable[[], Awaitable[Any]]] = [
        lambda: packed.put("large", large, 60),
        lambda: packed.put_many({"large": large}, 60),
        lambda: packed.add("added", large, 60),
        lambda: packed.remember("computed", 60, lambda: large),
    ]
    for write in writers:
        threads.clear()
        await write()
        assert threads
        assert here not in threads
    found = await cache.many(["small", "large", "added", "computed"])
    assert list(found.values()) == [small, large, large, large]


async def test_a_claim_holds_while_its_value_is_compressed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slow(data: bytes, number: int) -> bytes:
        assert go.wait(20)
        return compress(data, number)

    monkeypatch.setattr("gravito.stasis._codec.compress", slow)
    one = Cache(cache._core.store, codec=Codec(compression="zlib"), fail_safe=PATIENT, lease=1)
    other = Cache(cache._core.store, fail_safe=PATIENT)  # as in another process
    first = asyncio.create_task(one.remember("k", 60, lambda: "x" * 500_000))
    await until(lambda: one.stats().runs)
    second = asyncio.create_task(other.remember("k", 60, lambda: "another"))
    await asyncio.sleep(1.8)  # longer than the lease
    go.set()
    assert await first == await second == "x" * 500_000


async def test_add_is_won_once(cache: Cache) -> None:
    won = await asyncio.gather(*[cache.add("k", number, 60) for number in range(20)])
    assert won.count(True) == 1
    assert await cache.get("k") == won.index(True)
    await cache.clear()
    assert await cache.add("k", "new", 60)


async def test_pull_gives_to_one(cache: Cache) -> None:
    await cache.put("k", "prize", 60)
    pulled = await asyncio.gather(*[cache.pull("k") for _ in range(20)])
    assert sorted(pulled, key=str) == [None] * 19 + ["prize"]
    assert await cache.pull("k", "default") == "default"


async def test_touch(cache: Cache) -> None:
    await cache.put("k", 1, 1)
    assert await cache.touch("k", 60)
    assert not await cache.touch("none", 60)
    await asyncio.sleep(1.1)
    assert await cache.get("k") == 1
    assert await cache.touch("k", None)
    assert await cache._core.store.remaining(["cache:k:k"]) == [-1]
    await cache.clear()
    assert not await cache.touch("k", 60)


async def test_counters(cache: Cache) -> None:
    assert await cache.increment("n") == 1
    assert await cache.increment("n", 10) == 11
    assert await cache.decrement("n", 12) == -1
    assert await cache.get("n") == -1
    assert await cache.many(["n"]) == {"n": -1}
    assert await cache.remember("n", 60, lambda: 5) == -1
    assert sorted(await asyncio.gather(*[cache.increment("m") for _ in range(100)])) == list(range(1, 101))
    await cache.put("p", 2**60, 60)
    assert await cache.increment("p") == 2**60 + 1
    (left,) = await cache._core.store.remaining(["cache:k:p"])
    assert 0 < left <= 60_000
    await cache.put("big", 2**63 - 1, 60)
    with pytest.raises(errors.CounterError):
        await cache.increment("big")
    assert await cache.get("big") == 2**63 - 1
    await cache.put("text", "7", 60)
    with pytest.raises(errors.CacheError, match="'text': str is no whole number"):
        await cache.increment("text")
    with pytest.raises(errors.CacheError, match=r"by is 1\.5"):
        await cache.increment("n", 1.5)  # type: ignore[arg-type]  # what the test is about
    await cache.clear()
    assert await cache.increment("n") == 1


async def test_counters_with_tags(cache: Cache) -> None:
    view = cache.tags("t")
    assert await view.increment("n", 5) == 5
    assert await cache.increment("n") == 6
    assert await view.increment("n") == 7
    await view.flush()
    assert await cache.get("n") is None
    assert await view.increment("n") == 1


async def test_counters_as_the_type_that_is_asked_for(cache: Cache) -> None:
    failed: list[Event] = []
    cache.on("error", failed.append)
    await cache.increment("n", 7)
    for kind in (int, float, Decimal, int | None):
        found = await cache.get("n", type=kind)
        assert found == 7
        assert isinstance(found, kind)
        assert await cache.many(["n"], type=kind) == {"n": 7}
    assert not failed
    for kind in (str, bool, User):
        assert await cache.get("n", "none", type=kind) == "none"
        assert await cache.many(["n"], type=kind) == {"n": None}
        assert await cache.pull("n", type=kind) is None
    assert len(failed) == 9
    assert all(isinstance(event.error, errors.UnreadableValueError) for event in failed)
    assert await cache.increment("n") == 8
    assert await cache.remember("n", 60, lambda: "new", type=str) == "new"


async def test_a_counter_that_holds_no_number_is_a_miss(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        await cache.increment("n")
        await redis.setrange("cache:k:n", await redis.strlen("cache:k:n") - 1, "x")
        assert await cache.get("n") is None
        assert await cache.remember("n", 60, lambda: "new") == "new"


async def test_a_null_store_keeps_nothing_and_hinders_nobody() -> None:
    async with Cache("null") as cache:
        assert await cache.put("k", 1, 60)
        assert await cache.get("k") is None
        assert [await cache.remember("k", 60, partial(int, number)) for number in range(3)] == [0, 1, 2]
        assert await cache.flexible("k", 1, 60, lambda: 5) == 5
        assert await cache.tags("t").remember("k", 60, lambda: 6) == 6
        assert await cache.add("k", 1, 60)
        assert not await cache.forget("k")
        await cache.tags("t").flush()
        await cache.clear()


# -- computed ------------------------------------------------------------------------------------------------


async def test_remember(cache: Cache) -> None:
    async def load() -> dict[str, int]:
        return {"id": 1}

    assert await cache.remember("k", ttl=60, factory=load) == {"id": 1}
    assert await cache.remember("k", 60, lambda: "other") == {"id": 1}
    assert await cache.remember_forever("f", load) == {"id": 1}
    assert await cache._core.store.remaining(["cache:k:f"]) == [-1]


async def test_what_the_factory_says_of_its_value(cache: Cache) -> None:
    assert await cache.remember("short", 60, lambda: Result("v", ttl=0.05)) == "v"
    assert await cache.get("short") == "v"
    await asyncio.sleep(0.1)
    assert await cache.get("short") is None
    assert await cache.remember("not", 60, lambda: Result("v", store=False)) == "v"
    assert await cache.missing("not")
    assert await cache.remember("not", 60, lambda: "again") == "again"
    with pytest.raises(errors.InvalidTTLError):
        await cache.remember("bad", 60, lambda: Result("v", ttl=-1))
    assert await cache.missing("bad")


async def test_a_ttl_for_none(cache: Cache) -> None:
    assert await cache.remember("zero", 60, lambda: None, none_ttl=0) is None
    assert await cache.missing("zero")
    assert await cache.remember("short", 60, lambda: None, none_ttl=0.05) is None
    assert await cache.has("short")
    await asyncio.sleep(0.1)
    assert await cache.missing("short")
    assert await cache.remember("kept", 60, lambda: None) is None
    assert await cache.remember("kept", 60, lambda: 1) is None


class NotFoundError(LookupError):
    pass


class UserNotFoundError(NotFoundError):
    def __init__(self, user: int) -> None:
        super().__init__(user)
        self.user = user


async def test_exceptions_that_are_kept(cache: Cache) -> None:
    runs = 0

    def load() -> None:
        nonlocal runs
        runs += 1
        raise UserNotFoundError(7)

    async def read() -> Any:
        return await cache.remember("k", 60, load, errors={NotFoundError: 0.3})

    for _ in range(3):
        with pytest.raises(UserNotFoundError) as raised:
            await read()
        assert raised.value.user == 7
    assert runs == 1
    assert await cache.get("k") is None
    assert await cache.missing("k")
    await asyncio.sleep(0.4)
    with pytest.raises(UserNotFoundError):
        await read()
    assert runs == 2
    assert await cache.remember("k", 60, lambda: "there") == "there"  # who names no exceptions computes
    with pytest.raises(ZeroDivisionError):
        await cache.remember("z", 60, lambda: 1 / 0, errors={NotFoundError: 60})
    assert await cache.remember("z", 60, lambda: 1) == 1


async def test_warm(cache: Cache) -> None:
    await cache.put("there", "old", 60)
    failed = await cache.warm(
        {"there": lambda: "new", "made": lambda: "made", "broken": lambda: 1 / 0}, 60, concurrency=2
    )
    assert list(failed) == ["broken"]
    assert isinstance(failed["broken"], ZeroDivisionError)
    assert await cache.many(["there", "made", "broken"]) == {"there": "old", "made": "made", "broken": None}


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "x" * 1025, "ä" * 600, 7, None, b"k", "a\nb"])
async def test_keys_that_cannot_be(cache: Cache, key: Any) -> None:
    calls = [
        cache.get(key),
        cache.put(key, 1, 60),
        cache.put_many({"ok": 1, key: 1}, 60),
        cache.remember(key, 60, lambda: 1),
        cache.flexible(key, 1, 60, lambda: 1),
        cache.add(key, 1, 60),
        cache.pull(key),
        cache.has(key),
        cache.touch(key, 60),
        cache.increment(key),
        cache.forget(key),
        cache.forget_many(["ok", key]),
        cache.many(["ok", key]),
    ]
    for call in calls:
        with pytest.raises(errors.InvalidKeyError):
            await call
    assert await cache.missing("ok")


@pytest.mark.parametrize(
    "ttl", [0, -1, float("nan"), "60", True, datetime(2030, 1, 1), timedelta(-1), 1e12, [1]]
)
async def test_times_that_cannot_be(cache: Cache, ttl: Any) -> None:
    ran = []
    for call in (
        lambda: cache.put("k", 1, ttl),
        lambda: cache.put_many({"k": 1}, ttl),
        lambda: cache.add("k", 1, ttl),
        lambda: cache.touch("k", ttl),
        lambda: cache.increment("k", 1, ttl),
        lambda: cache.remember("k", ttl, lambda: ran.append(1)),
    ):
        with pytest.raises(errors.InvalidTTLError, match=r"^ttl "):
            await call()
    with pytest.raises(errors.InvalidTTLError, match=r"^fresh "):
        await cache.flexible("k", ttl, 60, lambda: ran.append(1))
    with pytest.raises(errors.InvalidTTLError, match=r"^fresh "):
        await cache.flexible("k", ttl, 60, lambda: ran.append(1), early=0.1)
    if ttl != 0:  # there it is no window
        with pytest.raises(errors.InvalidTTLError, match=r"^stale "):
            await cache.flexible("k", 60, ttl, lambda: ran.append(1))
    assert not ran
    assert await cache.missing("k")


async def test_values_that_cannot_be_stored(cache: Cache) -> None:
    for call in (
        lambda: cache.put("k", object(), 60),
        lambda: cache.put_many({"a": 1, "k": object()}, 60),
        lambda: cache.add("k", object(), 60),
        lambda: cache.remember("k", 60, object),
    ):
        with pytest.raises(errors.SerializationError, match="k"):
            await call()
    assert await cache.many(["a", "k"]) == {"a": None, "k": None}
    assert await asyncio.wait_for(cache.remember("k", 60, lambda: 1), 2) == 1  # no claim was left


@pytest.mark.parametrize("keys", ["user:1", b"user:1", 7, None])
async def test_one_text_where_several_are_wanted(cache: Cache, keys: Any) -> None:
    await cache.put("u", "there", 60)
    for call in (cache.forget_many(keys), cache.many(keys)):
        with pytest.raises(errors.InvalidKeyError, match=r"^keys is .*; give a list of keys$"):
            await call
    with pytest.raises(errors.InvalidKeyError, match=r"^tags is .*; give a list of tags$"):
        await cache.remember("k", 60, lambda: Result("v", tags=keys))
    assert await cache.many(["u", "k"]) == {"u": "there", "k": None}


@pytest.mark.parametrize("values", ["ab", ["a", "b"], None])
async def test_what_is_no_mapping(cache: Cache, values: Any) -> None:
    for call, name in ((cache.put_many, "values"), (cache.warm, "factories")):
        with pytest.raises(
            errors.ConfigurationError, match=f"{name} is of type .*; allowed: a mapping of keys"
        ):
            await call(values, 60)


@pytest.mark.parametrize("concurrency", WRONG_NUMBERS)
async def test_a_concurrency_that_cannot_be(cache: Cache, concurrency: Any) -> None:
    with pytest.raises(
        errors.ConfigurationError, match=r"concurrency is .*; allowed: a whole number from 1 on"
    ):
        await asyncio.wait_for(cache.warm({"k": lambda: 1}, 60, concurrency=concurrency), 2)
    assert await cache.missing("k")


@pytest.mark.parametrize("jitter", [-1, 1, 2, True, False, "x", None, float("nan")])
@pytest.mark.parametrize("ttl", [60, None])
async def test_a_jitter_that_cannot_be(cache: Cache, jitter: Any, ttl: int | None) -> None:
    for call in (
        lambda: cache.put("k", 1, ttl, jitter=jitter),
        lambda: cache.put_many({"k": 1}, ttl, jitter=jitter),
        lambda: cache.remember("k", ttl, lambda: 1, jitter=jitter),
    ):
        with pytest.raises(errors.InvalidTTLError, match=r"jitter .*: give a fraction of the ttl"):
            await call()
    assert await cache.missing("k")
    assert await cache.put("k", 1, ttl, jitter=0)


@pytest.mark.parametrize("factory", [None, 7, "load"])
async def test_factories_that_cannot_be(cache: Cache, factory: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="'k': the factory is"):
        await cache.remember("k", 60, factory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store": "memcached"}, "there is no store 'memcached'; allowed: redis, tiered, memory, null"),
        ({"store": 7}, "the store is of type int"),
        ({"prefix": ""}, "namespace"),
        ({"prefix": "a:b"}, "namespace"),
        ({"ttl": -1}, "ttl -1 is not positive"),
        ({"lease": 0}, "lease is 0"),
        ({"retry": "1"}, "retry is '1'"),
        ({"ttl": datetime(2100, 1, 1, tzinfo=UTC)}, "ttl is a datetime, which is one moment for all entries"),
        ({"codec": "json"}, r'codec is of type str; allowed: a Codec, like Codec\("json"\), or None'),
        ({"fail_safe": 5}, r"fail_safe is of type int; allowed: a FailSafe, like FailSafe\(timeout=1\.0\)"),
        ({"connection": 5}, "connection is of type int; allowed: a connection's name, a Client, or None"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.GravitoError, match=message):
        Cache(**settings)


async def test_an_unknown_connection_and_an_unknown_event() -> None:
    with pytest.raises(errors.ConfigurationError, match="nowhere"):
        await Cache(connection="nowhere").get("k")
    with pytest.raises(errors.ConfigurationError, match="there is no event 'hits'"):
        Cache("null").on("hits", print)
    with pytest.raises(errors.ConfigurationError, match="callback is 5; allowed: a function that takes"):
        Cache("null").on("hit", 5)  # type: ignore[arg-type]  # the point


async def test_the_default_connections_facade_is_a_connection() -> None:
    assert Cache(connection=Redis)._client() is Redis


@pytest.mark.parametrize("template", [5, ["a"], ""])
async def test_templates_of_statistics_that_cannot_be(cache: Cache, template: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"template is .*; allowed: a text") as raised:
        await cache.remember("k", 60, lambda: 1, template=template)
    assert raised.value.field == "template"
    assert await cache.missing("k")


@pytest.mark.parametrize("wanted", ["User", 5, [int]])
async def test_what_is_no_type(cache: Cache, wanted: Any) -> None:
    await cache.put("k", 1, 60)
    await cache.put("boxed", {1, 2}, 60)
    await cache.increment("n")
    for key in ("k", "boxed", "n", "nothing"):
        reads: tuple[Callable[..., Awaitable[Any]], ...] = (
            partial(cache.get, key),
            partial(cache.many, [key]),
            partial(cache.pull, key),
            partial(cache.remember, key, 60, lambda: 1),
        )
        for read in reads:
            with pytest.raises(errors.ConfigurationError, match=r"type is .*; allowed: a class") as raised:
                await read(type=wanted)
            assert raised.value.field == "type"


@pytest.mark.parametrize("junk", [b"", b"\xc5", b"\xc5V", b"junk" * 20, b"\xc5V" + b"\xff" * 60])
async def test_what_cannot_be_read_is_a_miss_and_an_event(redis: Client, junk: bytes) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        await cache.put("good", 1, 60)
        failed: list[Event] = []
        cache.on("error", failed.append)
        await redis.set("cache:k:k", junk)
        assert await cache.get("k", "default") == "default"
        assert await cache.many(["k", "good"]) == {"k": None, "good": 1}
        assert len(failed) == 2
        assert all(isinstance(each.error, errors.UnreadableValueError) for each in failed)
        assert await asyncio.wait_for(cache.remember("k", 60, lambda: "new"), 5) == "new"
        assert await cache.get("k") == "new"
        await redis.set("cache:k:k", junk)
        assert await cache.increment("k") == 1


async def test_a_key_of_another_type_is_a_miss_and_no_hang(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        await redis.rpush("cache:k:k", "list")
        assert await cache.get("k") is None  # MGET says so
        assert await asyncio.wait_for(cache.remember("k", 60, lambda: 1), 5) == 1


# -- events, statistics --------------------------------------------------------------------------------------


async def test_events(cache: Cache) -> None:
    events: list[Event] = []
    for kind in ("hit", "miss", "write", "forget", "flush", "stale", "error"):
        cache.on(kind, events.append)
    await cache.get("user:1")
    await cache.remember("user:1", 60, lambda: 1)
    await cache.get("user:1")
    await cache.remember("user:1", 60, lambda: 1, template="user:{id}")
    await cache.forget("user:1")
    assert [(event.kind, event.key, event.template) for event in events] == [
        ("miss", "user:1", "user"),
        ("miss", "user:1", "user"),
        ("write", "user:1", "user"),
        ("hit", "user:1", "user"),
        ("hit", "user:1", "user:{id}"),
        ("forget", "user:1", "user"),
    ]
    assert events[2].seconds is not None
    assert all(event.store in KEPT for event in events)


async def test_callbacks_may_be_async_and_may_fail(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    seen = asyncio.Event()

    @cache.on("miss")
    async def note(event: Event) -> None:
        seen.set()

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    stop = cache.on("miss", broken)
    assert await cache.get("k") is None
    await asyncio.wait_for(seen.wait(), 5)
    assert "a callback of the event 'miss' failed" in caplog.text
    caplog.clear()
    stop()
    await cache.get("k")
    assert not caplog.text


async def test_statistics(cache: Cache) -> None:
    await cache.get("user:1")
    for number in range(3):
        await cache.remember(f"user:{number}", 60, lambda: 1)
        await cache.get(f"user:{number}")
    await cache.remember("user:1", 60, lambda: 1, template="user:{id}")
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.writes, stats.runs) == (4, 4, 3, 3)
    assert stats.hit_rate == 0.5
    assert stats.templates["user"].hits == 3
    assert stats.templates["user:{id}"].hits == 1
    for number in range(1000):
        await cache.get(f"{number}")
    assert len(cache.stats().templates) <= 257
    assert cache.stats().misses == 1004


async def test_statistics_reach_the_server(redis: Client) -> None:
    for _ in range(2):
        async with Cache(connection=redis, fail_safe=PATIENT) as cache:
            await cache.get("user:1")
            await cache.put("user:1", 1, 60)
            await cache.get("user:1")
            await cache.forget("user:1")
    assert await redis.hgetall("cache:s") == {
        "user|hits": "2",
        "user|misses": "2",
        "user|writes": "2",
        "user|forgets": "2",
    }


async def test_statistics_reach_the_server_by_themselves(redis: Client) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        cache._core.tallies._interval = 0.05
        await cache.get("user:1")
        async with asyncio.timeout(10):
            while await redis.hget("cache:s", "user|misses") != "1":  # noqa: ASYNC110  # another task writes it
                await asyncio.sleep(0.01)


# -- the tier in this process --------------------------------------------------------------------------------


async def test_hits_of_the_local_tier_send_nothing(redis: Client) -> None:
    async with Cache("tiered", connection=redis, fail_safe=PATIENT) as cache:
        await cache.put("k", "value", 600)
        await cache.tags("t").put("tagged", "value", 600)
        await cache.flexible("soft", 600, 600, lambda: "value")
        for key in ("k", "tagged", "soft"):
            assert await cache.get(key) == "value"
            assert await cache.get(key) == "value"
        sent = redis.stats().commands
        for _ in range(10_000):
            assert await cache.get("k") == "value"
        for _ in range(1000):
            assert await cache.get("tagged") == "value"
            assert await cache.get("soft") == "value"
            assert await cache.remember("k", 600, lambda: "other") == "value"
            assert await cache.flexible("soft", 600, 600, lambda: "other") == "value"
        assert redis.stats().commands == sent


async def test_nothing_outlives_its_ttl_in_the_local_tier(redis: Client) -> None:
    async with Cache("tiered", connection=redis, fail_safe=PATIENT) as cache:
        await cache.put("k", 1, 0.3)
        assert await cache.get("k") == 1
        await asyncio.sleep(0.1)
        assert await cache.get("k") == 1
        await asyncio.sleep(0.25)
        assert await cache.get("k") is None


async def test_processes_that_write_one_key_converge(redis: Client) -> None:
    url = url_of(redis)
    async with (
        Cache("tiered", connection=redis, fail_safe=PATIENT) as cache,
        worker("put", url, key="k", value="theirs", store="tiered") as other,
    ):
        await cache.put("k", "ours", 60)
        assert await cache.get("k") == "ours"
        await other.go()
        assert await other.says() == "written"
        async with asyncio.timeout(10):
            while await cache.get("k") != "theirs":  # noqa: ASYNC110  # the announcement is on its way
                await asyncio.sleep(0)
        await cache.put("k", "ours again", 60)
        assert await cache.get("k") == "ours again"
        async with asyncio.timeout(10):
            while True:
                await other.go()
                if await other.says() == "ours again":
                    break


async def test_the_local_tier_after_client_kill(redis: Client, gravito_engine: Any) -> None:
    async with (
        Client.from_url(url_of(redis)) as tracked,
        Cache("tiered", connection=tracked, fail_safe=PATIENT) as cache,
    ):
        await cache.put("k", "old", 60)
        assert await cache.get("k") == "old"
        await redis.client_kill_filter(_type="normal", skipme=True)
        await Cache(connection=redis, fail_safe=PATIENT).put("k", "new", 60)
        async with asyncio.timeout(10):
            while await cache.get("k") != "new":  # noqa: ASYNC110  # the end of the link is on its way
                await asyncio.sleep(0)


# -- loops, connections, life --------------------------------------------------------------------------------


def test_the_default_connection_needs_no_server() -> None:
    code = """
import asyncio
from gravito.atlas import DB
from gravito.stasis import Cache

cache = Cache()

async def main():
    async with DB.lifespan():
        print(await cache.remember("user:1", ttl=300, factory=lambda: "Alice"), await cache.get("user:1"))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["Alice", "Alice"], done.stderr
    assert not done.stderr


async def test_one_cache_in_two_event_loops(cache: Cache) -> None:
    seen: list[Any] = []
    store = cache._core.store
    client = getattr(store, "client", None)

    async def there() -> None:
        seen.append(await asyncio.gather(*[cache.remember("k", 60, lambda: 1) for _ in range(5)]))
        await cache.put("there", 2, 60)
        if client is not None:
            await client.aclose()

    async def slow() -> int:
        await asyncio.sleep(0.2)
        return 1

    here = asyncio.create_task(cache.remember("k", 60, slow))
    thread = threading.Thread(target=lambda: asyncio.run(there()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert seen == [[1] * 5]
    assert await here == 1
    assert await cache.get("there") == 2


async def test_a_store_of_ones_own(redis: Client) -> None:
    async with Cache(MemoryStore(max_entries=10)) as cache:
        for number in range(100):
            await cache.put(f"k:{number}", number, 60)
        assert await cache.get("k:99") == 99
        assert await cache.get("k:0") is None
    assert isinstance(NullStore(), gravito.stasis.Store)


async def test_serializers(redis: Client) -> None:
    codec = Codec("json", "zlib")
    async with Cache(connection=redis, fail_safe=PATIENT, codec=codec) as cache:
        await cache.put("k", {"text": "x" * 5000}, 60)
        assert await cache.get("k") == {"text": "x" * 5000}
    async with Cache(connection=redis, fail_safe=PATIENT) as other:
        assert await other.get("k") == {"text": "x" * 5000}


async def test_locks_and_limiters(cache: Cache) -> None:
    async with cache.lock("jobs:rebuild", ttl=10, wait=5) as lease:
        assert lease.fence > 0
    assert await cache.limiter("login:{ip}", limit=1, per=60).attempt(ip="1.2.3.4")


def test_reprs_show_what_it_is() -> None:
    cache = Cache("memory", prefix="web")
    assert repr(cache) == "<Cache 'web' on memory>"
    assert repr(cache.namespace("reports")) == "<Cache 'web/reports' on memory>"
    assert repr(cache.tags("a", "b")) == "<TaggedCache 'web' a, b>"


async def test_a_run_that_ends_with_the_loop_hurts_nobody(redis: Client) -> None:
    cache = Cache("memory")
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(600)

    async def main() -> None:
        asyncio.get_running_loop().create_task(cache.remember("k", 60, forever))
        await until(begun.is_set)

    await asyncio.to_thread(asyncio.run, main())
    other = Cache(cache._core.store, fail_safe=PATIENT, lease=0.1)
    assert await asyncio.wait_for(other.remember("k", 60, lambda: "ours"), 20) == "ours"
