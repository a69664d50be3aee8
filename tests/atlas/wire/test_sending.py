"""The way out: encoding, order, cancellation, deadlines, room, teardown and what is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gravito import errors
from gravito.testing import CUT, SILENCE, Raw, reply

Make = Any  # the fixture's maker of a peer and a client on it


def echo(command: list[bytes]) -> bytes:
    return command[-1]


async def settle() -> None:
    """Let what is due in this loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # there is nothing else to wait for
            await asyncio.sleep(0.002)


async def under_way(redis: Any) -> None:
    """Wait until commands are in flight and those that wait do so."""
    shared = redis._state().topology.shared
    await until(lambda: shared.wire is not None and shared.wire.in_flight)
    await settle()


# -- encoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, True, [1], {"a": 1}, object(), "\ud800"])
async def test_an_encode_error_leaves_the_batch_intact(scripted: Make, bad: Any) -> None:
    peer, redis = await scripted(echo)
    await redis.execute("ECHO", "warm")
    before = [redis.execute("ECHO", f"a{n}") for n in range(3)]
    with pytest.raises(errors.DataError) as caught:
        redis.execute("SET", "secret-key", bad)
    after = [redis.execute("ECHO", f"b{n}") for n in range(3)]
    assert await asyncio.gather(*before, *after) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert len(peer.commands) == 7
    assert "secret-key" not in str(caught.value)


async def test_views_of_bytes_are_taken(scripted: Make) -> None:
    peer, redis = await scripted(echo)
    await asyncio.gather(
        *[redis.execute("ECHO", value) for value in (bytearray(b"a"), memoryview(b"b"), 1, 1.5)]
    )
    assert [command[1] for command in peer.commands] == [b"a", b"b", b"1", b"1.5"]


# -- cancellation ----------------------------------------------------------------------------------------------


async def test_cancelled_before_the_flush_is_not_sent(scripted: Make) -> None:
    peer, redis = await scripted(echo)
    await redis.execute("ECHO", "warm")

    async def call(value: str) -> Any:
        return await redis.execute("ECHO", value)

    async def cancel() -> None:
        tasks[2].cancel()
        tasks[3].cancel()

    tasks = [asyncio.create_task(call(str(n))) for n in range(5)]  # the first goes out at once
    await asyncio.create_task(cancel())  # in the same turn as they, before its end
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [replies[n] for n in (0, 1, 4)] == ["0", "1", "4"]
    assert [command[1] for command in peer.commands] == [b"warm", b"0", b"1", b"4"]


async def test_cancelled_before_there_is_a_wire_is_not_sent(scripted: Make) -> None:
    peer, redis = await scripted(echo)
    gone, kept = asyncio.create_task(redis.execute("ECHO", "a")), redis.execute("ECHO", "b")
    gone.cancel()
    assert await kept == "b"
    assert [command[1] for command in peer.commands] == [b"b"]


@pytest.mark.parametrize("which", range(4))
async def test_cancelled_after_the_flush_drops_the_reply(scripted: Make, which: int) -> None:
    peer, redis = await scripted([SILENCE] * 3 + [Raw(b"".join(reply(n) for n in range(4))), "next"])
    tasks = [asyncio.ensure_future(redis.execute("X", str(n))) for n in range(3)]
    await peer.received(3)
    tasks.append(asyncio.ensure_future(redis.execute("X", "3")))
    await settle() if which == 3 else None
    tasks[which].cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [value for n, value in enumerate(replies) if n != which] == [n for n in range(4) if n != which]
    assert await redis.execute("X") == "next"
    assert peer.connections == 1


