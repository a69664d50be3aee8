"""The client on a real server: loops, views, the ways to call it, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from typing import Any

import pytest

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.embedded import Engine

Redis = Any


def run_program(body: str, path: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, every warning shown."""
    program = (
        "import asyncio, gc, sys\nfrom gravito.atlas.client import Client\nURL = 'unix://' + sys.argv[1]\n"
    )
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always", "-c", program + textwrap.dedent(body), path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# -- loops -----------------------------------------------------------------------------------------------------


def test_two_loops_one_after_the_other(redis: Redis) -> None:
    async def work(value: str) -> tuple[bool, str, int]:
        return await redis.set("k", value), await redis.get("k"), await redis.client_id()

    first, second = asyncio.run(work("a")), asyncio.run(work("b"))
    assert (first[:2], second[:2]) == ((True, "a"), (True, "b"))
    assert first[2] != second[2]


def test_two_loops_in_two_threads(redis: Redis) -> None:
    ids: list[int] = []
    both = threading.Barrier(2)

    async def work(name: str) -> None:
        ids.append(await redis.client_id())
        await asyncio.to_thread(both.wait, 5)
        for n in range(300):
            assert await redis.set(f"{name}:{n}", n)
            assert await redis.get(f"{name}:{n}") == str(n)
        await asyncio.to_thread(both.wait, 5)

    threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(ids)) == 2


def test_closing_reaches_the_wires_of_other_loops(redis: Redis) -> None:
    opened, done = threading.Event(), threading.Event()

    async def other() -> None:
        assert await redis.ping()
        wire = redis._state().topology.shared.wire
        opened.set()
        async with asyncio.timeout(5):
            while wire.ended is None:  # noqa: ASYNC110  # closed by the other thread
                await asyncio.sleep(0.005)
        done.set()

    async def here() -> None:
        await redis.ping()
        await redis.aclose()

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert opened.wait(5)
    asyncio.run(here())
    thread.join(10)
    assert done.is_set()


def test_lazy_without_a_loop() -> None:
    client = Client.from_url("redis://127.0.0.1:1")
    assert client._states == {}
    client.pipeline().set("a", 1)
    client.script("return 1")
    with pytest.raises(RuntimeError):
        client.get("k")


# -- the end ---------------------------------------------------------------------------------------------------


async def test_used_again_after_it_was_closed(redis: Redis) -> None:
    first = await redis.client_id()
    await redis.aclose()
    assert redis._states == {}
    await redis.aclose()
    assert await redis.client_id() != first


async def test_nested_use_closes_at_the_outer_end(redis: Redis) -> None:
    async with redis as outer:
        async with outer.with_options(decode_responses=False) as inner:
            assert await inner.ping()
        assert redis._states
    assert redis._states == {}


async def test_closing_finishes_what_is_in_flight(redis: Redis) -> None:
    await redis.ping()
    calls = [redis.set(f"k{n}", n) for n in range(1000)]
    await redis.aclose()
    assert await asyncio.gather(*calls) == [True] * 1000
    assert await redis.dbsize() == 1000


async def test_closing_that_is_cancelled_still_closes(redis: Redis) -> None:
    await redis.blpop("none", 0.01)  # leaves a leased wire idle
    await redis.ping()
    topology = redis._state().topology
    wire = topology.shared.wire
    assert topology.pool.idle == 1
    pending = asyncio.ensure_future(redis.execute("DEBUG", "SLEEP", "0"))
    redis.set("k", "v")
    closing = asyncio.create_task(redis.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, pending, return_exceptions=True)
    assert wire.ended is not None
    assert topology.pool.idle == 0


def test_a_program_that_closes_nothing_leaves_nothing(gravito_engine: Engine) -> None:
    body = """
    async def main():
        client = Client.from_url(URL)
        await client.set("k", "v")
        await client.subscribe("c", print)
        await client.blpop("none", 0.01)
        asyncio.create_task(client.blpop("none", 0))
        client.get("k")
        await asyncio.sleep(0.01)
        return client
    client = asyncio.run(main())
    del client
    gc.collect()
    print("done")
    """
    done = run_program(body, gravito_engine.ensure())
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_a_loop_that_is_closed_without_its_end_warns(gravito_engine: Engine) -> None:
    body = """
    client = Client.from_url(URL)
    async def main():
        await client.ping()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del client, loop
    gc.collect()
    """
    done = run_program(body, gravito_engine.ensure())
    assert "ResourceWarning" in done.stderr
    assert done.returncode == 0


async def test_a_client_that_is_dropped_warns_and_closes(gravito_engine: Engine, redis: Redis) -> None:
    client = Client.from_url(f"unix://{gravito_engine.path}")
    await client.ping()
    wire = client._state().topology.shared.wire
    assert wire is not None
    with pytest.warns(ResourceWarning, match="unclosed client"):  # noqa: PT031  # dropping it is one step, collecting it another
        del client
        gc.collect()
    gc.collect()  # the warning held it
    async with asyncio.timeout(10):
        while wire.ended is None:  # noqa: ASYNC110  # the collector's doing
            await asyncio.sleep(0.005)


