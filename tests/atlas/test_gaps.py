"""Who is told of messages that a subscription lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gravito.atlas import Client


async def overflow(client: Client, **options: object) -> list[str]:
    """An async callback that is too slow for a buffer of one; what it got in the end."""
    got: list[str] = []
    begun, go_on, last = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(message: str) -> None:
        got.append(message)
        begun.set()
        if message == "4":
            last.set()
        await go_on.wait()

    subscription = await client.subscribe("ticks", slow, buffer=1, **options)
    delivered = asyncio.Event()  # the second subscriber of a channel gets each message after the first
    await client.subscribe("ticks", lambda message: message == "4" and delivered.set())
    async with asyncio.timeout(10):
        await client.publish("ticks", 0)
        await begun.wait()
        for number in range(1, 5):
            await client.publish("ticks", number)
        await delivered.wait()
        go_on.set()
        await last.wait()
    assert subscription.dropped == 3
    return got


async def test_a_slow_async_callback_loses_the_oldest_and_on_gap_is_told() -> None:
    gaps: list[str] = []
    async with Client.from_url("embedded://") as client:
        assert await overflow(client, on_gap=gaps.append) == ["0", "4"]
    assert gaps == ["the buffer of 1 was full: 3 messages dropped"]


async def test_without_on_gap_it_is_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Client.from_url("embedded://") as client:
        with caplog.at_level(logging.WARNING, "gravito.atlas"):
            await overflow(client)
    assert "the buffer of 1 was full: 3 messages dropped" in caplog.text


async def test_an_on_gap_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def failing(reason: str) -> None:
        raise RuntimeError(reason)

    async with Client.from_url("embedded://") as client:
        assert await overflow(client, on_gap=failing) == ["0", "4"]
    assert "a callback of" in caplog.text
