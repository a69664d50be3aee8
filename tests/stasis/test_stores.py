"""What every store must do, on each of them: memory, a server, a cluster, and both with copies in the process."""

from __future__ import annotations

import asyncio
import random

import pytest

from gravito import errors
from gravito.stasis._blob import COUNTER, VALUE, Blob, id_of, new_id
from gravito.stasis.store import KEEP, Store

HOUR = 3_600_000  # milliseconds
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def value(body: bytes = b"body", roots: bytes = b"") -> bytes:
    return Blob(VALUE, new_id(), body, roots).pack()


def counter(roots: bytes = b"", tags: dict[str, bytes] | None = None, body: bytes = b"") -> bytes:
    return Blob(COUNTER, new_id(), body, roots, tags or {}).pack()


async def at(store: Store, key: str) -> bytes | None:
    (found,) = await store.read([key])
    return found


async def left(store: Store, key: str) -> int:
    (found,) = await store.remaining([key])
    return found


def test_it_is_a_store(store: Store) -> None:
    assert isinstance(store, Store)
    assert type(store).__name__ in repr(store)


# -- read, write, remaining, forget --------------------------------------------------------------------------


async def test_what_was_written_is_read_in_the_order_of_the_keys(store: Store) -> None:
    items = {f"k:{number}": value(b"%d" % number) for number in range(50)}
    await store.write([(key, blob, None) for key, blob in items.items()])
    keys = [*reversed(items), "none", "k:7"]
    assert await store.read(keys) == [items.get(key) for key in keys]
    assert await store.read(keys) == [items.get(key) for key in keys]


@pytest.mark.parametrize("body", [b"", b"\0", b"\r\n$-1\r\n", bytes(range(256)), b"x" * 100_000])
async def test_bytes_come_back_as_they_were(store: Store, body: bytes) -> None:
    await store.write([("k", body, None)])
    assert await at(store, "k") == body


@pytest.mark.parametrize("key", [" ", "naïve", "日本", "a\r\nb", "{", "{}", "{tag}:k", "k" * 2000])
async def test_keys_are_any_text(store: Store, key: str) -> None:
    blob = value()
    assert await store.swap(key, None, blob, HOUR)
    assert await at(store, key) == blob
    assert 0 < await left(store, key) <= HOUR
    assert await store.forget([key]) == 1


async def test_nothing_asked_nothing_said(store: Store) -> None:
    assert await store.read([]) == []
    assert await store.remaining([]) == []
    assert await store.pin([], None) == []
    assert await store.forget([]) == 0
    await store.write([])


async def test_remaining_tells_of_each_key(store: Store) -> None:
    await store.write([("short", value(), 5000), ("for ever", value(), None)])
    short, none, ever = await store.remaining(["short", "none", "for ever"])
    assert 0 < short <= 5000
    assert (none, ever) == (-2, -1)


async def test_a_write_replaces_value_and_time(store: Store) -> None:
    await store.write([("k", value(), 5000)])
    blob = value(b"new")
    await store.write([("k", blob, None)])
    assert await at(store, "k") == blob
    assert await left(store, "k") == -1


async def test_what_is_over_is_gone(store: Store) -> None:
    blob = value()
    await store.write([("k", blob, 30), ("l", blob, 30)])
    assert await store.swap("m", None, blob, 30)
    async with asyncio.timeout(10):
        while await store.read(["k", "l", "m"]) != [None, None, None]:  # noqa: ASYNC110  # time sets no event
            await asyncio.sleep(0.005)
    assert await store.remaining(["k", "l", "m"]) == [-2, -2, -2]
    assert await store.swap("k", id_of(blob), value()) is False
    assert await store.touch("l", id_of(blob), HOUR) is False
    assert await store.swap("k", None, value()) is True


async def test_forget_counts_what_was_there(store: Store) -> None:
    await store.write([(f"k:{number}", value(), None) for number in range(20)])
    assert await store.forget([*[f"k:{number}" for number in range(20)], "none"]) == 20
    assert await store.read([f"k:{number}" for number in range(20)]) == [None] * 20
    assert await store.forget(["k:1"]) == 0


# -- swap ----------------------------------------------------------------------------------------------------


