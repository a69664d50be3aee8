"""The blob: every one comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito.stasis import _blob
from gravito.stasis._blob import COUNTER, NEGATIVE, PENDING, SERVE_STALE, VALUE, Blob, id_of, new_id

U32, U64 = 2**32 - 1, 2**64 - 1

versions = st.binary(min_size=8, max_size=8)
blobs = st.builds(
    Blob,
    kind=st.sampled_from([VALUE, PENDING, NEGATIVE, COUNTER]),
    id=versions,
    body=st.binary(max_size=300),
    roots=st.lists(versions, max_size=4).map(b"".join),
    tags=st.dictionaries(st.text(max_size=20), versions, max_size=5),
    stale_ms=st.integers(0, U64),
    mark_ms=st.integers(0, U64),
    cost_ms=st.integers(0, U32),
    flags=st.integers(0, 255),
)


@given(blobs)
def test_a_blob_comes_back_as_it_was(blob: Blob) -> None:
    raw = blob.pack()
    assert Blob.unpack(raw) == blob
    assert id_of(raw) == blob.id


@given(blobs)
def test_scripts_find_kind_and_id_at_their_places(blob: Blob) -> None:
    raw = blob.pack()
    assert (raw[0], raw[1:2], raw[2:10]) == (0xC5, blob.kind, blob.id)
    assert raw[31] == len(blob.roots) // 8
    assert raw[36 : 36 + len(blob.roots)] == blob.roots
    assert raw.endswith(blob.body)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_blob_and_no_error(raw: bytes) -> None:
    found = Blob.unpack(raw)
    assert found is None or found.pack()[:2] == raw[:2]


@given(blobs, st.data())
def test_a_blob_with_a_changed_byte_is_no_error(blob: Blob, data: st.DataObject) -> None:
    raw = bytearray(blob.pack())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    found = Blob.unpack(bytes(raw))
    assert found is None or found.kind in (VALUE, PENDING, NEGATIVE, COUNTER)


@given(blobs)
def test_a_blob_cut_before_its_body_is_none(blob: Blob) -> None:
    raw = blob.pack()
    for length in range(len(raw) - len(blob.body)):
        assert Blob.unpack(raw[:length]) is None


def framed(tags: bytes) -> bytes:
    """A blob whose tags are these bytes."""
    raw = Blob(VALUE, new_id(), b"body").pack()
    return raw[:32] + len(tags).to_bytes(4, "big") + tags + raw[36:]


@pytest.mark.parametrize(
    "tags",
    [
        b"\xc1",  # never used in MessagePack
        b"\x81\xa2\xff\xfe\xc4\x08" + bytes(8),  # a name that is no UTF-8
        msgspec.msgpack.encode({"tag": "text"}),
        msgspec.msgpack.encode(["tag"]),
        b"\x91" * 5000,  # deep
        b"\xdf\xff\xff\xff\xff",  # a map of four thousand million
    ],
)
def test_tags_that_cannot_be_read_make_it_no_blob(tags: bytes) -> None:
    assert Blob.unpack(framed(tags)) is None


def test_a_size_beyond_the_end_makes_it_no_blob() -> None:
    raw = Blob(VALUE, new_id(), b"body").pack()
    assert Blob.unpack(raw[:32] + b"\xff\xff\xff\xff" + raw[36:]) is None
    assert Blob.unpack(raw[:31] + b"\xff" + raw[32:]) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"stale_ms": -1},
        {"stale_ms": U64 + 1},
        {"mark_ms": -1},
        {"cost_ms": -1},
        {"flags": 256},
        {"id": b"short"},
        {"roots": b"seven.."},
        {"roots": bytes(8 * 256)},
        {"tags": {"tag": b"short"}},
    ],
)
def test_what_has_no_place_is_refused(fields: dict[str, object]) -> None:
    fields = {"kind": VALUE, "id": new_id(), **fields}
    with pytest.raises(ValueError, match=r"bytes|place|versions"):
        Blob(**fields).pack()  # type: ignore[arg-type]  # on purpose


def test_a_cost_of_months_is_the_highest_there_is() -> None:
    blob = Blob.unpack(Blob(VALUE, new_id(), cost_ms=U32 + 5).pack())
    assert blob is not None
    assert blob.cost_ms == U32


def test_the_order_of_tags_makes_no_difference() -> None:
    one, two, ident = new_id(), new_id(), new_id()
    assert (
        Blob(COUNTER, ident, tags={"a": one, "b": two}).pack()
        == Blob(COUNTER, ident, tags={"b": two, "a": one}).pack()
    )


def test_the_flag_of_stale_values_stays() -> None:
    blob = Blob.unpack(Blob(VALUE, new_id(), flags=SERVE_STALE).pack())
    assert blob is not None
    assert blob.flags & SERVE_STALE


# -- lives ---------------------------------------------------------------------------------------------------

A, B, C = new_id(), new_id(), new_id()


@pytest.mark.parametrize(
    ("roots", "present", "lives"),
    [
        ([A], [A], True),
        ([A], [B], False),
        ([A], [None], False),
        ([A], [b""], False),
        ([A, B], [A, B], True),
        ([A, B], [B, A], False),
        ([A, B], [A, None], False),
        ([A, B], [A + B, b""], False),
        ([A, B], [A], False),
        ([A], [A, B], False),
        ([], [], True),
        ([], [b""], False),
        ([], [None], False),
    ],
)
def test_it_lives_by_its_roots(roots: list[bytes], present: list[bytes | None], lives: bool) -> None:
    blob = Blob(VALUE, new_id(), roots=b"".join(roots))
    assert blob.lives(present, {}) is lives


@pytest.mark.parametrize(
    ("present", "lives"),
    [
        ({"x": B, "y": C}, True),
        ({"x": B, "y": C, "more": A}, True),
        ({"x": C, "y": B}, False),
        ({"x": B}, False),
        ({"x": B, "y": None}, False),
        ({}, False),
    ],
)
def test_it_lives_by_its_tags(present: dict[str, bytes | None], lives: bool) -> None:
    blob = Blob(VALUE, new_id(), roots=A, tags={"x": B, "y": C})
    assert blob.lives([A], present) is lives


def test_repr_shows_no_value() -> None:
    blob = Blob(VALUE, bytes(8), b"a secret", tags={"users": A})
    assert repr(blob) == "<Blob V 0000000000000000 of 8 bytes, tags: users>"


def test_ids_differ() -> None:
    assert len({_blob.new_id() for _ in range(1000)}) == 1000


FORKS = """
import os
from gravito.stasis._blob import new_id
new_id()  # more are drawn at once
reading, writing = os.pipe()
pid = os.fork()
ids = [new_id() for _ in range(1000)]
if not pid:
    os.write(writing, b"".join(ids))
    os._exit(0)
os.waitpid(pid, 0)
theirs = os.read(reading, 8000)
assert len(theirs) == 8000
assert not {theirs[at : at + 8] for at in range(0, 8000, 8)}.intersection(ids)
assert len(set(ids)) == 1000
"""


def test_a_forked_child_draws_ids_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True)
