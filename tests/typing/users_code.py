"""What users write, as a type checker sees it; `make types` checks it, nothing runs it."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, assert_type

import msgspec

from gravito import errors
from gravito.atlas import (
    DB,
    TLS,
    Client,
    Limits,
    Message,
    Pipeline,
    Redis,
    Retry,
    Script,
    Settings,
    Subscription,
    Timeouts,
)
from gravito.stasis import (
    Cache,
    Lease,
    Result,
    SyncCache,
    cached,
    default_cache,
    set_default_cache,
)
from gravito.testing import ScriptedPeer, reply


async def connections() -> None:
    redis = DB.connection("redis")
    assert_type(redis, Client)
    assert_type(DB.connection(), Client)
    assert_type(DB.has_connection("cache"), bool)
    assert_type(DB.connection_names(), list[str])
    assert_type(await DB.reconnect(), Client)
    async with DB.lifespan(configuration={"connections": {}}):
        pass
    async with Client.from_url("redis://localhost", client_name="web") as client:
        assert_type(client, Client)
    assert_type(redis.with_options(decode_responses=False), Client)
    settings = Settings(
        host="localhost",
        timeouts=Timeouts(command=None),
        limits=Limits(in_flight=10),
        retry=Retry(attempts=0),
        tls=TLS(ca_file="ca.pem"),
    )
    assert_type(Client(settings), Client)
    assert_type(settings.address, str)
    await redis.aclose()


async def commands(redis: Client) -> None:
    await redis.set("k", "v", ex=3600)
    await redis.get("k")
    await redis.hset("h", mapping={"a": 1})
    value: str | bytes | None = await redis.get("k")  # as redis-py says: the client may be one for bytes
    print(value)
    await redis.execute("OBJECT", "FREQ", "k", decode_responses=False)
    await Redis.incr("hits")
    async for key in redis.scan_iter("k*"):
        print(key)


async def pipelines(redis: Client) -> None:
    pipe = redis.pipeline(transaction=False)
    assert_type(pipe, Pipeline)
    assert_type(pipe.set("key1", "val1").set("key2", "val2").get("key1"), Pipeline)
    assert_type(await pipe.set("a", 1).exec(), list[Any])
    assert_type(await pipe.get("a").execute(raise_on_error=False), list[Any])
    async with redis.pipeline() as watching:
        assert_type(watching, Pipeline)
        assert_type(await watching.watch("k"), bool)
        watching.multi()
        await watching.set("k", 1)

    def work(pipe: Pipeline) -> None:
        pipe.multi()
        pipe.incr("n")

    await redis.transaction(work, "n")


async def messages(redis: Client) -> None:
    subscription = await redis.subscribe("news", print)
    assert_type(subscription, Subscription)
    async with await redis.psubscribe("news.*") as listening:
        assert_type(listening, Subscription)
        async for message in listening:
            assert_type(message, Message)
            if message.type == "gap":
                break
    assert_type(await subscription.get(timeout=1), Message | None)
    await subscription.unsubscribe()


async def scripts(redis: Client) -> None:
    script = redis.script(Path("release.lua"), name="release")
    assert_type(script, Script)
    assert_type(script(keys=["k"], args=[1]), Awaitable[Any])
    await script(["k"], ["v"], client=redis.pipeline())


async def failures(redis: Client) -> None:
    try:
        await redis.get("k")
    except errors.TimeoutError as late:
        assert_type(late.maybe_applied, bool)
        assert_type(late.node, str | None)
    except errors.ResponseError as refused:
        assert_type(refused.line, int | None)


async def helpers() -> None:
    async with ScriptedPeer(["PONG"]) as peer:
        assert_type(peer, ScriptedPeer)
        assert_type(peer.url, str)
        assert_type(await peer.received(1), list[list[bytes]])
    assert_type(reply([1, "a"]), bytes)


class User(msgspec.Struct):
    id: int


@cached(ttl=300, key="user:{user_id}", tags=["team:{team_id}"], early=0.2, stale=600)
async def load_user(user_id: int, team_id: int = 7) -> User:
    return User(user_id)


@cached(60)
async def adaptive(n: int) -> Result[list[int]]:
    return Result([n], ttl=n)


class Repository:
    @cached(60, "each:{self.name}:{n}")
    async def each(self, n: int, *, deep: bool = False) -> str:
        return str(n)


async def decorated(repository: Repository) -> None:
    assert_type(await load_user(1), User)
    assert_type(await load_user(user_id=1, team_id=2), User)
    assert_type(await load_user.refresh(1), User)
    assert_type(await load_user.peek(1), User | None)
    assert_type(await load_user.forget(1), bool)
    assert_type(await load_user.put(User(1), 1), bool)
    assert_type(load_user.key(1), str)
    assert_type(await adaptive(1), list[int])
    assert_type(await repository.each(1, deep=True), str)
    assert_type(await repository.each.forget(1), bool)
    assert_type(await repository.each.peek(n=1), str | None)
    await load_user("1")  # type: ignore[arg-type]  # is told
    await load_user.forget()  # type: ignore[call-arg]  # likewise
    await load_user.put("no user", 1)  # type: ignore[arg-type]  # likewise
    await repository.each()  # type: ignore[call-arg]  # likewise


def synchronous(cache: Cache) -> None:
    assert_type(cache.sync, SyncCache)
    assert_type(cache.sync.put("k", 1, ttl=60), bool)
    assert_type(cache.sync.many(["k"]), dict[str, Any])
    assert_type(cache.sync.increment("n", 2), int)
    cache.sync.tags("a").flush()
    cache.sync.put("k")  # type: ignore[call-arg]  # is told
    with cache.sync.lock("l") as lease:
        assert_type(lease, Lease)
    set_default_cache(cache)
    assert_type(default_cache(), Cache)
