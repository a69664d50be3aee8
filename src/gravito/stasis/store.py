"""What a cache asks of the place where its entries are: bytes, times to live, and one compare-and-swap."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Final, Literal, Protocol, runtime_checkable

__all__ = ["KEEP", "Keep", "Store"]


class Keep(Enum):
    """A time to live that is left as it is."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep.KEEP


@runtime_checkable
class Store(Protocol):
    """Where a cache's entries are. Any object with these methods can be one.

    A value is bytes. The cache's own are blobs, whose bytes 2 to 10 are their id: `seen` is these bytes of what the
    caller read under the key, or None if nothing was there. Times to live are whole milliseconds above 0; None: without
    end. They run down on the store's clock.

    A store may lose any key at any time (eviction). It must not give back what was replaced or deleted before the read
    was called. Each method decides at once and for one key atomically; several keys are not one transaction. What goes
    wrong comes out of the awaitable as the store's own error.
    """

    def read(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        """The values at the keys, None for each that has none. One round trip."""
        ...

    def remaining(self, keys: Sequence[str]) -> Awaitable[list[int]]:
        """Milliseconds that are left to each key; -1: without end; -2: it is not there."""
        ...

    def write(self, items: Sequence[tuple[str, bytes, int | None]]) -> Awaitable[object]:
        """Put key, value and time to live, whatever is there. Nothing is said of an error but that it happened:
        some of several may have been written."""
        ...

    def swap(
        self,
        key: str,
        seen: bytes | None,
        value: bytes | None,
        ttl_ms: int | Literal[Keep.KEEP] | None = None,
    ) -> Awaitable[bool]:
        """Compare and swap.

        Args:
            key: the entry's.
            seen: the id of what must be there; None: nothing must.
            value: what replaces it; None deletes.
            ttl_ms: of the new value; KEEP: that of the old one.

        Returns:
            If it was done.
        """
        ...

    def touch(self, key: str, seen: bytes, ttl_ms: int | None) -> Awaitable[bool]:
        """Give the key another time to live if its value has the id `seen`; if that was done."""
        ...

    def increment(self, key: str, counter: bytes, by: int, ttl_ms: int | None) -> Awaitable[int | None]:
        """Add to a counter, exactly, within 64 bits.

        Args:
            key: the entry's.
            counter: a blob of kind C without a body, for a counter that is not there yet; it begins at 0.
            by: what is added.
            ttl_ms: of a new counter; one that is there keeps its own.

        Returns:
            The new number. None, and nothing is changed, if there is something else than a counter with the
            versions of `counter`: the caller reads and swaps.

        Raises:
            CounterError: the sum does not fit in 64 bits; nothing is changed.
        """
        ...

    def forget(self, keys: Sequence[str]) -> Awaitable[int]:
        """Delete the keys; how many were there."""
        ...

    def pin(self, keys: Sequence[str], ttl_ms: int | None) -> Awaitable[list[bytes]]:
        """Make sure that these keys of versions exist and stay for at least `ttl_ms`; the present versions.

        A version that is missing is made at random. A time to live is never shortened.
        """
        ...

    def close(self) -> Awaitable[object]:
        """Let go of what the store holds itself; not of a connection that others use."""
        ...
