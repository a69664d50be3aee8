"""Values that were decoded once and are given to many: equal, of the same types, and each caller's own."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stasis.workers import PATIENT

from gravito.atlas import Client
from gravito.stasis import Cache, Codec
from gravito.stasis._copies import copier
from gravito.stasis._tiered import TieredStore

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.tuples(st.integers(), st.text()) | st.frozensets(st.integers()) | st.datetimes() | st.decimals(allow_nan=False)
    | st.builds(bytearray, st.binary()) | st.sets(st.integers())
)  # fmt: skip
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.text(), st.dates())
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner))


class Point(msgspec.Struct, frozen=True):
    x: int
    names: tuple[str, ...] = ()


class Loose(msgspec.Struct):
    x: int


class Half(msgspec.Struct, frozen=True):
    inside: list[int]


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Frozen:
    x: int


def changeable(value: Any) -> list[Any]:
    """Everything in a value that its owner could change."""
    found = [value] if isinstance(value, dict | list | set | bytearray) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [each for item in inner for each in changeable(item)]


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return [*map(type, one)] == [*map(type, other)] and all(map(same, one.values(), other.values()))
    return all(map(same, one, other)) if isinstance(one, list) else True


@given(values)
def test_a_copy_equals_its_pattern_and_shares_nothing_that_can_be_changed(value: Any) -> None:
    copy = copier(value)
    assert copy is not None
    one, other = copy(), copy()
    assert same(one, value)
    assert same(other, value)
    assert not {id(each) for each in changeable(one)} & {id(each) for each in changeable(other)}
    assert not {id(each) for each in changeable(one)} & {id(each) for each in changeable(value)}


CONSTANT = [
    None, 1, "text", b"bytes", 1.5, (1, ("a", b"b")), frozenset({1, (2, 3)}), datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1), timedelta(1), Decimal("1.50"), UUID(int=1), Colour.RED, Point(1, ("a",)),
]  # fmt: skip


@pytest.mark.parametrize("value", CONSTANT, ids=lambda value: type(value).__name__)
def test_what_cannot_be_changed_is_given_out_itself(value: Any) -> None:
    copy = copier(value)
    assert copy is not None
    assert copy() is value


class Named(dict[str, int]):
    pass


UNKNOWN = [Loose(1), Half([1]), Frozen(1), ([1],), [Loose(1)], {"a": (1, [2])}, Named(a=1), {Frozen(1): 1}]


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_what_may_be_changed_unseen_is_decoded_anew(value: Any) -> None:
    assert copier(value) is None


def test_what_is_nested_too_deeply_is_decoded_anew() -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    assert copier(value) is None


# -- in the local tier ---------------------------------------------------------------------------------------


@pytest.fixture
async def cache(redis: Client) -> AsyncIterator[Cache]:
    async with Cache("tiered", connection=redis, fail_safe=PATIENT) as cache:
        yield cache


@pytest.mark.parametrize(
    "value", [{"a": [1, {"b": set()}]}, [1, 2], [Loose(1)], {1, 2}, bytearray(b"x"), {"deep": {"er": [[]]}}]
)
async def test_what_one_caller_changes_another_never_sees(cache: Cache, value: Any) -> None:
    def spoil(found: Any) -> None:
        if isinstance(found, dict):
            for each in found.values():
                spoil(each)
            found.clear()
        elif isinstance(found, list):
            for each in found:
                spoil(each)
            found.clear()
        elif isinstance(found, set | bytearray):
            found.clear()
        elif isinstance(found, Loose):
            found.x = -1

    await cache.put("k", value, 60)
    for _ in range(6):
        found = await cache.get("k")
        assert same(found, value)
        spoil(found)
        found = await cache.remember("k", 60, lambda: None)
        assert same(found, value)
        spoil(found)


async def test_a_hit_follows_writes_flushes_and_types(redis: Client, cache: Cache) -> None:
    tagged = cache.tags("t")
    for number in range(5):
        await tagged.put("k", [number], 60)
        for _ in range(4):
            assert await cache.get("k") == [number]
        assert await cache.get("k", type=tuple[int, ...]) == (number,)
        assert await cache.get("k") == [number]
        await Cache(connection=redis, fail_safe=PATIENT).tags("t").flush()
        await redis.get("cache:t:t")  # the announcement of the flush is in front of this reply
        assert await cache.get("k", "gone") == "gone"
    await cache.put("k", 1, 60)
    for _ in range(4):
        assert await cache.get("k") == 1
    await cache.clear()
    assert await cache.get("k", "gone") == "gone"


async def test_what_is_kept_decoded_counts_in_the_bounds(redis: Client) -> None:
    store = TieredStore(redis, max_bytes=200_000)
    async with Cache(store, fail_safe=PATIENT) as cache:
        value = {str(number): number for number in range(1000)}
        await cache.put("k", value, 60)
        await cache.get("k")
        before = store.tracked.stats().entry_bytes
        for _ in range(3):
            assert await cache.get("k") == value
        after = store.tracked.stats().entry_bytes
        assert after > before + 30_000
        await cache.put_many({f"k:{number}": value for number in range(20)}, 60)
        for _ in range(3):
            for number in range(20):
                assert await cache.get(f"k:{number}") == value
                assert store.tracked.stats().entry_bytes <= 200_000


async def test_a_value_that_has_no_room_decoded_is_given_out_all_the_same(redis: Client) -> None:
    store = TieredStore(redis, max_bytes=20_000)
    async with Cache(store, fail_safe=PATIENT) as cache:
        await cache.put("k", {str(number): number for number in range(1000)}, 60)
        for _ in range(4):
            assert len(await cache.get("k")) == 1000


async def test_a_large_compressed_value(redis: Client) -> None:
    async with Cache("tiered", connection=redis, codec=Codec(compression="zlib"), fail_safe=PATIENT) as cache:
        await cache.put("k", ["x" * 1_000_000], 60)
        for _ in range(4):
            assert await cache.get("k") == ["x" * 1_000_000]
            assert await cache.remember("k", 60, lambda: None) == ["x" * 1_000_000]
            assert await cache.many(["k"]) == {"k": ["x" * 1_000_000]}