async def test_a_cancelled_pipeline_sends_none_of_its_later_parts(scripted: Make) -> None:
    peer, redis = await scripted((), limits={"in_flight": 100})
    pipe = redis.pipeline(False)
    for n in range(10_000):
        pipe.execute_command("ECHO", str(n))
    task = asyncio.create_task(pipe.exec())
    await peer.received(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert all(entry.future.done() for entry in wire.waiting)
    await settle()
    assert len(peer.commands) <= 4096


# -- deadlines -------------------------------------------------------------------------------------------------


async def test_a_late_reply_is_dropped_and_the_wire_stays(scripted: Make) -> None:
    late = asyncio.Event()

    async def answer(command: list[bytes]) -> Any:
        if command[1] == b"slow":
            await late.wait()
        return command[1]

    peer, redis = await scripted(answer, timeouts={"command": 0.1})
    assert await redis.execute("ECHO", "a") == "a"
    with pytest.raises(errors.TimeoutError) as caught:
        await redis.execute("ECHO", "slow")
    late.set()
    assert await redis.execute("ECHO", "b") == "b"
    assert peer.connections == 1
    assert caught.value.maybe_applied is False  # ECHO changes nothing
    assert caught.value.node == peer.path
    assert caught.value.command == "ECHO"


async def test_a_late_write_may_have_been_applied(scripted: Make) -> None:
    _, redis = await scripted((), timeouts={"command": 0.05})
    with pytest.raises(errors.TimeoutError) as caught:
        await redis.set("k", "v")
    assert caught.value.maybe_applied


async def test_silence_replaces_the_wire(scripted: Make) -> None:
    peer, redis = await scripted(
        lambda command: SILENCE if peer.connections == 1 else command[1], timeouts={"command": 0.05}
    )
    with pytest.raises(errors.TimeoutError):
        await redis.execute("ECHO", "x")
    await until(lambda: redis._state().topology.shared.wire is None)
    assert await redis.execute("ECHO", "y") == "y"
    assert peer.connections == 2


async def test_a_deadline_of_ones_own(scripted: Make) -> None:
    peer, redis = await scripted([SILENCE, Raw(reply("late") + reply("b"))])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await redis.execute("A")
    assert await redis.execute("B") == "b"
    assert peer.connections == 1


async def test_a_pipeline_whose_replies_stop_tells_what_came(scripted: Make) -> None:
    _, redis = await scripted(["a", "b", SILENCE], timeouts={"command": 0.05})
    with pytest.raises(errors.TimeoutError) as caught:
        await redis.pipeline(False).execute_command("X").execute_command("Y").execute_command("Z").exec()
    assert caught.value.replies == ["a", "b"]  # type: ignore[attr-defined]
    assert caught.value.maybe_applied


async def test_an_idle_wire_is_pinged_and_a_dead_one_replaced(scripted: Make) -> None:
    answers = iter(["a"])
    peer, redis = await scripted(
        lambda _: next(answers, SILENCE), health_check=0.02, timeouts={"command": 0.05}
    )
    assert await redis.execute("X") == "a"
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert (await peer.received(2))[1] == [b"PING"]
    await until(lambda: wire.ended is not None)


# -- room ------------------------------------------------------------------------------------------------------


async def test_commands_in_flight_are_bounded_and_keep_their_order(scripted: Make) -> None:
    gate = asyncio.Event()

    async def answer(command: list[bytes]) -> bytes:
        await gate.wait()
        return command[1]

    _, redis = await scripted(answer, limits={"in_flight": 10})
    tasks = [asyncio.ensure_future(redis.execute("ECHO", str(n))) for n in range(100)]
    await under_way(redis)
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert (wire.in_flight, wire.unsent) == (10, 90)
    tasks[50].cancel()
    gate.set()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [value for value in replies if isinstance(value, str)] == [str(n) for n in range(100) if n != 50]


async def test_bytes_in_flight_are_bounded(scripted: Make) -> None:
    gate = asyncio.Event()

    async def answer(command: list[bytes]) -> int:
        await gate.wait()
        return len(command[1])

    _, redis = await scripted(answer, limits={"in_flight_bytes": 1_000_000})
    tasks = [asyncio.ensure_future(redis.execute("ECHO", "x" * 300_000)) for _ in range(10)]
    await under_way(redis)
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert wire.in_flight == 3
    assert wire._bytes < 1_000_000
    gate.set()
    assert await asyncio.gather(*tasks) == [300_000] * 10


async def test_a_large_pipeline_keeps_within_the_limits(scripted: Make) -> None:
    gate = asyncio.Event()

    async def answer(command: list[bytes]) -> int:
        await gate.wait()
        return int(command[1])

    _, redis = await scripted(answer, limits={"in_flight": 5000})
    pipe = redis.pipeline(False)
    for n in range(20_000):
        pipe.execute_command("ECHO", n)
    task = asyncio.ensure_future(pipe.exec())
    await under_way(redis)
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert wire._commands <= 5000
    gate.set()
    assert await task == list(range(20_000))


async def test_waiting_for_room_has_a_deadline_and_is_not_sent(scripted: Make) -> None:
    answers = iter(["a"])
    peer, redis = await scripted(
        lambda _: next(answers, SILENCE), limits={"in_flight": 1}, timeouts={"command": 0.1, "lease": 0.1}
    )
    await redis.execute("WARM")
    first, second = redis.execute("A"), redis.execute("B")
    errors_ = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(errors_[1], errors.LeaseTimeoutError)
    assert not errors_[1].maybe_applied
    assert [command[0] for command in peer.commands] == [b"WARM", b"A"]


async def test_order_holds_when_room_comes_free(scripted: Make) -> None:
    peer, redis = await scripted(echo, limits={"in_flight": 1})
    await redis.execute("ECHO", "warm")

    async def second(first: Any) -> None:
        await first
        await redis.execute("ECHO", "late")  # sent the moment the first reply is there

    first = redis.execute("ECHO", "0")
    waiting = [redis.execute("ECHO", str(n)) for n in (1, 2)]
    await asyncio.gather(second(first), *waiting)
    assert [command[1] for command in peer.commands] == [b"warm", b"0", b"1", b"2", b"late"]


async def test_a_transport_that_is_full_holds_the_rest_back(scripted: Make) -> None:
    peer, redis = await scripted(lambda command: len(command[1]), limits={"lease_over": 10_000_000})
    await redis.execute("X", "")
    peer.deaf()
    await redis.execute("X", "")  # the peer stops at its next read
    big = "x" * 2_000_000
    tasks = [asyncio.ensure_future(redis.execute("X", big)) for _ in range(3)]
    await settle()
    wire = redis._state().topology.shared.wire
    assert wire is not None
    assert wire._paused
    held = asyncio.ensure_future(redis.execute("X", "held"))
    gone = asyncio.ensure_future(redis.execute("X", "gone"))
    await settle()
    assert wire.unsent >= 2
    gone.cancel()
    peer.hear()
    assert await asyncio.gather(*tasks, held) == [2_000_000] * 3 + [4]
    assert [b"gone"] not in [command[1:] for command in peer.commands]


# -- teardown --------------------------------------------------------------------------------------------------


async def test_one_teardown_settles_everyone_once(scripted: Make) -> None:
    def answer(command: list[bytes]) -> Any:
        return command[-1] if peer.connections > 1 else SILENCE

    peer, redis = await scripted(answer, limits={"in_flight": 5})
    pipe = redis.pipeline(False).get("p1").execute_command("WRITE", "p2").exec()
    calls = [asyncio.create_task(pipe)]
    await asyncio.sleep(0)
    calls += [redis.execute("GET", "r1"), redis.execute("WRITE", "w1"), redis.execute("GET", "r2")]
    await peer.received(4)
    calls += [redis.execute("WRITE", "unsent"), redis.execute("GET", "unsent too")]
    wire = redis._state().topology.shared.wire
    await settle()
    assert wire.unsent == 2
    peer.cut()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [replies[n] for n in (1, 3, 4, 5)] == ["r1", "r2", "unsent", "unsent too"]
    for lost in (replies[0], replies[2]):
        assert isinstance(lost, errors.ConnectionLostError)
        assert lost.maybe_applied
        assert lost.node == peer.path
    assert sorted(c[-1] for c in peer.commands if c[0] == b"WRITE") == [b"p2", b"unsent", b"w1"]


async def test_reads_are_not_sent_for_ever(scripted: Make) -> None:
    peer, redis = await scripted(lambda _: CUT, retry={"attempts": 2, "base": 0.001})
    with pytest.raises(errors.ConnectionLostError) as caught:
        await redis.get("k")
    assert len(peer.commands) == 3
    assert caught.value.attempt == 3
    assert not caught.value.maybe_applied


async def test_a_policy_of_no_retries(scripted: Make) -> None:
    peer, redis = await scripted([Exception("LOADING x"), CUT], retry={"attempts": 0})
    with pytest.raises(errors.LoadingError):
        await redis.get("k")
    with pytest.raises(errors.ConnectionLostError):
        await redis.get("k")
    assert len(peer.commands) == 2


async def test_a_pipeline_of_reads_is_sent_again_as_a_whole(scripted: Make) -> None:
    answers: list[Any] = ["a", CUT, "a", "b"]
    peer, redis = await scripted(answers)
    assert await redis.pipeline(False).get("1").get("2").exec() == ["a", "b"]
    assert peer.connections == 2


async def test_closing_the_client_fails_who_waits(scripted: Make) -> None:
    _, redis = await scripted(())
    waiting = [redis.set("k", "v"), redis.blpop("list", 0), redis.xread({"s": "$"}, block=0)]
    tasks = [asyncio.ensure_future(call) for call in waiting]
    await asyncio.sleep(0.02)
    await redis.aclose()
    async with asyncio.timeout(10):
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, errors.LoopError)


