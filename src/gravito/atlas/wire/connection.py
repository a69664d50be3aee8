"""A wire: one socket, what is written on it, and the queue of replies it owes.

Replies come in the order of the commands, so the queue's head is the entry that the next reply belongs to.
A caller that was cancelled or timed out never shifts it: what was not written is taken out, what was written
stays and its reply is dropped. There is one teardown, `_end`, and it hands every unsettled entry to the owner.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from itertools import islice
from operator import attrgetter
from time import monotonic
from typing import Any, cast

import msgspec
from hiredis import PushNotification

from gravito import errors
from gravito.atlas.config import Limits
from gravito.atlas.wire import resp
from gravito.atlas.wire.entry import Batch, Confirm, Entry, Spec
from gravito.atlas.wire.meter import Meter
from gravito.atlas.wire.resp import INCOMPLETE

_CONFIRMATIONS = frozenset(
    {"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"}
)
_MESSAGES = frozenset({"message", "pmessage", "smessage"})
_NEWLINE = ord("\n")
# Where an attribute may begin: "|", a count and a line's end, or as much of it as the bytes hold.
_BARS = re.compile(rb"\n(?=\|(?:\d+(?:\r|\Z)|\Z))")
_PING = Spec.of("PING")
_PING_PACKED = resp.pack(("PING",))
_PROBE_SHARE = (
    0.5  # a wire that missed a deadline in silence is given this much of it again before it is replaced
)

_LAST_WORDS = 64 * 1024  # bytes of one read
_NEED = attrgetter("need")

OnEnd = Callable[["Wire", Exception, list[Entry], list[Entry]], None]


class _Mark(msgspec.Struct, gc=False):
    """One write: which entries it ended with, what it weighed, and when it was made."""

    last: int  # number of the last entry in it, counted over the wire's life
    size: int  # bytes
    weight: int  # commands
    at: float  # monotonic time
    chunks: int  # reads before it


class Wire(asyncio.Protocol):
    """One connection to one server. Made by `connect.open_wire`; everything on it happens in its loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        limits: Limits,
        timeout: float | None,
        meter: Meter | None = None,
    ) -> None:
        self.address = address  # for messages; carries no credentials
        self.timeout = timeout  # seconds a reply may take; an owner changes it for a blocking command
        self.ended: Exception | None = None  # why it ended; None while it lives
        self.on_end: OnEnd | None = None  # owner's callback: (wire, error, sent, unsent), called once
        self.on_push: Callable[[list[Any]], None] | None = None  # listener of pushes
        self.on_stray: Callable[[Any], None] | None = None  # listener of replies nobody asked for (MONITOR's)
        self.on_refusal: Callable[[Entry, Exception], bool] | None = (
            None  # takes an error reply to try again: True
        )
        self.on_heavy: Callable[[Wire], None] | None = None  # told once that a large reply is under way
        self.meter = meter if meter is not None else Meter()  # counters, shared by a client's wires in a loop
        self.counted = False  # it is among the meter's connects, so its loss is one of its disconnects
        self.pushes_as_arrays = False  # RESP2 subscriber: messages come as plain arrays
        self.decode_pushes = True  # text in pushes, or bytes
        self._loop = loop
        self._limits = limits
        self._transport: asyncio.Transport | None = None  # None before the socket is made
        self._reader = resp.new_reader()
        self._gets = self._reader.gets
        self._queue: deque[Entry] = deque()  # in flight, oldest first
        self._outbox: list[Entry] = []  # entries of this loop turn
        self._waiting: deque[Entry] = deque()  # entries there was no room for, first in, first out
        self._marks: deque[_Mark] = deque()  # writes not wholly answered, oldest first
        self._sent = 0  # entries written so far
        self._answered = 0  # entries answered so far
        self._bytes = 0  # in flight, by the marks
        self._commands = 0  # in flight, by the marks
        self._scheduled = False  # a flush is due in this loop turn
        self._paused = False  # the transport asked for no more bytes
        self._lone = True  # the last read held one reply at most: a lone caller, worth an immediate write
        self._timer: asyncio.TimerHandle | None = None  # the one timer
        self._pinger: asyncio.TimerHandle | None = None  # health checks of an idle wire
        self._partial = 0  # bytes read since the last whole reply
        self._after_line = True  # the last read ended with a line's end: a `|` may follow that is no value's
        self._chunks = 0  # reads so far: tells silence from speech without asking the clock at each read
        self._suspect = (
            0.0  # when a wire that missed a deadline is replaced, unless it speaks; 0: it missed none
        )
        self._suspect_chunks = 0  # reads when that was set
        self._expired = 0  # entries up to this number have had their deadline; their late replies are dropped

    def __repr__(self) -> str:
        state = "open" if self.ended is None else f"ended: {self.ended}"
        return f"<Wire {self.address} {state}, in flight {len(self._queue)}, waiting {len(self._waiting)}>"

    def fileno(self) -> int:
        """The socket's file number; -1 without one."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    @property
    def in_flight(self) -> int:
        """Entries written and not answered."""
        return len(self._queue)

    @property
    def unsent(self) -> int:
        """Entries that wait for this turn's write or for room."""
        return len(self._outbox) + len(self._waiting)

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, entry: Entry) -> None:
        """Take an entry on. The first of a loop turn schedules the turn's one write.

        A lone caller's command goes out at once: nothing else would join it.
        """
        if (
            self._lone
            and not self._queue
            and not self._outbox
            and not self._waiting
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
        if self._waiting or self._paused:
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
        waiting = self._waiting
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
        self._arm(now)

    def _write(self, data: bytes, entries: int, weight: int) -> None:
        transport = cast(asyncio.WriteTransport, self._transport)
        now = monotonic()
        self._sent += entries
        size = len(data)
        self._bytes += size
        self._commands += weight
        self.meter.commands += weight
        self.meter.bytes_sent += size
        self._marks.append(_Mark(self._sent, size, weight, now, self._chunks))
        transport.write(data)
        if self._timer is None:
            self._arm(now)

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
        self._flush()

    # -- receiving -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not its subclasses

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came; hand each reply in them to the entry it belongs to."""
        self._chunks += 1
        self._partial += len(data)
        self.meter.bytes_received += len(data)
        after_line, self._after_line = self._after_line, data[-1] == _NEWLINE
        try:
            if b"|" in data:
                self._receive_warily(data, after_line)
            else:
                self._reader.feed(data)
                self._receive()
            if self._partial > self._limits.lease_over:
                self._large_reply()
        except Exception as error:  # not RESP, or hiredis lost its place: nothing after it can be trusted
            self._end(_protocol_error(self.address, error))

    def _receive(self) -> None:  # noqa: PLR0912, PLR0915  # the hot loop: a call out of it costs what it does
        """Hand out every whole reply that the reader holds."""
        gets = self._gets
        queue = self._queue
        arrays = self.pushes_as_arrays
        answered = self._answered
        count = 0  # plain replies not yet added to `_answered`
        try:
            while queue:
                entry = queue[0]
                try:
                    reply = gets(entry.text)
                except UnicodeDecodeError as error:  # the reply is consumed; only its caller asked for text
                    reply = _undecodable(error)
                if reply is INCOMPLETE:
                    break
                kind = reply.__class__
                if kind is PushNotification or (arrays and _is_push(reply)):
                    self._pushed(reply)
                elif entry.__class__ is not Entry:
                    self._part(entry, reply)
                else:
                    queue.popleft()
                    count += 1
                    future = entry.future
                    if future.done():
                        continue
                    if kind is not str and isinstance(reply, Exception):
                        self._refused(entry, reply)
                    elif (convert := entry.spec.convert) is None:
                        future.set_result(reply)
                    elif entry.options is None:
                        try:
                            future.set_result(convert(reply))
                        except (
                            Exception
                        ) as error:  # a reply that its converter cannot read fails its own caller
                            future.set_exception(error)
                    else:
                        entry.finish(reply)
            else:
                self._receive_unasked()
        finally:
            self._answered += count
            self.meter.replies += count
        if self._answered != answered:
            self._partial = 0
        self._lone = self._answered - answered <= 1
        if self._marks and self._marks[0].last <= self._answered:
            self._settle_marks()

    def _receive_unasked(self) -> None:
        """Nothing is in flight: only pushes may come, or the lines of MONITOR."""
        while True:
            try:
                reply = self._gets(self.decode_pushes)
            except UnicodeDecodeError as error:
                reply = _undecodable(error)
            if reply is INCOMPLETE:
                return
            self._partial = 0  # many small pushes are no large reply
            if reply.__class__ is PushNotification or (self.pushes_as_arrays and _is_push(reply)):
                self._pushed(reply)
            elif self.on_stray is not None:
                self.on_stray(reply)
            else:
                raise errors.ProtocolError(f"a reply came that nobody asked for ({_unexpected(reply)})")

    def _part(self, entry: Entry, reply: Any) -> None:
        """A reply for a batch or for a subscription: it may not be the last of its entry."""
        if isinstance(entry, Batch):
            entry.replies.append(reply)
            if len(entry.replies) < entry.need and not self._fill(entry):
                return
            self.meter.replies += entry.need
            if not entry.future.done() and not self._declined(entry):
                entry.future.set_result(entry.replies)
        elif isinstance(reply, Exception):
            self.meter.replies += 1
            entry.fail(reply)
        self._queue.popleft()
        self._answered += 1

    def _declined(self, batch: Batch) -> bool:
        """True when none of a batch was applied and its owner sends it again, as it does with a single command."""
        error = _refusal(batch)
        if error is None or self.on_refusal is None or not self.on_refusal(batch, error):
            return False
        batch.replies = []
        batch.aim()
        return True

    def _fill(self, batch: Batch) -> bool:
        """Read replies straight into the batch; True when it is complete."""
        self._partial = 0
        gets, replies, need, text, raw = self._gets, batch.replies, batch.need, batch.decode, batch.bytes_only
        while len(replies) < need:
            try:
                reply = gets(text) if not raw else gets(text and len(replies) not in raw)
            except UnicodeDecodeError as error:
                reply = _undecodable(error)
            if reply is INCOMPLETE:
                batch.aim()
                return False
            if reply.__class__ is PushNotification:
                self._pushed(reply)
            else:
                replies.append(reply)
        return True

    def _refused(self, entry: Entry, error: Exception) -> None:
        if self.on_refusal is None or not self.on_refusal(entry, error):
            self.meter.errors += 1
            if isinstance(error, errors.GravitoError):
                error.node = self.address
            entry.finish(error)

    def _pushed(self, push: list[Any]) -> None:
        self._partial = 0
        head = self._queue[0] if self._queue else None
        if isinstance(head, Confirm) and _word(push[0]) in _CONFIRMATIONS:
            head.need -= 1
            if head.need <= 0:
                self._queue.popleft()
                self._answered += 1
                if not head.future.done():
                    head.future.set_result(None)
        if self.on_push is not None:
            self.on_push(push)

    def _large_reply(self) -> None:
        """A reply that is larger than a shared wire should carry, or larger than any may be."""
        if self._partial > self._limits.reply_bytes:
            raise errors.ProtocolError(
                f"a reply of more than {self._limits.reply_bytes} bytes (limits.reply_bytes); it was given up"
            )
        if self.on_heavy is not None:
            told, self.on_heavy = self.on_heavy, None
            told(self)

    def _receive_warily(self, data: bytes, after_line: bool) -> None:
        """The same for bytes that may hold a RESP3 attribute (`|`), which hiredis would hand out as a reply.

        A `|` after a line's end is one only if the reader has nothing half-read there: feed up to it and see.
        """
        starts = [match.end() for match in _BARS.finditer(data)]
        if after_line and data.startswith(b"|"):
            starts.insert(0, 0)
        start = 0
        for at in starts:
            self._reader.feed(data[start:at])
            self._receive()
            if not self._reader.has_data():
                raise errors.ProtocolError("a RESP3 attribute came, which this reader cannot take")
            start = at
        self._reader.feed(data[start:])
        self._receive()

    def _settle_marks(self) -> None:
        """Writes that are wholly answered give their room back."""
        marks, answered, latency = self._marks, self._answered, self.meter.latency
        while marks and marks[0].last <= answered:
            mark = marks.popleft()
            self._bytes -= mark.size
            self._commands -= mark.weight
            if latency is not None:
                latency.add(monotonic() - mark.at, mark.weight)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    # -- time ------------------------------------------------------------------------------------------------

    def _arm(self, now: float) -> None:
        """One timer a wire: the queue's head is the oldest command, the line's head the oldest waiting one."""
        if self._timer is not None:
            return
        timeout = self.timeout
        if timeout is None or self.ended is not None:
            return
        oldest = next((mark.at for mark in self._marks if mark.last > self._expired), None)
        due = [
            *([oldest + timeout] if oldest is not None else ()),
            *([self._waiting[0].since + timeout] if self._waiting else ()),
            *([self._suspect] if self._suspect else ()),
        ]
        if due:
            self._timer = self._loop.call_later(max(min(due) - now, 0.001), self._tick)

    def reset_timeout(self, timeout: float | None) -> None:
        """A lease's owner sets how long the next reply may take, in seconds; None: as long as it likes."""
        self.timeout = timeout
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm(monotonic())

    def _tick(self) -> None:
        self._timer = None
        timeout = self.timeout
        if timeout is None or self.ended is not None:
            return
        now = monotonic()
        if self._suspect and now >= self._suspect and not self._cleared(now, timeout):
            return
        self._expire_sent(now, timeout)
        while self._waiting and (self._waiting[0].future.done() or self._waiting[0].since + timeout <= now):
            self._waiting.popleft().fail(
                errors.LeaseTimeoutError(
                    f"no room in flight to {self.address} within {timeout:g} s "
                    f"({self._commands} commands, {self._bytes} bytes in flight); the command was not sent"
                )
            )
        self._arm(now)

    def _expire_sent(self, now: float, timeout: float) -> None:
        """Fail the callers whose reply is late. Their entries stay, so that late replies find their place."""
        late = [mark for mark in self._marks if mark.last > self._expired and mark.at + timeout <= now]
        if not late:
            return
        self._expired = late[-1].last
        for entry in islice(self._queue, max(0, self._expired - self._answered)):
            if not entry.future.done():
                self.meter.timeouts += 1
                entry.fail(late_reply(entry, self.address, timeout))
        silent = (
            self._chunks == late[-1].chunks
        )  # not a byte since it was written: it has been so for `timeout`
        due = now + timeout * (_PROBE_SHARE if silent else 1.0)
        if not self._suspect or due < self._suspect or self._chunks != self._suspect_chunks:
            self._suspect, self._suspect_chunks = due, self._chunks

    def _cleared(self, now: float, timeout: float) -> bool:
        """The time of a suspect wire is up: it goes on if it has spoken meanwhile, else it is replaced."""
        if self._chunks == self._suspect_chunks:
            silence = now - self._marks[0].at
            self._end(
                errors.TimeoutError(f"{self.address} has not answered for {silence:.3g} s; wire replaced")
            )
            return False
        overdue = self._expired > self._answered
        self._suspect, self._suspect_chunks = (now + timeout if overdue else 0.0), self._chunks
        return True

    def watch_health(self, interval: float) -> None:
        """Ping whenever the wire was silent for `interval` seconds, so that a dead peer is seen without traffic.

        An interval of 0 ends that.
        """
        if self._pinger is not None:
            self._pinger.cancel()
            self._pinger = None
        if interval > 0:
            # Twice as often as pings are due, so that none is later than `interval` after the last byte.
            self._pinger = self._loop.call_later(interval / 2, self._check_health, interval / 2, self._chunks)

    def _check_health(self, pause: float, chunks: int) -> None:
        if self.ended is not None:
            return
        if not self._queue and self._chunks == chunks:
            future = self._loop.create_future()
            future.add_done_callback(_retrieve)  # nobody awaits it; a failure ends the wire and says so there
            self.send(Entry(future, _PING_PACKED, _PING, None, self.decode_pushes))
        self._pinger = self._loop.call_later(pause, self._check_health, pause, self._chunks)

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
        for handle in (self._timer, self._pinger):
            if handle is not None:
                handle.cancel()
        if self._transport is not None:
            self._transport.abort()
        sent = [entry for entry in self._queue if not entry.future.done()]
        unsent = [entry for entry in (*self._waiting, *self._outbox) if not entry.future.done()]
        self._queue.clear()
        self._waiting.clear()
        self._outbox = []
        self._marks.clear()
        self._reader = resp.new_reader()  # a half-read reply may be large: don't keep it until the wire is collected
        self._gets = self._reader.gets
        if self.on_end is not None:
            self.on_end(self, error, sent, unsent)
            return
        for entry in sent:
            entry.fail(lost_reply(entry, error))
        for entry in unsent:
            entry.fail(lost_reply(entry, error, written=False))


def late_reply(entry: Entry, address: str, timeout: float) -> errors.GravitoError:
    """The error of a caller whose reply is late; a batch's error keeps the replies that came."""
    error = errors.TimeoutError(
        f"{entry.spec.name}: no reply from {address} within {timeout:g} s; "
        + ("it changes nothing and can be sent again" if entry.spec.read_only else "it may have been applied")
    )
    return error.about(node=address, maybe_applied=not entry.spec.read_only)


def lost_reply(entry: Entry, cause: Exception, written: bool = True) -> errors.GravitoError:
    """The error of an entry whose wire ended; `maybe_applied` is True for a write that had been sent."""
    unsure = written and not entry.spec.read_only
    kind = type(cause) if isinstance(cause, errors.GravitoError) else errors.ConnectionLostError
    text = str(cause) + ("; the command may have been applied" if unsure else "")
    error = kind(text)
    error.__dict__.update(cause.__dict__)  # a setting's error names its field, too
    error.__cause__ = cause
    return error.about(node=getattr(cause, "node", None), maybe_applied=unsure)


def _refusal(batch: Batch) -> errors.GravitoError | None:
    """The error for which the server applied nothing of a batch; None when it may have applied something."""
    first, last = batch.replies[0], batch.replies[-1]
    if isinstance(last, errors.ExecAbortError) and batch.spec.name == "MULTI":
        return next(reply for reply in batch.replies if isinstance(reply, errors.GravitoError))
    if isinstance(first, errors.GravitoError) and all(type(reply) is type(first) for reply in batch.replies):
        return first
    return None


def _is_push(reply: Any) -> bool:
    if not isinstance(reply, list) or not reply:
        return False
    kind = _word(reply[0])
    return kind in _MESSAGES or kind in _CONFIRMATIONS


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _undecodable(error: UnicodeDecodeError) -> Exception:
    error.add_note("The reply is not UTF-8 text; ask for bytes with decode_responses=False.")
    return error


def _unexpected(reply: Any) -> str:
    return str(reply)[:80] if isinstance(reply, Exception) else type(reply).__name__


def _protocol_error(address: str, error: Exception) -> errors.ProtocolError:
    failure = errors.ProtocolError(
        f"{address} sent what is not RESP ({str(error)[:120]}). Is it a Redis or Valkey server, and is TLS set as it is there?"
    )
    failure.__cause__ = error
    return failure


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
