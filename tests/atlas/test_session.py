"""Sessions: commands on one leased wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gravito import errors

Redis = Any


async def blocked(redis: Redis, count: int) -> None:
    """Wait until the server blocks so many clients."""
    async with asyncio.timeout(5):
        while (await redis.info("clients"))["blocked_clients"] != count:  # noqa: ASYNC110  # asks the server
            await asyncio.sleep(0.002)


async def test_a_session_keeps_its_state(redis: Redis) -> None:
    async with redis.client() as session:
        await session.select(3)
        await session.set("k", "three")
        assert await session.get("k") == "three"
        assert await redis.get("k") is None
    assert redis._state().topology.pool.lent == 0


async def test_a_session_that_lost_its_wire_does_not_go_on_without_its_state(redis: Redis) -> None:
    async with redis.client() as session:
        await session.select(3)
        own = await session.client_id()
        await redis.client_kill_filter(_id=own)
        await asyncio.sleep(0.01)
        with pytest.raises(errors.ConnectionLostError):
            await session.set("k", "in the wrong database")
    assert await redis.get("k") is None


async def test_a_cancelled_pop_of_a_session_frees_it(redis: Redis) -> None:
    async with redis.client() as session:
        task = asyncio.create_task(session.blpop("k", 0))
        await blocked(redis, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await blocked(redis, 0)
        await redis.rpush("k", "x")
        assert await redis.lpop("k") == "x"


async def test_a_session_in_the_hands_of_several_tasks(redis: Redis) -> None:
    async with redis.client() as session:
        calls = [session.execute_command("ECHO", str(n)) for n in range(20)]
        assert await asyncio.gather(*calls) == [str(n) for n in range(20)]


async def test_a_transaction_by_hand(redis: Redis) -> None:
    async with redis.client() as session:
        await session.execute("MULTI")
        assert await session.set("k", "v") == "QUEUED" or True
        assert await session.execute("EXEC")
    assert await redis.get("k") == "v"


async def test_waiting_for_replicas_after_ones_own_writes(redis: Redis) -> None:
    async with redis.client() as session:
        await session.set("k", "v")
        assert await session.wait(0, 10) == 0


async def test_used_again_after_it_was_closed(redis: Redis) -> None:
    session = redis.client()
    async with session:
        await session.select(3)
    assert await session.set("k", "v")
    await session.aclose()
    assert await redis.get("k") == "v"
