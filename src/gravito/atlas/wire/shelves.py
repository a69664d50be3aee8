"""What is kept in one event loop: replies by command, by key, and by how lately they were used.

The tiers of a cluster's nodes share one, so that its bounds hold for all of them together.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from sys import getsizeof
from time import monotonic
from typing import Any

from gravito.atlas.wire.flight import Bounds, Tally
from gravito.atlas.wire.kept import Keeper, Kept, weigh


class Shelves:
    """Replies that are kept, within bounds.

    Args:
        bounds: how much.
        tally: counted in.
    """

    def __init__(self, bounds: Bounds, tally: Tally) -> None:
        self.loop = asyncio.get_running_loop()
        self.bounds = bounds
        self.tally = tally
        self.gets: dict[bool, dict[str, Kept]] = {True: {}, False: {}}  # GETs by name, text and bytes
        self.others: dict[bool, dict[bytes, Kept]] = {True: {}, False: {}}  # other reads, as they are sent
        self.keys: dict[bytes, list[Kept]] = {}  # what an invalidation drops
        self.size = 0  # bytes, estimated
        self._ring: OrderedDict[Kept, None] = OrderedDict()  # a clock: those used since get a second round

    def __repr__(self) -> str:
        return f"<Shelves {len(self._ring)} entries, {self.size} bytes>"

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def hits(self) -> int:
        """Of what is kept now; the others are in the tally."""
        return sum(kept.hits for kept in self._ring)

    def put(self, kept: Kept) -> bool:
        """Keep a reply in place of an older one. False if it is over already, or too large."""
        kept.size = weigh(kept.value) + getsizeof(kept.ident) + getsizeof(kept.key)
        if kept.until <= monotonic() or kept.size > self.bounds.max_bytes:
            return False
        shelf = self._of(kept)
        old = shelf.get(kept.ident)
        if old is not None:
            self._remove(old)
        shelf[kept.ident] = kept
        self.keys.setdefault(kept.key, []).append(kept)
        self._ring[kept] = None
        self.size += kept.size
        kept.keeper.count += 1
        while len(self._ring) > self.bounds.max_entries or self.size > self.bounds.max_bytes:
            self._evict()
        return True

    def attach(self, kept: Kept, made: Any, size: int) -> bool:
        """Keep with a reply what a reader has made of it: it goes when the reply does. False if there is no room.

        Args:
            kept: what is kept here.
            made: anything; `kept.made` gives it back.
            size: bytes that it takes, estimated; they count in the bounds.
        """
        if kept not in self._ring or kept.made is not None or kept.size + size > self.bounds.max_bytes:
            return False
        kept.made = made
        kept.size += size
        self.size += size
        while self.size > self.bounds.max_bytes:
            self._evict()
        return True

    def drop(self, key: bytes) -> int:
        """Forget what is kept of a key. Returns how many entries went."""
        gone = list(self.keys.get(key, ()))
        for kept in gone:
            self._remove(kept)
        return len(gone)

    def forget(self, keeper: Keeper) -> None:
        """Forget all that came by one wire."""
        if keeper.count < len(self._ring):
            for kept in [kept for kept in self._ring if kept.keeper is keeper]:
                self._remove(kept)
            return
        self.tally.hits += self.hits
        for text in (True, False):
            self.gets[text].clear()
            self.others[text].clear()
        self.keys.clear()
        self._ring.clear()
        self.size = keeper.count = 0

    def latest_of(self, keeper: Keeper) -> Kept | None:
        """What was kept last of one wire's."""
        return next((kept for kept in reversed(self._ring) if kept.keeper is keeper), None)

    def _of(self, kept: Kept) -> dict[Any, Kept]:
        return self.gets[kept.text] if isinstance(kept.ident, str) else self.others[kept.text]

    def _evict(self) -> None:
        """Drop the oldest one that was not used since it was last looked at."""
        while True:
            kept = next(iter(self._ring))
            if kept.hits == kept.seen:
                break
            kept.seen = kept.hits
            self._ring.move_to_end(kept)
        self._remove(kept)
        self.tally.evictions += 1

    def _remove(self, kept: Kept) -> None:
        del self._ring[kept]
        kept.keeper.count -= 1
        self.tally.hits += kept.hits
        self.size -= kept.size
        del self._of(kept)[kept.ident]
        same = self.keys[kept.key]
        same.remove(kept)
        if not same:
            del self.keys[kept.key]
