"""The local tier: what is kept, when it is dropped, and that nothing stale is given out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import inf
from time import monotonic
from typing import Any

import pytest
from tests.faults.control import Control
from tests.faults.proxy import Proxy
from tests.servers.catalogue import lacks
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Limits, Retry, Timeouts
from gravito.atlas.tracking import Tracked
from gravito.atlas.wire.shelves import Shelves
from gravito.atlas.wire.tier import Tier
from gravito.testing import SILENCE, Push, Raw, ScriptedPeer, Simple, reply

HEARTBEAT = 0.6  # seconds, in tests of silent servers


@pytest.fixture
async def client(redis: Client) -> AsyncIterator[Client]:
    """A client that may track, whatever the run's RESP version."""
    async with Client.from_url(f"unix://{redis.settings.path}", client_name="tracking-test") as client:
        yield client


@pytest.fixture
async def other(client: Client) -> AsyncIterator[Client]:
    """Somebody else."""
    async with Client.from_url(f"unix://{client.settings.path}", client_name="other") as other:
        yield other


def tier_of(tracked: Tracked) -> Tier:
    tier = tracked._state().topology.tier
    assert tier is not None
    return tier


def shelves_of(tracked: Tracked) -> Shelves:
    return tier_of(tracked).shelves


async def asked(client: Client, call: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """A call's result, and how many commands it sent."""
    before = client.stats().commands
    result = await call()
    return result, client.stats().commands - before


async def foreign(client: Client, call: Awaitable[Any]) -> None:
    """Somebody else's write, acknowledged; and a round trip of ours, behind which its announcement has come."""
    await call
    await client.ping()


# -- hits ----------------------------------------------------------------------------------------------------


async def test_a_hit_sends_nothing(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    assert await tracked.get("k") == "v"
    before = client.stats().commands
    assert await tracked.get("k") == "v"
    assert await tracked.execute("GET", "k") == "v"
    assert client.stats().commands == before
    stats = tracked.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 1, 1)
    assert stats.entry_bytes > 0


async def test_a_hit_is_awaited_in_any_way(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    hit = tracked.get("k")
    assert await hit == await hit == "v"
    assert await asyncio.create_task(tracked.get("k")) == "v"
    assert await asyncio.gather(tracked.get("k"), tracked.get("k")) == ["v", "v"]
    assert await asyncio.wait_for(tracked.get("k"), 1) == "v"
    task = asyncio.create_task(tracked.get("k"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await tracked.get("k") == "v"
    tracked.get("k")  # nobody awaits it, and nobody is told off


async def test_what_is_missing_is_kept_too(client: Client, other: Client) -> None:
    tracked = client.tracked()
    assert await tracked.get("none") is None
    assert (await asked(client, lambda: tracked.get("none")))[1] == 0
    await foreign(client, other.set("none", "some"))
    assert await tracked.get("none") == "some"


async def test_reads_of_all_types(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.set("s", "text")
    await client.rpush("l", 1, 2, 3)
    await client.sadd("set", "a")
    await client.zadd("z", {"a": 1.5})
    await client.hset("h", mapping={"f": "1", "g": "2"})
    await client.xadd("x", {"f": "v"}, id="1-1")
    await client.setbit("bits", 1, 1)
    await client.geoadd("geo", (2.0, 48.0, "here"))
    calls = [
        lambda on: on.strlen("s"),
        lambda on: on.getrange("s", 0, 1),
        lambda on: on.exists("s"),
        lambda on: on.lrange("l", 0, -1),
        lambda on: on.lindex("l", 0),
        lambda on: on.smembers("set"),
        lambda on: on.smismember("set", ["a", "b"]),
        lambda on: on.zrange("z", 0, -1, withscores=True),
        lambda on: on.zscore("z", "a"),
        lambda on: on.hget("h", "f"),
        lambda on: on.hmget("h", ["f", "g"]),
        lambda on: on.hexists("h", "f"),
        lambda on: on.xrange("x"),
        lambda on: on.bitcount("bits"),
        lambda on: on.geopos("geo", "here"),
    ]
    for call in calls:
        expected = await call(other)
        assert await call(tracked) == expected
        assert await asked(client, lambda call=call: call(tracked)) == (expected, 0)


async def test_what_is_not_kept_goes_to_the_server(client: Client) -> None:
    tracked = client.tracked()
    await client.hset("h", "f", "1")
    await client.set("k", "1", ex=100)
    for name in ("hvals", "ttl", "hlen", "type"):
        await tracked.execute(name.upper(), "h")
        assert (await asked(client, lambda name=name: tracked.execute(name.upper(), "h")))[1] == 1
    assert await tracked.exists("h", "k") == 2
    assert await tracked.incr("k") == 2
    assert await tracked.pipeline().get("k").exec() == ["2"]


async def test_text_and_bytes_are_kept_apart(client: Client) -> None:
    tracked = client.tracked()
    raw = tracked.with_options(decode_responses=False)
    assert isinstance(raw, Tracked)
    await client.set("k", "v")
    for _ in range(2):
        assert await tracked.get("k") == "v"
        assert await raw.get("k") == b"v"
        assert await tracked.execute("GET", "k", decode_responses=False) == b"v"
        assert await tracked.get(b"k") == "v"
    assert tracked.stats().misses == 3
    assert await tracked.with_options(decode_responses=False).get("k") == b"v"
    await client.set("k", "w")
    assert (await tracked.get("k"), await raw.get("k"), await tracked.get(b"k")) == ("w", b"w", "w")


async def test_nobody_can_change_what_others_get(client: Client) -> None:
    tracked = client.tracked()
    await client.rpush("l", "a")
    first, joined = tracked.lrange("l", 0, -1), tracked.lrange("l", 0, -1)
    (await first).append("mine")
    assert await joined == ["a"]
    (await tracked.lrange("l", 0, -1)).append("mine")
    assert await tracked.lrange("l", 0, -1) == ["a"]
    await client.xadd("x", {"f": "v"}, id="1-1")
    (await tracked.xrange("x"))[0][1]["f"] = "mine"
    (await tracked.xrange("x"))[0][1]["f"] = "mine"
    assert await tracked.xrange("x") == [("1-1", {"f": "v"})]
    await tracked.mget("a", "b")
    (await tracked.mget("a", "b")).append("mine")
    assert await tracked.mget("a", "b") == [None, None]


async def test_errors_are_the_servers_and_are_not_kept(client: Client) -> None:
    tracked = client.tracked()
    await client.rpush("l", "a")
    for _ in range(2):
        with pytest.raises(errors.WrongTypeError):
            await tracked.get("l")
    await client.set("raw", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        await tracked.get("raw")
    assert await tracked.with_options(decode_responses=False).get("raw") == b"\xff"
    with pytest.raises(errors.DataError):
        await tracked.get(None)
    assert tracked.stats().entries == 1


async def test_a_key_that_is_no_text_is_read_but_not_kept(client: Client, other: Client) -> None:
    """The server's announcement of it could not be read among replies that are text."""
    tracked = client.tracked()
    key = b"\xff\xfe"
    await client.set(key, "v")
    await client.set("k", "text")
    assert await tracked.get(key) == "v"
    assert tracked.stats().entries == 0
    await other.set(key, "w")
    assert await asyncio.gather(tracked.get("k"), tracked.get(key), client.get("k")) == ["text", "w", "text"]


async def test_a_converter_that_is_set_later_counts(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "1")
    assert await tracked.get("k") == "1"
    client.set_response_callback("GET", int)
    assert await tracked.get("k") == await tracked.get("k") == 1


# -- MGET ----------------------------------------------------------------------------------------------------


async def test_mget_puts_hits_and_misses_together(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.mset({"a": 1, "b": 2, "c": 3})
    await client.rpush("l", "x")
    await tracked.get("b")
    result, sent = await asked(client, lambda: tracked.mget("a", "b", "l", "c", "a", "none"))
    assert result == ["1", "2", None, "3", "1", None]
    assert sent == 2 + 4  # opt-in, MGET of four, and the time to live of each
    assert await asked(client, lambda: tracked.mget(["a", "b", "c", "none"])) == (["1", "2", "3", None], 0)
    assert await asked(client, lambda: tracked.get("a")) == ("1", 0)
    with pytest.raises(errors.WrongTypeError):  # None of MGET is not "no such key"
        await tracked.get("l")
    await foreign(client, other.set("c", 4))
    assert await tracked.mget("a", "c") == ["1", "4"]


# -- invalidation --------------------------------------------------------------------------------------------


async def test_a_foreign_write_drops_what_is_kept(client: Client, other: Client) -> None:
    tracked = client.tracked()
    for number in range(200):
        await other.set("k", number)
        await client.ping()
        assert await tracked.get("k") == str(number)
        assert await tracked.get("k") == str(number)
    assert tracked.stats().invalidations == 199


async def test_other_keys_stay(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.mset({"a": 1, "b": 1})
    await tracked.mget("a", "b")
    await foreign(client, other.set("a", 2))
    assert await asked(client, lambda: tracked.get("b")) == ("1", 0)
    assert await tracked.get("a") == "2"


@pytest.mark.parametrize("flush", ["flushall", "flushdb"])
async def test_a_foreign_flush_drops_all(client: Client, other: Client, flush: str) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    await tracked.get("none")
    await foreign(client, getattr(other, flush)())
    assert tracked.stats().entries == 0
    assert await tracked.get("k") is None


async def test_a_script_that_does_not_name_its_key(client: Client) -> None:
    """Nobody but the server knows: so it announces this connection's own writes, too (no NOLOOP)."""
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    await client.eval("redis.call('set', 'k'..'', 'w')", 0)
    await client.ping()
    assert await tracked.get("k") == "w"


async def test_an_invalidation_between_a_read_and_its_time() -> None:
    """The announcement comes before the flight is complete: the value is for the caller, and not kept."""
    peer = ScriptedPeer(_interrupted)
    async with peer, Client.from_url(peer.url, decode_responses=True) as client:
        tracked = client.tracked()
        assert await tracked.get("k") == "old"
        assert tracked.stats().entries == 0


async def test_an_invalidation_right_behind_the_reply() -> None:
    """In the same bytes as the reply: kept by the reader, then dropped. A task would come too late to be dropped."""
    peer = ScriptedPeer(_followed)
    async with peer, Client.from_url(peer.url, decode_responses=True) as client:
        tracked = client.tracked()
        assert await tracked.get("k") == "old"
        assert (tracked.stats().entries, tracked.stats().invalidations) == (0, 1)


def _interrupted(command: list[bytes]) -> Any:
    if command[0] == b"GET":
        return Raw(reply("old") + reply(Push(["invalidate", ["k"]])))
    return -1 if command[0] == b"PTTL" else Simple("OK")


def _answered(command: list[bytes]) -> Any:
    """A server that announces nothing."""
    if command[0] == b"PTTL":
        return 1000
    return "old" if command[0] == b"GET" else Simple("OK")


def _followed(command: list[bytes]) -> Any:
    if command[0] == b"PTTL":
        return Raw(reply(-1) + reply(Push(["invalidate", ["k"]])))
    return "old" if command[0] == b"GET" else Simple("OK")


async def test_the_reader_keeps_before_its_caller_runs(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    call = tracked.get("k")
    call.future.add_done_callback(lambda _: seen.append(tracked.stats().entries))
    seen: list[int] = []
    await call
    assert seen == [1]


# -- own writes ----------------------------------------------------------------------------------------------


async def test_own_writes_are_read_at_once(client: Client) -> None:
    """By whatever way they went: nobody waits for the server to say so."""
    tracked = client.tracked()
    large = Client.from_url(f"unix://{client.settings.path}", limits=Limits(lease_over=1000))
    async with large:
        leased = large.tracked()
        for number in range(50):
            await tracked.get("k")
            await tracked.set("k", number)
            assert await tracked.get("k") == str(number)
            await client.set("k", f"{number} by the client")
            assert await tracked.get("k") == f"{number} by the client"
            await client.pipeline().set("k", f"{number} in a transaction").exec()
            assert await tracked.get("k") == f"{number} in a transaction"
            await client.with_options(timeout=2).execute("SET", b"k", f"{number} by a view")
            assert await tracked.get("k") == f"{number} by a view"
            await leased.get("big")
            await large.set("big", f"{number}" * 2000)  # on a wire of its own
            assert await leased.get("big") == f"{number}" * 2000


async def test_an_own_write_drops_when_it_is_sent(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    write = client.set("k", "w")
    assert tracked.stats().entries == 0
    assert await tracked.get("k") == "w"
    await write


async def test_an_own_write_on_another_wire_drops_again_when_it_is_answered() -> None:
    """What was read while it was on its way is older than the write, and its announcement may come later."""
    peer = ScriptedPeer(_answered)
    limits = Limits(lease_over=1000, leased_wires=1)
    async with peer, Client.from_url(peer.url, limits=limits) as client:
        tracked = client.tracked()
        async with client.client() as session:
            await session.ping()
            await tracked.get("other")
            write = client.set("k", "x" * 2000)  # waits for the wire of the session
            assert await tracked.get("k") == "old"
            assert tracked.stats().entries == 2
        await write
        assert tracked.stats().entries == 1


async def test_a_read_before_an_own_write_is_not_joined_behind_it(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    before, write, after = tracked.get("k"), client.set("k", "w"), tracked.get("k")
    assert (await before, await after) == ("v", "w")
    await write
    assert await tracked.get("k") == "w"


@pytest.mark.parametrize("flush", ["flushall", "flushdb"])
async def test_an_own_flush_drops_at_once(client: Client, flush: str) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    call = getattr(tracked, flush)()
    assert tracked.stats().entries == 0
    await call
    assert await tracked.get("k") is None
    await client.set("k", "v")
    await tracked.get("k")
    await getattr(client.pipeline(), flush)().exec()
    assert await tracked.get("k") is None


async def test_select_elsewhere_changes_nothing_here(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "in 0")
    await tracked.get("k")
    async with client.client() as session:
        await session.select(1)
        await session.set("k", "in 1")
    await tracked.execute("SELECT", 1)
    await client.ping()
    assert await tracked.get("k") == "in 0"


# -- time to live --------------------------------------------------------------------------------------------


async def test_kept_for_tells_how_long_a_copy_is_kept(client: Client, other: Client) -> None:
    tracked = client.tracked()
    data = tracked.with_options(decode_responses=False)
    await client.mset({"brief": "v", "l": "v", "for ever": "v"})
    await client.pexpire("brief", 90_000)
    assert tracked.kept_for("brief") is None
    await tracked.mget("brief", "for ever", "none")
    left, sent = await asked(client, lambda: _told(tracked.kept_for("brief")))
    assert sent == 0
    assert 60 < left <= await client.pttl("brief") / 1000 + 1
    assert tracked.kept_for("for ever") == tracked.kept_for("none") == inf
    assert tracked.kept_for("l") is data.kept_for("brief") is None
    await data.get("brief")
    assert 60 < (data.kept_for("brief") or 0) <= 90
    await foreign(client, other.set("brief", "new"))
    assert tracked.kept_for("brief") is None
    await tracked.get("for ever")
    await client.pexpire("for ever", 60_000)
    assert tracked.kept_for("for ever") is None
    await tracked.get("for ever")
    assert 30 < (tracked.kept_for("for ever") or 0) <= 60
    await client.set("brief", "v", px=50)
    await tracked.get("brief")
    await until(lambda: tracked.kept_for("brief") is None)


async def test_at_hand_gives_what_is_kept_of_all_keys_or_nothing(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.mset({"a": "1", "b": "2"})
    assert tracked.at_hand(["a"]) is None
    await tracked.mget("a", "none")
    values, sent = await asked(client, lambda: _told(tracked.at_hand(["none", "a"])))
    assert values == [None, "1"]
    assert sent == 0
    assert tracked.at_hand(["a", "b"]) is None
    assert tracked.with_options(decode_responses=False).at_hand(["a"]) is None  # text is kept, not bytes
    await foreign(client, other.set("a", "new"))
    assert tracked.at_hand(["a"]) is None
    await client.set("a", "3", px=50)
    await tracked.get("a")
    await until(lambda: tracked.at_hand(["a"]) is None)


async def _told(value: Any) -> Any:
    return value


async def test_kept_for_goes_by_the_clients_own_names(client: Client) -> None:
    async with Client.from_url(f"unix://{client.settings.path}", key_prefix="app:") as prefixed:
        tracked = prefixed.tracked()
        await tracked.get("k")
        assert tracked.kept_for("k") == inf
        assert tracked.kept_for("app:k") is None


async def test_a_copy_that_is_not_vouched_for_is_not_kept_for_any_time() -> None:
    async with (
        ScriptedPeer(_tracking_until_it_falls_silent) as peer,
        Client.from_url(peer.url, timeouts=Timeouts(drain=0.1)) as client,
    ):
        tracked = client.tracked(heartbeat=HEARTBEAT)
        await tracked.get("k")
        assert tracked.kept_for("k") == inf
        await until(lambda: tracked.kept_for("k") is None)


def _tracking_until_it_falls_silent(command: list[bytes]) -> Any:
    answers: dict[bytes, Any] = {b"CLIENT": Simple("OK"), b"GET": "v", b"PTTL": -1}
    return answers.get(command[0], SILENCE)


async def test_nothing_outlives_its_time(server: Control) -> None:
    """The server is told not to look for dead keys by itself: it announces nothing."""
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        tracked = client.tracked()
        server.ask("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        await client.set("brief", "v", px=150)
        loop = asyncio.get_running_loop()
        written = loop.time()
        assert await tracked.get("brief") == "v"
        assert await asked(client, lambda: tracked.get("brief")) == ("v", 0)
        assert shelves_of(tracked).gets[True]["brief"].until <= written + 0.15
        await asyncio.sleep(0.16)
        assert await tracked.get("brief") is None
        server.ask("DEBUG", "SET-ACTIVE-EXPIRE", 1)


async def test_the_time_counts_from_before_the_question() -> None:
    """And the server rounds up to whole milliseconds."""
    async with ScriptedPeer(_answered) as peer, Client.from_url(peer.url) as client:
        tracked = client.tracked()
        call = tracked.get("k")
        asked_at = monotonic()
        await call
        assert shelves_of(tracked).gets[True]["k"].until <= asked_at + 0.999


async def test_a_time_that_is_set_later_counts(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    await foreign(client, other.pexpire("k", 60_000))
    assert tracked.stats().entries == 0
    await tracked.get("k")
    assert shelves_of(tracked).gets[True]["k"].until < asyncio.get_running_loop().time() + 61


@pytest.mark.needs("HPEXPIRE")
async def test_fields_have_times_of_their_own(client: Client) -> None:
    tracked = client.tracked()
    await client.hset("h", mapping={"f": "1", "g": "2"})
    await client.execute("HPEXPIRE", "h", 150, "FIELDS", 1, "f")
    assert await tracked.hmget("h", ["f", "g"]) == ["1", "2"]
    assert await asked(client, lambda: tracked.hmget("h", ["f", "g"])) == (["1", "2"], 0)
    (kept,) = shelves_of(tracked).others[True].values()
    assert kept.until <= asyncio.get_running_loop().time() + 0.15


async def test_a_whole_hash(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.hset("h", mapping={"f": "1", "g": "2"})
    assert await tracked.hgetall("h") == {"f": "1", "g": "2"}
    await client.ping()  # the times of its fields have come
    (await tracked.hgetall("h"))["f"] = "mine"
    assert await asked(client, lambda: tracked.hgetall("h")) == ({"f": "1", "g": "2"}, 0)
    await foreign(client, other.hset("h", "f", "3"))
    assert await tracked.hgetall("h") == {"f": "3", "g": "2"}
    assert await tracked.hkeys("h") == ["f", "g"]
    await client.ping()
    assert await asked(client, lambda: tracked.hkeys("h")) == (["f", "g"], 0)
    assert await tracked.hgetall("none") == {}
    assert await asked(client, lambda: tracked.hgetall("none")) == ({}, 0)


@pytest.mark.needs("HPEXPIRE")
async def test_a_whole_hash_goes_with_its_first_field(client: Client) -> None:
    tracked = client.tracked()
    await client.hset("h", mapping={"f": "1", "g": "2"})
    await client.execute("HPEXPIRE", "h", 150, "FIELDS", 1, "f")
    loop = asyncio.get_running_loop()
    set_at = loop.time()
    await tracked.hgetall("h")
    await client.ping()
    (kept,) = shelves_of(tracked).others[True].values()
    assert kept.until <= set_at + 0.15


@pytest.mark.parametrize("field", ["HGET", "HGETALL"])
async def test_a_field_that_went_since_it_was_read(field: str) -> None:
    def answer(command: list[bytes]) -> Any:
        match command[0]:
            case b"HPTTL":
                return [-2]
            case b"PTTL":
                return -1
            case b"HGET":
                return "v"
            case b"HGETALL":
                return {"f": "v"}
        return Simple("OK")

    async with ScriptedPeer(answer) as peer, Client.from_url(peer.url) as client:
        tracked = client.tracked()
        await (tracked.hgetall("h") if field == "HGETALL" else tracked.hget("h", "f"))
        await client.ping()
        assert tracked.stats().entries == 0


async def test_a_hash_that_is_written_before_its_times_come() -> None:
    def answer(command: list[bytes]) -> Any:
        match command[0]:
            case b"HPTTL":
                return Raw(reply(Push(["invalidate", ["h"]])) + reply([-1]))
            case b"PTTL":
                return -1
            case b"HGETALL":
                return {"f": "v"}
        return Simple("OK")

    async with ScriptedPeer(answer) as peer, Client.from_url(peer.url) as client:
        tracked = client.tracked()
        assert await tracked.hgetall("h") == {"f": "v"}
        await client.ping()
        assert tracked.stats().entries == 0


# -- one request for many ------------------------------------------------------------------------------------


async def test_concurrent_misses_share_one_request(client: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("something else")  # tracking is on
    before = client.stats().commands
    calls = [tracked.get("k") for _ in range(100)]
    calls[0].future.cancel()  # the first one's going away is nobody else's
    assert await asyncio.gather(*calls[1:]) == ["v"] * 99
    assert client.stats().commands - before == 3
    assert tracked.stats().misses == 101


async def test_all_who_wait_get_the_error(redis: Client) -> None:
    with Control(None) as server, Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with Client.from_url(url, retry=Retry(attempts=0), timeouts=Timeouts(command=0.2)) as client:
            tracked = client.tracked()
            await tracked.get("other")
            proxy.swallow = {"down"}
            outcomes = await asyncio.gather(*[tracked.get("k") for _ in range(3)], return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [errors.TimeoutError] * 3
            assert len(set(map(id, outcomes))) == 3
            proxy.heal()


async def test_a_prefix_goes_along(client: Client, other: Client) -> None:
    """Kept by the whole key, which is the one that the server announces."""
    async with Client.from_url(f"unix://{client.settings.path}", key_prefix="p:") as prefixed:
        tracked = prefixed.tracked()
        await other.mset({"p:k": "mine", "k": "not mine", "p:p:k": "deeper"})
        for _ in range(2):
            assert await tracked.get("k") == "mine"
            assert await tracked.mget("k", "p:k") == ["mine", "deeper"]
            assert await tracked.get("p:k") == "deeper"
        before = prefixed.stats().commands
        assert await tracked.get("k") == "mine"
        assert prefixed.stats().commands == before
        await foreign(prefixed, other.set("p:k", "new"))
        assert await tracked.get("k") == "new"
        await prefixed.set("k", "own")
        assert await tracked.get("k") == "own"


# -- bounds --------------------------------------------------------------------------------------------------


async def test_entries_are_bounded_and_what_is_used_stays(client: Client) -> None:
    tracked = client.tracked(max_entries=10)
    await tracked.get("used")
    for number in range(100):
        await tracked.get("used")
        await tracked.get(f"key {number}")
    stats = tracked.stats()
    assert (stats.entries, stats.evictions) == (10, 91)
    assert stats.hits == 100
    assert len(shelves_of(tracked).keys) == 10


async def test_bytes_are_bounded(client: Client) -> None:
    tracked = client.tracked(max_bytes=50_000)
    for number in range(20):
        await client.set(f"key {number}", "x" * 10_000)
        await tracked.get(f"key {number}")
        assert tracked.stats().entry_bytes <= 50_000
    assert tracked.stats().entries == 4
    await client.set("huge", "x" * 100_000)
    await tracked.get("huge")
    assert tracked.stats().entries == 4  # what does not fit drives nothing out


async def test_nothing_is_left_of_what_is_dropped(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await tracked.mget("a", "b", "c")
    await tracked.strlen("a")
    await foreign(client, other.mset({"a": 1, "b": 1, "c": 1}))
    tier = tier_of(tracked)
    shelves = tier.shelves
    assert (len(shelves), shelves.size, shelves.keys, tier._flying, tier._flying_keys) == (0, 0, {}, {}, {})
    assert not any((*shelves.gets.values(), *shelves.others.values()))
    assert tier.count == 0


# -- wires ---------------------------------------------------------------------------------------------------


async def test_a_killed_connection_takes_all_with_it(client: Client, other: Client) -> None:
    tracked = client.tracked()
    for number in range(20):
        await other.set("k", number)
        await client.ping()
        assert await tracked.get("k") == str(number)
        killed = await tracked.client_id()
        await other.client_kill_filter(_id=killed)
        await other.set("k", f"{number} afterwards")  # nobody is told of this
        await until(lambda: tier_of(tracked).wire is None)
        assert tracked.stats().entries == 0
        assert await tracked.get("k") == f"{number} afterwards"
        assert await asked(client, lambda: tracked.get("k")) == (f"{number} afterwards", 0)


async def test_a_read_that_is_sent_again_is_kept_on_its_new_wire(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("other")
    wire = tier_of(tracked).wire
    call = tracked.get("k")
    assert wire is not None
    wire.fail(errors.ConnectionLostError("as if it had broken"))
    assert await call == "v"
    assert tier_of(tracked).wire is not wire
    assert await asked(client, lambda: tracked.get("k")) == ("v", 0)
    await foreign(client, other.set("k", "w"))
    assert await tracked.get("k") == "w"


async def test_a_large_reply_ends_the_epoch(redis: Client, other: Client) -> None:
    """The wire that carries it is no longer the shared one: its announcements are no longer heard."""
    await other.setrange("large", 6 * 1024 * 1024, "x")
    async with Client.from_url(f"unix://{redis.settings.path}", client_name="tracking-test") as client:
        tracked = client.tracked()
        await client.set("k", "v")
        await tracked.get("k")
        first = tier_of(tracked).wire
        large = client.get("large")
        await until(lambda: tier_of(tracked).wire is not first)
        assert tracked.stats().entries == 0
        assert await tracked.get("k") == "v"
        await large
        assert await asked(client, lambda: tracked.get("k")) == ("v", 0)
        assert first is not None
        assert first.on_push is None
        await until(lambda: not first.in_flight)
        clients = {
            entry["id"]: entry for entry in await other.client_list() if entry["name"] == "tracking-test"
        }
        assert sorted("t" in entry["flags"] for entry in clients.values()) == [False, True]


async def test_a_read_that_a_retired_wire_answers_is_not_kept(server: Control) -> None:
    """It stands behind a large reply; its key's changes are announced where nobody listens any more."""
    with Proxy(server.port) as proxy:
        async with Client.from_url(f"redis://127.0.0.1:{proxy.port}") as client:
            tracked = client.tracked()
            await client.setrange("large", 6 * 1024 * 1024, "x")
            await client.set("k", "v")
            await tracked.get("other")
            first = tier_of(tracked).wire
            proxy.allow(2 * 1024 * 1024, "hold")
            large, small = client.get("large"), tracked.get("k")
            await until(lambda: tier_of(tracked).wire is not first)
            await client.ping()
            assert tier_of(tracked).wire is not None
            proxy.release()
            await large
            assert await small == "v"
            assert "k" not in shelves_of(tracked).gets[True]
            await client.delete("large")


async def test_closing_drops_all_and_a_new_start_works(client: Client, other: Client) -> None:
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")
    await client.aclose()
    await other.set("k", "w")
    assert await tracked.get("k") == "w"
    assert await asked(client, lambda: tracked.get("k")) == ("w", 0)


def test_each_loop_has_its_own(redis: Client) -> None:
    client = Client.from_url(f"unix://{redis.settings.path}")
    tracked = client.tracked()

    async def read() -> int:
        await tracked.get("k")
        await tracked.get("k")
        sent = client.stats().commands
        await client.aclose()
        return sent

    assert asyncio.run(read()) < asyncio.run(read())  # the second loop asked the server itself
    assert tracked.stats().hits == 2
    with pytest.raises(errors.LoopError):
        tracked.get("k")


async def test_another_threads_loop_asks_the_server_itself(client: Client) -> None:
    """This loop may be busy, and announcements wait: what it keeps is its own."""
    tracked = client.tracked()
    await client.set("k", "v")
    await tracked.get("k")

    async def elsewhere() -> Any:
        try:
            return await tracked.get("k")
        finally:
            await client._states.pop(asyncio.get_running_loop()).guard.aclose()

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == "v"
    assert (tracked.stats().hits, tracked.stats().misses) == (0, 2)


# -- silence -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(server_name: str) -> Iterator[Control]:
    directives = (
        {} if lacks(server_name, "FUNCTION") else {"enable-debug-command": "yes"}
    )  # Redis 6 always lets
    with Control(None, directives=directives) as server:
        yield server


async def test_a_link_that_died_unseen(server: Control) -> None:
    """Half-open: what the server announces is lost. Nothing older than the heartbeat is given out."""
    options: dict[str, Any] = {"timeouts": Timeouts(command=0.2), "retry": Retry(attempts=0)}
    with Proxy(server.port) as proxy:
        async with Client.from_url(f"redis://127.0.0.1:{proxy.port}", **options) as client:
            tracked = client.tracked(heartbeat=HEARTBEAT)
            loop = asyncio.get_running_loop()
            server.plain.set("k", "old")
            assert await tracked.get("k") == "old"
            proxy.swallow = {"down"}
            server.plain.set("k", "new")
            written, last_stale = loop.time(), 0.0
            while loop.time() < written + 3 * HEARTBEAT:
                try:
                    value = await tracked.get("k")
                except errors.GravitoError:
                    value = None
                if value == "old":
                    last_stale = loop.time() - written
                await asyncio.sleep(0.01)
            assert last_stale <= HEARTBEAT
            proxy.heal()
            proxy.reset()
            await until(lambda: tier_of(tracked).wire is None or tier_of(tracked).wire.ended is None)
            assert await _patiently(tracked) == "new"


async def test_a_stopped_server(server: Control) -> None:
    """SIGSTOP: what is kept is held back once the server is silent for too long, and good again afterwards."""
    options: dict[str, Any] = {"timeouts": Timeouts(command=5.0), "retry": Retry(attempts=0)}
    async with Client.from_url(f"redis://127.0.0.1:{server.port}", **options) as client:
        tracked = client.tracked(heartbeat=HEARTBEAT)
        await client.set("k", "v")
        await tracked.get("k")
        kept = shelves_of(tracked).gets[True]["k"]
        with server.suspended():
            assert await tracked.get("k") == "v"
            await asyncio.sleep(HEARTBEAT * 1.1)
            call = tracked.get("k")
            assert call is not kept
            assert not call.future.done()
        assert await call == "v"
        assert await asked(client, lambda: tracked.get("k")) == ("v", 0)


async def test_a_quiet_server_is_no_dead_one(server: Control) -> None:
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        tracked = client.tracked(heartbeat=0.3)
        await tracked.get("quiet")
        await asyncio.sleep(0.5)
        assert tracked.get("quiet") is shelves_of(tracked).gets[True]["quiet"]


async def test_a_killed_server(server: Control) -> None:
    async with Client.from_url(f"redis://127.0.0.1:{server.port}") as client:
        tracked = client.tracked()
        await client.set("k", "v")
        await tracked.get("k")
        os.kill(server.pid, signal.SIGKILL)
        server.engine.wait(5.0)
        server.hang_up()
        await until(lambda: tier_of(tracked).wire is None)
        assert tracked.stats().entries == 0
        await asyncio.to_thread(server.restart)
        assert await _patiently(tracked) is None


async def _patiently(tracked: Tracked) -> Any:
    async with asyncio.timeout(10):
        while True:
            try:
                return await tracked.get("k")
            except errors.GravitoError:
                await asyncio.sleep(0.01)


# -- where it cannot be --------------------------------------------------------------------------------------


def test_protocol_2_is_refused() -> None:
    client = Client.from_url("redis://127.0.0.1:1", protocol=2)
    with pytest.raises(errors.ConfigurationError, match=r"needs RESP3.*protocol=2") as caught:
        client.tracked()
    assert caught.value.field == "protocol"


@pytest.mark.parametrize(
    "bounds", [{"max_entries": 0}, {"max_bytes": -1}, {"heartbeat": "5"}, {"max_entries": True}]
)
def test_bounds_are_checked(bounds: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match=next(iter(bounds))):
        Client.from_url("redis://127.0.0.1:1").tracked(**bounds)


async def test_a_client_has_one_tier(client: Client) -> None:
    await client.set("k", "v")
    assert await client.tracked().get("k") == "v"
    assert await asked(client, lambda: client.with_options(decode_responses=True).tracked().get("k")) == (
        "v",
        0,
    )
    with pytest.raises(errors.ConfigurationError, match="other bounds"):
        client.tracked(max_entries=5)


async def test_a_user_who_may_not_track(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await other.acl_setuser(
        "reader",
        enabled=True,
        passwords=["+secret"],
        categories=["+@all"],
        commands=["-client"],
        keys=["*"],
    )
    try:
        options: dict[str, Any] = {"username": "reader", "password": "secret"}
        async with Client.from_url(f"unix://{client.settings.path}", **options) as limited:
            tracked = limited.tracked()
            await other.set("k", "v")
            for _ in range(3):
                assert await tracked.get("k") == "v"
            assert tracked.stats().entries == 0
            assert (await asked(limited, lambda: tracked.get("k")))[1] == 1
            assert "tracks no keys" in caplog.text
    finally:
        await other.acl_deluser("reader")


async def test_without_a_tier_nothing_is_tracked(client: Client, other: Client) -> None:
    await client.get("k")
    client.tracked()
    await client.get("k")
    assert await other.execute("CLIENT", "LIST") is not None
    mine = [entry for entry in await other.client_list() if entry["name"] == "tracking-test"]
    assert all("t" not in entry["flags"] for entry in mine)


# -- all at once ---------------------------------------------------------------------------------------------


async def test_no_value_goes_back(client: Client, other: Client) -> None:
    """Counters that only grow, written by others and by us while many read: nobody sees one shrink."""
    tracked = client.tracked(max_entries=6)
    last: dict[tuple[int, str], int] = {}
    stop = asyncio.Event()

    async def write(by: Client) -> None:
        while not stop.is_set():
            for name in "abcdefgh":
                with contextlib.suppress(errors.ConnectionError):
                    await by.incr(name)

    async def read(task: int) -> None:
        for turn in range(300):
            name = "abcdefgh"[(turn + task) % 8]
            if turn % 10 == 0:
                with contextlib.suppress(errors.ConnectionError):
                    last[task, name] = max(last.get((task, name), 0), await tracked.incr(name))
            value = int(await tracked.get(name) or 0)
            assert value >= last.get((task, name), 0)
            last[task, name] = value
            if turn % 7 == 0:
                await asyncio.sleep(0)

    writers = [asyncio.create_task(write(other)), asyncio.create_task(write(client))]
    killer = asyncio.create_task(_kill_now_and_then(other, stop))
    await asyncio.gather(*[read(task) for task in range(20)])
    stop.set()
    await asyncio.gather(*writers, killer, return_exceptions=True)
    assert tracked.stats().hits > 0


async def _kill_now_and_then(other: Client, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.05)
        for entry in await other.client_list():
            if "t" in entry["flags"]:
                await other.client_kill_filter(_id=entry["id"])
