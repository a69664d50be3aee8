"""Replies as a peer may send them: in pieces, beside pushes, of every type, and broken."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from gravito import errors
from gravito.atlas.config import Limits
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, Spec
from gravito.testing import CUT, SILENCE, Attribute, Push, Raw, Simple, Verbatim, reply

Make = Any  # the fixture's maker of a peer and a client on it

# What the peer says, and what a caller gets of it as text.
REPLIES: list[tuple[Any, Any]] = [
    (Simple("OK"), "OK"),
    ("", ""),
    ("text", "text"),
    ("k\u00fche \N{SNOWMAN}", "k\u00fche \N{SNOWMAN}"),
    ("in\r\n+OK\r\n$1\r\nside", "in\r\n+OK\r\n$1\r\nside"),
    ("a\r\n|1\r\n|b|", "a\r\n|1\r\n|b|"),
    ("|", "|"),
    ("||\r\n||\r\n|", "||\r\n||\r\n|"),
    (["|x", "\r\n|", Simple("|")], ["|x", "\r\n|", "|"]),
    (None, None),
    (Raw(b"$-1\r\n"), None),
    (Raw(b"*-1\r\n"), None),
    (0, 0),
    (-(2**63), -(2**63)),
    (1.5, 1.5),
    (float("inf"), math.inf),
    (True, True),
    (False, False),
    (2**80, str(2**80)),  # hiredis leaves big numbers to the caller
    (Verbatim("line\r\nline"), "line\r\nline"),
    ([], []),
    ({}, {}),
    (set(), []),
    ([[], [[]], {"a": [1, None, {"b": 2.5}]}], [[], [[]], {"a": [1, None, {"b": 2.5}]}]),
    ({"a": "b", 1: [True]}, {"a": "b", 1: [True]}),
    (["x"] * 300, ["x"] * 300),
]


def encoded(items: list[tuple[Any, Any]]) -> bytes:
    return b"".join(reply(said) for said, _ in items)


class Sink(asyncio.Transport):
    """The outside of a wire that is fed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True


def wire_with(count: int, text: bool = True) -> tuple[Wire, list[asyncio.Future[Any]], Sink]:
    """A wire with so many commands in flight, for tests that feed it byte by byte."""
    loop = asyncio.get_running_loop()
    wire, sink = Wire(loop, "test", Limits(), None), Sink()
    wire.connection_made(sink)
    futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(count)]
    for future in futures:
        wire.send(Entry(future, b"*1\r\n$1\r\nX\r\n", Spec.of("X"), None, text))
    wire._flush()
    return wire, futures, sink


@pytest.mark.parametrize(("said", "meant"), REPLIES)
async def test_a_reply_split_at_every_offset(said: Any, meant: Any) -> None:
    data = reply(said) + reply("next")
    for at in range(1, len(data)):
        wire, (first, second), _ = wire_with(2)
        wire.data_received(data[:at])
        wire.data_received(data[at:])
        assert (first.result(), second.result()) == (meant, "next"), at
        wire.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_many_replies_in_small_pieces(scripted: Make, size: int) -> None:
    items = REPLIES[:-1]
    _, redis = await scripted([said for said, _ in items], pieces=size)
    assert await asyncio.gather(*[redis.execute("X") for _ in items]) == [meant for _, meant in items]


async def test_all_replies_in_one_write(scripted: Make) -> None:
    _, redis = await scripted([SILENCE] * (len(REPLIES) - 1) + [Raw(encoded(REPLIES))])
    assert await asyncio.gather(*[redis.execute("X") for _ in REPLIES]) == [meant for _, meant in REPLIES]


async def test_pushes_between_replies_at_every_offset() -> None:
    push = reply(Push(["message", "c", "data"]))
    data = push + reply("a") + push + push + reply(["b", 1]) + push
    for at in range(1, len(data)):
        seen: list[Any] = []
        wire, (first, second), _ = wire_with(2)
        wire.on_push = seen.append
        wire.data_received(data[:at])
        wire.data_received(data[at:])
        assert (first.result(), second.result(), len(seen)) == ("a", ["b", 1], 4), at
        wire.close()


async def test_a_push_in_the_middle_of_a_pipeline(scripted: Make) -> None:
    push = reply(Push(["invalidate", ["k"]]))
    peer, redis = await scripted([Raw(push + reply(1)), Raw(push + reply(2) + push), 3])
    assert await redis.pipeline(False).execute_command("A").execute_command("B").execute_command(
        "C"
    ).exec() == [1, 2, 3]
    assert peer.connections == 1


@pytest.mark.parametrize("pieces", [1, 5, None])
async def test_bytes_among_text_in_pieces(scripted: Make, pieces: int | None) -> None:
    _, redis = await scripted(
        lambda command: b"\xff\x00" if command[0] == b"DUMP" else "k\u00fche", pieces=pieces
    )
    replies = await redis.pipeline(False).get("a").dump("b").dump("c").get("d").exec()
    assert replies == ["k\u00fche", b"\xff\x00", b"\xff\x00", "k\u00fche"]


async def test_a_reply_of_several_megabytes(scripted: Make) -> None:
    big = b"\x00\xff\r\n|" * 1_000_000
    _, redis = await scripted(
        lambda command: [big, "x"] if command == [b"A"] else "after", decode_responses=False
    )
    assert await redis.execute("A") == [big, b"x"]
    assert await redis.execute("B") == b"after"


