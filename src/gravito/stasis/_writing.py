"""Writing values that the caller has, and forgetting them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any, Final

from gravito.stasis._blob import VERSION_BYTES
from gravito.stasis._policy import UNSET, Unset
from gravito.stasis._several import keyed, several
from gravito.stasis._ttl import TTL, check_jitter, ttl_ms
from gravito.stasis._view import View

__all__ = ["Writing", "versions_of"]

# keys in one round trip: with very many, a store that is there would exceed the soft timeout
_PORTION: Final = 1000
_ALONE: Final = 32 * 1024  # bytes; what is larger is not written together with others


class Writing(View):
    """`put` and `forget`, for one key and for many."""

    async def put(
        self, key: str, value: Any, ttl: TTL | Unset = UNSET, *, jitter: float = 0.0, type: Any = None
    ) -> bool:
        """Store a value.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            value: see `Codec` for what can be stored.
            ttl: seconds, a timedelta, an aware datetime, or None for without end; the cache's own if not given.
            jitter: fraction by which the ttl is shortened at random, at most.
            type: what readers will name.

        Returns:
            True. False if the store failed and the fail-safe says "miss"; an `error` event tells why.

        Raises:
            InvalidKeyError, InvalidTTLError, SerializationError: an argument that cannot be used; nothing was written.
            ConnectionError, TimeoutError: the store cannot be asked, and the fail-safe says "raise".
        """
        try:
            entry, _, counts = self._sought[key]
        except (KeyError, TypeError):
            entry, _, counts = self._seek(key)
        core = self._core
        if jitter or jitter.__class__ is not float:
            check_jitter(jitter)
        ms = ttl_ms(core.ttl if ttl is UNSET else ttl, jitter)
        codec = core.codec
        if codec.compresses:
            body = await codec.encode_apart(value, entry, type)
        else:
            body = codec.encode(value, entry, type)
        guess = self._guess
        if (
            guess is None
            or core.guard.open
            or len(body) > _ALONE
            or (self._tags and not _stays(guess[2], ms))
        ):
            return await self._write([(key, entry, body)], [ms])
        present, front, _ = guess
        plan = self._plan
        try:
            item = entry, plan.blob(front, body), ms
            seen = await (core.writes().put(item, plan) if core.joins else self._write_apart(item))
        except Exception as error:
            core.lost(error, key, self._template)
            return False
        if seen != present:  # flushed or cleared meanwhile: once more, under the versions of now
            self._guess = None
            return await self._write([(key, entry, body)], [ms])
        if self._tags or core.plans_of:
            core.remember_tags(entry, self._scope, self._tags)
        counts.writes += 1
        if core.tallies.idle:
            core.tallies.wake()
        if core.events.write:
            core.tell("write", key, self._template, tags=self._tags)
        return True

    async def _write_apart(self, item: tuple[str, bytes, int | None]) -> Sequence[bytes | None]:
        """Write where writes are not joined; the versions that were present behind that."""
        core = self._core
        soon = core.versions_soon(self._plan.keys)
        await core.guard.within(core.store.write((item,)))
        seen = soon.now()
        return await soon.result() if seen is None else seen

    async def forever(self, key: str, value: Any) -> bool:
        """Store a value without end. As `put`."""
        return await self.put(key, value, None)

    async def put_many(
        self, values: Mapping[str, Any], ttl: TTL | Unset = UNSET, *, jitter: float = 0.0, type: Any = None
    ) -> bool:
        """Store several values, in one round trip for each 1000. As `put`; with a jitter each has a ttl of its own.

        It is no transaction: if the store fails on the way, some may be written.

        Raises:
            ConfigurationError: the values are no mapping.
        """
        core = self._core
        life = core.ttl if ttl is UNSET else ttl
        values, jitter = keyed("values", values), check_jitter(jitter)
        times = [ttl_ms(life, jitter) for _ in values] if jitter else [ttl_ms(life)] * len(values)
        items = []
        for key, value in values.items():
            entry = self._entry(key)
            items.append((key, entry, await core.encode(value, entry, type)))
        return await self._write(items, times) if items else True

    async def _write(self, items: list[tuple[str, str, bytes]], times: list[int | None]) -> bool:
        core = self._core
        try:
            if core.guard.open:
                core.guard.check()
            for at in range(0, len(items), _PORTION):
                end = at + _PORTION
                await self._write_through(items[at:end], times[at:end])
        except Exception as error:
            core.lost(error, items[0][0], self._template)
            return False
        for key, entry, _ in items:
            if self._tags or entry in core.plans_of:
                core.remember_tags(entry, self._scope, self._tags)
            core.wrote(key, self._template, tags=self._tags)
        return True

    async def _write_through(self, items: list[tuple[str, str, bytes]], times: list[int | None]) -> None:
        """Write under the versions last seen while asking for the present ones; again if they are others."""
        core = self._core
        # for twice as long as this call needs: until half of it is over, the next one need not ask for more time
        stay = None if None in times else 2 * max(ms for ms in times if ms is not None)
        until = inf if stay is None else monotonic() + stay / 1000
        roots, tags = core.guess(self._roots), core.guess(self._tag_keys)
        if roots is not None and tags is not None and not core.local:
            soon = None if core.tiered else core.versions_soon(self._roots)
            writing = core.guard.within(core.store.write(self._packed(items, times, roots, tags)))
            if self._tags:
                await asyncio.gather(writing, core.pin(self._tag_keys, stay))
            else:
                await writing
            # copies in this process are right once the write's reply is here, which came behind their announcements
            reading = core.guard.within(core.store.read(self._roots)) if soon is None else soon.result()
            core.note(self._roots, await reading)
            if core.guess(self._roots) == roots and core.guess(self._tag_keys) == tags:
                self._keep_guess(roots + tags, until)
                return
        roots, tags = await self._pinned(stay)
        await core.guard.within(core.store.write(self._packed(items, times, roots, tags)))
        self._keep_guess(roots + tags, until)

    def _keep_guess(self, joined: bytes, until: float) -> None:
        """So that the next `put` has less to do."""
        if not self._core.local and not self._core.tiered:
            versions = versions_of(joined)
            self._guess = versions, self._plan.front(versions), until

    async def _pinned(self, longest: int | None) -> tuple[bytes, bytes]:
        core = self._core
        if core.local:  # asking costs nothing, writing the versions again does
            present = [root for root in await core.store.read(self._roots) if root is not None]
            if len(present) == len(self._roots) and not self._tags:
                return b"".join(present), b""
        if not self._tags:
            return b"".join(await core.pin(self._roots, None)), b""
        roots, tags = await asyncio.gather(core.pin(self._roots, None), core.pin(self._tag_keys, longest))
        return b"".join(roots), b"".join(tags)

    def _packed(
        self, items: list[tuple[str, str, bytes]], times: list[int | None], roots: bytes, tags: bytes
    ) -> list[tuple[str, bytes, int | None]]:
        plan = self._plan
        front = plan.front(versions_of(roots + tags))
        return [
            (entry, plan.blob(front, body), ms) for (_, entry, body), ms in zip(items, times, strict=True)
        ]

    async def forget(self, key: str) -> bool:
        """Remove a key. Who computes it now does not put it back.

        Returns:
            Whether there was something.

        Raises:
            ConnectionError, TimeoutError: the store could not be asked; the key may still be there. Always raised:
                a lost invalidation is never silent.
        """
        return await self.forget_many((key,)) > 0

    async def forget_many(self, keys: Iterable[str]) -> int:
        """Remove several keys; how many were there. As `forget`."""
        names = list(several("keys", keys))
        entries = self._entries(names)
        if not entries:
            return 0
        core = self._core
        try:
            count = await core.store.forget(entries)
        except Exception as error:
            core.lost(error, names[0], self._template, quiet=True)
            raise
        for key in names:
            core.counts(key, self._template).forgets += 1
            if core.events.forget:
                core.tell("forget", key, self._template)
        return count


def _stays(until: float, ms: int | None) -> bool:
    """Whether what stays until then stays for so long."""
    return until == inf or (ms is not None and monotonic() + ms / 1000 <= until)


def versions_of(joined: bytes) -> list[bytes]:
    """Versions, one by one."""
    return [joined[at : at + VERSION_BYTES] for at in range(0, len(joined), VERSION_BYTES)]
