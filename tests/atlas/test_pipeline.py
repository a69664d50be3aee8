"""Pipelines and transactions on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.exceptions as redis_errors

from gravito import errors
from gravito.atlas._batches import CHUNK_COMMANDS, chunks
from gravito.atlas._bundle import bundle
from gravito.atlas.client import Client
from gravito.atlas.embedded import Engine

Redis = Any
BOTH = pytest.mark.parametrize("atomic", [False, True])


@BOTH
async def test_the_ways_to_send(redis: Redis, atomic: bool) -> None:
    for send in ("exec", "execute"):
        pipe = redis.pipeline(atomic).set("key1", "val1").set("key2", "val2").get("key1")
        assert await getattr(pipe, send)() == [True, True, "val1"]
        assert len(pipe) == 0
    assert await redis.pipeline(atomic).incr("n").incr("n") == [1, 2]
    async with redis.pipeline(atomic) as pipe:
        await pipe.set("a", 1)  # inside `async with` awaiting sends nothing, as in redis-py
        pipe.get("a")
        assert len(pipe) == 2
        assert await pipe.execute() == [True, "1"]
        assert await pipe.get("a").execute() == ["1"]


@BOTH
async def test_an_empty_pipeline(redis: Redis, atomic: bool) -> None:
    assert await redis.pipeline(atomic).exec() == []
    assert bool(redis.pipeline())
    async with redis.pipeline(atomic):
        pass


@BOTH
async def test_an_error_is_raised_with_its_index_and_name(redis: Redis, atomic: bool) -> None:
    await redis.set("text", "x")
    with pytest.raises(errors.ResponseError, match=r"# 2 \(LPUSH\)") as caught:
        await redis.pipeline(atomic).set("a", 1).lpush("text", 1).set("b", 2).exec()
    assert caught.value.command == "LPUSH"
    assert isinstance(caught.value, redis_errors.ResponseError)
    assert await redis.mget("a", "b") == ["1", "2"]


@BOTH
async def test_errors_in_their_place(redis: Redis, atomic: bool) -> None:
    await redis.set("text", "x")
    replies = await redis.pipeline(atomic).get("text").lpush("text", 1).get("text").exec(raise_on_error=False)
    assert (replies[0], replies[2]) == ("x", "x")
    assert isinstance(replies[1], errors.WrongTypeError)
    assert replies[1].command == "LPUSH"


async def test_a_refused_transaction(redis: Redis) -> None:
    with pytest.raises(errors.ResponseError, match=r"# 2 \(NOSUCH\)") as caught:
        await redis.pipeline().set("a", 1).execute_command("NOSUCH").exec()
    assert isinstance(caught.value.__cause__, errors.ExecAbortError)
    assert await redis.get("a") is None


@BOTH
async def test_a_bad_argument_is_refused_at_its_line(redis: Redis, atomic: bool) -> None:
    pipe = redis.pipeline(atomic).set("a", 1)
    with pytest.raises(errors.DataError):
        pipe.set("b", None)
    assert await pipe.exec() == [True]


async def test_a_hundred_thousand_commands(redis: Redis) -> None:
    pipe = redis.pipeline(False)
    for n in range(100_000):
        pipe.execute_command("ECHO", n)
    call = asyncio.ensure_future(pipe.exec())
    await asyncio.sleep(0)
    assert await redis.ping()  # others get their turn
    assert await call == [str(n) for n in range(100_000)]


async def test_a_large_transaction_is_one(redis: Redis) -> None:
    pipe = redis.pipeline()
    for n in range(20_000):
        pipe.set(f"k{n}", "x" * 100)
    assert await pipe.exec() == [True] * 20_000
    assert await redis.dbsize() == 20_000


@BOTH
async def test_bytes_among_text(redis: Redis, atomic: bool) -> None:
    await redis.set("k", "k\u00fche")
    for before in range(3):
        pipe = redis.pipeline(atomic)
        for _ in range(before):
            pipe.get("k")
        replies = await pipe.dump("k").get("k").dump("k").exec()
        assert [type(reply) for reply in replies] == [str] * before + [bytes, str, bytes]
    with_bytes = redis.with_options(decode_responses=False)
    assert await with_bytes.pipeline(atomic).get("k").exec() == ["k\u00fche".encode()]


@BOTH
async def test_what_is_no_text_fails_in_its_place(redis: Redis, atomic: bool) -> None:
    await redis.set("bad", b"\xff")
    if not atomic:
        good, bad, also = await redis.pipeline(False).get("no").get("bad").ping().exec(raise_on_error=False)
        assert (good, also) == (None, True)
        assert isinstance(bad, UnicodeDecodeError)
    with pytest.raises(UnicodeDecodeError):
        await redis.pipeline(atomic).ping().get("bad").exec()
    assert await redis.ping()


async def test_many_at_once_share_the_wire(redis: Redis) -> None:
    async def one(n: int) -> bool:
        replies = await redis.pipeline(n % 2 == 0).set(f"k{n}", n).get(f"k{n}").incr(f"k{n}").exec()
        return replies == [True, str(n), n + 1]

    assert all(await asyncio.gather(*[one(n) for n in range(500)]))
    assert redis._state().topology.pool.lent == 0


# -- watching --------------------------------------------------------------------------------------------------


async def test_watch_and_a_conflict(redis: Redis) -> None:
    await redis.set("k", "1")
    async with redis.pipeline() as pipe:
        await pipe.watch("k")
        assert await pipe.get("k") == "1"
        await redis.set("k", "2")
        pipe.multi()
        pipe.set("k", "3")
        with pytest.raises(errors.WatchError):
            await pipe.execute()
        assert not pipe.watching
    assert await redis.get("k") == "2"
    assert redis._state().topology.pool.lent == 0


async def test_watch_without_a_conflict(redis: Redis) -> None:
    async with redis.pipeline() as pipe:
        await pipe.watch("k", "l")
        assert await pipe.get("k") is None
        pipe.multi()
        pipe.set("k", 1).incr("k")
        assert await pipe.execute() == [True, 2]
        await pipe.watch("k")
        assert await pipe.dump("k") == await redis.dump("k")
        await pipe.unwatch()
        await redis.set("k", "other")
        assert await pipe.get("k").execute() == ["other"]


async def test_watch_gives_its_wire_back_when_the_caller_is_cancelled(redis: Redis) -> None:
    async def hold() -> None:
        async with redis.pipeline() as pipe:
            await pipe.watch("k")
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    while not redis._states or not redis._state().topology.pool.lent:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert redis._state().topology.pool.lent == 0


async def test_a_lost_connection_is_a_conflict(redis: Redis) -> None:
    async with redis.pipeline() as pipe:
        await pipe.watch("k")
        await redis.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.01)
        with pytest.raises(errors.WatchError, match="lost"):
            await pipe.get("k")


async def test_misuse(redis: Redis) -> None:
    pipe = redis.pipeline().set("a", 1)
    with pytest.raises(errors.WatchError):
        pipe.multi()
    await pipe.reset()
    pipe.multi()
    with pytest.raises(errors.WatchError):
        pipe.multi()
    with pytest.raises(errors.WatchError):
        await pipe.watch("k")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_transaction_tries_until_there_is_no_conflict(redis: Redis, asynchronous: bool) -> None:
    """Every task adds one; each conflict is a further try."""
    tries = 0

    async def add(pipe: Any) -> str:
        nonlocal tries
        tries += 1
        value = int(await pipe.get("n") or 0)
        await asyncio.sleep(0)
        pipe.multi()
        pipe.set("n", value + 1)
        return "value"

    results = await asyncio.gather(
        *[redis.transaction(add, "n", value_from_callable=True) for _ in range(10)]
    )
    assert results == ["value"] * 10
    assert await redis.get("n") == "10"
    assert tries >= 10

    def plain(pipe: Any) -> None:
        pipe.multi()
        pipe.get("n")

    assert await redis.transaction(plain, "n") == ["10"]


# -- the ways it may take --------------------------------------------------------------------------------------


async def test_what_needs_a_wire_of_its_own_gets_it(redis: Redis) -> None:
    assert await redis.pipeline(False).select(4).set("k", "four").exec() == [True, True]
    assert await redis.get("k") is None
    assert redis._state().topology.pool.idle == 0
    popping = asyncio.ensure_future(redis.pipeline(False).blpop("list", 0).ping().exec())
    await asyncio.sleep(0.02)
    assert await redis.ping()
    await redis.rpush("list", "x")
    assert await popping == [("list", "x"), True]
    assert await redis.pipeline().blpop("list", 0).exec() == [None]  # inside MULTI nothing blocks


async def test_large_ones_keep_out_of_the_way(redis: Redis, gravito_engine: Engine) -> None:
    async with Client.from_url(f"unix://{gravito_engine.path}", limits={"lease_over": 1000}) as client:
        assert await client.pipeline().set("k", "x" * 5000).get("k").exec() == [True, "x" * 5000]
        await asyncio.sleep(0.01)
        assert client._state().topology.pool.idle == 1


async def test_a_converter_that_fails_stands_in_its_place(redis: Redis) -> None:
    def broken(_: Any, **__: Any) -> Any:
        raise ValueError("unreadable")

    redis.set_response_callback("ECHO", broken)
    replies = await redis.pipeline(False).ping().echo("x").ping().exec(raise_on_error=False)
    assert (replies[0], replies[2]) == (True, True)
    assert isinstance(replies[1], ValueError)
    with pytest.raises(ValueError, match="unreadable"):
        await redis.pipeline(False).echo("x").exec()
    with pytest.raises(ValueError, match="unreadable"):
        await redis.echo("x")


# -- bundles -------------------------------------------------------------------------------------------------


async def test_a_bundle_is_one_write_with_errors_in_their_places(redis: Redis) -> None:
    await redis.ping()
    before = redis.stats().commands
    replies = await bundle(redis, [("SET", "a", b"\xff", "PX", 60_000), ("INCR", "a"), ("MGET", "a", "none")])
    assert redis.stats().commands - before == 3
    assert replies[0] == b"OK"
    assert isinstance(replies[1], errors.ResponseError)
    assert replies[2] == [b"\xff", None]
    assert await bundle(redis, []) == []


async def test_a_bundle_of_a_client_with_options(gravito_engine: Engine) -> None:
    url = f"unix://{gravito_engine.ensure()}"
    async with Client.from_url(url, key_prefix="app:") as prefixed, Client.from_url(url) as plain:
        assert (await bundle(prefixed, [("SET", "b", "1"), ("MGET", "b")]))[1] == [b"1"]
        assert await plain.get("app:b") == "1"
        patient = plain.with_options(timeout=60)
        assert (await bundle(patient, [("SET", "c", "1"), ("MGET", "c")]))[1] == [b"1"]
        with pytest.raises(errors.DataError):
            await bundle(plain, [("SET", "d", object())])
        assert await plain.get("d") is None


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [
        ([], [(0, 0)]),
        ([10], [(0, 1)]),
        ([600_000] * 5, [(0, 2), (2, 4), (4, 5)]),
        ([10, 5_000_000, 10], [(0, 2), (2, 3)]),
        ([1] * CHUNK_COMMANDS, [(0, CHUNK_COMMANDS)]),
        ([1] * (CHUNK_COMMANDS + 1), [(0, CHUNK_COMMANDS), (CHUNK_COMMANDS, CHUNK_COMMANDS + 1)]),
    ],
)
def test_a_large_one_travels_in_parts_of_few_commands_and_few_bytes(
    sizes: list[int], bounds: list[tuple[int, int]]
) -> None:
    assert list(chunks([b"x" * size for size in sizes])) == bounds
