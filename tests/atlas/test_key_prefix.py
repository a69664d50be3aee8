"""`key_prefix`: on every key that goes out, off every key that comes back, and on nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis as redis_py

from gravito import errors
from gravito.atlas import Client, Settings
from gravito.atlas._prefix import _EDITS, _STRIPS, KeyPrefix
from gravito.atlas.wire.keys import RULES

PREFIX = "app:"


@pytest.fixture
async def prefixed(redis: Client) -> AsyncIterator[Client]:
    """A client of the same database with a prefix; `redis` sees what is really there."""
    async with Client(msgspec.structs.replace(redis.settings, key_prefix=PREFIX)) as client:
        yield client


async def names(redis: Client) -> set[str]:
    return set(await redis.keys("*"))


# -- going out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        ("SET k v EX 10", "SET app:k v EX 10"),
        ("set k k", "set app:k k"),
        ("MSET a 1 b 2", "MSET app:a 1 app:b 2"),
        ("MSETEX 2 a 1 b 2 EX 9", "MSETEX 2 app:a 1 app:b 2 EX 9"),
        ("DEL a b", "DEL app:a app:b"),
        ("BITOP AND d a b", "BITOP AND app:d app:a app:b"),
        ("BLPOP a b 0", "BLPOP app:a app:b 0"),
        ("BLMPOP 0 2 a b LEFT", "BLMPOP 0 2 app:a app:b LEFT"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZUNIONSTORE app:d 2 app:a app:b WEIGHTS 1 2"),
        ("XREAD COUNT 1 STREAMS a b 0 0", "XREAD COUNT 1 STREAMS app:a app:b 0 0"),
        ("XREADGROUP GROUP g c STREAMS a >", "XREADGROUP GROUP g c STREAMS app:a >"),
        ("EVAL s 2 a b c", "EVAL s 2 app:a app:b c"),
        ("FCALL f 1 a b", "FCALL f 1 app:a b"),
        ("GEORADIUS k 1 2 3 km STORE d", "GEORADIUS app:k 1 2 3 km STORE app:d"),
        ("SORT k BY w_* GET # GET o_*->f STORE d", "SORT app:k BY app:w_* GET # GET app:o_*->f STORE app:d"),
        ("SORT k BY nosort LIMIT 0 1", "SORT app:k BY nosort LIMIT 0 1"),
        ("SORT_RO k GET v*", "SORT_RO app:k GET app:v*"),
        ("MIGRATE h 1  0 5 KEYS a b", "MIGRATE h 1  0 5 KEYS app:a app:b"),
        ("MIGRATE h 1 k 0 5", "MIGRATE h 1 app:k 0 5"),
        ("MEMORY|USAGE k", "MEMORY|USAGE app:k"),
        ("MEMORY USAGE k", "MEMORY USAGE app:k"),
        ("OBJECT ENCODING k", "OBJECT ENCODING app:k"),
        ("XGROUP|CREATE k g $", "XGROUP|CREATE app:k g $"),
        ("WATCH a b", "WATCH app:a app:b"),
        ("DEBUG OBJECT k", "DEBUG OBJECT app:k"),
        ("DEBUG|DIGEST-VALUE a b", "DEBUG|DIGEST-VALUE app:a app:b"),
        ("DEBUG SLEEP 0", "DEBUG SLEEP 0"),
        ("KEYS *", "KEYS app:*"),
        ("SCAN 0", "SCAN 0 MATCH app:*"),
        ("SCAN 0 COUNT 10 match a* TYPE string", "SCAN 0 COUNT 10 match app:a* TYPE string"),
        ("CLUSTERSCAN 0", "CLUSTERSCAN 0 MATCH app:*"),
        ("HSCAN k 0 MATCH f*", "HSCAN app:k 0 MATCH f*"),
        ("CLUSTER|KEYSLOT k", "CLUSTER|KEYSLOT app:k"),
        ("PUBLISH channel message", "PUBLISH channel message"),
        ("SPUBLISH channel message", "SPUBLISH channel message"),
        ("CONFIG|SET maxmemory 0", "CONFIG|SET maxmemory 0"),
        ("CONFIG GET maxmemory", "CONFIG GET maxmemory"),
        ("SCRIPT LOAD GET", "SCRIPT LOAD GET"),
        ("COMMAND", "COMMAND"),
        ("PING k", "PING k"),
        ("JSON.MSET a $ 1 b $ 2", "JSON.MSET app:a $ 1 app:b $ 2"),
        ("JSON.MGET a b $", "JSON.MGET app:a app:b $"),
        ("TS.MADD a 1 2 b 3 4", "TS.MADD app:a 1 2 app:b 3 4"),
        ("FT.SUGADD k s 1", "FT.SUGADD app:k s 1"),
    ],
)
def test_keys_and_only_keys(command: str, sent: str) -> None:
    name, *args = command.split(" ")
    words, *expected = sent.split(" ")
    assert name == words
    assert KeyPrefix(PREFIX).rest(name.replace("|", " "), tuple(args)) == tuple(expected)


@pytest.mark.parametrize(
    ("key", "prefixed"),
    [
        ("k", "app:k"),
        (b"k\xff", b"app:k\xff"),
        (bytearray(b"k"), b"app:k"),
        (memoryview(b"k"), b"app:k"),
        (7, "app:7"),
        (2.5, "app:2.5"),
        ("", "app:"),
        (None, None),  # refused by the encoder
        (True, True),
    ],
)
def test_keys_of_every_type(key: Any, prefixed: Any) -> None:
    assert KeyPrefix(PREFIX).key(key) == prefixed


@pytest.mark.parametrize("key", [None, True, object()])
async def test_what_is_no_key_is_refused_as_without_a_prefix(prefixed: Client, key: Any) -> None:
    with pytest.raises(errors.DataError, match="argument 1 of GET"):
        await prefixed.get(key)


@pytest.mark.parametrize("name", ["NO.SUCH", "FT.SEARCH", "TS.MRANGE", "CONFIG NOPE", "MEMORY NOPE"])
async def test_a_command_whose_keys_are_not_known_is_refused(prefixed: Client, name: str) -> None:
    with pytest.raises(errors.DataError, match="key_prefix 'app:' cannot be applied"):
        await prefixed.execute(*name.split(), "k")
    with pytest.raises(errors.DataError, match="key_prefix"):
        prefixed.pipeline().execute_command(name, "k")


@pytest.mark.parametrize("bad", ["", "a*", "a?b", "[a", "a]", "a\\", "^", 5])
def test_prefixes_that_would_be_patterns_are_refused(bad: Any) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        Settings(key_prefix=bad)
    assert caught.value.field == "key_prefix"


def test_it_can_stand_in_a_url_and_in_a_mapping() -> None:
    assert Settings.from_url("redis://h?key_prefix=app:").key_prefix == PREFIX
    assert Settings.from_mapping("x", {"key_prefix": "app:"}).key_prefix == PREFIX
    assert Settings.from_mapping("x", {"key_prefix": ""}).key_prefix is None


# -- coming back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, 2, 3], ids=["default", "resp2", "resp3"])
@pytest.mark.parametrize("text", [True, False], ids=["text", "bytes"])
@pytest.mark.parametrize(
    ("prepare", "call"),
    [
        ("RPUSH l 1 2", "BLPOP l 1"),
        ("RPUSH l 1 2", "BRPOP l 1"),
        pytest.param("RPUSH l 1 2", "BLMPOP 1 1 l LEFT", marks=pytest.mark.needs("BLMPOP")),
        pytest.param("RPUSH l 1 2", "LMPOP 1 l LEFT", marks=pytest.mark.needs("LMPOP")),
        ("ZADD z 1 a 2 b", "BZPOPMIN z 1"),
        ("ZADD z 1 a 2 b", "BZPOPMAX z 1"),
        pytest.param("ZADD z 1 a 2 b", "BZMPOP 1 1 z MIN", marks=pytest.mark.needs("BZMPOP")),
        pytest.param("ZADD z 1 a 2 b", "ZMPOP 1 z MIN", marks=pytest.mark.needs("ZMPOP")),
        ("XADD x 1-1 f v", "XREAD STREAMS x 0"),
        ("XGROUP|CREATE x g 0 MKSTREAM", "XREADGROUP GROUP g c STREAMS x 0"),
        ("SET k v", "KEYS *"),
        ("SET k v", "SCAN 0 COUNT 1000"),
        ("SET k v", "RANDOMKEY"),
        pytest.param("SET k v", "LMPOP 1 nothing LEFT", marks=pytest.mark.needs("LMPOP")),
        ("SET k v", "XREAD STREAMS nothing 0"),
    ],
)
async def test_replies_are_those_of_a_client_without_a_prefix(
    redis: Client, kind: int | None, text: bool, prepare: str, call: str
) -> None:
    """The same call in an empty database, once with a prefix and once without."""
    base = msgspec.structs.replace(redis.settings, protocol=kind, decode_responses=text)
    replies = []
    for prefix in (None, PREFIX):
        await redis.flushdb()
        async with Client(msgspec.structs.replace(base, key_prefix=prefix)) as client:
            name, *args = prepare.split()
            await client.execute(*name.split("|"), *args)
            assert all(key.startswith(prefix or "") for key in await redis.keys("*"))
            replies.append(await client.execute(*call.split()))
    assert replies[0] == replies[1]


def test_every_reply_with_keys_is_stripped() -> None:
    """The table by plain calls: the shapes of RESP2 and RESP3."""
    prefix = KeyPrefix(PREFIX)
    shapes: dict[str, list[tuple[Any, Any]]] = {
        "KEYS": [(["app:a", "app:b"], ["a", "b"]), ([b"app:a"], [b"a"])],
        "SCAN": [(["0", ["app:a"]], ["0", ["a"]])],
        "CLUSTERSCAN": [(["app:0", ["app:a"]], ["app:0", ["a"]])],
        "RANDOMKEY": [("app:a", "a"), (b"app:a", b"a"), ("other", None), (None, None), ("QUEUED", "QUEUED")],
        "CLUSTER GETKEYSINSLOT": [(["app:a", "other"], ["a"])],
        "XREAD": [([["app:a", []]], [["a", []]]), ({"app:a": []}, {"a": []}), (None, None)],
        "XREADGROUP": [([[b"app:a", []]], [[b"a", []]]), ({b"app:a": []}, {b"a": []})],
    }
    popped: list[tuple[Any, Any]] = [(["app:a", "app:v"], ["a", "app:v"]), (None, None), ([], [])]
    for name in _STRIPS:
        convert = prefix.converter(name.lower(), None)
        assert convert is not None
        for reply, expected in shapes.get(name, popped):
            assert convert(reply) == expected, name
        assert convert("QUEUED") == "QUEUED"
    assert prefix.converter("GET", None) is None
    assert prefix.converter("GET", str) is str


def test_the_tables_name_commands_that_exist() -> None:
    assert set(_EDITS) | set(_STRIPS) <= set(RULES)


# -- everything that sends -----------------------------------------------------------------------------------


async def test_commands(redis: Client, prefixed: Client) -> None:
    await prefixed.set("k", "v")
    await prefixed.hset("h", mapping={"k": "v"})
    assert await prefixed.get("k") == "v"
    assert await names(redis) == {"app:k", "app:h"}
    assert await redis.get("app:k") == "v"
    assert await prefixed.mget(["k", "nothing"]) == ["v", None]


async def test_others_keys_are_not_seen(redis: Client, prefixed: Client) -> None:
    await redis.set("k", "of somebody else")
    await prefixed.set("mine", "v")
    assert await prefixed.get("k") is None
    assert await prefixed.keys() == ["mine"]
    assert [key async for key in prefixed.scan_iter()] == ["mine"]
    assert [key async for key in prefixed.scan_iter("m*", count=5)] == ["mine"]
    assert [key async for key in prefixed.scan_iter("app*")] == []
    await prefixed.delete("mine")
    assert await prefixed.randomkey() is None
    assert await redis.randomkey() == "k"


@pytest.mark.needs("LMPOP")
@pytest.mark.parametrize("transaction", [True, False])
async def test_pipelines(redis: Client, prefixed: Client, transaction: bool) -> None:
    replies = (
        await prefixed.pipeline(transaction)
        .set("a", 1)
        .rpush("l", "x")
        .lmpop(1, "l", direction="LEFT")
        .keys()
        .exec()
    )
    assert replies == [True, 1, ["l", ["x"]], ["a"]]
    assert await names(redis) == {"app:a"}


async def test_watched_transactions(redis: Client, prefixed: Client) -> None:
    await prefixed.set("n", 1)

    async def double(pipe: Any) -> None:
        value = int(await pipe.get("n"))
        if value == 1:
            await redis.set("app:n", 5)  # the watch is on the real key
        pipe.multi()
        pipe.set("n", value * 2)

    await prefixed.transaction(double, "n")
    assert await redis.get("app:n") == "10"


async def test_scripts(redis: Client, prefixed: Client) -> None:
    source = "redis.call('set', KEYS[1], ARGV[1]); return KEYS[1]"
    script = prefixed.script(source)
    assert await script(keys=["a"], args=["k"]) == "app:a"  # what a script returns is its own affair
    assert await prefixed.eval(source, 1, "b", "k") == "app:b"
    pipe = prefixed.pipeline()
    await script(keys=["c"], args=["k"], client=pipe)
    await pipe.execute()
    assert await names(redis) == {"app:a", "app:b", "app:c"}
    assert await redis.get("app:c") == "k"


async def test_sessions(redis: Client, prefixed: Client) -> None:
    async with prefixed.client() as session:
        await session.set("k", "v")
        assert await session.keys() == ["k"]
    assert await names(redis) == {"app:k"}


async def test_blocking_commands(redis: Client, prefixed: Client) -> None:
    waiting = asyncio.ensure_future(prefixed.blpop(["a", "l"], timeout=5))
    await prefixed.rpush("l", "x")
    assert await waiting in (["l", "x"], ("l", "x"))
    assert await names(redis) == set()


async def test_locks(redis: Client, prefixed: Client) -> None:
    async with prefixed.lock("door", timeout=5):
        assert await names(redis) == {"app:door"}
    assert await names(redis) == set()


async def test_views(redis: Client, prefixed: Client) -> None:
    raw = prefixed.with_options(decode_responses=False)
    slow = prefixed.with_options(timeout=30).with_options(retry=prefixed.settings.retry)
    await raw.set(b"k\xff", b"v")
    await slow.set("s", "v")
    assert sorted(await raw.keys()) == [b"k\xff", b"s"]
    assert set(await redis.with_options(decode_responses=False).keys()) == {b"app:k\xff", b"app:s"}
    assert await slow.pipeline().get("s").exec() == ["v"]


async def test_channels_are_no_keys(redis: Client, prefixed: Client) -> None:
    async with await redis.subscribe("news") as subscription:
        await prefixed.publish("news", "hello")
        async for message in subscription:
            assert (message.channel, message.data) == ("news", "hello")
            break


async def test_converters_set_by_the_user_see_stripped_keys(prefixed: Client) -> None:
    prefixed.set_response_callback("KEYS", lambda reply, **_: ",".join(sorted(reply)))
    await prefixed.mset({"a": 1, "b": 2})
    assert await prefixed.keys() == "a,b"


async def test_redis_pys_own_pipelines(redis: Client, prefixed: Client) -> None:
    """Those of its module classes send on a connection of their own."""
    connection = await prefixed.connection_pool.get_connection()
    await connection.send_command("SET", "k", "v")
    await connection.read_response()
    await connection.send_packed_command(connection.pack_commands([("MEMORY USAGE", "k"), (b"GET", "k")]))
    assert isinstance(await connection.read_response(), int)
    assert await connection.read_response() == "v"
    await connection.disconnect()
    assert await names(redis) == {"app:k"}


async def test_sort_by_and_get(redis: Client, prefixed: Client) -> None:
    await prefixed.rpush("ids", 1, 2)
    await prefixed.mset({"w_1": 20, "w_2": 10, "name_1": "one", "name_2": "two"})
    assert await prefixed.sort("ids", by="w_*", get="name_*") == ["two", "one"]
    assert await prefixed.sort("ids", by="nosort", get=["#"]) == ["1", "2"]


async def test_nothing_is_left_outside_the_prefix(redis: Client) -> None:
    settings = msgspec.structs.replace(redis.settings, key_prefix="{tag}:")
    async with Client(settings) as client:
        await client.set("a", 1)
        await client.copy("a", "b")
        await client.rename("b", "c")
        await client.sadd("s1", "x")
        await client.sunionstore("s2", ["s1"])
        await client.zadd("z", {"m": 1})
        await client.zunionstore("z2", ["z"])
        await client.pfadd("p", "x")
        await client.pfmerge("p2", "p")
        await client.geoadd("g", (1, 2, "here"))
        await client.bitop("NOT", "bits", "a")
        await client.xadd("x", {"f": "v"})
        await client.xgroup_create("x", "g")
        await client.restore("r", 0, await client.dump("a"))
        with pytest.raises(redis_py.ResponseError):
            await client.lpush("a", "x")
    assert all(name.startswith("{tag}:") for name in await names(redis))
