"""The key table against the metadata of a running server, and against its COMMAND GETKEYS on real calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.compat import calls_data, calls_server, calls_structures
from tests.compat.recorder import Call, calls_of

from gravito.atlas import embedded
from gravito.atlas.wire.keys import POLICIES, RULES, key_positions, keys_of, policy, slot_positions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # redis-py's

# Placed by a rule of ours: the server's specifications say "unknown", or leave something out.
_BY_RULE = {"SORT", "SORT_RO", "MIGRATE", "GEORADIUS", "GEORADIUSBYMEMBER", "XREAD", "XREADGROUP"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    engine = embedded.engine_for(str(tmp_path_factory.mktemp("keys")))
    with redis.Redis(unix_socket_path=engine.ensure(), decode_responses=True) as client:
        client.response_callbacks.clear()  # raw replies hold subcommands and all fields
        yield client
    engine.stop()


@pytest.fixture(scope="module")
def catalogue(server: redis.Redis) -> dict[str, list[Any]]:
    """The server's own words on every command and subcommand."""
    found: dict[str, list[Any]] = {}

    def note(entries: list[Any]) -> None:
        for entry in entries:
            found[entry[0].replace("|", " ").upper()] = entry
            note(entry[9] if len(entry) > 9 else [])  # Redis 6 has no more than names and flags

    note(server.execute_command("COMMAND"))
    return found


def _mapping(flat: Any) -> dict[str, Any]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _expected(entry: list[Any], args: list[str]) -> set[int]:
    """The places that the server's own specifications give for these arguments."""
    words = entry[0].count("|") + 1
    argv = [*entry[0].split("|"), *args]
    places: set[int] = set()
    for raw in entry[8]:
        spec = _mapping(raw)
        begin, find = _mapping(spec["begin_search"]), _mapping(spec["find_keys"])
        if "not_key" in spec["flags"]:
            continue
        first = _mapping(begin["spec"])["index"]
        how = _mapping(find["spec"])
        if find["type"] == "range":
            last = how["lastkey"]
            end = len(argv) + last if last < 0 else first + last
            places.update(range(first, end + 1, how["keystep"]))
        else:
            count = int(argv[first + how["keynumidx"]])
            start = first + how["firstkey"]
            places.update(range(start, start + count * how["keystep"], how["keystep"]))
    return {place - words for place in places}


@pytest.mark.needs("COMMAND DOCS")  # specifications came with it
def test_every_command_of_the_server_is_known(catalogue: dict[str, list[Any]]) -> None:
    assert set(catalogue) - set(RULES) == set()


@pytest.mark.needs("COMMAND DOCS")  # specifications came with it
def test_places_are_those_of_the_servers_specifications(catalogue: dict[str, list[Any]]) -> None:
    """Two wherever a number may stand, so that it may count keys; enough arguments for any command."""
    for name, entry in catalogue.items():
        if name in _BY_RULE:
            continue
        for size in (6, 7, 8):
            args = ["2"] * size
            assert set(key_positions(name, args) or ()) == _expected(entry, args), (name, size)


def test_policies_are_those_of_the_servers_tips(server_name: str, request: pytest.FixtureRequest) -> None:
    if server_name != "valkey9":
        pytest.skip("the table has what the newest server says")
    catalogue: dict[str, list[Any]] = request.getfixturevalue("catalogue")
    for name, entry in catalogue.items():
        tips = dict(tip.partition(":")[::2] for tip in entry[7])
        assert policy(name) == (tips.get("request_policy"), tips.get("response_policy")), name
    assert set(POLICIES) <= set(catalogue)