async def test_binary_replies_are_bytes_when_asked_for(scripted: Make) -> None:
    _, redis = await scripted([b"\xff\x00", {"k": b"\xfe"}, "text", "bytes"])
    assert await redis.execute("A", decode_responses=False) == b"\xff\x00"
    assert await redis.execute("B", decode_responses=False) == {b"k": b"\xfe"}
    assert await asyncio.gather(redis.execute("C"), redis.execute("D", decode_responses=False)) == [
        "text",
        b"bytes",
    ]


@pytest.mark.parametrize(
    "bad", [b"\xff", [b"a", b"\xff", [b"b"]], {b"k": b"\xff", b"l": b"m"}, {b"\xff": 1, b"x": 2}]
)
@pytest.mark.parametrize("pieces", [None, 1])
async def test_what_is_not_utf8_fails_only_its_caller(scripted: Make, bad: Any, pieces: int | None) -> None:
    peer, redis = await scripted(["a", bad, "b"], pieces=pieces)
    first, second, third = await asyncio.gather(
        *[redis.execute("X") for _ in range(3)], return_exceptions=True
    )
    assert (first, third) == ("a", "b")
    assert isinstance(second, UnicodeDecodeError)
    assert "decode_responses=False" in second.__notes__[0]
    assert peer.connections == 1


async def test_error_replies_stand_where_they_came(scripted: Make) -> None:
    said = [Exception("ERR one"), ["a", Exception("WRONGTYPE two"), 3], "after"]
    _, redis = await scripted(said)
    one, two, three = await asyncio.gather(*[redis.execute("X") for _ in said], return_exceptions=True)
    assert isinstance(one, errors.ResponseError)
    assert one.command == "X"
    assert str(one) == "one"
    assert two[0] == "a"
    assert isinstance(two[1], errors.WrongTypeError)
    assert (two[2], three) == (3, "after")


async def test_an_error_that_is_no_utf8_and_one_that_is_malformed(scripted: Make) -> None:
    said = [Raw(b"-ERR \xff\xfe\r\n"), Raw(b"-MOVED nonsense\r\n"), Raw(b"-\r\n"), "after"]
    peer, redis = await scripted(said)
    *failed, last = await asyncio.gather(*[redis.execute("X") for _ in said], return_exceptions=True)
    assert [isinstance(error, errors.ResponseError) for error in failed] == [True] * 3
    assert last == "after"
    assert peer.connections == 1


BROKEN = [
    Raw(reply(Attribute({"ttl": 5})) + reply("value")),
    Raw(b"garbage\r\n"),
    Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    Raw(b"$x\r\n"),
    Raw(b"!5\r\nERR x\r\n"),
    Raw(b"%1\r\n*1\r\n:1\r\n:2\r\n"),  # a map whose key is a list has no place in a dict
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("pieces", [None, 1])
async def test_what_cannot_be_read_ends_the_wire(scripted: Make, broken: Raw, pieces: int | None) -> None:
    peer, redis = await scripted(["first", broken, "never", "fresh"], pieces=pieces)
    calls = [redis.execute("X"), redis.execute("Y"), redis.execute("Z")]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert first == "first"
    assert isinstance(second, errors.ProtocolError)
    assert isinstance(third, errors.ProtocolError)
    assert third.maybe_applied
    assert "TLS" in str(second)
    assert await redis.execute("X") in ("never", "fresh")
    assert peer.connections == 2


async def test_an_attribute_split_at_every_offset_ends_the_wire() -> None:
    data = reply("first") + reply(Attribute({"ttl": 5})) + reply("value")
    for at in range(1, len(data)):
        wire, (first, second), sink = wire_with(2)
        wire.data_received(data[:at])
        wire.data_received(data[at:])
        assert first.result() == "first"
        assert isinstance(second.exception(), errors.ProtocolError), at
        assert sink.aborted


@pytest.mark.parametrize("text", ["a|" * 20, "a|" * 200, "|", "\n|", "\n|1\r\n"])
async def test_an_attribute_behind_text_with_bars_ends_the_wire(text: str) -> None:
    data = reply(text) + reply(text) + reply(Attribute({"ttl": 5})) + reply("value")
    for at in range(len(data)):
        wire, (first, second, third), sink = wire_with(3)
        if at:
            wire.data_received(data[:at])
        wire.data_received(data[at:])
        assert first.result() == second.result() == text
        assert isinstance(third.exception(), errors.ProtocolError), at
        assert sink.aborted


async def test_a_reply_that_nobody_asked_for_ends_the_wire(scripted: Make) -> None:
    peer, redis = await scripted([Raw(reply("a") + reply("stray")), "b"])
    assert await redis.execute("X") == "a"
    assert await redis.execute("X") == "b"
    assert peer.connections == 2


async def test_a_peer_that_cuts_in_the_middle_of_a_reply(scripted: Make) -> None:
    peer, redis = await scripted(["a", Raw(b"$100\r\nhalf"), CUT])
    assert await redis.execute("X") == "a"
    lost = asyncio.gather(redis.execute("X"), redis.execute("Y"), return_exceptions=True)
    for error in await lost:
        assert isinstance(error, errors.ConnectionLostError)
        assert error.maybe_applied
        assert error.node == peer.path
        assert error.command in "XY"
