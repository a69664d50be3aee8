"""The command table against the metadata of a running server, and its rules with plain calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gravito.atlas import embedded
from gravito.atlas.wire.commands import (
    TABLE,
    Route,
    blocking_timeout,
    for_the_rest,
    leaves_clean,
    needs_lease,
    route,
    split,
)


@pytest.fixture(scope="module")
def server_flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The server's flags of every command and subcommand, by upper-case name."""
    engine = embedded.engine_for(str(tmp_path_factory.mktemp("engine")))
    flags: dict[str, set[str]] = {}

    def note(entry: list[Any]) -> None:
        flags[entry[0].replace("|", " ").upper()] = set(entry[2])
        for subcommand in entry[9]:
            note(subcommand)

    with redis.Redis(unix_socket_path=engine.ensure(), decode_responses=True) as client:
        client.response_callbacks.clear()  # the raw reply holds the subcommands
        for entry in client.execute_command("COMMAND"):
            note(entry)
    yield flags
    engine.stop()


@pytest.mark.newest
@pytest.mark.parametrize("flag", ["readonly", "blocking"])
def test_the_table_has_the_servers_flag(server_flags: dict[str, set[str]], flag: str) -> None:
    ours = {"readonly": Route.READ_ONLY, "blocking": Route.BLOCKING}[flag]
    listed = {name for name, flags in TABLE.items() if flags & ours and name in server_flags}
    assert listed == {name for name, flags in server_flags.items() if flag in flags}


@pytest.mark.newest
def test_what_may_be_repeated_writes_nothing(server_flags: dict[str, set[str]]) -> None:
    repeatable = {name for name, flags in TABLE.items() if flags & (Route.READ_ONLY | Route.NEUTRAL)}
    assert not {name for name in repeatable if "write" in server_flags.get(name, ())}


@pytest.mark.newest
def test_neutral_commands_of_the_table_exist_on_the_server(server_flags: dict[str, set[str]]) -> None:
    assert {name for name, flags in TABLE.items() if flags & Route.NEUTRAL} <= set(server_flags)


@pytest.mark.newest
def test_commands_of_connections_are_placed(server_flags: dict[str, set[str]]) -> None:
    """A new server command that touches connections or holds replies cannot slip in unplaced."""
    suspects = {
        name
        for name, flags in server_flags.items()
        if flags & {"no_multi", "no_auth", "pubsub"} or name.startswith("CLIENT ")
    }
    ordinary = {"CLIENT KILL", "CLIENT PAUSE", "CLIENT UNBLOCK", "PUBLISH", "SAVE", "SPUBLISH"}
    assert {name for name in suspects if not TABLE.get(name)} == ordinary


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("GET", Route.READ_ONLY),
        ("get", Route.READ_ONLY),
        ("Memory  Usage", Route.READ_ONLY),
        ("JSON.GET", Route.READ_ONLY),
        ("XREAD", Route.READ_ONLY | Route.BLOCKING),
        ("BLPOP", Route.BLOCKING),
        ("client setname", Route.CONNECTION),
        ("SCRIPT KILL", Route.APART),
        ("PING", Route.NEUTRAL),
        ("SET", Route(0)),
        ("CLIENT", Route(0)),
        ("NO.SUCH", Route(0)),
        ("", Route(0)),
    ],
)
def test_route(name: str, flags: Route) -> None:
    assert route(name) == flags


def test_split() -> None:
    assert split("GET") == ("GET",)
    assert split("CONFIG GET") == ("CONFIG", "GET")
    assert split("") == ()


LEASED = """
    SELECT AUTH HELLO RESET QUIT MULTI EXEC DISCARD WATCH UNWATCH MONITOR SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE
    PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE READONLY READWRITE ASKING SYNC PSYNC REPLCONF WAIT WAITAOF BLPOP
    BRPOP BLMOVE BLMPOP BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP SHUTDOWN DEBUG
"""


@pytest.mark.parametrize("name", LEASED.split())
def test_commands_that_take_a_lease(name: str) -> None:
    assert needs_lease(name, ("x",))
    assert needs_lease(name.lower())


@pytest.mark.parametrize(
    ("container", "subcommand"),
    [
        ("CLIENT", "REPLY"),
        ("CLIENT", "TRACKING"),
        ("CLIENT", "SETNAME"),
        ("CLIENT", "NO-EVICT"),
        ("SCRIPT", "KILL"),
    ],
)
def test_containers_may_come_in_pieces(container: str, subcommand: str) -> None:
    assert needs_lease(f"{container} {subcommand}", ("ON",))
    assert needs_lease(container, (subcommand, "ON"))
    assert needs_lease(container.lower(), (subcommand.lower().encode(), b"ON"))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("GET", ("k",)),
        ("SET", ("SELECT", "x")),
        ("CLIENT", ("ID",)),
        ("CLIENT", ()),
        ("CLIENT ID", ()),
        ("CONFIG", ("GET", "*")),
        ("PUBLISH", ("ch", "x")),
        ("KEYS", ("*",)),
        ("XREAD", ("COUNT", 5, "STREAMS", "BLOCK", "0")),
        ("XREAD", ()),
        ("XREAD", ("COUNT",)),
        ("XREADGROUP", ("GROUP", "BLOCK", "consumer", "STREAMS", "s", ">")),
        ("XREADGROUP", ("GROUP", "g", "BLOCK", "NOACK", "STREAMS", "s", ">")),
        ("NO.SUCH", (1, 2.5, b"\xff")),
    ],
)
def test_ordinary_commands(name: str, args: tuple[object, ...]) -> None:
    assert not needs_lease(name, args)
    assert blocking_timeout(name, args) == 0.0


