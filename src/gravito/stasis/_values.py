"""Reading what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gravito import errors
from gravito.stasis._annotations import check_type
from gravito.stasis._blob import NEGATIVE, PENDING, SERVE_STALE
from gravito.stasis._codec import LATER
from gravito.stasis._policy import UNSET
from gravito.stasis._reads import Found, age_of, complete, found_in, is_stale, look, needs_age
from gravito.stasis._several import several
from gravito.stasis._writing import Writing

if TYPE_CHECKING:
    from gravito.stasis._core import Core
    from gravito.stasis._plan import Plan

__all__ = ["Values"]

_NOTHING: Final = Found()
# keys in one round trip: with very many, a store that is there would exceed the soft timeout
_PORTION: Final = 1000


class Values(Writing):
    """`get`, for one key and for many, beside `put` and `forget`."""

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
            entry, keys, counts = self._sought[key]
        except (KeyError, TypeError):
            entry, keys, counts = self._seek(key)
        core = self._core
        try:
            if core.guard.open:
                core.guard.check()
            plan = core.plans_of.get(entry) or self._plan
            if plan is not self._plan:
                keys = (entry, *plan.keys)
            value = LATER if core.near is None else core.near.find(keys, entry, plan, type)
            if value is LATER:
                raw, behind = await core.reads().ask(entry, keys, plan)
                if raw is not None and plan.matches(raw, behind):
                    value = core.codec.decode_now(raw, entry, type, plan.body)
            if value is not LATER:
                counts.hits += 1
                if core.tallies.idle:
                    core.tallies.wake()
                if core.events.hit:
                    core.tell("hit", key, self._template)
                return value
            found = await self._made_of(entry, plan, [raw, *behind], self._template)
        except errors.UnreadableValueError as error:
            core.unreadable(entry, error, self._template)
            found = _NOTHING
        except Exception as error:
            core.lost(error, key, self._template)
            found = _NOTHING
        value = await self._judged(key, entry, found, type)
        return default if value is UNSET else value

    async def many(self, keys: Iterable[str], default: Any = None, *, type: Any = None) -> dict[str, Any]:
        """The values at several keys, in one round trip for each 1000 (in a cluster one to each node).

        Returns:
            Each key with its value, or with `default` if it has none. As `get` for each.
        """
        names = list(dict.fromkeys(several("keys", keys)))
        entries = self._entries(names)
        core = self._core
        result: dict[str, Any] = {}
        if not names:
            return result
        try:
            core.guard.check()
            if len(names) <= _PORTION:
                return await self._read_many(names, entries, default, type)
            for at in range(0, len(names), _PORTION):
                end = at + _PORTION
                result.update(await self._read_many(names[at:end], entries[at:end], default, type))
        except Exception as error:
            core.lost(error, names[0])
            for key in names:
                core.tallies.of(key).misses += 1
                result.setdefault(key, default)
        return result

    async def _read_many(
        self, names: list[str], entries: list[str], default: Any, type: Any
    ) -> dict[str, Any]:
        """The entries, and behind them every version that any of them is known to depend on."""
        core, mine = self._core, self._plan
        known = core.plans_of
        plans = [known.get(entry, mine) for entry in entries] if known else [mine] * len(entries)
        distinct = dict.fromkeys(plans) if known else {mine: None}
        keys = [*entries, *dict.fromkeys([key for plan in distinct for key in plan.keys])]
        replies = core.at_hand(keys) if core.at_hand is not None else None
        if replies is None:
            replies = await core.guard.within(core.store.read(keys))
        present = dict(zip(keys[len(entries) :], replies[len(entries) :], strict=True))
        behind = {plan: [present[key] for key in plan.keys] for plan in distinct}
        raws = replies[: len(entries)]
        if len(distinct) == 1:
            plan = plans[0]
            if type is None and plan.all_live(raws, behind[plan]):
                values = core.codec.decode_all(raws, plan.body)
                if values is not None:
                    _count(core, names)
                    return dict(zip(names, values, strict=True))
            live = plan.live(raws, behind[plan])
        else:
            live = [plan.live((raw,), behind[plan])[0] for plan, raw in zip(plans, raws, strict=True)]
        result: dict[str, Any] = dict.fromkeys(names, default)
        others: list[tuple[str, str, Found]] = []
        decode = core.codec.decode_apart
        for key, entry, plan, raw, is_live in zip(names, entries, plans, raws, live, strict=True):
            if is_live and raw is not None:
                try:
                    result[key] = await decode(raw, entry, type, plan.body)
                except errors.UnreadableValueError as error:
                    core.unreadable(entry, error)
                    others.append((key, entry, _NOTHING))
            else:
                found = found_in(core, self._scope, entry, plan.tags, [raw, *behind[plan]])
                others.append((key, entry, found))
        await self._count_others(names, others, result, type)
        return result

    async def _count_others(
        self, names: list[str], others: list[tuple[str, str, Found]], result: dict[str, Any], type: Any
    ) -> None:
        """Judge what is no usual hit, and count all."""
        core = self._core
        apart = {key for key, _, _ in others}
        _count(core, [key for key in names if key not in apart] if others else names)
        if not others:
            return
        await self._settle(others)
        for key, entry, found in others:
            value = await self._judged(key, entry, found, type)
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

    async def _judged(self, key: str, entry: str, found: Found, type: Any) -> Any:
        """The value found, or UNSET; counted and told."""
        core, template = self._core, self._template
        counts = core.counts(key, template)
        try:
            value = await _readable(core, entry, found, type)
        except errors.UnreadableValueError as error:
            core.unreadable(entry, error, template)
            value = UNSET
        if value is UNSET:
            check_type(type)  # where there is a value, reading it says that
            counts.misses += 1
            if core.events.miss:
                core.tell("miss", key, template)
            return UNSET
        counts.hits += 1
        if is_stale(found):
            counts.stales += 1
            if core.events.stale:
                core.tell("stale", key, template)
        elif core.events.hit:
            core.tell("hit", key, template)
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

    async def _made_of(
        self, entry: str, plan: Plan, replies: Sequence[bytes | None], template: str | None
    ) -> Found:
        """What replies to an entry and to the keys of a plan say."""
        found = found_in(self._core, self._scope, entry, plan.tags, replies, template=template)
        if found.lacking:
            found = await complete(self._core, self._scope, entry, found)
        elif found.live and found.blob is not None and entry in self._core.plans_of and not found.blob.tags:
            self._core.remember_tags(entry, self._scope, ())  # somebody put it without tags
        return await self._aged(entry, found)

    async def _aged(self, entry: str, found: Found) -> Found:
        if needs_age(found):
            await age_of(self._core, entry, found)
        return found


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


async def _readable(core: Core, entry: str, found: Found, type: Any) -> Any:
    """Its value, UNSET if a plain read must not give it out."""
    if not is_readable(found) or found.blob is None:
        return UNSET
    return await core.decode(found.blob, entry, type)
