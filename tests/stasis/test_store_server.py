"""Stores on a server: other processes, foreign keys, rights, memory limits, what is sent, and slots that move."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.stasis.stores import opened

from gravito import errors
from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas.topology.slots import slot_of
from gravito.stasis._blob import COUNTER, VALUE, Blob, id_of, new_id
from gravito.stasis._redis import RedisStore
from gravito.stasis._tiered import TieredStore
from gravito.testing import ScriptedPeer

HOUR = 3_600_000  # milliseconds
on_servers = pytest.mark.parametrize("store_name", ["redis", "tiered", "cluster", "tiered-cluster"])
on_one_server = pytest.mark.parametrize("store_name", ["redis", "tiered"])


def value(body: bytes = b"body") -> bytes:
    return Blob(VALUE, new_id(), body).pack()


def counter(body: bytes = b"") -> bytes:
    return Blob(COUNTER, new_id(), body).pack()


async def body_at(store: RedisStore, key: str) -> bytes:
    (raw,) = await store.read([key])
    blob = Blob.unpack(raw or b"")
    assert blob is not None
    return blob.body


async def asked(store: RedisStore, call: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """A call's result, and how many commands it sent."""
    before = store.client.stats().commands
    result = await call()
    return result, store.client.stats().commands - before


# -- several processes ---------------------------------------------------------------------------------------

ADDER = """
import asyncio, sys
from tests.stasis.stores import opened
from gravito.stasis._blob import COUNTER, VALUE, Blob, id_of, new_id

async def add(store, times):
    done = 0
    while done < times:
        (raw,) = await store.read(["swapped"])
        blob = None if raw is None else Blob.unpack(raw)
        new = Blob(VALUE, new_id(), b"%d" % (1 + (0 if blob is None else int(blob.body)))).pack()
        done += await store.swap("swapped", None if raw is None else id_of(raw), new, 60_000)
        await store.increment("counted", Blob(COUNTER, new_id()).pack(), 1, None)

async def main(name, url):
    async with opened(name, url) as store:
        pinned = await asyncio.gather(*[store.pin(["t", "u"], 60_000) for _ in range(10)])
        assert len({tuple(versions) for versions in pinned}) == 1
        print((await store.swap("claim", None, Blob(VALUE, new_id()).pack(), 60_000)), pinned[0], flush=True)
        await asyncio.gather(*[add(store, 5) for _ in range(4)])

asyncio.run(main(*sys.argv[1:]))
"""


