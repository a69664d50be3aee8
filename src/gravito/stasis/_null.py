"""No entries: everything is forgotten at once."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Literal

from gravito.stasis._awaitables import Ready
from gravito.stasis._blob import fits, new_id, overflow
from gravito.stasis.store import Keep


class NullStore:
    """A store that takes everything and keeps nothing, for tests and for switching a cache off.

    To its users it is one that evicts whatever they write before they can look.
    """

    def __repr__(self) -> str:
        return "<NullStore>"

    def read(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        """See `Store.read`."""
        return Ready([None] * len(keys))

    def remaining(self, keys: Sequence[str]) -> Awaitable[list[int]]:
        """See `Store.remaining`."""
        return Ready([-2] * len(keys))

    def write(self, items: Sequence[tuple[str, bytes, int | None]]) -> Awaitable[object]:
        """See `Store.write`."""
        return Ready(None)

    def swap(
        self,
        key: str,
        seen: bytes | None,
        value: bytes | None,
        ttl_ms: int | Literal[Keep.KEEP] | None = None,
    ) -> Awaitable[bool]:
        """See `Store.swap`. It succeeds where nothing must be there."""
        return Ready(seen is None)

    def touch(self, key: str, seen: bytes, ttl_ms: int | None) -> Awaitable[bool]:
        """See `Store.touch`."""
        return Ready(False)

    async def increment(self, key: str, counter: bytes, by: int, ttl_ms: int | None) -> int | None:
        """See `Store.increment`. Each counter is a new one."""
        if not fits(by):
            raise overflow(key)
        return by

    def forget(self, keys: Sequence[str]) -> Awaitable[int]:
        """See `Store.forget`."""
        return Ready(0)

    def pin(self, keys: Sequence[str], ttl_ms: int | None) -> Awaitable[list[bytes]]:
        """See `Store.pin`. Versions that nobody has seen before, nor will again."""
        return Ready([new_id() for _ in keys])

    def close(self) -> Awaitable[object]:
        """Nothing to let go of."""
        return Ready(None)
