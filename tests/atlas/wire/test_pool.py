"""Leased wires: bounded, first in first out, given back, and out of everybody else's way."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.embedded import Engine

Redis = Any


@pytest.fixture
async def narrow(redis: Client, gravito_engine: Engine) -> Any:
    """A client that may lease two wires."""
    async with Client.from_url(f"unix://{gravito_engine.path}", limits={"leased_wires": 2}) as client:
        yield client


async def blocked(redis: Redis, count: int) -> None:
    """Wait until the server blocks so many clients, and until all others that left are gone."""
    async with asyncio.timeout(5):
        while (await redis.info("clients"))["blocked_clients"] != count:  # noqa: ASYNC110  # asks the server
            await asyncio.sleep(0.002)


async def test_bounded_and_first_in_first_out(narrow: Redis) -> None:
    order: list[str] = []

    async def pop(key: str) -> None:
        order.append((await narrow.blpop(key, 0))[1])

    tasks = []
    for key in "abcd":
        tasks.append(asyncio.create_task(pop(key)))
        await asyncio.sleep(0)
    await blocked(narrow, 2)
    pool = narrow._state().topology.pool
    assert (pool.lent, len(pool._line)) == (2, 2)
    for key in "dcb":  # c and d wait for a wire, c first; a goes on waiting for its key
        await narrow.rpush(key, key)
    await asyncio.gather(*tasks[1:])
    assert order == ["b", "c", "d"]
    await narrow.rpush("a", "a")
    await tasks[0]
    await until(lambda: not pool.lent)  # a wire is given back behind the reply
    assert (pool.idle, pool._opening) == (2, 0)


async def test_blocking_commands_do_not_delay_others(redis: Redis) -> None:
    tasks = [asyncio.create_task(redis.blpop("none", 0)) for _ in range(5)]
    await blocked(redis, 5)
    assert await redis.get("k") is None
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await blocked(redis, 0)


async def test_no_place_in_time(narrow: Redis, gravito_engine: Engine) -> None:
    url, limits = f"unix://{gravito_engine.path}", {"leased_wires": 1}
    async with Client.from_url(url, limits=limits, timeouts={"lease": 0.02}) as client:
        held = asyncio.create_task(client.blpop("none", 0))
        await blocked(client, 1)
        with pytest.raises(errors.LeaseTimeoutError, match=r"leased_wires"):
            await client.blpop("other", 0)
        await client.rpush("none", "x")
        assert await held == ("none", "x")
        await client.rpush("other", "y")
        assert await client.blpop("other", 0) == ("other", "y")


async def test_cancelling_at_any_moment_leaks_no_place(narrow: Redis) -> None:
    draw = random.Random(7)
    pool = narrow._state().topology.pool
    for _ in range(60):
        tasks = [asyncio.create_task(narrow.blpop("none", 0)) for _ in range(6)]
        for task in draw.sample(tasks, 6):
            for _ in range(draw.randrange(6)):
                await asyncio.sleep(0)
            if draw.random() < 0.2:
                await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            while pool.lent or pool._tasks:  # noqa: ASYNC110  # wires are given back by tasks of their own
                await asyncio.sleep(0)
        assert (pool._opening, len(pool._line)) == (0, 0)
    await blocked(narrow, 0)
    await narrow.rpush("some", "x")
    assert await asyncio.wait_for(narrow.blpop("some", 0), 1) == ("some", "x")


async def test_what_a_cancelled_pop_left_is_not_lost(redis: Redis) -> None:
    task = asyncio.create_task(redis.blpop("k", 0))
    await blocked(redis, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await blocked(redis, 0)
    await redis.rpush("k", "x")
    assert await redis.lrange("k", 0, -1) == ["x"]


async def test_a_deadline_of_a_blocking_command_is_its_own(gravito_engine: Engine, redis: Redis) -> None:
    async with Client.from_url(f"unix://{gravito_engine.path}", timeouts={"command": 0.3}) as client:
        assert await client.blpop("none", 0.5) is None


async def test_reading_a_stream_with_block(redis: Redis) -> None:
    task = asyncio.create_task(redis.xread({"s": "$"}, block=0))
    await blocked(redis, 1)
    assert await redis.xread({"s": "0"}) in ([], {})
    assert redis._state().topology.pool.lent == 1
    await redis.xadd("s", {"f": "v"}, id="1-1")
    assert await task == [["s", [("1-1", {"f": "v"})]]]
    await asyncio.sleep(0.01)  # a wire is given back behind the reply
    assert redis._state().topology.pool.lent == 0


async def test_a_large_value_takes_a_wire_of_its_own(redis: Redis) -> None:
    big = "x" * (2 * 1024 * 1024)
    call = redis.set("k", big)
    await asyncio.sleep(0)
    assert await redis.ping()
    assert await call is True
    await asyncio.sleep(0.01)
    pool = redis._state().topology.pool
    assert (pool.lent, pool.idle) == (0, 1)
    assert await redis.strlen("k") == len(big)
    assert await redis.get("k") == big


async def test_a_wire_whose_state_was_changed_is_closed(redis: Redis) -> None:
    await redis.select(5)
    assert redis._state().topology.pool.idle == 0
    await redis.set("k", "0")
    assert (await redis.client_info())["db"] == 0


async def test_a_killed_wire_is_not_lent_again(redis: Redis) -> None:
    await redis.ping()  # the shared wire would be made of an idle one
    await redis.blpop("none", 0.01)
    pool = redis._state().topology.pool
    await until(lambda: pool.idle == 1)
    (wire,) = pool.wires()
    await redis.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: wire.ended is not None)
    async with redis.client() as session:  # it takes a wire as it is
        assert await session.get("none") is None


async def test_a_blocked_pop_whose_wire_is_killed_says_so(redis: Redis) -> None:
    task = asyncio.create_task(redis.blpop("none", 0))
    await blocked(redis, 1)
    await redis.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(errors.ConnectionLostError) as caught:
        await task
    assert caught.value.maybe_applied


async def test_a_blocked_read_whose_wire_is_killed_is_not_sent_again(
    redis: Redis, gravito_engine: Engine
) -> None:
    """It reads only; but `$` would mean another place by now, and what was added meanwhile would be passed over."""
    async with Client.from_url(f"unix://{gravito_engine.path}", client_name="reader") as reader:
        waiting = asyncio.ensure_future(reader.xread({"stream": "$"}, block=30_000))
        await blocked(redis, 1)
        (found,) = [each for each in await redis.client_list() if each["cmd"] == "xread"]
        await redis.client_kill_filter(_id=found["id"])
        with pytest.raises(errors.ConnectionLostError) as caught:
            await asyncio.wait_for(waiting, 10)
        assert caught.value.maybe_applied is False
        assert reader.stats().retries == 0
