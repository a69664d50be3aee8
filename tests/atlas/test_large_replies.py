"""Large replies beside small ones: they hold up nobody else, take few wires, and are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry
from gravito.testing import SILENCE, Push, Raw, ScriptedPeer, Simple

MIB = 1024 * 1024


@pytest.fixture
async def client(redis: Client) -> AsyncIterator[Client]:
    """A client with a name of its own, and three large values."""
    for number in range(3):
        await redis.setrange(f"large {number}", 3 * MIB - 1, "x")
    async with Client.from_url(redis.settings.url, client_name="large-test") as client:
        yield client
    await redis.aclose()


async def wires_of(client: Client, name: str = "large-test") -> int:
    async with Client(client.settings) as other:
        await other.client_setname("other")
        mine = [entry for entry in await other.client_list() if entry["name"] == name]
        return len(mine) - 1  # the one that asks


async def test_each_reply_reaches_its_caller(client: Client) -> None:
    await client.mset({f"small {number}": number for number in range(200)})
    calls: list[Any] = []
    for number in range(200):
        calls.append(client.get(f"small {number}"))
        if number % 20 == 0:
            calls.append(client.strlen(f"large {number % 3}"))
            calls.append(client.get(f"large {number % 3}"))
    replies = await asyncio.gather(*calls)
    small = [reply for reply in replies if isinstance(reply, str) and len(reply) < MIB]
    assert small == [str(number) for number in range(200)]
    assert sum(isinstance(reply, str) and len(reply) == 3 * MIB for reply in replies) == 10


async def test_who_comes_later_does_not_wait_for_it() -> None:
    """The large reply never ends; those behind it on another wire are answered."""
    large = asyncio.Event()

    async def answer(command: list[bytes]) -> Any:
        if command[-1] != b"large":
            return "small"
        large.set()
        await asyncio.sleep(3600)
        return None

    async with (
        ScriptedPeer(answer) as peer,
        Client.from_url(peer.url, limits={"lease_over": 1000}, timeouts={"drain": 0}) as client,
    ):
        first = client.get("large")
        await large.wait()
        peer._writers[0].write(b"$1000000\r\n" + b"x" * 5000)
        await until(lambda: client._state().topology.shared.wire is None)
        assert await client.get("k") == "small"
        assert peer.connections == 2
        first.close()


async def test_retired_wires_are_used_again(client: Client) -> None:
    for _ in range(10):
        reply, small = await asyncio.gather(client.get("large 0"), client.get("none"))
        assert len(reply) == 3 * MIB
        assert small is None
        await client.ping()
    assert client.stats().connects <= 3
    assert await wires_of(client) == client.stats().connections


async def test_many_large_replies_take_few_wires(client: Client) -> None:
    async def caller(number: int) -> None:
        for _ in range(3):
            assert len(await client.get(f"large {number % 3}")) == 3 * MIB
            assert await client.get("none") is None

    await asyncio.gather(*[caller(number) for number in range(20)])
    assert client.stats().connects <= 12
    await until(lambda: not client._state().topology.shared._retired)
    assert await wires_of(client) == client.stats().connections


async def test_large_replies_that_overlap_take_few_wires() -> None:
    """None of them ends before all were asked for; those for which there is no wire left share the last one."""
    release = asyncio.Event()

    async def answer(command: list[bytes]) -> Any:
        if command == [b"PING"]:
            return Simple("PONG")
        peer._writers[-1].write(b"$5000\r\n" + b"x" * 4000)
        await release.wait()
        return Raw(b"x" * 1000 + b"\r\n")

    async with (
        ScriptedPeer(answer) as peer,
        Client.from_url(peer.url, limits={"lease_over": 1000}, health_check=0) as client,
    ):
        shared = client._state().topology.shared
        calls = []
        for _ in range(8):
            calls.append(client.get("large"))
            await until(lambda: len(shared._retired) == len(calls))
        calls += [client.get("large") for _ in range(4)]
        await until(lambda: peer.connections == 9)
        await asyncio.sleep(0.02)  # a ninth one would be retired by now
        assert len(shared._retired) == 8
        release.set()
        assert await asyncio.gather(*calls) == ["x" * 5000] * 12


async def test_no_more_wires_than_leased_ones_may_be(redis: Client) -> None:
    await redis.setrange("large", 3 * MIB - 1, "x")
    async with Client.from_url(redis.settings.url, limits={"leased_wires": 1}) as client:

        async def caller() -> None:
            assert len(await client.get("large")) == 3 * MIB

        await asyncio.gather(*[caller() for _ in range(12)])
        assert client.stats().connects <= 3


async def test_closing_waits_for_a_large_reply_too(redis: Client) -> None:
    """The peer ends its reply while the client drains."""
    async with ScriptedPeer(lambda command: Simple("PONG")) as peer:
        client = Client.from_url(peer.url, limits={"lease_over": 1000})
        await client.ping()

        async def half(command: list[bytes]) -> Any:
            if command[0] == b"PING":
                return Simple("PONG")
            peer._writers[0].write(b"$5000\r\n" + b"x" * 4000)
            await going.wait()
            peer._writers[0].write(b"x" * 1000 + b"\r\n")
            return SILENCE

        going = asyncio.Event()
        peer._answer = half
        large = client.get("large")
        await until(lambda: client._state().topology.shared.wire is None)
        closing = asyncio.ensure_future(client.aclose())
        await asyncio.sleep(0)
        going.set()
        assert await large == "x" * 5000
        await closing


@pytest.mark.parametrize("command", ["get", "pipeline", "lrange"])
async def test_a_reply_over_the_bound_ends_its_wire(redis: Client, command: str) -> None:
    await redis.setrange("large", 3 * MIB - 1, "x")
    await redis.rpush("list", *["y" * 100_000] * 30)
    options: Any = {"limits": {"reply_bytes": MIB}, "retry": Retry(attempts=0)}
    async with Client.from_url(redis.settings.url, **options) as client:
        calls = {
            "get": lambda: client.get("large"),
            "pipeline": lambda: client.pipeline(transaction=False).get("none").get("large").execute(),
            "lrange": lambda: client.lrange("list", 0, -1),
        }
        with pytest.raises(errors.ProtocolError, match=r"limits\.reply_bytes"):
            await calls[command]()
        assert await client.get("none") is None


async def test_many_replies_together_may_be_larger(redis: Client) -> None:
    await redis.set("k", "x" * 100_000)
    async with Client.from_url(redis.settings.url, limits={"reply_bytes": MIB}) as client:
        replies = await asyncio.gather(*[client.get("k") for _ in range(40)])
        assert [len(reply) for reply in replies] == [100_000] * 40
        pipe = client.pipeline(transaction=False)
        for _ in range(40):
            pipe.get("k")
        assert [len(reply) for reply in await pipe.execute()] == [100_000] * 40


@pytest.mark.parametrize("protocol", [2, 3])
async def test_messages_without_end_are_no_large_reply(redis: Client, protocol: int) -> None:
    """More bytes of messages than one reply may have; the subscription goes on."""
    options: Any = {"limits": {"reply_bytes": 100_000}, "protocol": protocol}
    async with (
        Client.from_url(redis.settings.url, **options) as client,
        await client.subscribe("news") as news,
    ):
        for _ in range(40):
            await redis.publish("news", "x" * 20_000)
            message = await news.get(timeout=5)
            assert message is not None
            assert message.type == "message"
        assert client.stats().disconnects == 0


async def test_pushes_between_replies_are_no_large_reply() -> None:
    """They come while a reply is due, on the shared wire."""
    waiting = asyncio.Event()

    async def answer(command: list[bytes]) -> Any:
        await waiting.wait()
        return "value"

    async with (
        ScriptedPeer(answer) as peer,
        Client.from_url(peer.url, limits={"reply_bytes": 50_000}, health_check=0) as client,
    ):
        call = client.get("k")
        await peer.received(1)
        for _ in range(20):
            await peer.send(Push(["invalidate", ["x" * 10_000]]))
            for _ in range(5):
                await asyncio.sleep(0)
        waiting.set()
        assert await call == "value"
