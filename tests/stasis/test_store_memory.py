"""The stores without a server: bounds, threads, time; and the one that keeps nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gravito import errors
from gravito.stasis import Cache
from gravito.stasis._blob import COUNTER, VALUE, Blob, id_of, new_id
from gravito.stasis._memory import MemoryStore
from gravito.stasis._null import NullStore
from gravito.stasis.store import KEEP, Store

HOUR = 3_600_000  # milliseconds


def value(body: bytes = b"body") -> bytes:
    return Blob(VALUE, new_id(), body).pack()


def counter() -> bytes:
    return Blob(COUNTER, new_id()).pack()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- bounds --------------------------------------------------------------------------------------------------


async def test_what_was_used_longest_ago_goes_first() -> None:
    store = MemoryStore(max_entries=3)
    blob = value()
    await store.write([("a", blob, None), ("b", blob, None), ("c", blob, None)])
    await store.read(["a"])
    await store.write([("d", blob, None)])
    assert await store.read(["a", "b", "c", "d"]) == [blob, None, blob, blob]
    await store.touch("a", id_of(blob), None)
    await store.swap("e", None, blob)
    assert await store.remaining(["a", "c", "d", "e"]) == [-1, -2, -1, -1]


async def test_bytes_are_bounded() -> None:
    store = MemoryStore(max_bytes=20_000)
    for number in range(100):
        await store.write([(f"k:{number}", value(b"x" * 1000), None)])
    found = await store.read([f"k:{number}" for number in range(100)])
    kept = [place for place, blob in enumerate(found) if blob is not None]
    assert kept == list(range(100 - len(kept), 100))
    assert 10 < len(kept) < 20


async def test_what_is_larger_than_all_room_is_not_kept_and_displaces_nobody() -> None:
    store = MemoryStore(max_bytes=20_000)
    blob = value()
    await store.write([("k", blob, None), ("large", blob, None)])
    await store.write([("large", value(b"x" * 30_000), None)])
    assert await store.read(["k", "large"]) == [blob, None]


async def test_entries_never_drive_out_what_they_depend_on() -> None:
    store = MemoryStore(max_entries=10, max_bytes=20_000)
    async with Cache(store) as cache:
        await cache.tags("t").put("first", 1)
        await cache.tags("t").put_many({f"k:{number}": number for number in range(1000)})
        assert await cache.many([f"k:{number}" for number in range(990, 1000)]) == {
            f"k:{number}": number for number in range(990, 1000)
        }
        await cache.tags("t").flush()
        assert await cache.get("k:999") is None
        await cache.put("large", "x" * 19_000)
        await cache.put("other large", "y" * 19_000)
        assert await cache.many(["large", "other large"]) == {"large": None, "other large": "y" * 19_000}


async def test_versions_are_bounded_too() -> None:
    store = MemoryStore(max_entries=1500)
    for number in range(4000):
        await store.pin([f"t:{number}", "root"], None)
    assert repr(store) == "<MemoryStore 0 entries of 0 bytes, 1500 versions>"
    assert await store.remaining(["root", "t:3999", "t:0"]) == [-1, -1, -2]


async def test_nothing_is_counted_twice() -> None:
    store = MemoryStore()
    empty = repr(store)
    await store.write([("k", value(b"x" * number), None) for number in range(50)])
    await store.increment("n", counter(), 1, None)
    await store.increment("n", counter(), 10**12, None)
    await store.pin(["t"], 1000)
    await store.pin(["t"], HOUR)
    await store.forget(["k", "n", "t"])
    assert repr(store) == empty == "<MemoryStore 0 entries of 0 bytes, 0 versions>"
    await store.write([("k", value(), None)])
    await store.close()
    assert repr(store) == empty
    assert await store.read(["k"]) == [None]


@pytest.mark.parametrize("field", ["max_entries", "max_bytes"])
@pytest.mark.parametrize("bound", [0, -1, 1.5, True, "10", None])
def test_bounds_are_whole_numbers_above_0(field: str, bound: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"{field} is {bound!r}") as caught:
        MemoryStore(**{field: bound})
    assert caught.value.field == field


# -- time ----------------------------------------------------------------------------------------------------


async def test_times_run_down_on_its_clock() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    blob = value()
    await store.write([("k", blob, 1500), ("l", blob, 1)])
    assert await store.remaining(["k", "l"]) == [1500, 1]
    clock.now += 1.4995
    assert await store.remaining(["k", "l"]) == [1, -2]
    assert await store.swap("k", id_of(blob), blob, KEEP)
    assert await store.read(["k"]) == [blob]
    clock.now += 0.001
    assert await store.read(["k"]) == [None]
    assert await store.swap("k", None, blob, 1000)
    clock.now += 0.5
    assert await store.touch("k", id_of(blob), 1000)
    clock.now += 0.75
    assert await store.remaining(["k"]) == [250]
    await store.increment("n", counter(), 1, 1000)
    await store.increment("n", counter(), 1, 9000)
    assert await store.remaining(["n"]) == [1000]


# -- threads -------------------------------------------------------------------------------------------------


def in_threads(work: Callable[[], Any]) -> list[Any]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a switch between any two steps
    try:
        with ThreadPoolExecutor(8) as pool:
            return [future.result() for future in [pool.submit(work) for _ in range(8)]]
    finally:
        sys.setswitchinterval(usual)


def test_threads_share_it() -> None:
    store = MemoryStore(max_entries=5)

    async def work() -> int:
        for number in range(300):
            assert await store.increment("n", counter(), 1, None) is not None
            await store.write([(f"k:{number % 3}", value(), 5)])
            await store.read(["n", "k:0", "k:1", "k:2"])
        return len(await store.pin(["t"], None))

    assert in_threads(lambda: asyncio.run(work())) == [1] * 8
    (raw,) = asyncio.run(_read(store, "n"))
    blob = Blob.unpack(raw or b"")
    assert blob is not None
    assert blob.body == b"2400"


async def _read(store: MemoryStore, key: str) -> list[bytes | None]:
    return await store.read([key])


def test_of_threads_that_claim_one_wins() -> None:
    store = MemoryStore()

    async def work() -> int:
        return sum([await store.swap(f"k:{number}", None, value(), HOUR) for number in range(500)])

    assert sum(in_threads(lambda: asyncio.run(work()))) == 500


# -- the null store ------------------------------------------------------------------------------------------


async def test_the_null_store_forgets_everything_at_once() -> None:
    store = NullStore()
    assert isinstance(store, Store)
    assert repr(store) == "<NullStore>"
    blob = value()
    await store.write([("k", blob, None)])
    assert await store.read(["k", "l"]) == [None, None]
    assert await store.remaining(["k", "l"]) == [-2, -2]
    assert await store.swap("k", None, blob, HOUR) is True
    assert await store.swap("k", None, None) is True
    assert await store.swap("k", id_of(blob), blob, KEEP) is False
    assert await store.touch("k", id_of(blob), None) is False
    assert await store.forget(["k"]) == 0
    assert await store.increment("n", counter(), 5, None) == 5
    assert await store.increment("n", counter(), -2, None) == -2
    with pytest.raises(errors.CounterError, match="'n'"):
        await store.increment("n", counter(), 2**63, None)
    one, two = await store.pin(["t", "t"], None)
    assert len(one) == len(two) == 8
    assert one != two
    await store.close()
