"""Slots and slot maps, with plain calls and properties."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import redis.crc
from hypothesis import given
from hypothesis import strategies as st

from gravito.atlas.topology.slots import SLOTS, Node, Shard, SlotMap, slot_of

A, B, C = (Node("10.0.0.1", port, f"id{port}") for port in (1, 2, 3))
ONE, TWO = Shard(A, (C,)), Shard(B)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("", 0),
        ("123456789", 0x31C3),  # the check value of CRC16 XMODEM
        ("foo", 12182),
        (b"foo", 12182),
        ("{foo}.bar", 12182),
        ("x{foo}{bar}", 12182),
        ("{foo}}", 12182),
    ],
)
def test_slots_of_keys(key: str | bytes, slot: int) -> None:
    assert slot_of(key) == slot


def test_an_empty_or_open_tag_does_not_count() -> None:
    for key in ("{}foo", "foo{}{bar}", "{foo", "foo}", "}{"):
        assert slot_of(key) == redis.crc.key_slot(key.encode())
    assert slot_of("foo{}{bar}") != slot_of("bar")


@given(st.one_of(st.binary(), st.text(alphabet="{}ab").map(str.encode), st.text().map(str.encode)))
def test_slots_are_those_of_redis_py(key: bytes) -> None:
    assert slot_of(key) == redis.crc.key_slot(key)


def test_text_and_its_utf8_are_one_key() -> None:
    assert slot_of("schlüssel:{größe}") == slot_of("schlüssel:{größe}".encode()) == slot_of("größe")


def test_looking_up() -> None:
    slots = SlotMap([(0, 9, ONE), (10, 19, TWO), (20, 29, ONE)])
    assert slots.shard(9) == ONE
    assert slots.primary(10) == B
    assert slots.shard(30) is None
    assert slots.primary(SLOTS - 1) is None
    assert slots.shards == [ONE, TWO]
    assert slots.primaries == [A, B]
    assert slots.nodes == [A, B, C]
    assert slots.covered == 30
    assert list(slots.ranges()) == [(0, 9, ONE), (10, 19, TWO), (20, 29, ONE)]
    assert repr(slots) == "<SlotMap 30 slots on 2 shards>"


def test_an_empty_map() -> None:
    slots = SlotMap()
    assert (slots.covered, slots.nodes, list(slots.ranges())) == (0, [], [])


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (0, SLOTS), (5, 4)])
def test_slots_outside_the_range_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="0 to 16383"):
        SlotMap([(first, last, ONE)])


def _as_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value


SLOTS_REPLY = [
    [0, 5460, ["10.0.0.1", 1, "id1", []], ["10.0.0.1", 3, "id3", []]],
    [5461, 16383, ["10.0.0.1", 2, "id2", []]],
]


@pytest.mark.parametrize("reply", [SLOTS_REPLY, _as_bytes(SLOTS_REPLY)], ids=["text", "bytes"])
def test_from_cluster_slots(reply: Any) -> None:
    slots = SlotMap.from_slots(reply, "asked")
    assert list(slots.ranges()) == [(0, 5460, ONE), (5461, 16383, TWO)]
    assert slots.covered == SLOTS


@pytest.mark.parametrize("host", [None, "", b""])
def test_a_node_that_leaves_its_host_out_is_where_it_was_asked(host: Any) -> None:
    slots = SlotMap.from_slots([[0, 1, [host, 7000]]], "asked")
    assert slots.primary(0) == Node("asked", 7000)


def test_a_host_name_that_was_never_set_gives_way_to_the_address() -> None:
    slots = SlotMap.from_slots([[0, 1, ["?", 7000, "x", ["ip", "10.0.0.9"]]]], "asked")
    assert slots.primary(0) == Node("10.0.0.9", 7000, "x")


def test_addresses() -> None:
    assert A.address == "10.0.0.1:1"
    assert Node("::1", 7000).address == "[::1]:7000"


def _shard(slots: list[int], *nodes: dict[str, Any]) -> dict[str, Any]:
    return {"slots": slots, "nodes": list(nodes)}


def _entry(node: Node, role: str, health: str = "online", **more: Any) -> dict[str, Any]:
    names = {"id": node.id, "port": node.port, "ip": node.host, "endpoint": node.host}
    return {**names, "role": role, "replication-offset": 0, "health": health, **more}


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return [part for name, item in value.items() for part in (name, _flat(item))]
    return [_flat(item) for item in value] if isinstance(value, list) else value


SHARDS_REPLY = [
    _shard([0, 9, 20, 29], _entry(C, "replica"), _entry(A, "master")),
    _shard([10, 19], _entry(B, "master"), _entry(Node("x", 9, "y"), "replica", "loading")),
    _shard([], _entry(Node("x", 8, "z"), "master")),
]


@pytest.mark.parametrize(
    "reply",
    [SHARDS_REPLY, _flat(SHARDS_REPLY), _as_bytes(_flat(SHARDS_REPLY))],
    ids=["maps", "lists", "bytes"],
)
def test_from_cluster_shards(reply: Any) -> None:
    slots = SlotMap.from_shards(reply, "asked")
    assert list(slots.ranges()) == [(0, 9, ONE), (10, 19, TWO), (20, 29, ONE)]


def test_tls_ports() -> None:
    reply = [_shard([0, 1], _entry(A, "master", **{"tls-port": 7443}))]
    assert SlotMap.from_shards(reply, "asked", tls=True).primary(0) == A._replace(port=7443)
    assert SlotMap.from_shards(reply, "asked").primary(0) == A


def test_moving_one_slot() -> None:
    slots = SlotMap([(0, 9, ONE), (10, 19, TWO)])
    slots.move(5, Node(B.host, B.port))  # MOVED tells no id
    assert slots.shard(5) == TWO
    slots.move(6, Node("new", 4))
    assert slots.shard(6) == Shard(Node("new", 4))
    assert [first for first, _, _ in slots.ranges()] == [0, 5, 6, 7, 10]


def test_what_a_newer_map_changes() -> None:
    old = SlotMap([(0, 9, ONE), (10, 19, TWO)])
    assert old.moved(SlotMap([(0, 9, ONE), (10, 19, TWO)])) == {}
    assert old.moved(SlotMap([(10, 19, Shard(B, (C,))), (0, 9, ONE)])) == {}  # a replica more moves no slot
    assert old.moved(SlotMap([(0, 8, ONE), (9, 18, TWO), (20, 20, TWO)])) == {
        9: (A, B),
        19: (B, None),
        20: (None, B),
    }


_NODES = [Node("h", port) for port in range(1, 6)]


@given(
    st.lists(
        st.tuples(st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1), st.sampled_from(_NODES)), max_size=8
    )
)
def test_maps_hold_what_they_were_given(parts: list[tuple[int, int, Node]]) -> None:
    ranges = [(min(one, two), max(one, two), Shard(node)) for one, two, node in parts]
    slots = SlotMap(ranges)
    again = SlotMap(slots.ranges())
    assert again == slots
    assert slots.moved(again) == {}
    for slot in {edge for first, last, _ in ranges for edge in (first, last)} | {0, SLOTS - 1}:
        owners = [shard for first, last, shard in ranges if first <= slot <= last]
        assert slots.shard(slot) == (owners[-1] if owners else None)


def test_a_thousand_nodes_cost_little() -> None:
    """32 KiB for the slots, whatever the cluster's size; the rest is the nodes themselves."""
    shards = [Shard(Node("10.0.0.1", port)) for port in range(1000)]
    slots = SlotMap((at * 16, at * 16 + 15, shard) for at, shard in enumerate(shards))
    assert slots._owners.itemsize * SLOTS == 32_768
    assert sys.getsizeof(slots._shards) + sys.getsizeof(slots._index) < 100_000


def test_a_table_of_what_becomes_of_each_shard() -> None:
    asked: list[Shard] = []

    def choose(shard: Shard) -> int:
        asked.append(shard)
        return shard.primary.port

    slots = SlotMap([(0, 9, ONE), (10, 19, TWO), (20, 29, ONE)])
    table = slots.table(choose, None)
    assert table == [1] * 10 + [2] * 10 + [1] * 10 + [None] * (SLOTS - 30)
    assert asked == [ONE, TWO]


def test_the_shards_are_those_after_a_move() -> None:
    slots = SlotMap([(0, 0, ONE), (1, 1, TWO)])
    assert slots.primaries == [A, B]
    slots.move(1, A)
    assert slots.primaries == [A]
    slots.move(0, C)
    assert slots.primaries == [C, A]