async def test_swap_acts_only_on_what_was_seen(store: Store) -> None:
    first, second, third = value(b"1"), value(b"2"), value(b"3")
    assert await store.swap("k", id_of(first), second) is False  # nothing is there
    assert await at(store, "k") is None
    assert await store.swap("k", None, first) is True
    assert await store.swap("k", None, second) is False
    assert await at(store, "k") == first
    assert await store.swap("k", id_of(first), second) is True
    assert await store.swap("k", id_of(first), third) is False
    assert await at(store, "k") == second


async def test_swap_deletes(store: Store) -> None:
    first, second = value(), value()
    await store.write([("k", first, None)])
    assert await store.swap("k", id_of(second), None) is False
    assert await store.swap("k", None, None) is False
    assert await at(store, "k") == first
    assert await store.swap("k", id_of(first), None) is True
    assert await at(store, "k") is None
    assert await store.swap("k", None, None) is True


async def test_swap_sets_the_time_or_keeps_it(store: Store) -> None:
    blobs = [value() for _ in range(5)]
    ids = [id_of(blob) for blob in blobs]
    assert await store.swap("k", None, blobs[0], HOUR)
    assert HOUR - 60_000 < await left(store, "k") <= HOUR
    assert await store.swap("k", ids[0], blobs[1], KEEP)
    assert HOUR - 60_000 < await left(store, "k") <= HOUR
    assert await store.swap("k", ids[1], blobs[2])
    assert await left(store, "k") == -1
    assert await store.swap("k", ids[2], blobs[3], KEEP)
    assert await left(store, "k") == -1
    assert await store.swap("k", ids[3], blobs[4], 5000)
    assert 0 < await left(store, "k") <= 5000
    assert await store.swap("new", None, blobs[0], KEEP)
    assert await left(store, "new") == -1


@pytest.mark.parametrize("raw", [b"", b"x", b"12", b"somebody else's", b"12345"])
async def test_what_cannot_be_read_can_be_replaced_by_what_was_seen(store: Store, raw: bytes) -> None:
    await store.write([("k", raw, None)])
    assert await store.swap("k", None, value()) is False
    assert await store.swap("k", new_id(), value()) is False
    assert await at(store, "k") == raw
    blob = value()
    assert await store.swap("k", id_of(raw), blob) is True
    assert await at(store, "k") == blob


async def test_of_many_claims_one_wins(store: Store) -> None:
    blobs = [value() for _ in range(100)]
    won = await asyncio.gather(*[store.swap("k", None, blob, HOUR) for blob in blobs])
    assert won.count(True) == 1
    assert await at(store, "k") == blobs[won.index(True)]


async def test_no_swap_is_lost(store: Store) -> None:
    async def add_ten() -> None:
        done = 0
        while done < 10:
            raw = await at(store, "k")
            blob = None if raw is None else Blob.unpack(raw)
            new = value(b"%d" % (1 + (0 if blob is None else int(blob.body))))
            done += await store.swap("k", None if raw is None else id_of(raw), new, HOUR)

    await asyncio.gather(*[add_ten() for _ in range(20)])
    blob = Blob.unpack(await at(store, "k") or b"")
    assert blob is not None
    assert blob.body == b"200"


# -- touch ---------------------------------------------------------------------------------------------------


async def test_touch_gives_another_time_to_what_was_seen(store: Store) -> None:
    blob = value()
    assert await store.touch("k", id_of(blob), HOUR) is False
    await store.write([("k", blob, HOUR)])
    assert await store.touch("k", new_id(), 5000) is False
    assert await left(store, "k") > 60_000
    assert await store.touch("k", id_of(blob), 5000) is True
    assert 0 < await left(store, "k") <= 5000
    assert await store.touch("k", id_of(blob), None) is True
    assert await left(store, "k") == -1
    assert await store.touch("k", id_of(blob), None) is True
    assert await store.touch("k", id_of(blob), HOUR) is True
    assert 60_000 < await left(store, "k") <= HOUR
    assert await at(store, "k") == blob


# -- increment -----------------------------------------------------------------------------------------------

