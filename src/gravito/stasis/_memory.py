"""Entries in this process."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from math import ceil, inf
from threading import Lock
from time import monotonic
from typing import Literal

from gravito.errors import ConfigurationError
from gravito.stasis._awaitables import Ready
from gravito.stasis._blob import COUNTER, VERSION_BYTES, Blob, fits, id_of, new_id, overflow
from gravito.stasis.store import KEEP, Keep

_OVERHEAD = 250  # bytes of an entry's own objects, measured
_FEWEST_VERSIONS = 1000  # room for these, however few entries there may be
_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")  # as a server takes it


class MemoryStore:
    """A store in this process, for any number of threads and event loops. What was used longest ago goes first.

    Versions of roots and tags are apart, so that entries never drive out what all of them depend on.

    Args:
        max_entries: most entries; and most versions, if these are more than 1000.
        max_bytes: most bytes of entries, keys and values, estimated.
        clock: seconds that never go back.

    Raises:
        ConfigurationError: a bound that is no positive whole number.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.max_entries = _positive("max_entries", max_entries)
        self.max_bytes = _positive("max_bytes", max_bytes)
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = (
            OrderedDict()
        )  # value, when it goes; oldest use first
        self._bytes = 0  # of all entries, estimated
        self._versions: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # the same of what is pinned
        self._lock = Lock()  # threads share a store; nothing is awaited under it

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._entries)} entries of {self._bytes} bytes, {len(self._versions)} versions>"

    def read(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        """See `Store.read`."""
        with self._lock:
            return Ready([self._find(key) for key in keys])

    def remaining(self, keys: Sequence[str]) -> Awaitable[list[int]]:
        """See `Store.remaining`."""
        with self._lock:
            return Ready([self._left(key) for key in keys])

    def write(self, items: Sequence[tuple[str, bytes, int | None]]) -> Awaitable[object]:
        """See `Store.write`."""
        with self._lock:
            for key, value, ttl_ms in items:
                self._put(key, value, self._end(ttl_ms))
        return Ready(None)

    def swap(
        self,
        key: str,
        seen: bytes | None,
        value: bytes | None,
        ttl_ms: int | Literal[Keep.KEEP] | None = None,
    ) -> Awaitable[bool]:
        """See `Store.swap`."""
        with self._lock:
            present = self._find(key)
            if seen != (None if present is None else id_of(present)):
                return Ready(False)
            if value is None:
                self._drop(key)
            elif ttl_ms is KEEP:
                self._put(key, value, inf if present is None else self._kept(key)[key][1])
            else:
                self._put(key, value, self._end(ttl_ms))
            return Ready(True)

    def touch(self, key: str, seen: bytes, ttl_ms: int | None) -> Awaitable[bool]:
        """See `Store.touch`."""
        with self._lock:
            present = self._find(key)
            if present is None or id_of(present) != seen:
                return Ready(False)
            self._kept(key)[key] = present, self._end(ttl_ms)
            return Ready(True)

    async def increment(self, key: str, counter: bytes, by: int, ttl_ms: int | None) -> int | None:
        """See `Store.increment`."""
        with self._lock:
            raw = self._find(key)
            if raw is None:
                head, before, end = counter, 0, self._end(ttl_ms)
            else:
                body = _counted(raw, counter)
                if body is None:
                    return None
                head = raw[:2] + id_of(counter) + raw[10 : len(raw) - len(body)]
                before, end = int(body), self._kept(key)[key][1]
            after = before + by
            if not fits(after):
                raise overflow(key)
            self._put(key, b"%b%d" % (head, after), end)
            return after

    def forget(self, keys: Sequence[str]) -> Awaitable[int]:
        """See `Store.forget`."""
        with self._lock:
            return Ready(sum(self._find(key) is not None and self._drop(key) for key in keys))

    def pin(self, keys: Sequence[str], ttl_ms: int | None) -> Awaitable[list[bytes]]:
        """See `Store.pin`."""
        with self._lock:
            return Ready([self._pin(key, self._end(ttl_ms)) for key in keys])

    def close(self) -> Awaitable[object]:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._versions.clear()
            self._bytes = 0
        return Ready(None)

    # -- under the lock --------------------------------------------------------------------------------------

    def _end(self, ttl_ms: int | None) -> float:
        return inf if ttl_ms is None else self._clock() + ttl_ms / 1000

    def _kept(self, key: str) -> OrderedDict[str, tuple[bytes, float]]:
        """Where a key is, if it is anywhere."""
        return self._versions if key in self._versions else self._entries

    def _find(self, key: str) -> bytes | None:
        entries = self._entries
        entry = entries.get(key)
        if entry is None:
            entries = self._versions
            entry = entries.get(key)
            if entry is None:
                return None
        if entry[1] <= self._clock():
            self._drop(key)
            return None
        entries.move_to_end(key)
        return entry[0]

    def _left(self, key: str) -> int:
        if self._find(key) is None:
            return -2
        end = self._kept(key)[key][1]
        return -1 if end == inf else ceil((end - self._clock()) * 1000)

    def _pin(self, key: str, end: float) -> bytes:
        version = self._find(key)
        if version is None or len(version) != VERSION_BYTES:
            version = new_id()
        else:
            end = max(end, self._kept(key)[key][1])
        self._drop(key)
        self._versions[key] = version, end
        if len(self._versions) > max(self.max_entries, _FEWEST_VERSIONS):
            self._versions.popitem(last=False)
        return version

    def _put(self, key: str, value: bytes, end: float) -> None:
        self._drop(key)
        if _size(key, value) > self.max_bytes:  # nobody else has to go for what has no room anyway
            return
        self._entries[key] = value, end
        self._bytes += _size(key, value)
        while self._bytes > self.max_bytes or len(self._entries) > self.max_entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> bool:
        if self._versions.pop(key, None) is not None:
            return True
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= _size(key, entry[0])
        return True


def _counted(raw: bytes, counter: bytes) -> bytes | None:
    """The number in `raw` if that is a counter with the versions of `counter`."""
    present, wanted = Blob.unpack(raw), Blob.unpack(counter)
    if present is None or wanted is None or present.kind != COUNTER:
        return None
    if present.roots != wanted.roots or present.tags != wanted.tags or not _NUMBER.fullmatch(present.body):
        return None
    return present.body if fits(int(present.body)) else None


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD


def _positive(field: str, value: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    allowed = "a whole number above 0"
    message = f"memory store: {field} is {value!r}; allowed: {allowed}"
    raise ConfigurationError(message, field=field, value=value, allowed=allowed)