class _Spy(redis.Redis):
    """Notes what a method would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.sent.append(args)
        raise InterruptedError


def _commands_of(call: Call) -> list[tuple[Any, ...]]:
    spy = _Spy()
    try:
        call.on(spy)
    except Exception:
        pass  # only what it would have sent matters
    return spy.sent


def _calls() -> list[Call]:
    families = [
        family
        for module in (calls_data, calls_server, calls_structures)
        for family in vars(module).get("FAMILIES", ())
    ]
    return [call for family in families for call in calls_of(family)]


def _server_says(server: redis.Redis, command: list[Any]) -> list[str] | None:
    """COMMAND GETKEYS; an empty list for a command without keys, None where it cannot say."""
    try:
        return server.execute_command("COMMAND", "GETKEYS", *command)
    except redis.DataError:
        return None  # it would not be sent at all
    except redis.ResponseError as error:
        return [] if "no key arguments" in str(error) else None


def test_getkeys_agrees_on_every_call_of_the_parity_table(server: redis.Redis) -> None:
    compared = 0
    for call in _calls():
        for name, *args in _commands_of(call):
            theirs = _server_says(server, [*name.split(), *args])
            if theirs is None:
                continue  # a command of a module, or arguments that the server refuses
            encoder = server.get_encoder()
            ours = [encoder.decode(encoder.encode(key)) for key in keys_of(name, args) or ()]
            assert sorted(ours) == sorted(theirs), (name, args)  # Redis 6 names destinations last
            compared += bool(theirs)
    assert compared > 300


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("GEORADIUS k 1 2 3 km", "k"),
        ("GEORADIUSBYMEMBER k STORE 3 km COUNT 2 STORE a", "k a"),
        ("SORT k", "k"),
        ("SORT k BY store GET store STORE d", "k d"),
        ("SORT k STORE a STORE b", "k b"),
        ("XREAD COUNT 1 BLOCK 0 STREAMS a b 0 0", "a b"),
        ("XREAD STREAMS STREAMS 0", "STREAMS"),
        ("XREADGROUP GROUP STREAMS BLOCK NOACK STREAMS a >", "a"),
        ("EVAL return 0", ""),
        ("EVAL return 2 a b c", "a b"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
        ("BLMPOP 0 2 a b LEFT", "a b"),
        ("MSETEX 2 a 1 b 2 EX 10", "a b"),
        ("BITOP AND d a b", "d a b"),
        ("MIGRATE host 1 k 0 5", "k"),
        ("MEMORY USAGE k SAMPLES 0", "k"),
        ("XGROUP CREATE k g 0", "k"),
        ("SPUBLISH channel message", ""),
    ],
)
def test_rules(server: redis.Redis, command: str, keys: str) -> None:
    name, *args = command.split()
    assert list(keys_of(name, args) or ()) == keys.split()
    theirs = _server_says(server, command.split())
    assert theirs is None or sorted(theirs) == sorted(keys.split())


def test_of_several_destinations_the_last_counts() -> None:
    """As when it is carried out; COMMAND GETKEYS of Redis 7 names them all."""
    assert keys_of("GEORADIUS", ["k", "1", "2", "3", "km", "STORE", "a", "STOREDIST", "b"]) == ("k", "b")


def test_migrate_of_many_keys() -> None:
    assert keys_of("MIGRATE", ["h", 1, "", 0, 5, "COPY", "AUTH2", "KEYS", "pw", "KEYS", "a", b"b"]) == (
        "a",
        b"b",
    )


@pytest.mark.parametrize("name", ["EVAL", "ZUNIONSTORE", "XREAD", "SORT", "MIGRATE", "GET", "BLPOP", "LMPOP"])
def test_too_few_arguments_are_left_to_the_server(name: str) -> None:
    assert key_positions(name, []) == ()
    for nonsense in ("x", -1, b"\xff", 10**30, 2.5):
        places = key_positions(name, ["0", nonsense])
        assert all(place < 2 for place in places or ())


def test_names_in_any_case_whole_or_in_pieces() -> None:
    assert key_positions("get", ["k"]) == (0,)
    assert key_positions("memory  usage", ["k"]) == (0,)
    assert key_positions("memory", [b"usage", "k"]) == (1,)
    assert policy("config set").request == "all_nodes"


def test_unknown_commands_are_said_to_be_unknown() -> None:
    assert key_positions("NO.SUCH", ["k"]) is None
    assert keys_of("NO.SUCH", ["k"]) is None
    assert policy("NO.SUCH") == (None, None)


def test_sharded_channels_choose_a_slot_but_are_no_keys() -> None:
    assert slot_positions("ssubscribe", ["a", "b"]) == (0, 1)
    assert slot_positions("SPUBLISH", ["a", "message"]) == (0,)
    assert key_positions("SPUBLISH", ["a", "message"]) == ()
    assert slot_positions("GET", ["k"]) == (0,)