async def run(*args: str) -> str:
    """What a program of its own process printed; it must end well."""
    path = os.pathsep.join(filter(None, [*sys.path, os.fspath(os.curdir)]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", *args, stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        output, wrong = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, wrong) == (0, b"")
    return output.decode()


@on_servers
async def test_processes_lose_nothing_of_each_other(
    store: RedisStore, store_name: str, store_url: str
) -> None:
    told = await asyncio.gather(*[run(ADDER, store_name, store_url) for _ in range(3)])
    claims = [line.split(" ", 1)[0] for line in told]
    assert sorted(claims) == ["False", "False", "True"]
    assert len({line.split(" ", 1)[1] for line in told}) == 1  # the versions
    assert await body_at(store, "swapped") == b"60"
    assert int(await body_at(store, "counted")) >= 60


# -- what else may be there ----------------------------------------------------------------------------------


@on_servers
async def test_a_key_that_holds_no_string_counts_as_missing(store: RedisStore) -> None:
    for key in ("read", "swapped", "counted", "t"):
        await store.client.hset(key, "field", "1")
    assert await store.read(["read"]) == [None]
    await store.write([("k", b"text", None)])
    assert await store.read(["k", "read", "k"] * 10) == [b"text", None, b"text"] * 10
    assert await store.touch("read", new_id(), 5000) is False
    assert await store.swap("swapped", new_id(), value()) is False
    assert await store.swap("swapped", None, value(b"new")) is True
    assert await body_at(store, "swapped") == b"new"
    assert await store.increment("counted", counter(), 5, None) == 5
    (version,) = await store.pin(["t"], HOUR)
    assert await store.read(["t"]) == [version]
    assert await store.forget(["read"]) == 1


@on_servers
async def test_keys_have_the_clients_prefix(store: RedisStore, store_name: str, store_url: str) -> None:
    async with opened(store_name, store_url, key_prefix="app:") as mine:
        blob = value()
        assert await mine.swap("swapped", None, blob, HOUR)
        await mine.write([("written", blob, HOUR), ("two", blob, None)])
        assert await mine.increment("counted", counter(), 1, None) == 1
        pinned = await mine.pin(["t", "u"], HOUR)
        assert await mine.touch("swapped", id_of(blob), None)
        keys = ["swapped", "written", "two", "t", "u"]
        for _ in range(2):
            assert await mine.read(keys) == [blob, blob, blob, *pinned]
            left = await mine.remaining(keys)
            assert (left[0], left[2]) == (-1, -1)
            assert 60_000 < left[1] <= HOUR
        assert await store.read([f"app:{key}" for key in keys]) == [blob, blob, blob, *pinned]
        assert await mine.forget(["swapped", "counted"]) == 2
        assert await store.read(keys) == [None] * 5


@on_servers
async def test_a_server_that_forgot_the_scripts_is_told_them_again(store: RedisStore) -> None:
    for _ in range(2):
        await store.client.script_flush()
        numbers = await asyncio.gather(*[store.increment("n", counter(), 1, None) for _ in range(20)])
        assert len(set(numbers)) == 20
        await store.client.script_flush()
        await store.pin(["t", "u", "v"], None)
    assert await body_at(store, "n") == b"40"


# -- when the server refuses ---------------------------------------------------------------------------------


@asynccontextmanager
async def settings(client: Client, **wanted: Any) -> AsyncIterator[None]:
    """Some of the server's settings for a while."""
    before = {name: (await client.config_get(name))[name] for name in wanted}
    for name, setting in wanted.items():
        await client.config_set(name, setting)
    try:
        yield
    finally:
        for name, setting in before.items():
            await client.config_set(name, setting)


@on_one_server
@pytest.mark.one_server("a full node takes no slots")
async def test_a_full_server_refuses_and_changes_nothing(store: RedisStore, redis: Client) -> None:
    blob, number = value(), counter(b"%d" % 2**60)
    await store.write([("k", blob, None), ("n", number, None)])
    (version,) = await store.pin(["t"], 1000)
    limits = {"maxmemory-policy": "noeviction", "maxmemory": "1"}
    async with settings(redis, **limits):
        for refused in (
            lambda: store.swap("k", id_of(blob), value()),
            lambda: store.swap("new", None, value()),
            lambda: store.increment("n", counter(), 1, None),
            lambda: store.increment("new", counter(), 1, None),
            lambda: store.pin(["new"], None),
            lambda: store.write([("k", value(), None)]),
            lambda: store.write([("k", value(), None), ("new", value(), None)]),
        ):
            with pytest.raises(errors.ResponseError, match="maxmemory"):
                await refused()
        assert await store.read(["k", "n", "t", "new"]) == [blob, number, version, None]
        assert await store.swap("k", id_of(blob), None) is True
        assert await store.forget(["n", "t"]) == 2


@on_one_server
@pytest.mark.one_server("a full node takes no slots")
async def test_a_version_that_the_server_evicted_never_comes_back(store: RedisStore, redis: Client) -> None:
    made = await store.pin(["t", "u"], None)
    async with settings(redis, **{"maxmemory-policy": "allkeys-random", "maxmemory": "1"}):
        with pytest.raises(
            errors.ResponseError, match="maxmemory"
        ):  # it evicts all, and there is no room still
            await store.pin(["v"], None)
    assert await store.read(["t", "u"]) == [None, None]
    assert not set(await store.pin(["t", "u"], None)) & set(made)


@pytest.mark.one_server("users are of one node")
async def test_missing_rights_are_told_and_not_taken_for_a_missing_key(redis: Client) -> None:
    await redis.execute("ACL", "SETUSER", "poor", "on", ">secret-secret", "~*", "+@all", "-getrange")
    path = redis.settings.path
    try:
        options = {"username": "poor", "password": "secret-secret"}
        async with Client.from_url(f"unix://{path}", **options) as client:
            store = RedisStore(client)
            for refused in (
                lambda: store.swap("k", None, value()),
                lambda: store.touch("k", new_id(), None),
                lambda: store.increment("k", counter(), 1, None),
                lambda: store.pin(["k"], None),
            ):
                with pytest.raises(errors.ResponseError, match=r"(?i)permission|can't run"):
                    await refused()
            assert await store.read(["k"]) == [None]
            await redis.execute("ACL", "SETUSER", "poor", "-mget", "-get", "-pttl")
            for keys in (["k"], ["k"] * 50):
                for refused in (store.read, store.remaining):
                    with pytest.raises(errors.NoPermissionError):
                        await refused(keys)
    finally:
        await redis.execute("ACL", "DELUSER", "poor")


async def test_the_first_error_of_several_comes_when_all_are_there() -> None:
    answers = [errors.ResponseError("ERR one"), 7, errors.ResponseError("ERR two"), 5]
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    async with ScriptedPeer(answers) as peer, Client.from_url(peer.url) as client:
        store = RedisStore(client)
        with pytest.raises(errors.ResponseError, match="one"):
            await store.remaining(["a", "b", "c"])
        assert await store.remaining(["d"]) == [5]
    gc.collect()
    assert unseen == []  # the second error has been looked at


# -- what is sent --------------------------------------------------------------------------------------------


@pytest.mark.one_server("on a cluster it is one for each key")
async def test_a_read_is_one_command(redis: Client) -> None:
    store = RedisStore(redis)
    await store.write([("k", value(), None)])
    assert (await asked(store, lambda: store.read(["k", "r", "t"])))[1] == 1
    await store.pin(["t"], None)  # the script is known now
    assert (await asked(store, lambda: store.pin(["t", "u", "v"], None)))[1] == 1


async def test_reading_and_asking_for_the_time_is_one_write() -> None:
    async with ScriptedPeer([[b"v", None], 5]) as peer, Client.from_url(peer.url) as client:
        store = RedisStore(client)
        reading, asking = store.read(["k", "r"]), store.remaining(["k"])
        await peer.received(2)  # before anybody awaits
        assert (await reading, await asking) == ([b"v", None], [5])


@pytest.mark.parametrize("store_name", ["tiered", "tiered-cluster"])
async def test_copies_are_given_out_without_a_word_to_the_server(store: TieredStore) -> None:
    blob = value()
    await store.write([("k", blob, HOUR), ("r", b"12345678", None)])
    await store.read(["k", "r"])
    for _ in range(100):
        assert await asked(store, lambda: store.read(["k", "r"])) == ([blob, b"12345678"], 0)
    left, sent = await asked(store, lambda: store.remaining(["k", "r"]))
    assert sent == 0
    assert left[1] == -1
    assert await store.client.pttl("k") <= HOUR
    assert HOUR - 60_000 < left[0] <= HOUR


@pytest.mark.parametrize("store_name", ["tiered", "tiered-cluster"])
async def test_that_nothing_is_there_is_kept_too(store: TieredStore) -> None:
    for _ in range(20):
        assert await store.read(["k"]) == [None]
    assert await store.remaining(["k"]) == [-2]
    await store.write([("k", value(), None)])
    assert await store.remaining(["k"]) == [-1]


@pytest.mark.parametrize("store_name", ["tiered", "tiered-cluster"])
async def test_own_writes_are_seen_at_once(store: TieredStore) -> None:
    one, two, three = value(b"1"), value(b"2"), value(b"3")
    for _ in range(20):
        await store.write([("k", one, HOUR)])
        assert await store.read(["k"]) == [one]
        assert await store.swap("k", id_of(one), two, 10 * HOUR)
        assert await store.read(["k"]) == [two]
        assert await store.touch("k", id_of(two), 5000)
        assert (await store.remaining(["k"]))[0] <= 5000
        await store.write([("k", three, None), ("l", three, None)])
        assert await store.read(["k", "l"]) == [three, three]
        assert await store.forget(["k"]) == 1
        assert await store.read(["k"]) == [None]
        number = await store.increment("n", counter(), 1, None)
        assert await body_at(store, "n") == b"%d" % (number or 0)
        assert await store.read(["t"]) == [None]
        pinned = await store.pin(["t"], None)
        assert await store.read(["t"]) == pinned
        await store.forget(["t"])


@pytest.mark.parametrize("store_name", ["tiered", "tiered-cluster"])
async def test_two_processes_see_each_others_last_write(
    store: TieredStore, store_name: str, store_url: str
) -> None:
    async with opened(store_name, store_url) as other:
        for number in range(30):
            writer, reader = (store, other) if number % 2 else (other, store)
            await reader.read(["k"])
            blob = value(b"%d" % number)
            await writer.write([("k", blob, None)])
            async with asyncio.timeout(10):
                while await reader.read(["k"]) != [blob]:  # noqa: ASYNC110  # until its announcement is there
                    await asyncio.sleep(0)
            assert await writer.read(["k"]) == [blob]


# -- slots that move -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store_name", ["cluster", "tiered-cluster"])
async def test_nothing_is_lost_while_slots_move(store: RedisStore, cluster: LocalCluster) -> None:
    keys = ["{moving}n", "{moving}k", "{moving}t"]
    slot = slot_of("{moving}")
    source = await asyncio.to_thread(cluster.owner_of, slot)
    target = next(node for node in cluster.primaries() if node is not source)
    (version,) = await store.pin([keys[2]], None)
    moving, counted, swapped = True, 0, 0

    async def work() -> None:
        nonlocal counted, swapped
        while moving:
            assert await store.increment(keys[0], counter(), 1, None) is not None
            counted += 1
            raw, present, _ = await store.read([keys[1], keys[2], "elsewhere"])
            assert present == version
            body = 1 + (0 if raw is None else int((Blob.unpack(raw) or Blob(VALUE, b"")).body))
            done = await store.swap(keys[1], None if raw is None else id_of(raw), value(b"%d" % body))
            swapped += done
            assert await store.pin([keys[2]], HOUR) == [version]

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    try:
        await asyncio.to_thread(cluster.migrate, slot, target)
        await asyncio.to_thread(cluster.wait)
    finally:
        await asyncio.to_thread(cluster.migrate, slot, source)
        await asyncio.to_thread(cluster.wait)
        moving = False
        await asyncio.gather(*tasks)
    assert counted > 0
    assert await body_at(store, keys[0]) == b"%d" % counted
    assert await body_at(store, keys[1]) == b"%d" % swapped


@pytest.mark.parametrize("store_name", ["cluster", "tiered-cluster"])
async def test_many_keys_of_all_nodes(store: RedisStore) -> None:
    items = {f"k:{number}": value(b"%d" % number) for number in range(1000)}
    await store.write([(key, blob, HOUR) for key, blob in items.items()])
    for _ in range(2):
        assert await store.read(list(items)) == list(items.values())
    assert min(await store.remaining(list(items))) > 60_000
    assert len(await store.pin([f"t:{number}" for number in range(100)], HOUR)) == 100
    assert await store.forget(list(items)) == 1000
