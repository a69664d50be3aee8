"""Options per call: views with their own deadline and retry policy, alone and together with everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Client, Event, Retry
from gravito.testing import CUT, SILENCE, ScriptedPeer, Simple


@pytest.fixture
async def silent() -> AsyncIterator[ScriptedPeer]:
    """A peer that answers nothing but PING."""
    async with ScriptedPeer(lambda command: Simple("PONG") if command == [b"PING"] else SILENCE) as peer:
        yield peer


def client_of(peer: ScriptedPeer, **options: Any) -> Client:
    timeouts = {"drain": 0, **options.pop("timeouts", {})}
    return Client.from_url(peer.url, health_check=0, timeouts=timeouts, **options)


def test_a_view_of_a_view_keeps_what_it_is_not_told(redis: Client) -> None:
    patient = redis.with_options(timeout=9.0)
    both = patient.with_options(retry=Retry(attempts=7))
    raw = both.with_options(decode_responses=False)
    assert (raw._timeout, raw._retry, raw._text) == (9.0, Retry(attempts=7), False)
    assert raw._root is redis
    assert raw._send.__self__ is raw  # not the view's that it was made from
    assert (redis._timeout, redis._retry, redis._text) == (None, None, True)


async def test_a_view_of_a_view_applies_its_own_options(redis: Client, silent: ScriptedPeer) -> None:
    async with client_of(silent) as client:
        view = client.with_options(timeout=30.0).with_options(timeout=0.05)
        with pytest.raises(errors.TimeoutError, match=r"within 0\.05 s"):
            await view.get("k")


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("inf")])
def test_a_deadline_that_is_none(redis: Client, timeout: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="positive number of seconds"):
        redis.with_options(timeout=timeout)


def test_a_policy_that_is_none(redis: Client) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"allowed: a Retry object") as caught:
        redis.with_options(retry={"attempts": 0})  # type: ignore[arg-type]
    assert caught.value.field == "retry"


@pytest.mark.parametrize("timeout", [0.5, 60.0])
def test_without_a_loop_a_view_says_so(redis: Client, timeout: float) -> None:
    with pytest.raises(errors.LoopError, match="GET was called with no event loop running"):
        redis.with_options(timeout=timeout).get("k")


async def test_a_shorter_deadline_is_the_view_s_alone(silent: ScriptedPeer) -> None:
    async with client_of(silent, timeouts={"command": 10}) as client:
        other = client.get("slow")
        with pytest.raises(errors.TimeoutError) as caught:
            await client.with_options(timeout=0.05).incr("n")
        assert caught.value.maybe_applied
        assert not other.future.done()
        assert client.stats().timeouts == 1
        other.close()


async def test_a_deadline_before_anything_was_sent_says_that_nothing_was_applied() -> None:
    """Nobody listens, and connecting is tried for longer than this view waits."""
    client = Client.from_url("unix:///nowhere/there.sock", retry=Retry(attempts=50, base=0.05, cap=0.05))
    with pytest.raises(errors.ConnectTimeoutError, match="it was not applied") as caught:
        await client.with_options(timeout=0.1).incr("n")
    assert not caught.value.maybe_applied
    await client.aclose()


async def test_a_deadline_before_there_is_room_says_that_nothing_was_applied(silent: ScriptedPeer) -> None:
    async with client_of(silent, limits={"in_flight": 1}) as client:
        first = client.get("fills the room")
        with pytest.raises(errors.LeaseTimeoutError, match="it was not applied") as caught:
            await client.with_options(timeout=0.1).incr("n")
        assert not caught.value.maybe_applied
        assert client.stats().timeouts == 0
        first.close()


async def test_a_deadline_before_a_leased_wire_is_free_says_that_nothing_was_applied(
    silent: ScriptedPeer,
) -> None:
    async with client_of(silent, limits={"leased_wires": 1}) as client:
        first = client.blpop("queue", 0)
        await silent.received(1)
        with pytest.raises(errors.LeaseTimeoutError) as caught:
            await client.with_options(timeout=0.1).blpop("other", 0)
        assert not caught.value.maybe_applied
        first.close()


async def late(command: list[bytes]) -> Any:
    if command[-1] == b"late":
        await asyncio.sleep(0.3)
    return [Simple("OK")] if command == [b"EXEC"] else Simple("OK")


@pytest.fixture
async def slow() -> AsyncIterator[ScriptedPeer]:
    """A peer that takes 0.3 s for a command that ends in "late"."""
    async with ScriptedPeer(late) as peer:
        yield peer


@pytest.fixture
async def patient(slow: ScriptedPeer) -> AsyncIterator[tuple[Client, Client]]:
    """A client that waits for 0.1 s, and a view of it that waits for 5."""
    async with client_of(slow, timeouts={"command": 0.1}, retry=Retry(attempts=0)) as client:
        yield client, client.with_options(timeout=5)


async def test_a_longer_deadline_takes_a_wire_of_its_own(patient: tuple[Client, Client]) -> None:
    client, view = patient
    waiting = view.set("k", "late")
    assert await client.set("k", "v") is True  # nobody waits behind it
    assert await waiting is True
    with pytest.raises(errors.TimeoutError):
        await client.set("k", "late")


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_longer_deadline_holds_for_a_pipeline(
    patient: tuple[Client, Client], transaction: bool
) -> None:
    client, view = patient
    assert await view.pipeline(transaction).set("k", "late").execute() == [True]
    assert client.stats().timeouts == 0


async def test_a_longer_deadline_holds_for_many_batches(patient: tuple[Client, Client]) -> None:
    _, view = patient
    pipe = view.pipeline(transaction=False)
    for number in range(5000):
        pipe.set("k", number)
    pipe.set("k", "late")
    assert await pipe.execute() == [True] * 5001


async def test_a_longer_deadline_holds_in_a_session(patient: tuple[Client, Client]) -> None:
    _, view = patient
    async with view.client() as session:
        assert await session.set("k", "late") is True


async def test_a_shorter_deadline_holds_for_watched_reads_and_sessions(silent: ScriptedPeer) -> None:
    async with client_of(silent) as client:
        view = client.with_options(timeout=0.05)
        async with view.pipeline() as pipe:
            with pytest.raises(errors.TimeoutError, match=r"0\.05"):
                await pipe.watch("k")
        async with view.client() as session:
            with pytest.raises(errors.TimeoutError, match=r"0\.05"):
                await session.incr("n")


async def test_a_view_does_all_that_a_client_does(redis: Client) -> None:
    for view in (
        redis.with_options(timeout=2),
        redis.with_options(timeout=60),
        redis.with_options(retry=Retry()),
    ):
        assert await view.set("n", 1) is True
        assert await view.pipeline().incr("n").get("n").execute() == [2, "2"]
        assert await view.pipeline(transaction=False).incr("n").get("n").execute() == [3, "3"]
        script = view.script("return redis.call('incr', KEYS[1])")
        assert await script(keys=["n"]) == 4

        async def double(pipe: Any) -> None:
            value = int(await pipe.get("n"))
            pipe.multi()
            pipe.set("n", value * 2)

        assert await view.transaction(double, "n") == [True]
        async with await view.subscribe("news") as news:
            await view.publish("news", "x")
            message = await news.get(timeout=5)
            assert message is not None
            assert message.data == "x"
        assert await view.with_options(decode_responses=False).get("n") == b"8"
        async with view.lock("lock", timeout=5):
            pass
        async with view:
            assert await view.get("n") == "8"


# -- retry ----------------------------------------------------------------------------------------------------


def cutting(times: int) -> Iterator[Any]:
    """Cut the connection at the first commands, then answer."""
    for _ in range(times):
        yield CUT
    while True:
        yield 1


@pytest.mark.parametrize("name", ["get", "incr"])
async def test_attempts_0_sends_nothing_again(name: str) -> None:
    async with ScriptedPeer(cutting(1)) as peer, client_of(peer) as client:
        with pytest.raises(errors.ConnectionLostError) as caught:
            await getattr(client.with_options(retry=Retry(attempts=0)), name)("k")
        assert caught.value.maybe_applied is (name == "incr")
        assert len(peer.commands) == 1


async def test_a_lost_write_is_sent_again_when_the_view_says_so_and_never_otherwise() -> None:
    async with ScriptedPeer(cutting(2)) as peer, client_of(peer) as client:
        retries: list[Event] = []
        client.on_retry(retries.append)
        with pytest.raises(errors.ConnectionLostError) as caught:
            await client.incr("n")
        assert caught.value.maybe_applied
        assert retries == []
        assert await client.with_options(retry=Retry(writes=True)).incr("n") == 1
        assert [(event.command, event.attempt) for event in retries] == [("INCRBY", 2)]
        assert client.stats().retries == 1


async def test_a_write_that_was_sent_again_in_vain_says_that_it_may_have_been_applied() -> None:
    """The first try was sent and lost; the second one cannot even be sent."""
    async with ScriptedPeer() as peer:

        async def vanish(command: list[bytes]) -> Any:
            await peer.refuse()
            return CUT

        peer._answer = vanish
        async with client_of(peer, retry=Retry(attempts=1, base=0.001, writes=True)) as client:
            with pytest.raises(errors.RefusedError) as caught:
                await client.incr("n")
            assert caught.value.maybe_applied


async def test_a_large_pipeline_that_is_sent_again_starts_its_replies_over() -> None:
    """It travels on a leased wire; the first two replies came before that was lost."""
    answers = iter([1, 2, CUT, 10, 20, 30])
    async with (
        ScriptedPeer(lambda command: next(answers)) as peer,
        client_of(peer, limits={"lease_over": 1000}) as client,
    ):
        pipe = client.pipeline(transaction=False)
        for _ in range(3):
            pipe.strlen("k" * 500)
        assert await pipe.execute() == [10, 20, 30]


async def test_retries_of_leased_commands_are_counted_and_told() -> None:
    async with ScriptedPeer(cutting(1)) as peer, client_of(peer, limits={"lease_over": 100}) as client:
        retries: list[Event] = []
        client.on_retry(retries.append)
        assert await client.strlen("k" * 500) == 1
        assert [event.command for event in retries] == ["STRLEN"]
        assert client.stats().retries == 1


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_pipeline_that_the_server_did_not_carry_out_is_sent_again(transaction: bool) -> None:
    """LOADING: MULTI is taken, the commands are refused, and EXEC aborts."""
    loading = errors.ResponseError("LOADING the data set")
    refused = [Simple("OK"), loading, loading, errors.ResponseError("EXECABORT discarded")]
    done = [Simple("OK"), Simple("QUEUED"), Simple("QUEUED"), [1, 2]]
    answers = iter([*refused, *done] if transaction else [loading, loading, 1, 2])
    async with ScriptedPeer(lambda command: next(answers)) as peer, client_of(peer) as client:
        assert await client.pipeline(transaction).incr("n").incr("n").execute() == [1, 2]
        assert client.stats().retries == 1


@pytest.mark.parametrize(
    "replies",
    [
        [1, errors.ResponseError("LOADING the data set")],
        [errors.ResponseError("LOADING the data set"), 1],
        [errors.ResponseError("LOADING the data set"), errors.ResponseError("ERR of another kind")],
    ],
)
async def test_a_pipeline_of_which_something_was_carried_out_is_not_sent_again(replies: list[Any]) -> None:
    answers = iter(replies)
    async with ScriptedPeer(lambda command: next(answers)) as peer, client_of(peer) as client:
        with pytest.raises(errors.LoadingError):
            await client.pipeline(transaction=False).incr("n").incr("n").execute()
        assert client.stats().retries == 0