EDGES = (0, 10**14, 10**15, 2**53, 10**18, 2**62)  # where a way of adding could lose digits
BORDERS = {sign * edge + step for edge in EDGES for sign in (1, -1) for step in (-1, 0, 1)}
BORDERS |= {LOWEST, LOWEST + 1, HIGHEST - 1, HIGHEST}


async def added(store: Store, key: str, start: int, by: int) -> None:
    before = counter(body=b"%d" % start)
    await store.write([(key, before, None)])
    if LOWEST <= start + by <= HIGHEST:
        assert await store.increment(key, counter(), by, None) == start + by
        blob = Blob.unpack(await at(store, key) or b"")
        assert blob is not None
        assert blob.body == b"%d" % (start + by)
        return
    with pytest.raises(errors.CounterError, match=key) as caught:
        await store.increment(key, counter(), by, None)
    assert isinstance(caught.value, OverflowError)
    assert await at(store, key) == before


async def test_increments_are_exact_at_every_border(store: Store) -> None:
    for by in BORDERS:
        await asyncio.gather(*[added(store, f"k:{start}", start, by) for start in BORDERS])


async def test_increments_are_exact_anywhere(store: Store) -> None:
    chance = random.Random(5)
    numbers = [chance.randint(-(2**bits), 2**bits - 1) for bits in range(64) for _ in range(6)]
    starts = numbers[:]
    chance.shuffle(starts)
    await asyncio.gather(
        *[
            added(store, f"k:{place}", start, by)
            for place, (start, by) in enumerate(zip(starts, numbers, strict=True))
        ]
    )


@pytest.mark.parametrize("by", [HIGHEST + 1, LOWEST - 1, 10**30])
async def test_more_than_64_bits_cannot_be_added(store: Store, by: int) -> None:
    with pytest.raises(errors.CounterError, match="'k'"):
        await store.increment("k", counter(), by, None)
    assert await at(store, "k") is None


async def test_a_new_counter_gets_its_time_and_keeps_it(store: Store) -> None:
    assert await store.increment("k", counter(), 5, HOUR) == 5
    assert 60_000 < await left(store, "k") <= HOUR
    assert await store.increment("k", counter(), -7, 5000) == -2
    assert await left(store, "k") > 60_000
    await store.write([("k", counter(body=b"%d" % HIGHEST), HOUR)])
    assert await store.increment("k", counter(), -1, 5000) == HIGHEST - 1  # by the server's own arithmetic
    assert await left(store, "k") > 60_000
    with pytest.raises(errors.CounterError):
        await store.increment("k", counter(), 2, 5000)
    assert await left(store, "k") > 60_000
    assert await store.increment("l", counter(), 1, None) == 1
    assert await left(store, "l") == -1


async def test_a_counter_keeps_what_it_is_made_of_but_its_id(store: Store) -> None:
    root, tag = new_id(), new_id()
    made = Blob(COUNTER, new_id(), b"41", root, {"t": tag}, 10, 20, 30, 1)
    for body in (b"41", b"%d" % 2**60):
        made.body = body
        await store.write([("k", made.pack(), None)])
        fresh = counter(root, {"t": tag})
        assert await store.increment("k", fresh, 1, None) == int(body) + 1
        blob = Blob.unpack(await at(store, "k") or b"")
        assert blob == Blob(COUNTER, id_of(fresh), b"%d" % (int(body) + 1), root, {"t": tag}, 10, 20, 30, 1)


async def test_a_swap_that_saw_a_counter_does_not_undo_increments(store: Store) -> None:
    await store.increment("k", counter(), 1, None)
    seen = await at(store, "k")
    assert seen is not None
    await store.increment("k", counter(), 1, None)
    assert await store.swap("k", id_of(seen), value()) is False
    assert await store.increment("k", counter(), 1, None) == 3


ROOT, TAG = new_id(), new_id()
NEGATIVE_TOO_LONG = b"-" + b"9" * 19


