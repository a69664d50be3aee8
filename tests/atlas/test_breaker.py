"""The breaker: opens after failures in a row, lets one attempt through, closes when it succeeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Breaker, Client, Retry
from gravito.testing import ScriptedPeer

QUICK = Retry(attempts=0)


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that nobody can connect to yet."""
    async with ScriptedPeer(lambda command: "value") as peer:
        await peer.refuse()
        yield peer


def client_of(peer: ScriptedPeer, failures: int = 2, reset: float = 30.0, **options: Any) -> Client:
    breaker = Breaker(failures=failures, reset=reset)
    return Client.from_url(
        peer.url, name="orders", breaker=breaker, health_check=0, **{"retry": QUICK, **options}
    )


def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Times of the attempts to connect."""
    made: list[float] = []
    plain = asyncio.get_running_loop().create_unix_connection

    async def noted(*args: Any, **kwargs: Any) -> Any:
        made.append(time.monotonic())
        await asyncio.sleep(0.01)  # as a network takes, so that attempts can overlap
        return await plain(*args, **kwargs)

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", noted)
    return made


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_every_failed_attempt_counts(
    peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    made = attempts(monkeypatch)
    async with client_of(peer, failures=6, retry=Retry(attempts=retries, base=0.001, cap=0.001)) as client:
        for _ in range(10):
            with pytest.raises(errors.ConnectionError):
                await client.get("k")
    assert len(made) == 6


async def test_while_it_is_open_nothing_is_tried_and_the_error_says_when(
    peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = attempts(monkeypatch)
    async with client_of(peer) as client:
        for _ in range(2):
            with pytest.raises(errors.RefusedError):
                await client.get("k")
        for call in (
            client.incr("k"),
            client.blpop("k", 0),
            client.subscribe("k"),
            client.pipeline().incr("k"),
        ):
            with pytest.raises(
                errors.CircuitOpenError, match=r"'orders' .* failed 2 times .* in (30|29) s"
            ) as caught:
                await call
            assert not caught.value.maybe_applied
            assert caught.value.node == peer.path
    assert len(made) == 2


async def test_those_who_wait_when_it_opens_get_the_real_error(peer: ScriptedPeer) -> None:
    async with client_of(peer, retry=Retry(attempts=50, base=0.001, cap=0.001)) as client:
        outcomes = await asyncio.gather(*[client.get("k") for _ in range(3)], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [errors.RefusedError] * 3


@pytest.mark.parametrize("command", ["get", "blpop"])
async def test_one_attempt_decides(peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    made = attempts(monkeypatch)
    async with client_of(peer, reset=0.1) as client:
        for _ in range(2):
            with pytest.raises(errors.RefusedError):
                await client.get("k")
        await asyncio.sleep(0.11)
        call = getattr(client, command)
        outcomes = await asyncio.gather(*[call("k") for _ in range(20)], return_exceptions=True)
        assert len(made) == 3  # it failed, so the breaker is open again
        assert {type(outcome) for outcome in outcomes} <= {errors.RefusedError, errors.CircuitOpenError}
        with pytest.raises(errors.CircuitOpenError):
            await client.get("k")
        await peer.listen()
        await asyncio.sleep(0.11)
        assert await client.get("k") == "value"
        outcomes = await asyncio.gather(*[client.get("k") for _ in range(20)])
        assert outcomes == ["value"] * 20
        assert len(made) == 4


async def test_a_success_starts_the_count_anew(peer: ScriptedPeer) -> None:
    async with client_of(peer, failures=2) as client:
        with pytest.raises(errors.RefusedError):
            await client.get("k")
        await peer.listen()
        assert await client.get("k") == "value"
        await peer.refuse()
        peer.cut()
        with pytest.raises(errors.ConnectionError) as caught:
            await client.incr("k")
        assert not isinstance(caught.value, errors.CircuitOpenError)


async def test_a_refused_password_is_no_failure_of_the_server(gravito_engine: Any) -> None:
    client = Client.from_url(
        f"unix://{gravito_engine.ensure()}", username="nobody", password="wrong", breaker=Breaker(failures=1)
    )
    for _ in range(3):
        with pytest.raises(errors.AuthenticationError):
            await client.get("k")
    await client.aclose()


async def test_a_cancelled_attempt_leaves_the_way_free(peer: ScriptedPeer) -> None:
    async with client_of(peer, reset=0.05) as client:
        for _ in range(2):
            with pytest.raises(errors.RefusedError):
                await client.get("k")
        await asyncio.sleep(0.06)
        attempt = asyncio.ensure_future(client.blpop("k"))
        await asyncio.sleep(0)
        attempt.cancel()
        await peer.listen()
        await asyncio.sleep(0.06)
        assert await client.get("k") == "value"


def test_each_loop_has_its_own(tmp_path: Path) -> None:
    client = Client.from_url(
        f"unix://{tmp_path}/nobody.sock", breaker=Breaker(failures=1, reset=60), retry=QUICK
    )

    async def first() -> type[BaseException]:
        with pytest.raises(errors.RefusedError):
            await client.get("k")
        with pytest.raises(errors.CircuitOpenError):
            await client.get("k")
        return errors.CircuitOpenError

    assert asyncio.run(first()) is asyncio.run(first())


async def test_without_a_breaker_nothing_is_refused(peer: ScriptedPeer) -> None:
    async with Client.from_url(peer.url, retry=QUICK) as client:
        for _ in range(8):
            with pytest.raises(errors.RefusedError):
                await client.get("k")
