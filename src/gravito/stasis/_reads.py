"""What lies under a key, and what that means for a caller: liveness, freshness, claims.

A blob is live if every version that it was made under is the present one. A missing version equals nothing, so
what was flushed or evicted never comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from gravito.stasis._awaitables import All
from gravito.stasis._blob import FAILED, NEGATIVE, OWN_TTL, PENDING, SERVE_STALE, Blob, id_of
from gravito.stasis._policy import Policy, early_now

if TYPE_CHECKING:
    from gravito.stasis._core import Core

__all__ = ["Found", "Scope", "Verdict", "look", "verdict"]


class Scope(msgspec.Struct, frozen=True, eq=False):
    """The names of a namespace's keys on the server."""

    prefix: str
    entry: str  # in front of a key
    tag: str  # in front of a tag
    roots: tuple[str, ...]  # keys of the versions that `clear` ends: this namespace's and those around it
    flushed: str  # key of the version that changes whenever a tag is flushed

    @classmethod
    def of(cls, prefix: str, around: tuple[str, ...] = ()) -> Scope:
        """The names under a prefix; `around` are the roots of the namespaces that it is in."""
        return cls(prefix, f"{prefix}:k:", f"{prefix}:t:", (*around, f"{prefix}:r"), f"{prefix}:f")


class Found(msgspec.Struct, eq=False):
    """What one read found under a key."""

    seen: bytes | None = (
        None  # what a compare-and-swap must name: the id, readable or not; None: nothing is there
    )
    blob: Blob | None = None  # None: nothing, or nothing readable
    live: bool = False
    roots: tuple[bytes | None, ...] = ()  # present versions of the scope's roots
    tags: dict[str, bytes | None] = {}  # present versions of the tags that were asked for
    left: int | None = None  # ms left to the key; -1 without end; None: nobody asked
    lacking: Sequence[str] = ()  # tags that it bears and nobody has asked for yet


class Verdict(Enum):
    """What a caller does with what was found."""

    HIT = "hit"
    STALE = "stale"  # a value that is past its fresh time, and may be given out
    WAIT = "wait"  # somebody computes it
    CLAIM = "claim"  # compute it


async def look(
    core: Core,
    scope: Scope,
    entry: str,
    tags: Sequence[str],
    *,
    timed: bool = False,
    template: str | None = None,
) -> Found:
    """Read an entry with the versions that it depends on. One round trip, if its tags are named or known."""
    names = names_of(core, entry, tags)
    keys = (entry, *scope.roots, *[scope.tag + name for name in names])
    store, within = core.store, core.guard.within
    if not timed:
        found = found_in(core, scope, entry, names, await within(store.read(keys)), template=template)
    else:
        reading, asking = store.read(keys), store.remaining((entry,))  # both go out in the same turn
        try:
            replies = await within(reading)
        except BaseException:
            silence(asking)
            raise
        left = (await within(asking))[0]
        found = found_in(core, scope, entry, names, replies, left, template)
    return await complete(core, scope, entry, found) if found.lacking else found


def found_in(
    core: Core,
    scope: Scope,
    entry: str,
    names: Sequence[str],
    replies: Sequence[bytes | None],
    left: int | None = None,
    template: str | None = None,
) -> Found:
    """Make something of the replies to an entry, its roots and some tags."""
    count = 1 + len(scope.roots)
    raw, roots = replies[0], tuple(replies[1:count])
    tags = dict(zip(names, replies[count:], strict=True))
    if raw is None:
        return Found(None, None, False, roots, tags, left)
    blob = Blob.unpack(raw)
    if blob is None:
        core.unreadable(entry, template=template)
        return Found(id_of(raw), None, False, roots, tags, left)
    lacking = [name for name in blob.tags if name not in tags] if blob.tags else ()
    return Found(blob.id, blob, not lacking and blob.lives(roots, tags), roots, tags, left, lacking)


async def complete(core: Core, scope: Scope, entry: str, found: Found) -> Found:
    """Ask for the tags that nobody knew of.

    They are read after the entry: a version that changed in between makes the blob dead, never live.
    """
    assert found.blob is not None
    versions = await core.guard.within(core.store.read([scope.tag + name for name in found.lacking]))
    found.tags.update(zip(found.lacking, versions, strict=True))
    found.lacking = ()
    found.live = found.blob.lives(found.roots, found.tags)
    core.remember_tags(entry, scope, found.blob.tags)
    return found


def names_of(core: Core, entry: str, tags: Sequence[str]) -> Sequence[str]:
    """The tags to read with an entry: those that the caller names, and those last seen on it."""
    plan = core.plans_of.get(entry)
    if plan is None:
        return tags
    return plan.tags if not tags or tags == plan.tags else tuple({*tags, *plan.tags})


async def age_of(core: Core, entry: str, found: Found) -> int:
    """Ms left to what was found; asked for now if that was not done before."""
    if found.left is None:
        found.left = (await core.guard.within(core.store.remaining((entry,))))[0]
    return found.left


def needs_age(found: Found) -> bool:
    """Whether the verdict depends on the time that remains."""
    return found.left is None and found.live and found.blob is not None and found.blob.stale_ms > 0


def is_stale(found: Found) -> bool:
    """Past its fresh time."""
    blob, left = found.blob, found.left
    return blob is not None and left is not None and left != -1 and left <= blob.stale_ms > 0


def is_marked(found: Found) -> bool:
    """Somebody refreshes it, or the last refresh failed a moment ago."""
    blob, left = found.blob, found.left
    return blob is not None and left is not None and left > blob.mark_ms > 0


def verdict(found: Found, policy: Policy) -> Verdict:
    """What `remember` does with it; the age is known where it matters."""
    blob = found.blob
    if blob is None or not found.live:
        return Verdict.CLAIM
    if blob.kind == PENDING:
        return Verdict.WAIT
    if blob.kind == NEGATIVE:
        return Verdict.HIT if policy.errors else Verdict.CLAIM
    if not is_stale(found):
        return Verdict.HIT
    if policy.flexible or blob.flags & SERVE_STALE:
        return Verdict.STALE
    if not is_marked(found):
        return Verdict.CLAIM
    return Verdict.STALE if blob.flags & FAILED else Verdict.WAIT


def wants_refresh(found: Found, policy: Policy) -> bool:
    """Whether a hit, or a stale value that is given out, should be computed anew in the background."""
    blob, left = found.blob, found.left
    if blob is None or left is None or left < 0 or is_marked(found) or blob.kind == NEGATIVE:
        return False
    if is_stale(found):
        return True
    if not policy.early:
        return False
    window = 0 if blob.flags & OWN_TTL else policy.early_ms
    return early_now(left - blob.stale_ms, window, blob.cost_ms)


def silence(waiting: Awaitable[Any]) -> None:
    """Nobody will await this; its error is not news."""
    for each in waiting.commands if isinstance(waiting, All) else (waiting,):
        future = getattr(each, "future", None)
        if future is not None:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif hasattr(each, "close"):
            each.close()
