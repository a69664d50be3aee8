"""A wire: one socket, what is written on it, and the queue of replies it owes.

What was not written yet is taken out when its caller gives up; what was written stays in the queue. There is one
teardown, `_end`, and it hands every unsettled entry to the owner.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from time import monotonic
from typing import Any, cast

from gravito import errors
from gravito.atlas.config import Limits
from gravito.atlas.wire import resp
from gravito.atlas.wire.deadlines import Deadlines, Mark
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.failures import lost_reply, not_resp
from gravito.atlas.wire.inbox import Inbox
from gravito.atlas.wire.meter import Meter

_PING = Spec.of("PING")
_PING_PACKED = resp.pack(("PING",))
_LAST_WORDS = 64 * 1024  # bytes of one read
_SLICE = 256 * 1024  # bytes of a large command that are handed to the transport at a time
_NEED = attrgetter("need")

OnEnd = Callable[["Wire", Exception, list[Entry], list[Entry]], None]


class Wire(Inbox, asyncio.Protocol):
    """One connection to one server. Made by `connect.open_wire`; everything on it happens in its loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        limits: Limits,
        timeout: float | None,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(address, limits, meter if meter is not None else Meter())
        self.ended: Exception | None = None  # why it ended; None while it lives
        self.on_end: OnEnd | None = None  # owner's callback: (wire, error, sent, unsent), called once
        self.client_id = 0  # the server's number for this connection, by HELLO; 0 where it was not said
        self.counted = False  # it is among the meter's connects, so its loss is one of its disconnects
        self._loop = loop
        self._transport: asyncio.Transport | None = None  # None before the socket is made
        self._write_out: Callable[[bytes | memoryview], None] = _nowhere  # the transport's write
        self._outbox: list[Entry] = []  # entries of this loop turn
        self.waiting: deque[Entry] = deque()  # entries there was no room for, first in, first out
        self._deadlines = Deadlines(self, loop, timeout)
        self._marks = self._deadlines.marks
        self._sent = 0  # entries written so far
        self._bytes = 0  # in flight, by the marks
        self._commands = 0  # in flight, by the marks
        self._scheduled = False  # a flush is due in this loop turn
        self._paused = False  # the transport asked for no more bytes
        self._rest: memoryview | None = None  # of a large command: what the transport has not been given yet
        self._pinger: asyncio.TimerHandle | None = None  # health checks of an idle wire

    def __repr__(self) -> str:
        state = "open" if self.ended is None else f"ended: {self.ended}"
        return f"<Wire {self.address} {state}, in flight {len(self._queue)}, waiting {len(self.waiting)}>"

    def fileno(self) -> int:
        """The socket's file number; -1 without one."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    @property
    def unsent(self) -> int:
        """Entries that wait for this turn's write or for room."""
        return len(self._outbox) + len(self.waiting)

    @property
    def load(self) -> tuple[int, int]:
        """Commands and bytes in flight, by whole writes."""
        return self._commands, self._bytes

    # What the wire's clock looks at.

    @property
    def queue(self) -> deque[Entry]:
        """Entries in flight, oldest first."""
        return self._queue

    @property
    def answered(self) -> int:
        """Entries answered so far."""
        return self._answered

    @property
    def read(self) -> int:
        """Bytes read so far: tells silence from speech without asking the clock at each read."""
        return self._read

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, entry: Entry) -> None:
        """Take an entry on. The first of a loop turn schedules the turn's one write.

        A lone caller's command goes out at once: nothing else would join it.
        """
        if (
            self._lone
            and not self._queue
            and not self._outbox
            and not self.waiting
            and not self._paused
            and self.ended is None
        ):
            self._queue.append(entry)
            self._write(entry.packed, 1, entry.need)
            return
        self._outbox.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        outbox = self._outbox
        if self.ended is not None:
            self._outbox = []
            self._refuse(outbox)
            return
        if self.waiting or self._paused:
            self._flush_within_limits()
            return
        live = [entry for entry in outbox if not entry.future.done()]  # withdrawn before they were written
        if not live:
            self._outbox = []
            return
        weight = sum(map(_NEED, live))
        data = b"".join([entry.packed for entry in live])
        limits = self._limits
        if self._commands + weight > limits.in_flight or self._bytes + len(data) > limits.in_flight_bytes:
            self._flush_within_limits()
            return
        self._outbox = []
        self._queue.extend(live)
        self._write(data, len(live), weight)

    def _flush_within_limits(self) -> None:
        """Write what fits, first in first out; what does not fit waits, from now on by the clock."""
        waiting = self.waiting
        now = monotonic()
        for entry in self._outbox:
            entry.since = entry.since or now
            waiting.append(entry)
        self._outbox = []
        limits = self._limits
        commands, size = self._commands, self._bytes
        chosen: list[Entry] = []
        weight = 0
        while waiting and not self._paused:
            entry = waiting[0]
            if entry.future.done():
                waiting.popleft()
                continue
            full = (
                commands + entry.need > limits.in_flight or size + len(entry.packed) > limits.in_flight_bytes
            )
            if full and (self._queue or chosen):  # an entry larger than the limits goes alone
                break
            waiting.popleft()
            entry.since = 0.0
            chosen.append(entry)
            commands += entry.need
            weight += entry.need
            size += len(entry.packed)
        if chosen:
            self._queue.extend(chosen)
            self._write(b"".join([entry.packed for entry in chosen]), len(chosen), weight)
        self._deadlines.arm(now)

    def _write(self, data: bytes, entries: int, weight: int) -> None:
        size = len(data)
        now = monotonic()
        self._sent += entries
        self._bytes += size
        self._commands += weight
        meter = self.meter
        meter.commands += weight
        meter.bytes_sent += size
        self._marks.append(Mark(self._sent, size, weight, now, self._read))
        if size <= _SLICE:
            self._write_out(data)
        else:
            self._pour(memoryview(data))
        if self._deadlines.timer is None:
            self._deadlines.arm(now)

    def _pour(self, view: memoryview) -> None:
        """Hand a large command over piece by piece, as the socket takes it: the loop is nobody's for long."""
        while view and not self._paused and self.ended is None:
            self._write_out(view[:_SLICE])
            view = view[_SLICE:]
        self._rest = view if view and self.ended is None else None
        if self._rest is not None:
            self._paused = True  # nothing else may come between

    def _refuse(self, entries: list[Entry]) -> None:
        """Entries that reached a wire which has ended: never written, so the owner may send them elsewhere."""
        error = self.ended or errors.ConnectionLostError(f"the wire to {self.address} has ended")
        live = [entry for entry in entries if not entry.future.done()]
        if self.on_end is not None:
            if live:
                self.on_end(self, error, [], live)
            return
        for entry in live:
            entry.fail(lost_reply(entry, error, written=False))

    def pause_writing(self) -> None:
        """asyncio: the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """asyncio: the transport's buffer has room again."""
        self._paused = False
        if self._rest is not None:
            self._pour(self._rest)
        if not self._paused:
            self._flush()

    # -- receiving -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not its subclasses
        self._write_out = self._transport.write

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came; hand each reply in them to the entry it belongs to."""
        try:
            self.feed(data)
        except Exception as error:  # not RESP, or hiredis lost its place: nothing after it can be trusted
            self._end(not_resp(self.address, error))
        else:
            if self._marks and self._marks[0].last <= self._answered:
                self._settle_marks()

    def _settle_marks(self) -> None:
        """Writes that are wholly answered give their room back."""
        marks, answered, latency = self._marks, self._answered, self.meter.latency
        if not self._queue and latency is None:
            marks.clear()
            self._bytes = self._commands = 0
        else:
            while marks and marks[0].last <= answered:
                mark = marks.popleft()
                self._bytes -= mark.size
                self._commands -= mark.weight
                if latency is not None:
                    latency.add(monotonic() - mark.at, mark.weight)
        if self.waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    # -- time ------------------------------------------------------------------------------------------------

    def reset_timeout(self, timeout: float | None) -> None:
        """A lease's owner sets how long the next reply may take, in seconds; None: as long as it likes."""
        self._deadlines.reset(timeout)

    def watch_health(self, interval: float) -> None:
        """Ping whenever the wire was silent for `interval` seconds, so that a dead peer is seen without traffic.

        An interval of 0 ends that.
        """
        if self._pinger is not None:
            self._pinger.cancel()
            self._pinger = None
        if interval > 0:
            # Twice as often as pings are due, so that none is later than `interval` after the last byte.
            self._pinger = self._loop.call_later(interval / 2, self._check_health, interval / 2, self._read)

    def _check_health(self, pause: float, read: int) -> None:
        if self.ended is not None:
            return
        if not self._queue and self._read == read:
            future = self._loop.create_future()
            future.add_done_callback(_retrieve)  # nobody awaits it; a failure ends the wire and says so there
            self.send(Entry(future, _PING_PACKED, _PING, None, self.decode_pushes))
        self._pinger = self._loop.call_later(pause, self._check_health, pause, self._read)

    # -- the end ---------------------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """asyncio: the server closed its side; `connection_lost` follows."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the socket is gone."""
        if isinstance(error, OSError) and self.ended is None:
            self._read_last_words()
        reason = f": {error}" if error is not None else " by the server"
        lost = errors.ConnectionLostError(f"the connection to {self.address} was closed{reason}")
        lost.__cause__ = error
        self._end(lost)

    def _read_last_words(self) -> None:
        """A write failed, but what the server had said before is still in the kernel: why it hung up, or replies.

        asyncio reads nothing after a failed write, and closes the socket only after this.
        """
        transport = self._transport
        if transport is None or not isinstance(self._loop, asyncio.BaseEventLoop):
            return  # other loops may have closed it already, and its number may be another file's
        sock = transport.get_extra_info("socket")
        if sock is None or transport.get_extra_info("ssl_object") is not None:
            return
        try:
            while self.ended is None and (data := os.read(sock.fileno(), _LAST_WORDS)):
                self.data_received(data)
        except OSError:
            pass  # nothing was left

    def fail(self, error: Exception) -> None:
        """End the wire because of the peer; entries in flight go to the owner with `error`."""
        self._end(error)

    def close(self, error: Exception | None = None) -> None:
        """End the wire now; entries in flight go to the owner with `error`."""
        self._end(
            error
            or errors.ConnectionLostError(f"the connection to {self.address} was closed by this client"),
            ours=True,
        )

    def disown(self) -> None:
        """In a forked child: the socket is the parent's. Who still holds this wire is told so at the next use."""
        self.ended = errors.LoopError(f"this connection to {self.address} was opened before a fork")
        self.on_end = None
        self.send = self._refuse_one  # type: ignore[method-assign]  # its loop runs in the parent alone

    def _refuse_one(self, entry: Entry) -> None:
        assert self.ended is not None
        entry.fail(errors.LoopError(f"{self.ended}; it belongs to the parent process"))

    async def drain(self, timeout: float) -> None:
        """Wait until nothing is in flight, `timeout` seconds at most."""
        if self.ended is None and (self._queue or self.unsent):
            future = self._loop.create_future()
            last = Entry(future, _PING_PACKED, _PING, None, True)
            self.send(last)
            try:
                await asyncio.wait_for(asyncio.shield(future), timeout)
            except (TimeoutError, errors.GravitoError):
                future.add_done_callback(_retrieve)

    def _end(self, error: Exception, ours: bool = False) -> None:
        """The one teardown: each entry reaches the owner, or fails here, exactly once."""
        if self.ended is not None:
            return
        self.ended = error
        if self.counted and not ours:
            self.meter.disconnects += 1
        if isinstance(error, errors.GravitoError) and error.node is None:
            error.node = self.address
        self._deadlines.cancel()
        if self._pinger is not None:
            self._pinger.cancel()
        if self._transport is not None:
            self._transport.abort()
        sent = [entry for entry in self._queue if not entry.future.done()]
        unsent = [entry for entry in (*self.waiting, *self._outbox) if not entry.future.done()]
        self._queue.clear()
        self.waiting.clear()
        self._outbox = []
        self._marks.clear()
        self._rest = None
        self._reader = (
            resp.new_reader()
        )  # a half-read reply may be large: don't keep it until the wire is collected
        self._gets = self._reader.gets
        if self.on_end is not None:
            self.on_end(self, error, sent, unsent)
            return
        for entry in sent:
            entry.fail(lost_reply(entry, error))
        for entry in unsent:
            entry.fail(lost_reply(entry, error, written=False))


def _nowhere(data: bytes | memoryview) -> None:
    raise errors.LoopError("written before there was a socket")


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
