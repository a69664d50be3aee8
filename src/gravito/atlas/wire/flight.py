"""A tracked read on its way: what is asked, who waits for it, and the future that the reader settles."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.entry import Batch, Entry, Spec
from gravito.atlas.wire.kept import Kept

if TYPE_CHECKING:
    from gravito.atlas.wire.tier import Tier


_TIMES = Spec.of("HPTTL", Route.READ_ONLY)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier may hold, in each event loop."""

    max_entries: int
    max_bytes: int
    heartbeat: float  # seconds: nothing is served that the server has not confirmed for so long


class Tally:
    """Counters of a client's tiers. Loops of several threads share them, so they may miss a few."""

    def __init__(self) -> None:
        self.hits = 0  # of entries that are gone
        self.misses = 0  # reads that went to the server, also those that waited for another's
        self.evictions = 0  # entries dropped for want of room
        self.invalidations = 0  # entries dropped because the server announced a change


class Read(msgspec.Struct, eq=False):
    """What is asked of the server: one command that reads, and what is needed to keep its reply."""

    packed: bytes
    keys: tuple[bytes, ...]
    text: bool
    name: str | None = None  # of a plain GET by a text name: where its reply is found without packing
    fields: tuple[Any, ...] = ()  # of a hash, which may have times of their own
    whole: bool = False  # all of a hash: the times of its fields can be asked for when they are known
    many: tuple[str, ...] = ()  # names of an MGET: each value is kept as that of a GET


class Landing(asyncio.Future[Any]):
    """The future of a flight. The reader settles it, and that is the moment to keep the reply."""

    flight: Flight

    def set_result(self, result: Any) -> None:
        super().set_result(None)
        self.flight.tier.land(self.flight, result)

    def set_exception(self, exception: Any) -> None:
        super().set_result(None)  # those who wait have the error; nobody awaits this one
        self.flight.tier.crash(self.flight, exception)


class Flight:
    """One read on its way, and all who wait for it."""

    def __init__(self, tier: Tier, read: Read, waiter: Entry | None, kept: Kept | None = None) -> None:
        self.tier = tier
        self.read = read
        self.waiters = [] if waiter is None else [waiter]
        self.kept = kept  # a whole hash that is kept if the times of its fields, asked for here, allow it
        self.spoiled = False  # a key was written meanwhile: the reply is for those who wait, and not kept
        self.sent_at = monotonic()
        landing = Landing(loop=tier.loop)
        landing.flight = self
        packed, need = tier.question(read) if kept is None else (read.packed, 1)
        spec = _TIMES if waiter is None else waiter.spec
        self.entry = Batch(landing, packed, spec, None, read.text, need=need, decode=read.text)
