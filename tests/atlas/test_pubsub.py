"""Publish and subscribe on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.embedded import Engine
from gravito.testing import SILENCE, Push, Raw, ScriptedPeer, reply

Redis = Any


@pytest.fixture(params=[2, 3])
async def any_redis(
    request: pytest.FixtureRequest, redis: Client, gravito_engine: Engine
) -> AsyncIterator[Redis]:
    """A client on each protocol."""
    async with Client.from_url(f"unix://{gravito_engine.path}", protocol=request.param) as client:
        yield client


async def until(true: Callable[[], Any]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # there is nothing else to wait for
            await asyncio.sleep(0.002)


async def kill_subscribers(redis: Redis) -> None:
    assert await redis.client_kill_filter(_type="pubsub")


class Seen(list[Any]):
    """A callback with an object's own method."""

    async def __call__(self, data: str) -> None:
        await asyncio.sleep(0)
        self.append(data)


async def test_an_iterator(any_redis: Redis) -> None:
    async with await any_redis.subscribe("a", "b") as sub:
        assert sub.channels == ["a", "b"]
        assert await any_redis.publish("a", "1") == 1
        await any_redis.publish("b", "k\u00fche")
        first, second = await anext(sub), await sub.get()
    assert (first.type, first.channel, first.pattern, first.data) == ("message", "a", None, "1")
    assert (second.channel, second.data) == ("b", "k\u00fche")
    assert sub.closed
    assert await any_redis.pubsub_numsub("a", "b") == [("a", 0), ("b", 0)]
    assert [message async for message in sub] == []


async def test_the_iterator_ends_behind_what_is_buffered(redis: Redis) -> None:
    sub = await redis.subscribe("a")
    for n in range(3):
        await redis.publish("a", n)
    await until(lambda: len(sub._buffer) == 3)
    waiting = asyncio.create_task(collect(sub))
    await sub.unsubscribe()
    assert await waiting == ["0", "1", "2"]
    assert await sub.get(0.01) is None


async def collect(sub: Any) -> list[Any]:
    return [message.data async for message in sub]


async def test_a_reader_that_waits_is_woken_by_the_end(redis: Redis) -> None:
    sub = await redis.subscribe("a")
    waiting = asyncio.create_task(collect(sub))
    await asyncio.sleep(0.01)
    await redis.aclose()
    assert await asyncio.wait_for(waiting, 1) == []