@pytest.mark.parametrize("code", ["LOADING x", "TRYAGAIN x", "BUSY x", "CLUSTERDOWN x", "MASTERDOWN x"])
@pytest.mark.parametrize("lease", [False, True])
async def test_what_was_not_applied_is_tried_again(scripted: Make, code: str, lease: bool) -> None:
    answers = [Exception(code), Exception(code), "done"]
    _, redis = await scripted(answers, limits={"lease_over": 10} if lease else {}, retry={"base": 0.001})
    assert await redis.execute("SETRANGE", "k", "value") == "done"


async def test_tried_again_until_the_deadline(scripted: Make) -> None:
    peer, redis = await scripted(
        lambda _: Exception("LOADING x"), timeouts={"command": 0.1}, retry={"base": 0.01, "cap": 0.02}
    )
    with pytest.raises(errors.LoadingError) as caught:
        await redis.set("k", "v")
    assert 3 < len(peer.commands) < 1000
    assert caught.value.attempt == len(peer.commands)


async def test_cancelled_between_two_tries_is_not_sent_again(scripted: Make) -> None:
    peer, redis = await scripted([Exception("LOADING x"), "applied"], retry={"base": 0.01, "cap": 0.02})
    task = asyncio.ensure_future(redis.set("k", "v"))
    await peer.received(1)
    await settle()
    task.cancel()
    await asyncio.sleep(0.05)
    assert len(peer.commands) == 1


