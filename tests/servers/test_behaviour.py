"""What the library promises, on every server, in both protocols, with all rights and with the documented ones."""

from __future__ import annotations

import asyncio

import pytest

from gravito import errors
from gravito.atlas import Client, Message

COUNTER = "app:counter"


async def test_who_we_are(redis: Client, user: str, path: str) -> None:
    await redis.ping()
    async with Client.from_url(f"unix://{path}") as admin:
        ours = [one for one in await admin.client_list() if one["name"] == "matrix"]
    assert [one["user"] for one in ours] == [user]


async def test_values(redis: Client) -> None:
    assert await redis.set("app:text", "h\u00e9", ex=60) is True
    assert await redis.get("app:text") == "h\u00e9"
    assert await redis.with_options(decode_responses=False).get("app:text") == "h\u00e9".encode()
    assert await redis.get("app:none") is None
    assert 0 < await redis.ttl("app:text") <= 60
    assert await redis.mget("app:text", "app:none") == ["h\u00e9", None]
    assert await redis.delete("app:text") == 1


async def test_structures(redis: Client) -> None:
    assert await redis.hset("app:hash", mapping={"a": 1, "b": 2}) == 2
    assert await redis.hgetall("app:hash") == {"a": "1", "b": "2"}
    assert await redis.sadd("app:set", "x", "y") == 2
    assert await redis.smembers("app:set") == {"x", "y"}
    assert await redis.zadd("app:zset", {"one": 1.5, "two": 2}) == 2
    assert await redis.zscore("app:zset", "one") == 1.5
    assert [name for name, *_ in await redis.zrange("app:zset", 0, -1, withscores=True)] == ["one", "two"]
    entry = await redis.xadd("app:stream", {"k": "v"})
    streams = await redis.xread({"app:stream": "0"})
    assert entry in str(streams)
    assert sorted([key async for key in redis.scan_iter("app:*")]) == [
        "app:hash",
        "app:set",
        "app:stream",
        "app:zset",
    ]


async def test_a_crowd(redis: Client) -> None:
    assert await asyncio.gather(*[redis.incr(COUNTER) for _ in range(500)]) == [*range(1, 501)]


async def test_a_large_value(redis: Client) -> None:
    large = b"\x00\xff" * 1_000_000  # takes a wire of its own
    await redis.set("app:large", large)
    assert await redis.with_options(decode_responses=False).get("app:large") == large


async def test_errors(redis: Client) -> None:
    await redis.set("app:text", "x")
    with pytest.raises(errors.WrongTypeError):
        await redis.lpush("app:text", 1)
    with pytest.raises(errors.ResponseError, match="not an integer"):
        await redis.incr("app:text")
    with pytest.raises(errors.ResponseError, match=r"unknown command|no permissions"):
        await redis.execute("NOSUCHCOMMAND")


async def test_blocking(redis: Client) -> None:
    waiting = asyncio.ensure_future(redis.blpop(["app:list"], timeout=5))
    while not waiting.done():
        await redis.lpush("app:list", "x")
        await asyncio.wait([waiting], timeout=0.01)
    assert list(await waiting) == ["app:list", "x"]
    assert await redis.blpop(["app:empty"], timeout=0.01) is None


class TestPipelines:
    async def test_plain(self, redis: Client) -> None:
        pipe = redis.pipeline(transaction=False)
        assert await pipe.set("app:a", 1).get("app:a").incr(COUNTER).exec() == [True, "1", 1]

    async def test_transaction(self, redis: Client) -> None:
        assert await redis.pipeline().set("app:a", 1).hset("app:h", "f", "v").hgetall("app:h").exec() == [
            True,
            1,
            {"f": "v"},
        ]

    async def test_an_error_in_the_middle(self, redis: Client) -> None:
        pipe = redis.pipeline().set("app:a", "x").lpush("app:a", 1).get("app:a")
        replies = await pipe.execute(raise_on_error=False)
        assert replies[0] is True
        assert isinstance(replies[1], errors.WrongTypeError)
        assert replies[2] == "x"

    async def test_refused_as_a_whole(self, redis: Client) -> None:
        pipe = redis.pipeline().set("app:a", "x").execute_command("GET")
        with pytest.raises(errors.ResponseError, match="wrong number of arguments"):
            await pipe.execute()
        assert await redis.get("app:a") is None

    async def test_watch(self, redis: Client) -> None:
        async with redis.pipeline() as pipe:
            await pipe.watch("app:a")
            assert await pipe.get("app:a") is None
            await redis.set("app:a", "other")
            pipe.multi()
            pipe.set("app:a", "ours")
            with pytest.raises(errors.WatchError):
                await pipe.execute()
        assert await redis.get("app:a") == "other"

    async def test_unwatch(self, redis: Client) -> None:
        async with redis.pipeline() as pipe:
            await pipe.watch("app:a")
            await pipe.unwatch()
            await redis.set("app:a", "other")
            pipe.multi()
            assert await pipe.set("app:a", "ours").execute() == [True]


