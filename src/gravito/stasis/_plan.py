"""How a live value of some tags looks: what is read beside it, and what must stand in front of its body.

Reading compares bytes with bytes; only what is not of this usual kind is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.stasis._blob import VERSION_BYTES, Blob, new_id

if TYPE_CHECKING:
    from gravito.stasis._reads import Scope

__all__ = ["Plan"]

_VALUE_HEAD: Final = b"\xc5V"
_NO_WINDOW: Final = bytes(16)  # no stale window, and no claim on it
_NO_TIMES: Final = bytes(20)  # and no cost
_VERSIONS_AT: Final = 36
_first_two: Callable[[Any], bytes] = itemgetter(slice(0, 2))


class Plan:
    """The usual blob of a scope with some tags: a value without a stale window, claims or flags.

    Args:
        scope: whose roots it depends on.
        tags: in any order.
    """

    __slots__ = ("_head", "_last", "_pieces", "_roots", "_times_to_body", "body", "keys", "tag_keys", "tags")

    def __init__(self, scope: Scope, tags: Iterable[str] = ()) -> None:
        self.tags, packed = _in_order(tags)
        self.tag_keys = tuple([scope.tag + tag for tag in self.tags])
        self.keys = (*scope.roots, *self.tag_keys)  # what is read behind the entry
        self._roots = len(scope.roots)
        self._head = bytes([0, self._roots]) + len(packed).to_bytes(4, "big")
        # the versions last seen, and what follows of them; one tuple, for several threads may use a plan
        self._last: tuple[Sequence[bytes | None], bytes | None] = ((), None)
        self.body = _VERSIONS_AT + VERSION_BYTES * self._roots + len(packed)  # where it begins
        self._times_to_body: Callable[[Any], bytes] = itemgetter(slice(10, self.body))
        # the tags between their versions, as MessagePack has them
        self._pieces = []
        at = 0
        for tag in self.tags:
            end = packed.index(msgspec.msgpack.encode(tag), at) + len(msgspec.msgpack.encode(tag)) + 2
            self._pieces.append(packed[at:end])
            at = end + VERSION_BYTES

    def matches(self, raw: bytes, versions: Sequence[bytes | None]) -> bool:
        """Whether `raw` is such a blob, and live.

        Args:
            raw: what was read.
            versions: the present ones at `keys`.
        """
        known, front = self._last
        if known != versions:
            front = self._front_of(versions)
        return raw[30 : self.body] == front and raw[10:26] == _NO_WINDOW and raw[:2] == _VALUE_HEAD

    def all_live(self, raws: Sequence[bytes | None], versions: Sequence[bytes | None]) -> bool:
        """Whether all of many are such blobs, live, and put rather than computed: the usual case of the usual case.

        Args:
            raws: what was read.
            versions: the present ones at `keys`.
        """
        front = self._front_of(versions)
        if front is None:
            return False
        try:  # each look at all of them is one call
            return {_NO_TIMES + front}.issuperset(map(self._times_to_body, raws)) and {
                _VALUE_HEAD
            }.issuperset(map(_first_two, raws))
        except TypeError:  # one is None
            return False

    def live(self, raws: Sequence[bytes | None], versions: Sequence[bytes | None]) -> list[bool]:
        """Which of many are such blobs, and live.

        Args:
            raws: what was read.
            versions: the present ones at `keys`.
        """
        front = self._front_of(versions)
        if front is None:
            return [False] * len(raws)
        body = self.body
        return [
            raw is not None and raw[30:body] == front and raw[10:26] == _NO_WINDOW and raw[:2] == _VALUE_HEAD
            for raw in raws
        ]

    def _front_of(self, versions: Sequence[bytes | None]) -> bytes | None:
        """From the flags to the body of a blob of these versions; None if one is missing or no version."""
        try:
            front = self._head + self.front(versions)
        except TypeError:
            return None
        if len(front) != self.body - 30:  # somebody else wrote it; no blob can have such a version
            return None
        self._last = versions, front
        return front

    def front(self, versions: Sequence[bytes | None]) -> bytes:
        """The versions at `keys`, as they stand in front of the body.

        Raises:
            TypeError: one is None.
        """
        if not self._pieces:
            return b"".join(versions)  # type: ignore[arg-type]  # raises TypeError for None, as promised
        parts = list(versions[: self._roots])
        for piece, version in zip(self._pieces, versions[self._roots :], strict=True):
            parts += (piece, version)
        return b"".join(parts)  # type: ignore[arg-type]  # as above

    def blob(self, front: bytes, body: bytes) -> bytes:
        """A new blob with this body."""
        return b"".join((_VALUE_HEAD, new_id(), _NO_TIMES, self._head, front, body))


def _in_order(tags: Iterable[str]) -> tuple[tuple[str, ...], bytes]:
    """The tags in the order in which blobs have them, and their part of a blob with versions of zeros."""
    zeros = bytes(VERSION_BYTES)
    blob = Blob(b"V", zeros, tags=dict.fromkeys(tags, zeros))
    if not blob.tags:
        return (), b""
    raw = blob.pack()
    unpacked = Blob.unpack(raw)
    assert unpacked is not None
    return tuple(unpacked.tags), raw[_VERSIONS_AT:]