@pytest.mark.parametrize("code", ["WRONGPASS x", "ERR x", "READONLY x", "NOPERM x", "OOM x"])
async def test_what_was_refused_for_good_is_not(scripted: Make, code: str) -> None:
    peer, redis = await scripted([Exception(code), "again"])
    with pytest.raises(errors.GravitoError):
        await redis.execute("SET", "k", "v")
    assert len(peer.commands) == 1


async def test_a_wire_that_is_no_longer_let_in_is_replaced_once(scripted: Make) -> None:
    peer, redis = await scripted(lambda _: Exception("NOAUTH x"))
    with pytest.raises(errors.AuthenticationError):
        await redis.execute("SET", "k", "v")
    assert [command[0] for command in peer.commands if command != [b"PING"]] == [b"SET", b"SET"]


async def test_what_was_never_written_waits_for_the_next_wire(scripted: Make) -> None:
    peer, redis = await scripted(echo, retry={"base": 0.01, "cap": 0.05, "attempts": 20})
    await redis.execute("ECHO", "warm")
    await peer.refuse()
    peer.cut()
    await asyncio.sleep(0.01)
    waiting = [redis.execute("WRITE", str(n)) for n in range(10)]
    await asyncio.sleep(0.02)
    await peer.listen()
    assert await asyncio.gather(*waiting) == [str(n) for n in range(10)]
    assert [command[1] for command in peer.commands[1:]] == [str(n).encode() for n in range(10)]


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_tasks_within_may_be_cancelled_by_others(scripted: Make, steps: int) -> None:
    """Some programs cancel every task that they find; nobody may wait for ever then."""
    _, redis = await scripted(
        lambda command: command[1] if command[0] == b"ECHO" else SILENCE, timeouts={"command": None}
    )
    calls = [redis.execute("ECHO", "a"), redis.blpop("k", 0)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("gravito"):
            task.cancel()
    async with asyncio.timeout(10):
        for error in await asyncio.gather(*[call.future for call in calls], return_exceptions=True):
            assert isinstance(error, errors.GravitoError)
        assert await redis.execute("ECHO", "b") == "b"