class TestScripts:
    async def test_script(self, redis: Client) -> None:
        add = redis.script("return redis.call('incrby', KEYS[1], ARGV[1])")
        assert await add(keys=[COUNTER], args=[5]) == 5
        assert await add(keys=[COUNTER], args=[5]) == 10

    async def test_in_a_pipeline(self, redis: Client) -> None:
        add = redis.script("return {ARGV[1], redis.call('incrby', KEYS[1], 2)}")
        pipe = redis.pipeline().set("app:a", 1)
        await add(keys=[COUNTER], args=["x"], client=pipe)
        assert await pipe.exec() == [True, ["x", 2]]

    async def test_a_failing_one(self, redis: Client) -> None:
        script = redis.script("local x = 1\nerror('because')", name="mine")
        with pytest.raises(errors.ResponseError, match="because") as caught:
            await script()
        assert caught.value.line == 2
        assert caught.value.script == "mine"

    async def test_lock(self, redis: Client) -> None:
        async with redis.lock("app:lock", timeout=5) as lock:
            assert await lock.owned()
            assert await lock.extend(5)
            assert not await redis.lock("app:lock", timeout=5, blocking=False).acquire()
        assert await redis.get("app:lock") is None


class TestMessages:
    async def test_channel(self, redis: Client) -> None:
        async with await redis.subscribe("app:news") as news:
            assert await redis.publish("app:news", "one") == 1
            assert await news.get(5) == Message("one", "app:news")
        await self.no_listener(redis)

    async def test_pattern(self, redis: Client) -> None:
        async with await redis.psubscribe("app:*") as news:
            await redis.publish("app:news", "one")
            assert await news.get(5) == Message("one", "app:news", "app:*")

    @pytest.mark.needs("SSUBSCRIBE")
    async def test_shard(self, redis: Client) -> None:
        async with await redis.ssubscribe("app:shard") as news:
            assert await redis.spublish("app:shard", "one") == 1
            assert await news.get(5) == Message("one", "app:shard")

    async def test_callback(self, redis: Client) -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        subscription = await redis.subscribe("app:news", heard.put_nowait)
        await redis.publish("app:news", "one")
        assert await asyncio.wait_for(heard.get(), 5) == "one"
        await subscription.unsubscribe()

    async def test_redis_pys_pubsub(self, redis: Client) -> None:
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe("app:news")
            assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
            await redis.publish("app:news", "one")
            assert (await pubsub.get_message(timeout=5))["data"] == "one"
            await pubsub.unsubscribe("app:news")

    async def no_listener(self, redis: Client) -> None:
        async with asyncio.timeout(5):
            while await redis.publish("app:news", "anybody?"):
                pass


async def test_session(redis: Client) -> None:
    async with redis.client() as session:
        await session.select(3)
        await session.set("app:there", 1)
        await session.execute("MULTI")
        assert await session.execute("INCR", "app:there") == "QUEUED"
        assert await session.execute("EXEC") == [2]
        assert await session.get("app:there") == "2"
    assert await redis.get("app:there") is None


async def test_another_database(path: str, protocol: int, user: str) -> None:
    login = {"username": "app", "password": "a-long-password"} if user == "app" else {}
    async with Client.from_url(f"unix://{path}", db=2, protocol=protocol, **login) as redis:
        await redis.set("app:a", 1)
        async with Client.from_url(f"unix://{path}") as other:
            assert await other.get("app:a") is None


async def test_coming_back(redis: Client, path: str) -> None:
    async with await redis.subscribe("app:news") as news:
        await redis.set("app:a", 1)
        async with Client.from_url(f"unix://{path}") as admin:
            await admin.execute("CLIENT", "KILL", "SKIPME", "yes")
        assert await redis.get("app:a") == "1"
        message = await news.get(5)
        assert message is not None
        assert message.type == "gap"
        await redis.publish("app:news", "again")
        assert (await news.get(5)) == Message("again", "app:news")


async def test_health_check(path: str, protocol: int, user: str) -> None:
    login = {"username": "app", "password": "a-long-password"} if user == "app" else {}
    async with Client.from_url(f"unix://{path}", health_check=0.01, protocol=protocol, **login) as redis:
        await redis.set("app:a", 1)
        async with Client.from_url(f"unix://{path}") as admin:
            before = (await admin.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0)
            async with asyncio.timeout(5):
                while (await admin.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0) < before + 3:
                    pass
        assert await redis.get("app:a") == "1"