@pytest.mark.parametrize(
    ("name", "args", "seconds"),
    [
        ("XREAD", (b"BLOCK", b"500", b"STREAMS", "s", "$"), 0.5),
        ("xread", ("count", 1, "block", 0, "streams", "s", "$"), math.inf),
        ("XREADGROUP", ("GROUP", "BLOCK", "c", "COUNT", 1, "BLOCK", "1500", "STREAMS", "s", ">"), 1.5),
        (
            "XREADGROUP",
            ("GROUP", "g", "c", "NOACK", "CLAIM", 9, "BLOCK", memoryview(b"20"), "STREAMS", "s", ">"),
            0.02,
        ),
        ("BLPOP", ("a", "b", 2.5), 2.5),
        ("BRPOP", ("a", 0), math.inf),
        ("BLMOVE", ("a", "b", "LEFT", "RIGHT", b"1"), 1.0),
        ("BRPOPLPUSH", ("a", "b", 3), 3.0),
        ("BLMOVEM", ("a", "b", "LEFT", "RIGHT", 2, "COUNT", 5, "OBO"), 2.0),
        ("BLMPOP", (0.25, 1, "a", "LEFT"), 0.25),
        ("BZMPOP", (4, 1, "a", "MIN"), 4.0),
        ("BZPOPMIN", ("a", "7"), 7.0),
        ("BZPOPMAX", ("a", "0"), math.inf),
        ("WAIT", (1, 100), 0.1),
        ("WAIT", (1, 0), math.inf),
        ("WAITAOF", (1, 0, 2000), 2.0),
        ("BLPOP", ("a", "soon"), 0.0),
        ("BLPOP", ("a", -1), 0.0),
        ("BLPOP", (), 0.0),
        ("SUBSCRIBE", ("ch",), 0.0),
    ],
)
def test_blocking_timeout(name: str, args: tuple[object, ...], seconds: float) -> None:
    assert needs_lease(name, args)
    assert blocking_timeout(name, args) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "args", "clean"),
    [
        ("BLPOP", ("a", 0), True),
        ("SCRIPT KILL", (), True),
        ("SELECT", (1,), False),
        ("client", ("setname", "x"), False),
        ("CLIENT", ("UNPAUSE",), True),
        ("HIMPORT PREPARE", ("f", "a"), False),
    ],
)
def test_a_wire_is_used_again_unless_its_state_changed(
    name: str, args: tuple[object, ...], clean: bool
) -> None:
    assert leaves_clean(name, args) is clean
    assert needs_lease(name, args)


@pytest.mark.parametrize(
    ("name", "args", "left", "expected"),
    [
        ("BLPOP", ("a", "b", "5"), 1.25, ["a", "b", "1.250"]),
        ("BLPOP", ("a", "0"), math.inf, ["a", "0"]),
        ("blmpop", (b"5", b"1", b"l", b"LEFT"), -3.0, ["0.001", b"1", b"l", b"LEFT"]),
        ("BLMOVE", ("a", "b", "LEFT", "LEFT", 5), 2, ["a", "b", "LEFT", "LEFT", "2.000"]),
        (
            "XREAD",
            ("COUNT", "1", "BLOCK", "5000", "STREAMS", "s", "0"),
            0.0001,
            ["COUNT", "1", "BLOCK", "1", "STREAMS", "s", "0"],
        ),
        (
            "XREADGROUP",
            ("GROUP", "BLOCK", "c", "BLOCK", "9", "STREAMS", "$", ">"),
            2,
            ["GROUP", "BLOCK", "c", "BLOCK", "2000", "STREAMS", "$", ">"],
        ),
        ("XREAD", ("BLOCK", "5000", "STREAMS", "s", "$"), 1, None),
        ("XREAD", ("BLOCK", "5000", "STREAMS", "$", "0-1"), 1, ["BLOCK", "1000", "STREAMS", "$", "0-1"]),
        ("WAIT", ("1", "5000"), 1, None),
        ("WAITAOF", ("1", "0", "5000"), 1, None),
        ("GET", ("k",), 1, None),
    ],
)
def test_what_a_blocking_command_asks_for_elsewhere(
    name: str, args: tuple[object, ...], left: float, expected: list[object] | None
) -> None:
    assert for_the_rest(name, args, left) == expected
