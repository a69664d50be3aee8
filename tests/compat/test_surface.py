"""Code written for redis.asyncio.Redis, run on both clients: more than single calls and their replies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from .clients import atlas, redis_py

CLIENTS = {"redis-py": redis_py, "atlas": atlas}


@pytest.fixture(params=CLIENTS)
async def connect(
    request: pytest.FixtureRequest, socket_path: str, wipe: Callable[[], None]
) -> AsyncIterator[Callable[..., Any]]:
    """Make a client of either kind; closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(**options: Any) -> Any:
            return await stack.enter_async_context(CLIENTS[request.param](socket_path, **options))

        yield connect


@pytest.fixture
async def r(connect: Callable[..., Any]) -> Any:
    return await connect(decode_responses=True)


async def test_dump_and_restore(connect: Callable[..., Any]) -> None:
    r = await connect(decode_responses=False)
    await r.rpush("l", 1, b"\xff")
    payload = await r.dump("l")
    assert isinstance(payload, bytes)
    assert await r.restore("copy", 0, payload) in (True, b"OK")
    assert await r.lrange("copy", 0, -1) == [b"1", b"\xff"]


async def test_dump_is_bytes_though_text_is_asked_for(r: Any) -> None:
    await r.set("k", "v")
    assert isinstance(await r.dump("k"), bytes)


async def test_iteration(r: Any) -> None:
    await r.mset({f"key:{n}": n for n in range(500)})
    await r.hset("h", mapping={str(n): n for n in range(600)})
    await r.sadd("s", *range(600))
    await r.zadd("z", {str(n): n for n in range(600)})
    assert {key async for key in r.scan_iter("key:*", count=50)} == {f"key:{n}" for n in range(500)}
    assert {pair async for pair in r.hscan_iter("h")} == {(str(n), str(n)) for n in range(600)}
    assert {member async for member in r.sscan_iter("s", count=10)} == {str(n) for n in range(600)}
    assert {pair async for pair in r.zscan_iter("z")} == {(str(n), float(n)) for n in range(600)}


async def test_registered_script(r: Any) -> None:
    script = r.register_script("return {KEYS[1], ARGV[1], #ARGV}")
    assert await script(keys=["k"], args=["a", "b"]) == ["k", "a", 2]
    await r.script_flush()
    assert await script(["k"], ["a"]) == ["k", "a", 1]
    async with r.pipeline() as pipe:
        pipe.set("x", 1)
        await script(keys=["k"], args=[1], client=pipe)
        assert await pipe.execute() == [True, ["k", "1", 1]]


async def test_lock(r: Any) -> None:
    lock = r.lock("lock", timeout=10)
    assert await lock.acquire()
    assert await lock.locked()
    assert await lock.owned()
    assert not await r.lock("lock", timeout=10).acquire(blocking=False)
    assert await lock.extend(5)
    await lock.release()
    async with r.lock("lock", timeout=10, blocking_timeout=1):
        assert await r.exists("lock") == 1
    assert await r.exists("lock") == 0
    with pytest.raises(redis.exceptions.LockError):
        await lock.release()


async def test_pipeline_by_hand(r: Any) -> None:
    pipe = r.pipeline()
    assert len(pipe) == 0
    assert pipe  # an empty pipeline is true all the same
    assert pipe.set("a", 1) is pipe
    pipe.get("a").incr("a").hset("h", mapping={"f": 1}).hgetall("h").zadd("z", {"m": 1}).zscore("z", "m")
    assert len(pipe) == 7
    assert await pipe.execute() == [True, "1", 2, 1, {"f": "1"}, 1, 1.0]
    assert len(pipe) == 0
    assert await pipe.execute() == []


@pytest.mark.parametrize("transaction", [True, False])
async def test_pipeline_errors(r: Any, transaction: bool) -> None:
    async with r.pipeline(transaction=transaction) as pipe:
        replies = await pipe.set("a", "x").incr("a").get("a").execute(raise_on_error=False)
        assert replies == [True, replies[1], "x"]
        assert isinstance(replies[1], redis.ResponseError)
        with pytest.raises(redis.ResponseError, match="INCR"):
            await pipe.set("a", "x").incr("a").execute()
        assert await pipe.set("b", 1).execute() == [True]


async def test_a_refused_command_discards_the_transaction(r: Any) -> None:
    async with r.pipeline() as pipe:
        pipe.set("a", 1).execute_command("GET")
        with pytest.raises(redis.ResponseError):
            await pipe.execute()
    assert await r.exists("a") == 0


async def test_watch_multi_execute(connect: Callable[..., Any], r: Any) -> None:
    other = await connect()
    await r.set("n", 1)
    async with r.pipeline() as pipe:
        await pipe.watch("n")
        value = int(await pipe.get("n"))
        await other.set("n", 50)
        pipe.multi()
        pipe.set("n", value + 1)
        with pytest.raises(redis.WatchError):
            await pipe.execute()
    async with r.pipeline() as pipe:
        await pipe.watch("n")
        value = int(await pipe.get("n"))
        pipe.multi()
        pipe.set("n", value + 1)
        assert await pipe.execute() == [True]
    assert int(await r.get("n")) == 51


async def test_unwatch_and_reset(connect: Callable[..., Any], r: Any) -> None:
    other = await connect()
    async with r.pipeline() as pipe:
        await pipe.watch("n")
        await pipe.unwatch()
        await other.set("n", 2)
        pipe.multi()
        assert await pipe.get("n").execute() == ["2"]
        pipe.set("x", 1)
        await pipe.reset()
        assert len(pipe) == 0


