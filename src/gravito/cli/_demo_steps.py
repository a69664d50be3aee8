"""The steps of `gravito demo`. Their source is shown to the user, so they read like an application's code.

Lines that begin with `say(` or `advance(`, and lines marked "not shown", are left out of what is shown; a `say`
that is marked "shown" is shown as a `print`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from gravito.atlas import DB, Client, Pipeline
from gravito.atlas.embedded import engine_for

__all__ = ["STEPS", "read_all"]

Say = Callable[..., None]

# city: longitude, latitude, inhabitants
CITIES = {
    "Berlin": (13.4050, 52.5200, 3_755_251),
    "London": (-0.1276, 51.5072, 8_799_800),
    "Madrid": (-3.7038, 40.4168, 3_332_035),
    "Paris": (2.3522, 48.8566, 2_102_650),
    "Rome": (12.4964, 41.9028, 2_755_309),
    "Vienna": (16.3738, 48.2082, 1_982_097),
}

PUBLISHER = """
import asyncio, sys
from gravito.atlas import Client

async def main():
    async with Client.from_url(sys.argv[1]) as redis:
        for text in ("Hello Builders!", "a second process speaks", "good-bye"):
            await redis.publish("notifications", text)

asyncio.run(main())
"""


async def connect(redis: Client, say: Say) -> None:
    """Connect: the engine starts by itself."""
    redis = DB.connection("redis")
    server = await redis.info("server")
    engine = engine_for(None)  # not shown
    name = server.get("server_name", "redis")  # Redis itself does not say
    say(f"{name} {server[f'{name}_version']}, process {engine.pid}, no TCP port")
    say(f"private socket {engine.path}")


async def read_and_write(redis: Client, say: Say) -> None:
    """Read and write."""
    await redis.set("user:profile:1", '{"name": "Alice"}', ex=3600)
    profile = await redis.get("user:profile:1")
    seconds = await redis.ttl("user:profile:1")
    say(profile, f"expires in {seconds} s")


async def types(redis: Client, say: Say) -> None:
    """Hashes, sorted sets, places: every command of Redis, with redis-py's names."""
    for city, (longitude, latitude, people) in CITIES.items():
        await redis.hset(f"city:{city}", mapping={"people": people, "visits": 0})
        await redis.zadd("cities:by-people", {city: people})
        await redis.geoadd("cities:places", (longitude, latitude, city))
    largest = await redis.zrange("cities:by-people", 0, 2, desc=True, withscores=True)
    near = await redis.geosearch("cities:places", member="Paris", radius=900, unit="km", sort="ASC")
    say(f"largest: {largest}", f"within 900 km of Paris: {near}")


async def pipeline(redis: Client, say: Say) -> None:
    """A pipeline: one write, the replies in order."""
    pipe = redis.pipeline(transaction=False)
    results = await pipe.set("key1", "val1").set("key2", "val2").get("key1").incr("hits").exec()
    say(results)


async def transaction(redis: Client, say: Say) -> None:
    """A transaction: MULTI and EXEC, and a WATCH whose conflict is retried."""
    await redis.mset({"stock": 5, "sold": 0})
    tries = 0

    async def sell(pipe: Pipeline) -> None:
        nonlocal tries
        tries += 1
        left = int(await pipe.get("stock"))
        if tries == 1:
            await redis.set("stock", 4)  # somebody else is faster: EXEC must fail
        pipe.multi()
        pipe.set("stock", left - 1).incr("sold")

    await redis.transaction(sell, "stock")
    say(f"tries: {tries}, stock and sold: {await redis.mget('stock', 'sold')}")


async def messages(redis: Client, say: Say) -> None:
    """Publish and subscribe: the publisher is another process."""
    async with await redis.subscribe("notifications") as subscription, publisher():
        async for message in subscription:
            say(f"on {message.channel!r}: {message.data!r}")  # shown
            if message.data == "good-bye":
                break


async def lua(redis: Client, say: Say) -> None:
    """A Lua script: a lock that only its owner may release."""
    release = redis.script(
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
    )
    await redis.set("lock:report", "alice")
    by_bob = await release(keys=["lock:report"], args=["bob"])
    by_alice = await release(keys=["lock:report"], args=["alice"])
    say(f"released by bob: {by_bob}, by alice: {by_alice}")


async def read_all(redis: Client, keys: Sequence[str], advance: Callable[[int], None]) -> list[Any]:
    replies = [redis.get(key) for key in keys]  # each is on its way at once
    values = []
    for reply in replies:
        values.append(await reply)
        advance(1)
    return values


@asynccontextmanager
async def publisher() -> AsyncIterator[None]:
    """A second Python that publishes three messages; it ends with the block."""
    url = f"unix://{quote(engine_for(None).ensure())}"
    # a session of its own: Ctrl-C is for the demonstration, which ends this one
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUBLISHER, url, start_new_session=True
    )
    try:
        yield
        async with asyncio.timeout(10):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


STEPS: tuple[Callable[[Client, Say], Awaitable[None]], ...] = (
    connect,
    read_and_write,
    types,
    pipeline,
    transaction,
    messages,
    lua,
)
