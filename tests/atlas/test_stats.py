"""Counters: each against what happened."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry, Stats
from gravito.atlas.wire.meter import Histogram
from gravito.testing import CUT, ScriptedPeer


def client_of(peer: ScriptedPeer, **options: Any) -> Client:
    return Client.from_url(peer.url, health_check=0, **options)


def test_a_client_that_did_nothing(redis: Client) -> None:
    stats = redis.stats()
    assert stats == Stats(
        **dict.fromkeys((field for field in Stats.__struct_fields__ if not field.startswith("latency")), 0)
    )
    assert stats.latency_p50 is None


async def test_every_reply_has_its_command(redis: Client) -> None:
    await redis.set("k", "v")
    await redis.pipeline().set("a", 1).get("a").execute()
    await redis.pipeline(transaction=False).get("a").get("b").get("c").execute()
    await redis.blpop("nothing", 0.01)
    await until(lambda: not redis.stats().leased)
    stats = redis.stats()
    assert stats.commands == stats.replies
    assert stats.commands >= 1 + 4 + 3 + 1  # MULTI and EXEC count, and so does each handshake
    assert stats.bytes_sent > 100
    assert stats.bytes_received > 50
    assert (stats.connections, stats.connects, stats.idle, stats.leased) == (2, 2, 1, 0)
    assert (stats.in_flight, stats.waiting, stats.errors, stats.disconnects) == (0, 0, 0, 0)


async def test_errors_that_reached_callers(redis: Client) -> None:
    await redis.set("word", "abc")
    with pytest.raises(errors.ResponseError):
        await redis.incr("word")
    assert redis.stats().errors == 1
    await (
        redis.pipeline(transaction=False).incr("word").get("word").incr("word").execute(raise_on_error=False)
    )
    assert redis.stats().errors == 3
    await redis.pipeline().incr("word").execute(raise_on_error=False)
    assert redis.stats().errors == 4


async def test_a_lost_wire_is_counted_whichever_it_was(redis: Client) -> None:
    killer = Client(redis.settings)
    waiting = redis.blpop("queue", 0)
    blocked: list[Any] = []
    while not blocked:
        blocked = [entry for entry in await killer.client_list() if entry["cmd"] == "blpop"]
    await killer.client_kill_filter(_id=blocked[0]["id"])
    with pytest.raises(errors.ConnectionLostError):
        await waiting
    assert redis.stats().disconnects == 1
    async with await redis.subscribe("news"):
        gap = asyncio.Event()
        redis.on_gap(lambda event: gap.set())
        subscribed = [entry for entry in await killer.client_list() if entry["sub"] == "1"]
        await killer.client_kill_filter(_id=subscribed[0]["id"])
        await gap.wait()
        stats = redis.stats()
        assert (stats.disconnects, stats.gaps) == (2, 1)
    await killer.aclose()
    await redis.aclose()
    assert redis.stats().disconnects == 2  # those that this client closed are none


async def test_retries_and_connects() -> None:
    answers = iter([CUT, errors.ResponseError("LOADING"), "value"])
    async with (
        ScriptedPeer(lambda command: next(answers)) as peer,
        client_of(peer, retry=Retry(base=0.001)) as client,
    ):
        assert await client.get("k") == "value"
        stats = client.stats()
        assert (stats.retries, stats.connects, stats.disconnects, stats.errors) == (2, 2, 1, 0)


async def test_counters_outlive_the_wires_and_never_fall(redis: Client) -> None:
    await redis.set("k", "v")
    before = redis.stats()
    await redis.aclose()
    after = redis.stats()
    assert after.commands >= before.commands
    assert (after.connections, after.in_flight) == (0, 0)
    await redis.get("k")
    assert redis.stats().commands > after.commands
    assert redis.stats().connects == 2


def test_counters_of_all_loops_together(redis: Client) -> None:
    async def work() -> int:
        await redis.incr("n")
        return redis.stats().commands

    first, second = asyncio.run(work()), asyncio.run(work())
    assert second == 2 * first
    view = redis.with_options(decode_responses=False)
    assert view.stats().commands >= second
    assert asyncio.run(work()) >= 3 * first
    gc.collect()


async def test_counters_of_another_loop_stay_when_its_wires_are_closed_from_here(redis: Client) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_twice(redis), loop))
        before, state = redis.stats(), redis._states[loop]
        assert before.connections == 1
        await redis.aclose()
        assert redis.stats().commands == before.commands
        await until(lambda: state.guard.ag_frame is None)  # that loop has closed them
        assert state.wires() == []
    finally:
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        loop.close()


async def _twice(redis: Client) -> None:
    await redis.incr("n")
    await redis.incr("n")


async def test_who_waits_for_a_leased_wire_waits(redis: Client) -> None:
    client = Client.from_url(redis.settings.url, limits={"leased_wires": 1})
    first, second = client.blpop("one", 0), client.blpop("two", 0)
    await until(lambda: client.stats().leased)
    assert client.stats().waiting == 1
    first.close()
    second.close()
    await client.aclose()


async def test_latency_is_kept_on_request(redis: Client) -> None:
    async with Client.from_url(redis.settings.url, measure_latency=True) as client:
        await asyncio.gather(*[client.get("k") for _ in range(50)])
        stats = client.stats()
        assert stats.latency_p50 is not None
        assert stats.latency_p99 is not None
        assert 0 < stats.latency_p50 <= stats.latency_p99 < 5


@given(st.lists(st.floats(0, 1e5), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_quantile_is_at_most_a_quarter_too_large(durations: list[float], share: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration, 1)
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]
    found = histogram.quantile(share)
    assert found is not None
    assert exact <= found * 1.000001
    assert found <= exact * 1.26 + 2e-6


def test_histograms_merge() -> None:
    one, two = Histogram(), Histogram()
    one.add(0.001, 3)
    two.add(1.0, 1)
    one.merge(two)
    assert sum(one.buckets) == 4
    largest = one.quantile(1.0)
    assert largest is not None
    assert largest >= 1.0
