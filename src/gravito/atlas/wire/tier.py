"""The local tier of one wire: replies that are kept here, and dropped as soon as the server says so.

Everything rests on one wire: what is kept was read on it, and the server announces every change of a key that was
read so (CLIENT TRACKING, https://redis.io/docs/latest/develop/reference/client-side-caching/) on it, too. So:

- Replies and invalidations come in one order. A reply is kept inside the reader (`Landing.set_result`), not by a
  task that would run after the invalidation behind it.
- A wire is an epoch: when it ends, or hands the work on while a large reply holds it up, all that was read on it
  goes, since nobody announces its changes any more. A reply is kept only if the wire that it came on is the one
  whose announcements are heard.
- OPTIN: only reads that ask for it are remembered by the server, so that other commands on this wire cost its
  table nothing. BCAST would announce every write of everybody.
- No NOLOOP: a script may write a key that it does not name, and only the server knows.
- PTTL stands behind the read: a change between the two is announced, because the key is tracked by then. The time
  counts from before the read was sent, so nothing is served beyond its time on the server.
- Keys are text: the server's announcement of any other key could not be told from a reply that is no text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from gravito import errors
from gravito.atlas.wire import commands, resp
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.failures import lost_reply
from gravito.atlas.wire.flight import Flight, Read
from gravito.atlas.wire.kept import Keeper, Kept, fresh
from gravito.atlas.wire.shelves import Shelves

if TYPE_CHECKING:
    from gravito.atlas.wire.connection import Wire

log = logging.getLogger("gravito.atlas")

Send = Callable[[Entry], None]

_TRACK = Spec.of("CLIENT TRACKING")
_ON = resp.encode(("CLIENT", "TRACKING", "ON", "OPTIN"))
_OFF = resp.encode(("CLIENT", "TRACKING", "OFF"))
_OPT_IN = resp.encode(("CLIENT", "CACHING", "YES"))
_PING = Spec.of("PING", commands.Route.NEUTRAL)
_PING_PACKED = resp.encode(("PING",))
_MOST_FIELDS = 1000  # of a whole hash: asking for the times of more would cost more than it spares
_BEATS = 3  # pings within one heartbeat: two may be late before anything is held back
# Commands that change keys without naming them. In the usual spellings; the server announces them anyhow.
_WIPES = frozenset(
    name for wipe in (b"FLUSHALL", b"FLUSHDB", b"SWAPDB") for name in (wipe, wipe.lower(), wipe.capitalize())
)


class Tier(Keeper):
    """What is kept of one server in one event loop.

    Args:
        shelves: where it is kept; they say how much, and how long without a word of the server.
        send: takes an entry that is not tracked.
    """

    keeps_absent = True  # a key that is not there: its coming is announced, too

    def __init__(self, shelves: Shelves, send: Send) -> None:
        self.loop = shelves.loop
        self.shelves = shelves
        self.tally = shelves.tally
        self.wire: Wire | None = None  # the epoch: whose announcements are heard
        self._forward = send  # where entries go now
        self._flying: dict[tuple[bytes, bool], Flight] = {}  # for those who ask the same meanwhile
        self._flying_keys: dict[bytes, list[Flight]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Future[Any] | None = None
        self._field_times = True  # the server knows HPTTL, as far as we know
        self._refused = False  # the server tracks nothing for this user: read without

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.count} entries of {self.wire!r}>"

    @property
    def flying(self) -> list[bytes]:
        """The keys that are being read."""
        return list(self._flying_keys)

    # -- the wire --------------------------------------------------------------------------------------------

    def route(self, wire: Wire | None, send: Send) -> Send:
        """The wire's owner says where entries go now; returns the function that takes them instead."""
        self._forward = send
        if wire is not self.wire:
            self._leave()
            if wire is not None:
                self._join(wire)
        return self.send

    def _join(self, wire: Wire) -> None:
        """Before anything else is sent on it, so that no announcement is missed."""
        self.wire = wire
        self._refused = False
        self._field_times = True  # it may be another server by now
        wire.on_push = self._pushed
        future = self.loop.create_future()
        future.add_done_callback(self._joined)
        wire.send(Entry(future, _ON, _TRACK, None, True))

    def _joined(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, errors.ResponseError):
            self._refused = True
            log.warning("%s tracks no keys, so none are kept here: %s", self.wire, error)

    def _leave(self) -> None:
        wire, self.wire = self.wire, None
        if wire is None:
            return
        self.shelves.forget(self)
        # Nobody joins what is on its way there, for its announcements are not heard; what is sent again by
        # the next wire may be kept.
        self._flying.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wire.ended is None:  # it finishes a large reply, and may be leased later
            wire.on_push = None
            future = self.loop.create_future()
            future.add_done_callback(_retrieve)
            wire.send(Entry(future, _OFF, _TRACK, None, True))

    # -- what is sent ----------------------------------------------------------------------------------------

    def send(self, entry: Entry) -> None:
        """Send an entry of anybody; a write drops what is kept of its keys at once."""
        if not entry.spec.read_only:
            self.note(entry)
        self._forward(entry)

    def note(self, entry: Entry, apart: bool = False) -> None:
        """A write of this client's own is about to be sent.

        Every word of it that is a key here counts as written: dropping too much costs a read. One that travels
        by another wire, or again, may be answered before its announcement comes: dropped once more then.
        """
        if entry.spec.read_only:
            return
        words = set(entry.packed.split(b"\r\n"))
        self._written(words)

        def answered(_: object) -> None:
            if apart or entry.attempt > 1:
                self._written(words)

        entry.future.add_done_callback(answered)

    def _written(self, words: set[bytes]) -> None:
        if not self.shelves.keys and not self._flying_keys:
            return
        if words & _WIPES:
            self.clear()
            return
        for word in words:
            if word in self.shelves.keys or word in self._flying_keys:
                self.drop(word)

    def miss(self, read: Read, waiter: Entry) -> Entry:
        """Read from the server: by the request that is on its way for the same, or by a new one."""
        self.tally.misses += 1
        if self._refused:
            self._forward(waiter)
            return waiter
        flight = self._flying.get((read.packed, read.text))
        if flight is not None:
            flight.waiters.append(waiter)
            return waiter
        flight = Flight(self, read, waiter)
        self._flying[read.packed, read.text] = flight
        self._start(flight)
        return waiter

    def _start(self, flight: Flight) -> None:
        for key in flight.read.keys:
            self._flying_keys.setdefault(key, []).append(flight)
        self._forward(flight.entry)

    def question(self, read: Read) -> tuple[bytes, int]:
        """The commands of a flight in one piece, and how many they are."""
        parts = [_OPT_IN, read.packed, *[resp.encode(("PTTL", key)) for key in read.keys]]
        if read.fields and self._field_times:
            parts.append(resp.encode(("HPTTL", read.keys[0], "FIELDS", len(read.fields), *read.fields)))
        return b"".join(parts), len(parts)

    # -- what comes back: called by the reader ---------------------------------------------------------------

    def land(self, flight: Flight, replies: list[Any]) -> None:
        """A flight's replies are there."""
        self._settle(flight)
        wire = self.wire
        # It stands at the head of its wire's queue still: was it read on the wire that is heard?
        heard = wire is not None and bool(wire.queue) and wire.queue[0] is flight.entry
        if flight.kept is not None:
            if heard and not flight.spoiled:
                values = [True] * len(replies[0]) if isinstance(replies[0], list) else []
                flight.kept.until = min(flight.kept.until, self._until_fields(flight, values, replies[0]))
                self._store(flight.kept)
            return
        opted, value, *times = replies
        if isinstance(value, Exception):  # the plain way has its rules for what is tried again
            for waiter in flight.waiters:
                if not waiter.future.done():
                    self._forward(waiter)
            return
        if heard and not flight.spoiled and not isinstance(opted, Exception):
            self._confirm(flight.sent_at)
            self._keep(flight, value, times)
        for waiter in flight.waiters:
            waiter.finish(fresh(value))

    def crash(self, flight: Flight, error: Exception) -> None:
        """A flight's wire was lost for good, or it took too long."""
        self._settle(flight)
        for waiter in flight.waiters[:1]:
            waiter.fail(error)
        for waiter in flight.waiters[1:]:
            waiter.fail(lost_reply(waiter, error))

    def _settle(self, flight: Flight) -> None:
        self._take_off(flight)
        for key in flight.read.keys:
            flights = self._flying_keys.get(key)
            if flights is not None:
                flights.remove(flight)
                if not flights:
                    del self._flying_keys[key]

    def _take_off(self, flight: Flight) -> None:
        """From now on, nobody joins it."""
        ident = flight.read.packed, flight.read.text
        if self._flying.get(ident) is flight:
            del self._flying[ident]

    def _keep(self, flight: Flight, value: Any, times: list[Any]) -> None:
        read = flight.read
        if read.many:
            for name, key, each, left in zip(read.many, read.keys, value, times, strict=True):
                # None is said of what is no string, too; only a key that is not there has no time at all
                if each is not None or left == -2:
                    until = self._until(flight, left, each)
                    self._store(Kept(each, until, key, read.text, name, self, self.loop))
            return
        until = self._until(flight, times[0], value)
        if len(times) > 1:
            values = value if isinstance(value, list) else [value]
            until = min(until, self._until_fields(flight, values, times[1]))
        ident: str | bytes = read.packed if read.name is None else read.name
        kept = Kept(value, until, read.keys[0], read.text, ident, self, self.loop)
        if read.whole and value and self._field_times:
            self._ask_times(kept, list(value))
        else:
            self._store(kept)

    def _ask_times(self, kept: Kept, fields: list[Any]) -> None:
        """A whole hash was read: only now are its fields known. Whoever writes it meanwhile spoils it."""
        if len(fields) <= _MOST_FIELDS:
            packed = resp.encode(("HPTTL", kept.key, "FIELDS", len(fields), *fields))
            self._start(Flight(self, Read(packed, (kept.key,), kept.text), None, kept))

    def _until(self, flight: Flight, left: Any, value: Any) -> float:
        """Monotonic time at which the key goes; -inf if that cannot be known."""
        if not isinstance(left, int):  # refused
            return -inf
        if left == -2 and (value or not self.keeps_absent):  # gone since it was read
            return -inf
        return inf if left < 0 else _goes_at(flight, left)

    def _until_fields(self, flight: Flight, values: list[Any], lefts: Any) -> float:
        if isinstance(lefts, Exception):
            self._field_times = "unknown command" not in str(lefts)  # an older server: fields have no times
            return inf if not self._field_times else -inf
        if any(
            left == -2 and value not in (None, 0) for value, left in zip(values, lefts or (), strict=False)
        ):
            return -inf  # gone since it was read
        return min((_goes_at(flight, left) for left in lefts or () if left >= 0), default=inf)

    def _store(self, kept: Kept) -> None:
        if self.shelves.put(kept) and self._timer is None:
            self._beat()

    # -- what the server announces ---------------------------------------------------------------------------

    def _pushed(self, push: list[Any]) -> None:
        if push[0] not in ("invalidate", b"invalidate"):
            return
        if push[1] is None:  # FLUSHALL, FLUSHDB, or its table overflowed
            self.tally.invalidations += self.count
            self.clear()
            return
        for key in push[1]:
            self.tally.invalidations += self.drop(key if isinstance(key, bytes) else key.encode())

    def drop(self, key: bytes) -> int:
        """Forget what is kept of a key, and what is being read of it. Returns how many entries went."""
        for flight in self._flying_keys.get(key, ()):
            flight.spoiled = True
            self._take_off(flight)
        return self.shelves.drop(key)

    def clear(self) -> None:
        """Forget everything, what is being read too."""
        for flights in self._flying_keys.values():
            for flight in flights:
                flight.spoiled = True
        self._flying.clear()
        self.shelves.forget(self)

    # -- is the server there? --------------------------------------------------------------------------------

    def _confirm(self, asked_at: float) -> None:
        """The server answered what it was asked then."""
        self.confirmed = max(self.confirmed, asked_at + self.shelves.bounds.heartbeat)

    def _beat(self) -> None:
        """Ask for a sign of life while anything is kept. All announcements from before it come before it."""
        self._timer = None
        wire = self.wire
        if wire is None or wire.ended is not None or not self.count:
            return
        self._timer = self.loop.call_later(self.shelves.bounds.heartbeat / _BEATS, self._beat)
        if self._ping is not None and not self._ping.done():
            return
        now = monotonic()

        def answered(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            if wire is self.wire and not future.cancelled():
                self._alive(now, error)

        self._ping = self.loop.create_future()
        self._ping.add_done_callback(answered)
        wire.send(self._question_of_life(self._ping))

    def _question_of_life(self, future: asyncio.Future[Any]) -> Entry:
        return Entry(future, _PING_PACKED, _PING, None, True)

    def _alive(self, asked_at: float, error: BaseException | None) -> None:
        """What a beat asked was answered; `error` says how."""
        if error is None or isinstance(error, errors.ResponseError):
            self._confirm(asked_at)


def _goes_at(flight: Flight, left: int) -> float:
    """From the milliseconds that the server says are left: it counts whole ones, so it may say one too many."""
    return flight.sent_at + (left - 1) / 1000


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
