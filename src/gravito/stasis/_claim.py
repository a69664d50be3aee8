"""A claim: the right to compute one entry, held on the server under the entry's own key.

Whoever forgets, writes or flushes meanwhile wins: the claim's last swap finds another id than its token. A claim on
a missing entry is a blob without a value. One on a stale value is the same value again, with a mark. Both end by
themselves when nobody renews them.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gravito.stasis._blob import FAILED, PENDING, VALUE, Blob, new_id
from gravito.stasis._core import both
from gravito.stasis._reads import Found
from gravito.stasis.store import KEEP

if TYPE_CHECKING:
    from gravito.stasis._core import Core
    from gravito.stasis._flight import Job

__all__ = ["Claim"]


class Claim:
    """One try to hold the right, and what is done with it. Errors of the store go to the caller."""

    def __init__(self, core: Core, job: Job) -> None:
        self._core = core
        self._job = job
        self.token: bytes | None = None  # its id on the server; None while it is not held
        self.ground: Blob | None = None  # the stale value that it stands on
        self.roots = b""  # present versions, from before the factory begins: what it reads is not older
        self.tags: dict[
            str, bytes
        ] = {}  # of the tags that the caller names, and of those last seen on the entry
        self._flushed: bytes | None = None  # the version of all flushes, from before the factory begins
        self._left = 0  # ms that the ground had left
        self._since = 0.0  # at this loop time
        self._renewal: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None  # held, for a loop keeps weak references only

    async def take(self, found: Found, *, over: bool = False) -> bool:
        """Put the claim where `found` is; False if something else is there by now.

        Args:
            found: what was read.
            over: its value cannot be used, so the claim has none.
        """
        core, job = self._core, self._job
        await self._note_versions(found)
        token = new_id()
        if not over and _serves(found):
            self.ground, self._left, self._since = found.blob, found.left or 0, get_running_loop().time()
            swap = core.store.swap(job.entry, found.seen, self._marked(token, core.lease_ms), KEEP)
        else:
            self.ground = None
            blob = Blob(PENDING, token, b"", self.roots, self.tags)
            swap = core.store.swap(job.entry, found.seen, blob.pack(), core.lease_ms)
        # a flush of tags that only the factory's result will name changes this
        flushed = core.guard.within(core.store.read((job.scope.flushed,)))
        won, (self._flushed,) = await both(core.guard.within(swap), flushed)
        if not won:
            return False
        self.token = token
        if self._flushed is None:
            (self._flushed,) = await core.pin((job.scope.flushed,), None)
        return True

    async def put(self, blob: Blob, ttl_ms: int | None, named: Sequence[str] = ()) -> bool:
        """Put a value in the claim's place, if the claim is still there.

        Args:
            blob: without versions.
            ttl_ms: of the entry.
            named: tags that the factory named. If neither it nor the caller named any, those last seen on the
                entry stay: who computes a value anew need not know what else depends on its source.
        """
        core, job = self._core, self._job
        names = dict.fromkeys((*job.tags, *named)) or self.tags
        blob.roots = self.roots
        blob.tags = {tag: self.tags[tag] for tag in names if tag in self.tags}
        before = job.tag_keys(blob.tags)
        late = [tag for tag in names if tag not in self.tags]  # nobody knew of them when the claim was taken
        if late:
            versions = await core.pin(job.tag_keys(late), ttl_ms)
            (flushed,) = await core.guard.within(core.store.read((job.scope.flushed,)))
            if flushed != self._flushed:  # perhaps one of these: nobody can tell any more
                await self.give_up()
                return False
            blob.tags.update(zip(late, versions, strict=True))
        if not before:
            return await self._swap(blob.pack(), ttl_ms)
        pinned = core.pin(before, ttl_ms)
        return (await asyncio.gather(self._swap(blob.pack(), ttl_ms), pinned))[0]

    async def give_up(self) -> None:
        """Let others compute it."""
        await self._swap(None, None)

    async def pause(self, for_ms: int) -> None:
        """Put the stale value back, and let nobody try for so long."""
        await self._swap(self._marked(new_id(), for_ms, FAILED), KEEP)

    async def _swap(self, blob: bytes | None, ttl_ms: Any) -> bool:
        if self.token is None:
            return False
        core = self._core
        return bool(await core.guard.within(core.store.swap(self._job.entry, self.token, blob, ttl_ms)))

    # -- versions --------------------------------------------------------------------------------------------

    async def _note_versions(self, found: Found) -> None:
        core, scope, job = self._core, self._job.scope, self._job
        roots: tuple[bytes | None, ...] = found.roots
        if None in roots:
            roots = tuple(await core.pin(scope.roots, None))
        self.roots = b"".join([root for root in roots if root is not None])
        core.note(scope.roots, roots)
        seen = core.plans_of.get(job.entry)
        names = job.tags or (seen.tags if seen is not None else ())
        self.tags = {tag: version for tag in names if (version := found.tags.get(tag)) is not None}
        lacking = [tag for tag in names if tag not in self.tags]
        if lacking:
            life = job.policy.life()
            ttl_ms = life.ttl_ms if life is not None else None
            # a version that the factory outlives would make its value dead when it is born
            versions = await core.pin(
                job.tag_keys(lacking), None if ttl_ms is None else ttl_ms + 10 * core.lease_ms
            )
            self.tags.update(zip(lacking, versions, strict=True))

    # -- on a stale value, and for longer --------------------------------------------------------------------

    def _marked(self, id_: bytes, for_ms: int, flag: int = 0) -> bytes:
        """The stale value again, with a mark on it that holds for so long."""
        assert self.ground is not None
        gone_ms = int((get_running_loop().time() - self._since) * 1000)
        mark_ms = max(self._left - gone_ms - for_ms, 1)
        flags = self.ground.flags & ~FAILED | flag
        return msgspec.structs.replace(self.ground, id=id_, mark_ms=mark_ms, flags=flags).pack()

    def hold(self) -> None:
        """Renew it in time until `rest`."""
        if self.token is not None:
            loop = get_running_loop()
            self._renewal = loop.call_later(self._core.lease_ms / 3000, self._start_renewal, loop)

    def rest(self) -> None:
        """No further renewals."""
        if self._renewal is not None:
            self._renewal.cancel()
        if self._renewing is not None:
            self._renewing.cancel()

    def _start_renewal(self, loop: asyncio.AbstractEventLoop) -> None:
        self._renewing = loop.create_task(self._renew(), name=f"gravito cache lease {self._job.key}")

    async def _renew(self) -> None:
        core, entry, token = self._core, self._job.entry, self.token
        assert token is not None
        try:
            if self.ground is None:
                held = await core.guard.within(core.store.touch(entry, token, core.lease_ms))
            else:
                held = await self._swap(self._marked(token, core.lease_ms), KEEP)
        except Exception as error:  # the next renewal may come in time
            core.guard.bears(error)
            held = True
        if held:
            self.hold()


def _serves(found: Found) -> bool:
    """Whether the value that is there can stay while it is computed anew."""
    blob = found.blob
    return (
        found.live and blob is not None and blob.kind == VALUE and found.left is not None and found.left > 0
    )