@pytest.mark.parametrize(
    "kind", ["plain", "async", "partial", "lambda", "method", "object", "two", "async two", "print"]
)
async def test_callbacks(redis: Redis, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = Seen()

    def plain(data: str) -> None:
        seen.append(data)

    async def asynchronous(data: str) -> None:
        await asyncio.sleep(0)
        seen.append(data)

    def two(data: str, channel: str) -> None:
        seen.append((data, channel))

    async def asynchronous_two(data: str, channel: str) -> None:
        seen.append((data, channel))

    def marked(mark: str, data: str) -> None:
        seen.append(data)

    callback = {
        "plain": plain,
        "async": asynchronous,
        "partial": functools.partial(marked, "!"),
        "lambda": lambda data: asynchronous(data),  # noqa: PLW0108  # it is no async function itself
        "method": seen.append,
        "object": seen,
        "two": two,
        "async two": asynchronous_two,
        "print": print,
    }[kind]
    sub = await redis.subscribe("c", callback)
    for data in ("x", "y"):
        await redis.publish("c", data)
    if kind == "print":
        printed: list[str] = []
        await until(lambda: printed.append(capsys.readouterr().out) or "".join(printed) == "x\ny\n")
    else:
        await until(lambda: len(seen) == 2)
        assert list(seen) == ([("x", "c"), ("y", "c")] if "two" in kind else ["x", "y"])
    with pytest.raises(errors.PubSubError):
        await anext(sub)
    await sub.unsubscribe()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_in_a_callback_is_reported_and_ends_nothing(
    redis: Redis, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def work(data: str) -> None:
        seen.append(data)
        if data == "bad":
            raise ValueError("of the callback")

    async def async_work(data: str) -> None:
        work(data)

    await redis.subscribe("c", async_work if asynchronous else work)
    for data in ("a", "bad", "b"):
        await redis.publish("c", data)
    await until(lambda: seen == ["a", "bad", "b"])
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "of the callback" in str(record.exc_info)


async def test_patterns(any_redis: Redis) -> None:
    async with await any_redis.psubscribe("news.*") as sub:
        await any_redis.publish("news.today", "x")
        message = await sub.get(1)
    assert (message.pattern, message.channel, message.data) == ("news.*", "news.today", "x")


@pytest.mark.needs("SSUBSCRIBE")
async def test_sharded_channels(any_redis: Redis) -> None:
    async with await any_redis.ssubscribe("shard") as sub:
        await any_redis.spublish("shard", "x")
        assert (await sub.get(1)).data == "x"
    assert await any_redis.pubsub_shardchannels() == []


async def test_bytes_and_text_side_by_side(redis: Redis) -> None:
    text, raw = await redis.subscribe("c"), await redis.with_options(decode_responses=False).subscribe("c")
    await redis.publish("c", b"\xff")
    await redis.publish("c", "x")
    assert [(await sub.get(1)).data for sub in (text, text, raw, raw)] == [b"\xff", "x", b"\xff", b"x"]
    assert (raw.channels, text.channels) == ([b"c"], ["c"])


async def test_several_handles_on_a_channel(redis: Redis) -> None:
    first, second = await redis.subscribe("c"), await redis.subscribe("c", "d")
    await redis.publish("c", "1")
    assert (await second.get(1)).data == "1"
    await first.unsubscribe()
    await redis.publish("c", "2")
    assert (await second.get(1)).data == "2"
    assert await collect(first) == ["1"]
    await second.unsubscribe("c")
    assert not second.closed
    assert await redis.pubsub_numsub("c", "d") == [("c", 0), ("d", 1)]


async def test_a_slow_reader_loses_the_oldest_and_is_told(redis: Redis) -> None:
    sub = await redis.subscribe("c", buffer=10)
    for n in range(25):
        await redis.publish("c", n)
    await until(lambda: sub.dropped == 15)
    messages = [await sub.get(1) for _ in range(11)]
    assert messages[0].type == "gap"
    assert "15" in messages[0].data
    assert [message.data for message in messages[1:]] == [str(n) for n in range(15, 25)]
    assert sub.gaps == 1


async def test_a_lost_connection_comes_back_with_a_gap(any_redis: Redis) -> None:
    gaps: list[str] = []
    heard: list[str] = []
    sub = await any_redis.subscribe("a")
    await any_redis.subscribe("b", heard.append, on_gap=gaps.append)
    async with await any_redis.psubscribe("p*") as pattern:
        await kill_subscribers(any_redis)
        gap = await sub.get(5)
        assert gap.type == "gap"
        assert "closed" in gap.data
        for channel in ("a", "b", "p1"):
            assert await any_redis.publish(channel, "after") == 1
        assert (await sub.get(1)).data == "after"
        assert [(await pattern.get(1)).type for _ in range(2)] == ["gap", "message"]
        await until(lambda: heard == ["after"])
    assert len(gaps) == 1


async def test_it_waits_for_a_server_that_is_away() -> None:
    def answer(command: list[bytes]) -> Any:
        return Raw(b"".join(reply(Push(["subscribe", name, 1])) for name in command[1:]))

    async with ScriptedPeer(answer) as peer:  # noqa: SIM117  # one line for each side
        async with Client.from_url(peer.url, retry={"base": 0.001, "cap": 0.005, "attempts": 0}) as client:
            sub = await client.subscribe("c")
            await peer.refuse()
            peer.cut()
            await asyncio.sleep(0.05)
            await peer.listen()
            assert (await sub.get(5)).type == "gap"
            await peer.send(Push(["message", "c", "x"]))
            assert (await sub.get(1)).data == "x"


async def test_a_wire_that_ends_right_behind_the_confirmation_comes_back() -> None:
    def answer(command: list[bytes]) -> Any:
        confirmed = Raw(b"".join(reply(Push(["subscribe", name, 1])) for name in command[1:]))
        if peer.connections == 1:
            asyncio.get_running_loop().call_soon(peer.cut)
        return confirmed

    async with ScriptedPeer(answer) as peer:  # noqa: SIM117  # one line for each side
        async with Client.from_url(peer.url, retry={"base": 0.001, "cap": 0.005}) as client:
            try:
                sub = await client.subscribe("c")
            except errors.ConnectionLostError:
                sub = await client.subscribe("c")
            await asyncio.wait_for(peer.connected(2), 2)
            await until(lambda: len(peer.commands) == 2)
            await peer.send(Push(["message", "c", "x"]))
            message = await sub.get(1)
            assert message is not None
            if message.type == "gap":
                message = await sub.get(1)
            assert message.data == "x"


async def test_messages_while_a_confirmation_is_awaited() -> None:
    """A push before the confirmation of another channel must not be read as that command's text."""

    def answer(command: list[bytes]) -> Any:
        confirmed = [reply(Push(["subscribe", name, 1])) for name in command[1:]]
        if command[1] == b"second":
            confirmed.insert(
                0, reply(Push(["message", "first", b"\xff"])) + reply(Push(["message", "first", "x"]))
            )
        return Raw(b"".join(confirmed))

    async with ScriptedPeer(answer) as peer, Client.from_url(peer.url) as client:
        first = await client.subscribe("first")
        await client.subscribe("second")
        assert (await first.get(0.5)) is not None
        assert (await first.get(0.5)).data == "x"  # type: ignore[union-attr]


async def test_messages_while_a_health_check_is_under_way() -> None:
    def answer(command: list[bytes]) -> Any:
        if command[0] == b"PING":
            return SILENCE
        return Raw(b"".join(reply(Push(["subscribe", name, 1])) for name in command[1:]))

    async with ScriptedPeer(answer) as peer, Client.from_url(peer.url, health_check=0.02) as client:
        sub = await client.subscribe("c")
        await peer.received(2)
        await peer.send(Push(["message", "c", b"\xff"]), Raw(b"+PONG\r\n"), Push(["message", "c", "y"]))
        assert [(await sub.get(1)).data for _ in range(2)] == [b"\xff", "y"]  # type: ignore[union-attr]


async def test_ten_thousand_channels(redis: Redis) -> None:
    names = [f"channel:{n}" for n in range(10_000)]
    seen: list[str] = []
    sub = await redis.subscribe(*names, lambda data, channel: seen.append(channel))
    pipe = redis.pipeline(False)
    for name in names:
        pipe.publish(name, "x")
    assert await pipe.exec() == [1] * 10_000
    await until(lambda: len(seen) == 10_000)
    assert seen == names
    await sub.unsubscribe()
    assert await redis.pubsub_channels() == []


async def test_a_refused_subscription(redis: Redis, gravito_engine: Engine) -> None:
    await redis.acl_setuser("deaf", enabled=True, nopass=True, commands=["+@all"], reset_channels=True)
    async with Client.from_url(f"unix://deaf:any@{gravito_engine.path}") as client:
        with pytest.raises(errors.NoPermissionError):
            await client.subscribe("secret")
        assert client._hub()._tables["subscribe"] == {}
    await redis.acl_deluser("deaf")


async def test_cancelled_while_it_waits_leaves_nothing(redis: Redis) -> None:
    hub = redis._hub()
    before = asyncio.all_tasks()
    async with hub._turn:
        task = asyncio.create_task(redis.subscribe("c", Seen()))
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    assert hub._tables["subscribe"] == {}
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("channels", [(), (print,), (1,), (None,)])
async def test_wrong_channels(redis: Redis, channels: tuple[Any, ...]) -> None:
    with pytest.raises((errors.PubSubError, errors.DataError)):
        await redis.subscribe(*channels)


async def test_after_the_client_was_closed(redis: Redis) -> None:
    sub = await redis.subscribe("c")
    await redis.aclose()
    assert sub.closed
    await sub.unsubscribe()
    again = await redis.subscribe("c")
    await redis.publish("c", "x")
    assert (await again.get(1)).data == "x"


async def test_redis_pys_own_pubsub_and_monitor(any_redis: Redis) -> None:
    async with any_redis.pubsub() as pubsub:
        await pubsub.subscribe("c")
        assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
        await any_redis.publish("c", "x")
        assert (await pubsub.get_message(timeout=10))["data"] == "x"
    async with any_redis.monitor() as monitor:
        await any_redis.set("k", "v")
        assert (await monitor.next_command())["command"] == "SET k v"


async def test_a_monitor_outlives_health_checks(redis: Redis, gravito_engine: Engine) -> None:
    await redis.ping()
    async with Client.from_url(f"unix://{gravito_engine.path}", health_check=0.02) as client:  # noqa: SIM117  # as above
        async with client.monitor() as monitor:
            await asyncio.sleep(0.1)
            await redis.set("k", "v")
            assert (await monitor.next_command())["command"] == "SET k v"