@pytest.mark.parametrize(
    "there",
    [
        value(b"5"),
        value(b"5", ROOT),
        counter(new_id(), body=b"5"),
        counter(ROOT, {"t": TAG}, b"5"),
        counter(ROOT + ROOT, body=b"5"),
        counter(body=b"5"),
        counter(ROOT),
        counter(ROOT, body=b"5.0"),
        counter(ROOT, body=b"05"),
        counter(ROOT, body=b"-0"),
        counter(ROOT, body=b" 5"),
        counter(ROOT, body=b"+5"),
        counter(ROOT, body=b"%d" % (HIGHEST + 1)),
        counter(ROOT, body=NEGATIVE_TOO_LONG),
        counter(ROOT, body=b"1" * 500),
        b"",
        b"5",
        b"somebody else's, and long enough to be a counter by its length",
    ],
    ids=range(18),  # the bytes are random, and processes that share the tests have to name them alike
)
async def test_what_is_no_such_counter_stays_as_it_is(store: Store, there: bytes) -> None:
    await store.write([("k", there, HOUR)])
    assert await store.increment("k", counter(ROOT), 1, None) is None
    assert await at(store, "k") == there
    assert await left(store, "k") > 60_000


async def test_increments_at_once_are_all_counted(store: Store) -> None:
    numbers = await asyncio.gather(*[store.increment("k", counter(), 1, HOUR) for _ in range(300)])
    assert sorted(number for number in numbers if number is not None) == list(range(1, 301))


# -- pin -----------------------------------------------------------------------------------------------------


async def test_pin_makes_versions_and_finds_them_again(store: Store) -> None:
    keys = [f"t:{number}" for number in range(20)]
    made = await store.pin(keys, HOUR)
    assert {len(version) for version in made} == {8}
    assert len(set(made)) == 20
    assert await store.pin(list(reversed(keys)), HOUR) == list(reversed(made))
    assert await store.read(keys) == made
    assert all(await_left >= HOUR - 60_000 for await_left in await store.remaining(keys))


async def test_pin_never_shortens(store: Store) -> None:
    (made,) = await store.pin(["t"], HOUR)
    assert await store.pin(["t"], 10) == [made]
    assert await left(store, "t") > HOUR - 60_000
    assert await store.pin(["t"], 2 * HOUR) == [made]
    assert await left(store, "t") > 2 * HOUR - 60_000
    assert await store.pin(["t"], None) == [made]
    assert await left(store, "t") == -1
    assert await store.pin(["t"], 10) == [made]
    assert await left(store, "t") == -1


async def test_a_version_that_went_never_comes_back(store: Store) -> None:
    seen: set[bytes] = set()
    for _ in range(50):
        (version,) = await store.pin(["t"], None)
        assert version not in seen
        seen.add(version)
        assert await store.forget(["t"]) == 1
        assert await at(store, "t") is None


async def test_tasks_that_pin_at_once_agree(store: Store) -> None:
    pinned = await asyncio.gather(*[store.pin(["t", "u"], HOUR) for _ in range(50)])
    assert len({tuple(versions) for versions in pinned}) == 1


@pytest.mark.parametrize("junk", [b"", b"seven..", b"nine bytes"])
async def test_what_is_no_version_is_replaced(store: Store, junk: bytes) -> None:
    await store.write([("t", junk, 5000)])
    (made,) = await store.pin(["t"], HOUR)
    assert len(made) == 8
    assert await store.pin(["t"], HOUR) == [made]
    assert await left(store, "t") > 60_000


# -- what a caller may do to it ------------------------------------------------------------------------------


async def test_cancelled_calls_disturb_nobody(store: Store) -> None:
    blob = value()
    await store.write([("k", blob, None)])

    async def one(number: int) -> object:
        reading = asyncio.ensure_future(store.read(["k"]))
        asking = asyncio.ensure_future(store.remaining(["k", "none", "k"]))
        adding = asyncio.ensure_future(store.increment(f"n:{number}", counter(), 1, None))
        if number % 2:
            await asyncio.sleep(0)
            for task in (reading, asking, adding):
                task.cancel()
        return await asyncio.gather(reading, asking, adding, return_exceptions=True)

    done = await asyncio.gather(*[one(number) for number in range(20)])
    assert all(replies == [[blob], [-1, -2, -1], 1] for replies in done[::2])
    assert await at(store, "k") == blob


async def test_it_closes(store: Store) -> None:
    await store.close()
    await store.close()
