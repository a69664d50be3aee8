"""What depends on what is there: add, pull, touch, counters. Each decides by one compare-and-swap."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from gravito import errors
from gravito.stasis._blob import COUNTER, Blob, new_id
from gravito.stasis._policy import UNSET, Unset
from gravito.stasis._reads import Found, silence
from gravito.stasis._ttl import TTL, ttl_ms
from gravito.stasis._values import Values, is_readable
from gravito.stasis._writing import versions_of
from gravito.stasis.store import KEEP

__all__ = ["Atomic"]

_TRIES: Final = 100  # others were faster so often in a row: something is wrong


class Atomic(Values):
    """See above. These never degrade: what they answer would be wrong without the store, so its errors are raised.

    They wait no longer than other calls do: for the soft timeout, and not at all while the store is taken for down.
    """

    async def add(self, key: str, value: Any, ttl: TTL | Unset = UNSET, *, type: Any = None) -> bool:
        """Store a value if there is none. As `put`.

        Returns:
            Whether it was stored. Of any number of callers one gets True.

        Raises:
            ConnectionError, TimeoutError: the store cannot be asked; `maybe_applied` says if it may have been done.
        """
        entry = self._entry(key)
        core = self._core
        ms = ttl_ms(core.ttl if ttl is UNSET else ttl)
        body = await core.encode(value, entry, type)
        with self._surely(key):
            for _ in range(_TRIES):
                found = await self._find(entry)
                if is_readable(found):
                    return False
                roots, tags = await self._pinned(ms)
                blob = self._plan.blob(self._plan.front(versions_of(roots + tags)), body)
                if await self._written(core.store.swap(entry, found.seen, blob, ms)):
                    core.remember_tags(entry, self._scope, self._tags)
                    core.wrote(key, tags=self._tags)
                    return True
        raise _restless(key)

    async def pull(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """The value at a key, which is removed. Of any number of callers one gets it.

        Raises:
            ConnectionError, TimeoutError: the store cannot be asked; `maybe_applied` says if it may have been done.
        """
        entry = self._entry(key)
        core = self._core
        with self._surely(key):
            for _ in range(_TRIES):
                found = await self._find(entry)
                value = await self._judged(key, entry, found, type)
                if value is UNSET:
                    return default
                if await self._written(core.store.swap(entry, found.seen, None)):
                    core.tallies.of(key).forgets += 1
                    if core.events.forget:
                        core.tell("forget", key)
                    return value
        raise _restless(key)

    async def touch(self, key: str, ttl: TTL | Unset = UNSET) -> bool:
        """Give a value another time to live, from now.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            ttl: as in `put`. A stale window comes on top of it.

        Returns:
            Whether there was a value.

        Raises:
            ConnectionError, TimeoutError: the store cannot be asked; `maybe_applied` says if it may have been done.
        """
        entry = self._entry(key)
        core = self._core
        ms = ttl_ms(core.ttl if ttl is UNSET else ttl)
        with self._surely(key):
            for _ in range(_TRIES):
                found = await self._find(entry)
                blob = found.blob
                if blob is None or not is_readable(found):
                    return False
                whole = None if ms is None else ms + blob.stale_ms
                if blob.tags:  # versions have to stay for as long as what depends on them
                    await core.pin(tuple([self._scope.tag + tag for tag in blob.tags]), whole)
                if await self._written(core.store.touch(entry, blob.id, whole)):
                    return True
        raise _restless(key)

    async def increment(self, key: str, by: int = 1, ttl: TTL | Unset = UNSET) -> int:
        """Add to a number, exactly, in one step on the server.

        Args:
            key: 1 to 1024 bytes of UTF-8. A missing one counts as 0; a whole number that `put` has stored goes on.
            by: what is added; may be negative.
            ttl: of a new counter; one that is there keeps its own.

        Returns:
            The new number.

        Raises:
            CounterError: it would not fit in 64 bits.
            CacheError: the value is no whole number. Nothing is changed.
            ConnectionError, TimeoutError: the store cannot be asked; `maybe_applied` says if it may have counted.
        """
        if by.__class__ is not int:
            raise errors.CacheError(f"{key!r}: by is {by!r}; give a whole number")
        entry = self._entry(key)
        core = self._core
        ms = ttl_ms(core.ttl if ttl is UNSET else ttl)
        with self._surely(key):
            for _ in range(_TRIES):
                number = await self._count(entry, by, ms)
                if number is not None:
                    if self._tags:
                        core.remember_tags(entry, self._scope, self._tags)
                    core.wrote(key, tags=self._tags)
                    return number
                found = await self._find(entry)
                number = await self._recount(key, entry, found, by)
                if number is not None:
                    core.wrote(key, tags=self._tags)
                    return number
        raise _restless(key)

    async def decrement(self, key: str, by: int = 1, ttl: TTL | Unset = UNSET) -> int:
        """Subtract from a number. As `increment`."""
        return await self.increment(key, -by if by.__class__ is int else by, ttl)

    # -- steps -----------------------------------------------------------------------------------------------

    @contextmanager
    def _surely(self, key: str) -> Iterator[None]:
        """Ask nothing of a store that is taken for down; note what it fails in, and raise that."""
        core = self._core
        try:
            core.guard.check()
            yield
        except (errors.CacheError, errors.ConfigurationError):  # of the call itself
            raise
        except Exception as error:
            core.lost(error, key, quiet=True)
            raise

    def _written(self, writing: Awaitable[Any]) -> Awaitable[Any]:
        """A write, with the soft timeout on it."""
        return self._core.guard.within(writing, writes=True)

    async def _count(self, entry: str, by: int, ms: int | None) -> int | None:
        """Count under the versions of now; None if there is something else than such a counter."""
        core = self._core
        roots, tags = core.guess(self._roots), core.guess(self._tag_keys)
        if roots is None or tags is None or self._tags:
            roots, tags = await self._pinned(ms)
            known = True
        else:
            known = False
        head = self._counter(roots, tags)
        counting = self._written(core.store.increment(entry, head, by, ms))
        if known:
            number: int | None = await counting
            return number
        reading = core.store.read(self._roots)  # both go out in the same turn
        try:
            number = await counting
        except BaseException:
            silence(reading)
            raise
        core.note(self._roots, await core.guard.within(reading))
        if core.guess(self._roots) != roots:
            # It may have begun a counter that nobody can read. The next try finds it and takes it away.
            return None
        return number

    def _counter(self, roots: bytes, tags: bytes) -> bytes:
        """A counter's head under these versions."""
        versions = dict(zip(self._tags, versions_of(tags), strict=True))
        return Blob(COUNTER, new_id(), b"", roots, versions).pack()

    async def _recount(self, key: str, entry: str, found: Found, by: int) -> int | None:
        """Where something else than such a counter was: take it away if it is dead, go on from it if it is a number."""
        core, blob = self._core, found.blob
        if found.seen is None:
            return None
        if blob is None or not is_readable(found):
            await self._written(core.store.swap(entry, found.seen, None))
            return None
        if blob.kind == COUNTER:  # one with other tags
            head = Blob(COUNTER, new_id(), b"", blob.roots, blob.tags).pack()
            number: int | None = await self._written(core.store.increment(entry, head, by, None))
            return number
        try:
            value = core.codec.decode(blob.body, entry)
        except errors.UnreadableValueError:
            value = None
        if value.__class__ is not int:
            raise errors.CacheError(
                f"{key!r}: {type(value).__name__} is no whole number, so it cannot be counted on"
            )
        counter = Blob(COUNTER, new_id(), b"%d" % value, blob.roots, blob.tags)
        await self._written(core.store.swap(entry, found.seen, counter.pack(), KEEP))
        return None


def _restless(key: str) -> errors.CacheError:
    return errors.CacheError(
        f"{key!r}: others changed it between the reading and the writing, {_TRIES} times in a row"
    )
