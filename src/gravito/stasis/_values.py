"""Reading and writing values that the caller has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from gravito import errors
from gravito.stasis._blob import NEGATIVE, PENDING, SERVE_STALE, VERSION_BYTES
from gravito.stasis._policy import UNSET, Unset
from gravito.stasis._reads import Found, age_of, complete, found_in, is_stale, look, needs_age
from gravito.stasis._ttl import TTL, ttl_ms
from gravito.stasis._view import View

if TYPE_CHECKING:
    from gravito.stasis._core import Core
    from gravito.stasis._plan import Plan

__all__ = ["Values"]

_NOTHING: Final = Found()
# keys in one round trip: with very many, a store that is there would exceed the soft timeout
_PORTION: Final = 1000


class Values(View):
    """`get` and `put`, for one key and for many."""

    async def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """The value at a key.

        A value that `flexible` has stored is given out in its stale window too; one with a window for failures
        (`remember` with `stale`) is not.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            default: what to return if there is none.
            type: what the value is checked against and built into, by msgspec; a value that does not fit is a miss.

        Raises:
            InvalidKeyError: the key cannot be used.
            ConnectionError, TimeoutError: the store cannot be asked, and the fail-safe says "raise".
        """
        try:
            entry, keys = self._sought[key]
        except (KeyError, TypeError):
            entry, keys = self._seek(key)
        core = self._core
        try:
            guard = core.guard
            if guard.open:
                guard.check()
            plan = core.plans_of.get(entry) or self._plan
            if plan is not self._plan:
                keys = (entry, *plan.keys)
            replies = core.at_hand(keys) if core.at_hand is not None else None
            if replies is None:
                replies = await guard.within(core.store.read(keys))
            raw = replies[0]
            if raw is not None and plan.matches(raw, replies):
                value = core.codec.decode(raw, entry, type, at=plan.body)
                core.tallies.of(key).hits += 1
                if core.events.hit:
                    core.tell("hit", key)
                return value
            found = await self._made_of(entry, plan, replies)
        except errors.UnreadableValueError as error:
            core.unreadable(entry, error)
            found = _NOTHING
        except Exception as error:
            core.lost(error, key)
            found = _NOTHING
        value = self._judged(key, entry, found, type)
        return default if value is UNSET else value

    async def many(self, keys: Iterable[str], default: Any = None, *, type: Any = None) -> dict[str, Any]:
        """The values at several keys, in one round trip for each 1000 (in a cluster one to each node).

        Returns:
            Each key with its value, or with `default` if it has none. As `get` for each.
        """
        names = list(dict.fromkeys(keys))
        entries = self._entries(names)
        core = self._core
        result: dict[str, Any] = dict.fromkeys(names, default)
        if not names:
            return result
        try:
            core.guard.check()
            for at in range(0, len(names), _PORTION):
                end = at + _PORTION
                await self._read_many(names[at:end], entries[at:end], type, result)
        except Exception as error:
            core.lost(error, names[0])
            for key in names:
                core.tallies.of(key).misses += 1
        return result

    async def _read_many(
        self, names: list[str], entries: list[str], type: Any, result: dict[str, Any]
    ) -> None:
        """The entries, and behind them every version that any of them is known to depend on."""
        core, mine = self._core, self._plan
        known = core.plans_of
        plans = [known.get(entry, mine) for entry in entries] if known else [mine] * len(entries)
        distinct = dict.fromkeys(plans)
        keys = [*entries, *dict.fromkeys([key for plan in distinct for key in plan.keys])]
        replies = core.at_hand(keys) if core.at_hand is not None else None
        if replies is None:
            replies = await core.guard.within(core.store.read(keys))
        present = dict(zip(keys[len(entries) :], replies[len(entries) :], strict=True))
        behind = {plan: [present[key] for key in plan.keys] for plan in distinct}
        if len(distinct) == 1:
            live = plans[0].live(replies[: len(entries)], behind[plans[0]])
        else:
            live = [plan.live((raw,), behind[plan])[0] for plan, raw in zip(plans, replies, strict=False)]
        others: list[tuple[str, str, Found]] = []
        decode = core.codec.decode
        for key, entry, plan, raw, is_live in zip(names, entries, plans, replies, live, strict=False):
            if is_live and raw is not None:
                try:
                    result[key] = decode(raw, entry, type, at=plan.body)
                except errors.UnreadableValueError as error:
                    core.unreadable(entry, error)
                    others.append((key, entry, _NOTHING))
            else:
                found = found_in(core, self._scope, entry, plan.tags, [raw, *behind[plan]])
                others.append((key, entry, found))
        hits = names
        if others:
            apart = {key for key, _, _ in others}
            hits = [key for key in names if key not in apart]
        _count(core, hits)
        if others:
            await self._settle(others)
            for key, entry, found in others:
                value = self._judged(key, entry, found, type)
                if value is not UNSET:
                    result[key] = value

    async def _settle(self, others: list[tuple[str, str, Found]]) -> None:
        """Ask for tags that nobody knew of, and for the age of what may be stale; each for all at once."""
        core, scope, within = self._core, self._scope, self._core.guard.within
        lacking = list(dict.fromkeys([tag for _, _, found in others for tag in found.lacking]))
        if lacking:
            versions = await within(core.store.read([scope.tag + tag for tag in lacking]))
            present = dict(zip(lacking, versions, strict=True))
            for _, entry, found in others:
                if found.lacking and found.blob is not None:
                    found.tags.update(present)
                    found.live = found.blob.lives(found.roots, found.tags)
                    core.remember_tags(entry, scope, found.blob.tags)
        aged = [(entry, found) for _, entry, found in others if needs_age(found)]
        if aged:
            times = await within(core.store.remaining([entry for entry, _ in aged]))
            for (_, found), left in zip(aged, times, strict=True):
                found.left = left

    def _judged(self, key: str, entry: str, found: Found, type: Any) -> Any:
        """The value found, or UNSET; counted and told."""
        core = self._core
        counts = core.tallies.of(key)
        try:
            value = _readable(core, entry, found, type)
        except errors.UnreadableValueError as error:
            core.unreadable(entry, error)
            value = UNSET
        if value is UNSET:
            counts.misses += 1
            if core.events.miss:
                core.tell("miss", key)
            return UNSET
        counts.hits += 1
        if is_stale(found):
            counts.stales += 1
            if core.events.stale:
                core.tell("stale", key)
        elif core.events.hit:
            core.tell("hit", key)
        return value

    async def has(self, key: str) -> bool:
        """Whether `get` would find a value. It is not decoded."""
        entry = self._entry(key)
        core = self._core
        try:
            core.guard.check()
            found = await self._find(entry)
        except Exception as error:
            core.lost(error, key)
            return False
        return is_readable(found)

    async def missing(self, key: str) -> bool:
        """The opposite of `has`."""
        return not await self.has(key)

    async def _find(self, entry: str) -> Found:
        """What lies there, with its age where that matters."""
        return await self._aged(entry, await look(self._core, self._scope, entry, self._tags))

    async def _made_of(self, entry: str, plan: Plan, replies: Sequence[bytes | None]) -> Found:
        """What replies to an entry and to the keys of a plan say."""
        found = found_in(self._core, self._scope, entry, plan.tags, replies)
        if found.lacking:
            found = await complete(self._core, self._scope, entry, found)
        elif found.live and found.blob is not None and entry in self._core.plans_of and not found.blob.tags:
            self._core.remember_tags(entry, self._scope, ())  # somebody put it without tags
        return await self._aged(entry, found)

    async def _aged(self, entry: str, found: Found) -> Found:
        if needs_age(found):
            await age_of(self._core, entry, found)
        return found

    # -- writing ---------------------------------------------------------------------------------------------

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
        entry = self._entry(key)
        core = self._core
        ms = ttl_ms(core.ttl if ttl is UNSET else ttl, jitter)
        codec = core.codec
        body = (
            await codec.encode_apart(value, entry, type)
            if codec.compresses
            else codec.encode(value, entry, type)
        )
        guess = self._guess
        if guess is None or core.guard.open or (self._tags and not _stays(guess[2], ms)):
            return await self._write([(key, entry, body)], [ms])
        present, front, _ = guess
        soon = core.versions_soon(self._plan.keys)
        try:
            await core.guard.within(core.store.write(((entry, self._plan.blob(front, body), ms),)))
            seen = soon.now()
            if seen is None:
                seen = await soon.result()
        except Exception as error:
            core.lost(error, key)
            return False
        if seen != present:  # flushed or cleared meanwhile: once more, under the versions of now
            self._guess = None
            return await self._write([(key, entry, body)], [ms])
        if self._tags or entry in core.plans_of:
            core.remember_tags(entry, self._scope, self._tags)
        core.wrote(key, tags=self._tags)
        return True

    async def forever(self, key: str, value: Any) -> bool:
        """Store a value without end. As `put`."""
        return await self.put(key, value, None)

    async def put_many(
        self, values: Mapping[str, Any], ttl: TTL | Unset = UNSET, *, jitter: float = 0.0, type: Any = None
    ) -> bool:
        """Store several values, in one round trip for each 1000. As `put`; with a jitter each has a ttl of its own.

        It is no transaction: if the store fails on the way, some may be written.
        """
        core = self._core
        life = core.ttl if ttl is UNSET else ttl
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
            core.lost(error, items[0][0])
            return False
        for key, entry, _ in items:
            if self._tags or entry in core.plans_of:
                core.remember_tags(entry, self._scope, self._tags)
            core.wrote(key, tags=self._tags)
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
        names = list(keys)
        entries = self._entries(names)
        if not entries:
            return 0
        core = self._core
        try:
            count = await core.store.forget(entries)
        except Exception as error:
            core.lost(error, names[0], quiet=True)
            raise
        for key in names:
            core.tallies.of(key).forgets += 1
            if core.events.forget:
                core.tell("forget", key)
        return count


def is_readable(found: Found) -> bool:
    """Whether a plain read may give it out."""
    blob = found.blob
    if blob is None or not found.live or blob.kind in (PENDING, NEGATIVE):
        return False
    return not is_stale(found) or bool(blob.flags & SERVE_STALE)


def _count(core: Core, hits: list[str]) -> None:
    """Count fresh hits and tell of them."""
    core.tallies.hit(hits)
    if core.events.hit:
        for key in hits:
            core.tell("hit", key)


def _stays(until: float, ms: int | None) -> bool:
    """Whether what stays until then stays for so long."""
    return until == inf or (ms is not None and monotonic() + ms / 1000 <= until)


def versions_of(joined: bytes) -> list[bytes]:
    """Versions, one by one."""
    return [joined[at : at + VERSION_BYTES] for at in range(0, len(joined), VERSION_BYTES)]


def _readable(core: Core, entry: str, found: Found, type: Any) -> Any:
    """Its value, UNSET if a plain read must not give it out."""
    if not is_readable(found) or found.blob is None:
        return UNSET
    return core.decode(found.blob, entry, type)