async def test_transaction_retries(connect: Callable[..., Any], r: Any) -> None:
    other = await connect()
    await r.set("n", 1)
    tries = []

    async def increment(pipe: Any) -> str:
        value = int(await pipe.get("n"))
        if not tries:
            await other.set("n", 10)
        tries.append(value)
        pipe.multi()
        pipe.set("n", value + 1)
        return "done"

    assert await r.transaction(increment, "n", value_from_callable=True) == "done"
    assert tries == [1, 10]
    assert await r.get("n") == "11"
    assert await r.transaction(increment, "n") == [True]


async def test_pubsub_messages(r: Any) -> None:
    async with r.pubsub() as pubsub:
        await pubsub.subscribe("a", "b")
        await pubsub.psubscribe("p*")
        seen = [await pubsub.get_message(timeout=5) for _ in range(3)]
        assert [(m["type"], m["channel"], m["data"]) for m in seen] == [
            ("subscribe", "a", 1),
            ("subscribe", "b", 2),
            ("psubscribe", "p*", 3),
        ]
        assert await r.publish("a", "hello") == 1
        assert await r.publish("pq", "there") == 1
        assert await pubsub.get_message(timeout=5) == {
            "type": "message", "pattern": None, "channel": "a", "data": "hello"
        }  # fmt: skip
        assert await pubsub.get_message(timeout=5) == {
            "type": "pmessage", "pattern": "p*", "channel": "pq", "data": "there"
        }  # fmt: skip
        assert await pubsub.get_message(timeout=0.01) is None
        assert await r.pubsub_numsub("a", "b") == [("a", 1), ("b", 1)]
        await pubsub.unsubscribe("a")
        assert (await pubsub.get_message(timeout=5))["type"] == "unsubscribe"


async def test_pubsub_listen_and_handlers(r: Any) -> None:
    handled: list[Any] = []
    async with r.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("plain", handled=handled.append)
        await pubsub.ping()
        await r.publish("handled", "1")
        await r.publish("plain", "2")
        async for message in pubsub.listen():
            if message["type"] == "message":
                assert message["data"] == "2"
                break
    assert [message["data"] for message in handled] == ["1"]


async def test_monitor(r: Any) -> None:
    async with r.monitor() as monitor:
        await r.set("observed", "v")
        while True:
            seen = await asyncio.wait_for(monitor.next_command(), 5)
            if "observed" in seen["command"]:
                break
    assert set(seen) == {"time", "db", "client_address", "client_port", "client_type", "command"}
    assert (seen["db"], seen["command"]) == (0, "SET observed v")


async def test_replies_as_tasks(r: Any) -> None:
    await r.set("k", "v")
    assert await asyncio.gather(*(r.get("k") for _ in range(100))) == ["v"] * 100
    assert await asyncio.wait_for(r.get("k"), 5) == "v"
    done, _ = await asyncio.wait([asyncio.ensure_future(r.get("k")), asyncio.ensure_future(r.get("zz"))])
    assert {task.result() for task in done} == {"v", None}
    assert [await reply for reply in asyncio.as_completed([r.get("k"), r.get("k")])] == ["v", "v"]
    async with asyncio.timeout(5):
        assert await r.get("k") == "v"


async def test_replies_given_to_create_task(r: Any) -> None:
    await r.set("k", "v")
    task = asyncio.create_task(r.get("k"))
    assert await task == "v"
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(r.incr("n")) for _ in range(20)]
    assert sorted(task.result() for task in tasks) == list(range(1, 21))


async def test_a_waiting_pop_is_cancelled_and_loses_nothing(r: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(r.blpop("queue", 0), 0.05)
    await r.get("k")
    waiting = asyncio.ensure_future(r.blpop("queue", 5))
    while not any("b" in client["flags"] for client in await r.client_list()):
        pass  # each look is a round trip
    await r.rpush("queue", "job")
    assert tuple(await waiting) == ("queue", "job")
    assert await r.llen("queue") == 0


async def test_response_callbacks(r: Any) -> None:
    r.set_response_callback("GET", lambda reply, **options: f"<{reply}>")
    await r.set("k", "v")
    assert await r.get("k") == "<v>"


async def test_awaiting_the_client(r: Any) -> None:
    assert await r.initialize() is r
    assert await r is r


async def test_a_connection_of_ones_own(r: Any) -> None:
    async with r.client() as own:
        await own.select(1)
        await own.set("only-in-one", 1)
        assert await own.dbsize() == 1
        await own.flushdb()
        await own.select(0)
        assert await own.client_setname("mine")
        assert await own.client_getname() == "mine"


async def test_state_of_a_leased_wire_does_not_leak(socket_path: str, wipe: Callable[[], None]) -> None:
    """Unlike redis-py's, whose pool takes back a connection that was left in another database."""
    async with atlas(socket_path) as r:
        await r.select(1)
        async with r.client() as own:
            await own.select(1)
            await own.set("only-in-one", 1)
        assert await r.exists("only-in-one") == 0
        assert await r.blpop("no-list", 0.01) is None
        assert await r.dbsize() == 0
        assert await r.client_setname("mine")
        assert await r.client_getname() != "mine"


async def test_closing_twice(r: Any) -> None:
    await r.ping()
    await r.aclose()
    await r.aclose()
    assert await r.ping()


async def test_locks_of_both_clients_in_one_process(
    socket_path: str, wipe: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # redis-py keeps a lock's scripts on the class; ours must not be what its own clients find there
    monkeypatch.setattr("redis.asyncio.lock.Lock.lua_release", None)
    async with atlas(socket_path) as ours, redis_py(socket_path) as theirs:
        async with ours.lock("lock", timeout=10):
            assert await ours.exists("lock") == 1
        assert await ours.exists("lock") == 0
        wipe()
        async with theirs.lock("lock", timeout=10):
            assert await theirs.exists("lock") == 1
        assert await theirs.exists("lock") == 0