async def test_errors_leave_no_garbage_that_cannot_be_collected(redis: Redis) -> None:
    """An error's traceback holds the frame, whose variable holds the call, whose future holds the error."""
    await redis.set("text", "x")

    async def fail() -> weakref.ref[BaseException]:
        call = redis.lpush("text", 1)
        try:
            await call
        except errors.WrongTypeError as error:
            return weakref.ref(error)
        raise AssertionError

    references = [await fail() for _ in range(20)]
    del references[-1]  # what failed last may still be held by the interpreter
    gc.collect()
    assert [reference() for reference in references] == [None] * 19


# -- calling ---------------------------------------------------------------------------------------------------


async def test_text_and_bytes(redis: Redis) -> None:
    raw = redis.with_options(decode_responses=False)
    await redis.hset("h", mapping={"k\u00fche": "muh"})
    assert await redis.hgetall("h") == {"k\u00fche": "muh"}
    assert await raw.hgetall("h") == {"k\u00fche".encode(): b"muh"}
    assert await redis.execute("HGET", "h", "k\u00fche", decode_responses=False) == b"muh"
    assert await raw.execute("HGET", "h", "k\u00fche", decode_responses=True) == "muh"
    assert await raw.client_id() == await redis.client_id()
    assert isinstance(await redis.dump("h"), bytes)


async def test_execute(redis: Redis) -> None:
    await redis.set("k", "v")
    assert await redis.execute("OBJECT", "REFCOUNT", "k") == 1
    assert await redis.execute("config get", "maxmemory") == {"maxmemory": "0"}
    assert await redis.execute("CONFIG", "GET", "maxmemory") == {"maxmemory": "0"}
    assert await redis.execute(b"GET", b"k") == "v"
    for wrong in ((), ("",), (None,), (" ",)):
        with pytest.raises(errors.DataError):
            redis.execute(*wrong)
    with pytest.raises(errors.PubSubError):
        redis.execute("SUBSCRIBE", "c")
    with pytest.raises(errors.ResponseError, match="unknown command"):
        await redis.execute("NO.SUCH.COMMAND")


async def test_all_ways_to_await(redis: Redis) -> None:
    await redis.set("k", "v")
    assert await asyncio.create_task(redis.get("k")) == "v"
    assert await asyncio.wait_for(redis.get("k"), 1) == "v"
    assert await asyncio.shield(redis.get("k")) == "v"
    assert await asyncio.gather(redis.get("k"), redis.get("none")) == ["v", None]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(redis.get("k")) for _ in range(10)]
    assert [task.result() for task in tasks] == ["v"] * 10
    assert [await call for call in asyncio.as_completed([redis.get("k"), redis.get("k")])] == ["v", "v"]
    done, _ = await asyncio.wait([asyncio.ensure_future(redis.get("k"))])
    assert done.pop().result() == "v"
    call = redis.get("k")
    assert (await call, await call) == ("v", "v")


async def test_fire_and_forget(redis: Redis) -> None:
    for n in range(100):
        redis.rpush("list", n)
    assert await redis.lrange("list", 0, -1) == [str(n) for n in range(100)]


async def test_cancelling_one_of_many(redis: Redis) -> None:
    tasks = [asyncio.create_task(redis.execute("ECHO", n)) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [reply for n, reply in enumerate(replies) if n % 3] == [str(n) for n in range(100) if n % 3]


async def test_a_killed_wire_comes_back(redis: Redis) -> None:
    await redis.set("k", "v")
    for _ in range(3):
        with contextlib.suppress(errors.ConnectionLostError):  # the reply may come before the end
            await redis.client_kill_filter(_type="normal", skipme=False)
        assert await redis.get("k") == "v"


async def test_a_server_that_ends_and_starts_again() -> None:
    with Engine() as engine:
        async with Client.from_url(f"unix://{engine.path}", retry={"attempts": 0}) as client:
            await client.set("k", "v")
            engine.stop()
            with pytest.raises(errors.ConnectionError) as caught:
                await client.get("k")
            assert caught.value.node == client.settings.address


async def test_libraries_for_redis_py(redis: Redis) -> None:
    async with redis.lock("lock", timeout=5) as lock:
        assert await lock.owned()
    await redis.mset({f"k{n}": n for n in range(50)})
    assert len([key async for key in redis.scan_iter("k*", count=7)]) == 50
    assert (await redis) is redis


async def test_the_representation_hides_secrets() -> None:
    client = Client.from_url("redis://user:hidden-word@127.0.0.1:1/0", name="x")
    for shown in (repr(client), repr(client.settings), repr(client.pipeline()), repr(client.client())):
        assert "hidden-word" not in shown


def test_an_import_brings_what_most_programs_need() -> None:
    few = {"telemetry", "tracking", "embedded", "_prefix", "_cluster_client", "topology.cluster"}
    code = (
        "import sys, gravito.atlas\n"
        "loaded = {name.removeprefix('gravito.atlas.') for name in sys.modules}\n"
        f"print(sorted(loaded & {few}), gravito.atlas.ClusterClient.__name__)\n"
        "gravito.atlas.nothing"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[] ClusterClient\n"
    assert "AttributeError: module 'gravito.atlas' has no attribute 'nothing'" in done.stderr
