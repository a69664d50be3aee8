"""Without the store: the cache degrades in time, says so, and comes back; without the source, the last value serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.faults.control import Control
from tests.faults.proxy import Proxy
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.atlas.embedded import Engine, engine_for
from gravito.stasis import Cache, Event, FailSafe, StoreDownError, TieredStore
from gravito.stasis._awaitables import All
from gravito.stasis._failsafe import Guard
from gravito.stasis._reads import silence


@pytest.fixture
def server() -> Iterator[Control]:
    with Control(None) as control:
        yield control


@pytest.fixture
async def cache(server: Control) -> AsyncIterator[Cache]:
    async with (
        Client.from_url(f"redis://127.0.0.1:{server.port}") as client,
        Cache(connection=client) as cache,
    ):
        yield cache


def errors_of(cache: Cache) -> list[Event]:
    events: list[Event] = []
    cache.on("error", events.append)
    return events


async def back(cache: Cache) -> None:
    """Until the cache has its store again."""
    await until(lambda: not cache.stats().breaker_open)


async def test_a_busy_loop_does_not_use_up_the_soft_timeout() -> None:
    guard = Guard(FailSafe(timeout=0.05), lambda: asyncio.sleep(0), "some store")

    async def answer(seconds: float) -> str:
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)
        await asyncio.sleep(seconds)
        return "answer"

    assert await guard.within(answer(0.08)) == "answer"
    with pytest.raises(errors.TimeoutError, match=r"some store did not answer within 0\.05 s"):
        await asyncio.wait_for(guard.within(answer(600)), 10)


async def test_an_engine_that_is_starting_is_no_store_that_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ensure = Engine.ensure

    def slow(engine: Engine) -> str:
        time.sleep(0.6)  # longer than the soft timeout
        return ensure(engine)

    monkeypatch.setattr(Engine, "ensure", slow)
    try:
        async with Client.from_url(f"embedded://{tmp_path}") as client, Cache(connection=client) as cache:
            told = errors_of(cache)
            assert await asyncio.gather(cache.put("a", 1, 60), cache.add("b", 2, 60)) == [True, True]
            assert await cache.many(["a", "b"]) == {"a": 1, "b": 2}
            assert told == []
            assert cache._core.guard._timeout == FailSafe().timeout
    finally:
        engine_for(tmp_path).stop()


async def test_an_engine_that_is_up_gets_the_soft_timeout_from_the_first_question_on(tmp_path: Path) -> None:
    engine = engine_for(tmp_path)
    try:
        async with Client.from_url(f"embedded://{tmp_path}") as client:
            cache = Cache(connection=client)
            told = errors_of(cache)  # it is made before the engine is started
            await client.ping()
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                assert await asyncio.wait_for(cache.get("k", "none"), 2) == "none"
                assert await asyncio.wait_for(Cache(connection=client).get("k", "none"), 2) == "none"
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            assert [type(each.error) for each in told] == [errors.TimeoutError]
    finally:
        engine.stop()


# -- the store is frozen, or dead ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_one_call_waits_and_the_next_ones_do_not(cache: Cache, server: Control, fault: str) -> None:
    await cache.put("k", "kept", 600)
    told = errors_of(cache)
    if fault == "frozen":
        server.suspend()
    else:
        server.kill()
    assert await asyncio.wait_for(cache.get("k", "none"), 2) == "none"
    assert cache.stats().breaker_open
    sent = cache._core.store.client.stats().commands  # type: ignore[attr-defined]  # it is a RedisStore
    for number in range(100):
        assert await cache.get("k") is None
        assert await cache.remember(f"k:{number}", 60, lambda: 7) == 7
        assert not await cache.put("k", "lost", 60)
        assert await cache.many(["k"]) == {"k": None}
        assert await cache.missing("k")
    # nothing waited, for nothing was asked but by the probes
    assert cache._core.store.client.stats().commands - sent <= 2  # type: ignore[attr-defined]  # as above
    assert not isinstance(told[0].error, StoreDownError)
    assert isinstance(told[-1].error, StoreDownError)
    if fault == "frozen":
        server.resume()
        await back(cache)
        assert await cache.get("k") == "kept"
    else:
        server.restart()
        await back(cache)
        assert await cache.get("k") is None
    assert await cache.put("k", "again", 60)
    assert await cache.get("k") == "again"


async def test_a_store_that_was_never_there(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        Client.from_url("unix:///tmp/gravito-nobody.sock") as client,
        Cache(connection=client) as cache,
    ):
        with caplog.at_level(logging.WARNING, "gravito.stasis"):
            for _ in range(5):
                assert await cache.remember("k", 60, lambda: "made") == "made"
        assert len([each for each in caplog.records if "goes on without its store" in each.message]) == 1
        assert cache.stats().errors >= 5
        assert cache.stats().runs == 5


async def test_what_nobody_waits_for_any_more_is_not_logged() -> None:
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    command = SimpleNamespace(future=loop.create_future())
    silence(All([command]))
    command.future.set_exception(ConnectionResetError())
    del command
    await asyncio.sleep(0)
    gc.collect()
    assert told == []


async def test_callers_of_one_key_still_share_a_run(cache: Cache, server: Control) -> None:
    server.suspend()
    runs = 0
    go = asyncio.Event()

    async def factory() -> int:
        nonlocal runs
        runs += 1
        await go.wait()
        return runs

    first = [asyncio.create_task(cache.remember("k", 60, factory)) for _ in range(10)]
    await until(lambda: runs and cache.stats().errors == 10)  # a busy loop gives the store more time
    later = [asyncio.create_task(cache.remember("k", 60, factory)) for _ in range(10)]
    await asyncio.sleep(0.05)
    go.set()
    assert await asyncio.gather(*first, *later) == [1] * 20
    server.resume()  # else closing waits for it


async def test_the_store_goes_while_the_factory_runs(cache: Cache, server: Control) -> None:
    async def factory() -> str:
        server.suspend()
        return "made"

    assert await asyncio.wait_for(cache.remember("k", 60, factory), 5) == "made"
    server.resume()
    await back(cache)


async def test_a_lost_invalidation_is_never_silent(cache: Cache, server: Control) -> None:
    await cache.put("k", 1, 60)
    told = errors_of(cache)
    server.kill()
    await cache.get("k")
    assert cache.stats().breaker_open
    for invalidate in (lambda: cache.forget("k"), lambda: cache.tags("t").flush(), cache.clear):
        with pytest.raises((errors.ConnectionError, errors.TimeoutError)):
            await invalidate()
    with pytest.raises((errors.ConnectionError, errors.TimeoutError)):
        await cache.increment("n")
    assert len(told) >= 4


CHANGES: dict[str, Callable[[Cache], Awaitable[Any]]] = {
    "increment": lambda cache: cache.increment("n"),
    "increment with tags": lambda cache: cache.tags("t").increment("n"),
    "add": lambda cache: cache.add("new", 1, 60),
    "pull": lambda cache: cache.pull("k"),
    "touch": lambda cache: cache.touch("k", 60),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_depends_on_the_store_waits_no_longer(cache: Cache, server: Control, name: str) -> None:
    change = CHANGES[name]
    await cache.put("k", 1, 600)
    await cache.tags("t").increment("n")
    told = errors_of(cache)
    server.suspend()
    with pytest.raises(errors.TimeoutError, match=r"the store redis did not answer within 0\.25 s"):
        await asyncio.wait_for(change(cache), 2)  # the connection itself would wait for 5 s
    assert cache.stats().breaker_open
    sent = cache._core.store.client.stats().commands  # type: ignore[attr-defined]  # it is a RedisStore
    for _ in range(100):
        with pytest.raises(StoreDownError) as raised:
            await change(cache)
        assert not raised.value.maybe_applied
    assert cache._core.store.client.stats().commands - sent <= 2  # type: ignore[attr-defined]  # probes only
    assert len(told) == cache.stats().errors == 101
    assert isinstance(told[0].error, errors.TimeoutError)
    server.resume()
    await back(cache)
    await change(cache)


async def test_a_late_write_may_have_been_done(cache: Cache, server: Control) -> None:
    await cache.increment("n")
    server.suspend()
    with pytest.raises(errors.TimeoutError, match="it may have been applied") as raised:
        await cache.increment("n")
    assert raised.value.maybe_applied
    server.resume()
    await back(cache)
    assert await cache.get("n") == 2


async def test_what_is_wrong_with_the_call_is_no_error_of_the_store(cache: Cache) -> None:
    await cache.put("text", "x", 60)
    with pytest.raises(errors.CacheError, match="no whole number"):
        await cache.increment("text")
    await cache.put("most", 2**63 - 1, 60)
    with pytest.raises(errors.CounterError):
        await cache.increment("most")
    assert cache.stats().errors == 0


async def test_writes_that_answer_end_a_row_of_failures(server: Control) -> None:
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        cache = Cache(connection=client, fail_safe=FailSafe(timeout=0.3, failures=2))
        await cache.increment("n")
        for _ in range(2):
            with server.suspended(), pytest.raises(errors.TimeoutError):
                await cache.increment("n")
            await cache.increment("n")
        assert not cache.stats().breaker_open


async def test_raise_instead(server: Control) -> None:
    settings = FailSafe(on_error="raise", timeout=0.1)
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        cache = Cache(connection=client, fail_safe=settings)
        await cache.put("k", 1, 60)
        server.suspend()
        with pytest.raises(errors.TimeoutError, match=r"the store redis did not answer within 0\.1 s"):
            await cache.get("k")
        with pytest.raises(StoreDownError):
            await cache.remember("k", 60, lambda: 1)
        with pytest.raises(StoreDownError):
            await cache.put("k", 2, 60)
        server.resume()
        await back(cache)
        assert await cache.get("k") == 1


async def test_a_server_that_refuses_writes_is_not_away(cache: Cache, server: Control) -> None:
    await cache.put("k", 1, 60)
    told = errors_of(cache)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert await cache.remember("new", 60, lambda: "made") == "made"
    assert not await cache.put("k", 2, 60)
    assert not cache.stats().breaker_open
    assert {type(each.error) for each in told} == {errors.OutOfMemoryError}
    assert await cache.get("k") == 1


async def test_failures_are_counted_in_a_row(server: Control) -> None:
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        cache = Cache(connection=client, fail_safe=FailSafe(timeout=0.3, failures=2))
        await cache.put("k", 1, 60)
        for _ in range(3):
            with server.suspended():
                assert await cache.get("k") is None
            for _ in range(3):
                assert await cache.get("k") == 1
        assert not cache.stats().breaker_open
        with server.suspended():
            assert [await cache.get("k"), await cache.get("k")] == [None, None]
            assert cache.stats().breaker_open
        await back(cache)


async def test_a_busy_loop_is_no_store_that_is_away(cache: Cache) -> None:
    await cache.put("k", 1, 60)
    for _ in range(3):
        reading = [asyncio.create_task(cache.get("k")) for _ in range(5)]
        await asyncio.sleep(0)  # asked, but not all sent yet
        time.sleep(0.4)  # noqa: ASYNC251  # that is what the test is about
        assert await asyncio.gather(*reading) == [1] * 5
    assert not cache.stats().breaker_open


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"timeout": 0}, "timeout"),
        ({"failures": -1}, "failures"),
        ({"probe": "1"}, "probe"),
        ({"on_error": "x"}, "on_error"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=field) as raised:
        FailSafe(**settings)
    assert raised.value.field == field


async def test_a_frozen_link_gives_nothing_older_than_the_heartbeat(server: Control) -> None:
    heartbeat = 0.5
    other = Client.from_url(f"redis://127.0.0.1:{server.port}")
    with Proxy(server.port) as proxy:
        async with other, Client.from_url(f"redis://127.0.0.1:{proxy.port}") as client:
            cache = Cache(TieredStore(client, heartbeat=heartbeat))
            assert await cache.put("k", "old", 600)
            assert await cache.get("k") == "old"
            proxy.swallow = {"down"}  # what the server announces is lost
            assert await Cache(connection=other).put("k", "new", 600)
            loop = asyncio.get_running_loop()
            written, last_stale = loop.time(), 0.0
            while loop.time() < written + 3 * heartbeat:
                if await cache.get("k") == "old":
                    last_stale = loop.time() - written
                await asyncio.sleep(0.01)
            assert last_stale <= heartbeat
            proxy.heal()
            proxy.reset()
            await back(cache)
            assert await cache.get("k") == "new"


# -- the source fails ----------------------------------------------------------------------------------------


class Source:
    """A factory that can fail."""

    def __init__(self) -> None:
        self.runs = 0
        self.down = False

    async def __call__(self) -> str:
        self.runs += 1
        if self.down:
            raise ConnectionRefusedError("the source is down")
        return f"value {self.runs}"


@pytest.mark.parametrize("store", ["redis", "tiered", "memory"])
async def test_a_failing_factory_serves_the_last_value(redis: Client, store: str) -> None:
    source = Source()
    async with Cache(store, connection=redis, retry=0.4) as cache:
        told = errors_of(cache)
        stale: list[Event] = []
        cache.on("stale", stale.append)

        async def read() -> Any:
            return await cache.remember("k", 0.1, source, stale=600)

        assert await read() == "value 1"
        await asyncio.sleep(0.15)
        assert await cache.get("k") is None  # past its ttl: only who would compute it gets the last value
        source.down = True
        assert [await read() for _ in range(50)] == ["value 1"] * 50
        assert source.runs == 2  # one try in each pause
        assert isinstance(told[0].error, ConnectionRefusedError)
        assert len(stale) == 50
        await asyncio.sleep(0.5)
        assert await asyncio.gather(*[read() for _ in range(20)]) == ["value 1"] * 20
        assert source.runs == 3
        source.down = False
        await asyncio.sleep(0.5)
        assert await read() == "value 4"
        assert await cache.get("k") == "value 4"


async def test_without_a_stale_window_the_error_comes_through(redis: Client) -> None:
    source = Source()
    async with Cache(connection=redis) as cache:
        await cache.remember("k", 0.05, source)
        await asyncio.sleep(0.1)
        source.down = True
        with pytest.raises(ConnectionRefusedError):
            await cache.remember("k", 0.05, source)


async def test_the_last_value_ends_with_its_window_and_with_its_tags(redis: Client) -> None:
    source = Source()
    async with Cache(connection=redis, retry=0.05) as cache:
        view = cache.tags("t")
        assert await view.remember("k", 0.05, source, stale=600) == "value 1"
        await asyncio.sleep(0.1)
        source.down = True
        assert await view.remember("k", 0.05, source, stale=600) == "value 1"
        await view.flush()
        with pytest.raises(ConnectionRefusedError):
            await view.remember("k", 0.05, source, stale=600)
