"""Hooks: who is told of what, and that a hook can do no harm; and what the log carries."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Client, Event, Retry
from gravito.testing import CUT, ScriptedPeer


async def test_each_hook_is_told_what_happened(redis: Client) -> None:
    events: list[Event] = []
    for register in (redis.on_connect, redis.on_disconnect, redis.on_retry, redis.on_gap):
        assert register(events.append) == events.append
    gap = asyncio.Event()
    redis.on_gap(lambda event: gap.set())
    async with await redis.subscribe("news"):
        killer = Client(redis.settings)
        me = await redis.client_id()
        subscriber = next(int(entry["id"]) for entry in await redis.client_list() if entry["sub"] == "1")
        await killer.client_kill_filter(_id=me)
        await killer.client_kill_filter(_id=subscriber)
        await gap.wait()
        assert await redis.get("k") is None
        await killer.aclose()
    kinds = [event.kind for event in events]
    assert sorted(kinds) == ["connect", "connect", "disconnect", "gap"]
    assert {event.connection for event in events} == {"redis"}
    assert {event.address for event in events} == {redis.settings.address}
    assert all(bool(event.reason) is (event.kind != "connect") for event in events)


async def test_a_hook_that_fails_is_logged_and_changes_nothing(
    redis: Client, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    @redis.on_connect
    def failing(event: Event) -> None:
        told.append(event.kind)
        raise RuntimeError("from the hook")

    redis.on_connect(lambda event: told.append("the next one"))
    assert await redis.set("k", "v") is True
    assert told == ["connect", "the next one"]
    assert "a hook for connect failed" in caplog.text
    assert "from the hook" in caplog.text


async def test_a_hook_may_use_the_client(redis: Client) -> None:
    replies: list[Any] = []
    redis.on_connect(lambda event: replies.append(redis.incr("connects")))
    assert await redis.set("k", "v") is True
    assert [await reply for reply in replies] == [1]


async def test_views_share_the_hooks(redis: Client) -> None:
    told: list[Event] = []
    redis.with_options(timeout=3).on_connect(told.append)
    await redis.ping()
    assert len(told) == 1


class AsyncCall:
    async def __call__(self, event: Event) -> None: ...


async def coroutine_function(event: Event) -> None: ...


@pytest.mark.parametrize("callback", [coroutine_function, AsyncCall(), "print", None])
def test_what_nobody_would_await_is_refused(redis: Client, callback: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"on_retry was given .* a plain function") as caught:
        redis.on_retry(callback)
    assert caught.value.field == "on_retry"


async def test_on_retry_names_the_command_and_the_try() -> None:
    answers = iter([errors.ResponseError("LOADING soon"), CUT, "value"])
    retry = Retry(base=0.001)
    async with ScriptedPeer(lambda command: next(answers)) as peer:
        client = Client.from_url(peer.url, retry=retry, name="orders", password="canary")
        events: list[Event] = []
        client.on_retry(events.append)
        assert await client.get("secret key") == "value"
        await client.aclose()
    assert [(event.command, event.attempt) for event in events] == [("GET", 2), ("GET", 3)]
    assert "secret key" not in str(events)
    assert "canary" not in str(events)


async def test_the_log_s_records_carry_connection_and_address(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedPeer(lambda command: "value") as peer:
        client = Client.from_url(peer.url, name="orders", password="canary")
        with caplog.at_level(logging.DEBUG, "gravito.atlas"):
            await client.get("k")
            peer.cut()
            await peer.refuse()
            await asyncio.sleep(0)
            waiting = asyncio.ensure_future(client.get("k"))
            await asyncio.sleep(0.01)
            await peer.listen()
            assert await waiting == "value"
        await client.aclose()
        ours = [record for record in caplog.records if record.name == "gravito.atlas"]
        assert {record.levelname for record in ours} == {"WARNING", "DEBUG", "INFO"}
        for record in ours:
            assert vars(record)["connection"] == "orders"
            assert vars(record)["address"] == peer.path
        assert "canary" not in caplog.text
        assert "canary" not in str([vars(record) for record in ours])
