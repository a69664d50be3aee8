"""What is stored under an entry's key: a head at fixed places, the versions that it depends on, and the body.

========  ============  ==========================================================================================
offset    field         meaning
========  ============  ==========================================================================================
0         magic         0xC5; anything else is not ours
1         kind          V value, P pending: a claim without a value, N negative: an exception, C counter
2..10     id            of this writing; for a claim, its token. All compare-and-swap goes by it
10..18    stale_ms      how much of the end of the key's time to live is its stale window
18..26    mark_ms       a claim to refresh is held while more than this of the time to live is left; 0: none
26..30    cost_ms       how long the value took to compute
30        flags         bits: SERVE_STALE, FAILED, OWN_TTL
31        roots         how many versions of roots follow the head, 8 bytes each
32..36    tags          bytes of the tags behind them: a MessagePack map of names to versions
========  ============  ==========================================================================================

Numbers are big-endian. The scripts rely on these places.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gravito.errors import CounterError

VALUE: Final = b"V"
PENDING: Final = b"P"
NEGATIVE: Final = b"N"
COUNTER: Final = b"C"

SERVE_STALE: Final = 1  # flag: a plain read may give the value out in its stale window
FAILED: Final = 2  # flag: the claim on it is no claim but a pause, for the last refresh failed
OWN_TTL: Final = 4  # flag: the factory chose the time to live, so the caller's says nothing of it

VERSION_BYTES: Final = 8
MAX_ROOTS: Final = 255

_MAGIC: Final = 0xC5
_KINDS: Final = frozenset({VALUE, PENDING, NEGATIVE, COUNTER})
_HEAD: Final = struct.Struct(">Bc8sQQIBBI")
_MAX_COST: Final = 2**32 - 1

_encode_tags: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_tags: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode


_ids: Final[
    list[bytes]
] = []  # random bytes that were drawn already: a call of the system costs more than the rest
_MANY_IDS: Final = 256
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)  # no two processes may use the same


def new_id() -> bytes:
    """8 random bytes of the system's for a blob's id or a version."""
    try:
        return _ids.pop()  # one step, whichever thread takes it
    except IndexError:
        drawn = os.urandom(VERSION_BYTES * _MANY_IDS)
        _ids.extend(
            [drawn[at : at + VERSION_BYTES] for at in range(VERSION_BYTES, len(drawn), VERSION_BYTES)]
        )
        return drawn[:VERSION_BYTES]


def id_of(raw: bytes) -> bytes:
    """The id that a compare-and-swap must name to replace `raw`, readable or not."""
    return raw[2:10]


def fits(number: int) -> bool:
    """If a counter can have it: 64 bits, signed."""
    return -(2**63) <= number < 2**63


def overflow(key: str) -> CounterError:
    """The error of a counter whose new number does not fit."""
    return CounterError(f"the counter {key!r} would not fit in 64 bits; it is left as it was")


class Blob(msgspec.Struct):
    """An entry as it is stored.

    Args:
        kind: VALUE, PENDING, NEGATIVE or COUNTER.
        id: 8 bytes, by `new_id`.
        body: the encoded value; of a counter, its number in ASCII.
        roots: present versions of the roots when this was made, joined.
        tags: the same of its tags, by name.
        stale_ms: milliseconds at the end of the key's time to live in which it is stale.
        mark_ms: a claim to refresh is held while more milliseconds than these are left; 0: none.
        cost_ms: milliseconds that computing it took.
        flags: see SERVE_STALE and the next.
    """

    kind: bytes
    id: bytes
    body: bytes = b""
    roots: bytes = b""
    tags: dict[str, bytes] = {}
    stale_ms: int = 0
    mark_ms: int = 0
    cost_ms: int = 0
    flags: int = 0

    def __repr__(self) -> str:
        tags = ", ".join(self.tags)
        return (
            f"<Blob {self.kind.decode()} {self.id.hex()} of {len(self.body)} bytes, tags: {tags or 'none'}>"
        )

    def pack(self) -> bytes:
        """As bytes.

        Raises:
            ValueError: a number or a version that has no place in it.
        """
        tags = _encode_tags(self.tags) if self.tags else b""
        count, odd = divmod(len(self.roots), VERSION_BYTES)
        if odd or count > MAX_ROOTS:
            raise ValueError(f"{len(self.roots)} bytes are no versions of at most {MAX_ROOTS} roots")
        if len(self.id) != VERSION_BYTES or any(len(each) != VERSION_BYTES for each in self.tags.values()):
            raise ValueError(f"ids and versions have {VERSION_BYTES} bytes")
        try:
            head = _HEAD.pack(
                _MAGIC,
                self.kind,
                self.id,
                self.stale_ms,
                self.mark_ms,
                min(self.cost_ms, _MAX_COST),
                self.flags,
                count,
                len(tags),
            )
        except struct.error as error:
            raise ValueError(f"{self!r} has a number that has no place: {error}") from error
        return b"".join((head, self.roots, tags, self.body))

    @classmethod
    def unpack(cls, raw: bytes) -> Blob | None:
        """The blob in `raw`; None if it is not one, whatever it is."""
        try:
            magic, kind, id_, stale_ms, mark_ms, cost_ms, flags, count, size = _HEAD.unpack_from(raw)
        except struct.error:
            return None
        at = _HEAD.size + count * VERSION_BYTES
        end = at + size
        if magic != _MAGIC or kind not in _KINDS or end > len(raw):
            return None
        tags = {}
        if size:
            try:
                tags = _decode_tags(raw[at:end])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
        return cls(kind, id_, raw[end:], raw[_HEAD.size : at], tags, stale_ms, mark_ms, cost_ms, flags)

    def lives(self, roots: Sequence[bytes | None], tags: Mapping[str, bytes | None]) -> bool:
        """If all that it depends on is as it was.

        Args:
            roots: their present versions, in the order of the names; None for one that is missing.
            tags: present versions of at least its tags, by name.
        """
        if len(roots) == 1:
            if roots[0] != self.roots or not self.roots:
                return False
        elif not self._of_roots(roots):
            return False
        if not self.tags:
            return True
        return all(tags.get(name) == version for name, version in self.tags.items())

    def _of_roots(self, roots: Sequence[bytes | None]) -> bool:
        if len(roots) * VERSION_BYTES != len(self.roots):
            return False
        return all(
            version == self.roots[at * VERSION_BYTES : (at + 1) * VERSION_BYTES]
            for at, version in enumerate(roots)
        )
