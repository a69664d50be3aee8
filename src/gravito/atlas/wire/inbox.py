"""The replies that a wire owes: a decoder, and the entries that wait for them. No I/O and no clock.

Replies come in the order of the commands, so the queue's head is the entry that the next reply belongs to.
Callers who gave up leave their entry where it is; its reply is dropped.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import PushNotification

from gravito import errors
from gravito.atlas.config import Limits
from gravito.atlas.wire import failures, resp
from gravito.atlas.wire.entry import Batch, Confirm, Entry
from gravito.atlas.wire.meter import Meter
from gravito.atlas.wire.resp import INCOMPLETE

_CONFIRMATIONS = frozenset(
    {"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"}
)
_MESSAGES = frozenset({"message", "pmessage", "smessage"})
_NEWLINE = ord("\n")
_FEW_BARS = 32  # up to so many, looking at each is quicker than a search for two bytes
# Where an attribute may begin: "|", a count and a line's end, or as much of it as the bytes hold.
_BARS = re.compile(rb"\n(?=\|(?:\d+(?:\r|\Z)|\Z))")


class Inbox:
    """Reads bytes, and hands each reply in them to the entry it belongs to."""

    def __init__(self, address: str, limits: Limits, meter: Meter) -> None:
        self.address = address  # for messages; carries no credentials
        self.meter = meter  # counters, shared by a client's wires in a loop
        self.on_push: Callable[[list[Any]], None] | None = None  # listener of pushes
        self.on_stray: Callable[[Any], None] | None = None  # listener of replies nobody asked for (MONITOR's)
        # Offered the error replies; True: it sends the entry again.
        self.on_refusal: Callable[[Entry, Exception], bool] | None = None
        self.on_heavy: Callable[[Any], None] | None = None  # told once that a large reply is under way
        self.pushes_as_arrays = False  # RESP2 subscriber: messages come as plain arrays
        self.decode_pushes = True  # text in pushes, or bytes
        self._limits = limits
        self._reader = resp.new_reader()
        self._gets = self._reader.gets
        self._queue: deque[Entry] = deque()  # in flight, oldest first
        self._answered = 0  # entries answered so far
        self._read = 0  # bytes read so far
        self._whole = 0  # of these, up to the last whole reply
        self._tail = _NEWLINE  # the last byte read
        self._lone = True  # the last read held one reply at most: a lone caller, worth an immediate write

    @property
    def in_flight(self) -> int:
        """Entries written and not answered."""
        return len(self._queue)

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer, cut anywhere.

        Raises ProtocolError, or what the decoder raises: nothing that comes after can be trusted then.
        """
        self._read += len(data)
        self.meter.bytes_received += len(data)
        if b"|" in data and _may_begin_attribute(data, self._tail):
            self._receive_warily(data)
        else:
            self._reader.feed(data)
            self._receive()
        self._tail = data[-1]
        if self._read - self._whole > self._limits.lease_over:
            self._large_reply()

    def _receive(self) -> None:  # noqa: PLR0912, PLR0915  # the hot loop: a call out of it costs what it does
        """Hand out every whole reply that the reader holds."""
        gets = self._gets
        queue = self._queue
        answered = self._answered
        count = 0  # plain replies not yet added to `_answered`
        try:
            while queue:
                entry = queue[0]
                try:
                    reply = gets(entry.text)
                except UnicodeDecodeError as error:  # the reply is consumed; only its caller asked for text
                    reply = failures.undecodable(error)
                kind = reply.__class__
                if kind is not str:
                    if reply is INCOMPLETE:
                        break
                    if kind is PushNotification or (self.pushes_as_arrays and _is_push(reply)):
                        self._pushed(reply)
                        continue
                if entry.__class__ is not Entry:
                    self._part(entry, reply)
                    continue
                queue.popleft()
                count += 1
                future = entry.future
                if future.done():
                    continue
                if kind is not str and isinstance(reply, Exception):
                    self._refused(entry, reply)
                elif entry.spec.convert is None:
                    future.set_result(reply)
                else:
                    entry.finish(reply)
            else:
                if not count or self._reader.has_data():
                    self._receive_unasked()
        finally:
            self._answered += count
            self.meter.replies += count
        answered = self._answered - answered
        if answered:
            self._whole = self._read
        self._lone = answered <= 1

    def _receive_unasked(self) -> None:
        """Nothing is in flight: only pushes may come, or the lines of MONITOR."""
        gets, text = self._gets, self.decode_pushes
        while True:
            try:
                reply = gets(text)
            except UnicodeDecodeError as error:
                reply = failures.undecodable(error)
            if reply is INCOMPLETE:
                return
            self._whole = self._read  # many small pushes are no large reply
            if reply.__class__ is PushNotification or (self.pushes_as_arrays and _is_push(reply)):
                if self._queue:  # a listener has sent something meanwhile
                    self._pushed(reply)
                elif self.on_push is not None:
                    self.on_push(reply)
            elif self.on_stray is not None:
                self.on_stray(reply)
            else:
                raise failures.unexpected(reply)

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

    def _fill(self, batch: Batch) -> bool:
        """Read replies straight into the batch; True when it is complete."""
        self._whole = self._read
        gets, replies, need, text, raw = self._gets, batch.replies, batch.need, batch.decode, batch.bytes_only
        while len(replies) < need:
            try:
                reply = gets(text) if not raw else gets(text and len(replies) not in raw)
            except UnicodeDecodeError as error:
                reply = failures.undecodable(error)
            if reply is INCOMPLETE:
                batch.aim()
                return False
            if reply.__class__ is PushNotification:
                self._pushed(reply)
            else:
                replies.append(reply)
        return True

    def _declined(self, batch: Batch) -> bool:
        """True when none of a batch was applied and its owner sends it again, as it does with a single command."""
        error = failures.refusal(batch)
        if error is None or self.on_refusal is None or not self.on_refusal(batch, error):
            return False
        batch.replies = []
        batch.aim()
        return True

    def _refused(self, entry: Entry, error: Exception) -> None:
        if self.on_refusal is None or not self.on_refusal(entry, error):
            self.meter.errors += 1
            if isinstance(error, errors.GravitoError):
                error.node = self.address
            entry.finish(error)

    def _pushed(self, push: list[Any]) -> None:
        self._whole = self._read
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
        if self._read - self._whole > self._limits.reply_bytes:
            raise errors.ProtocolError(
                f"a reply of more than {self._limits.reply_bytes} bytes (limits.reply_bytes); it was given up"
            )
        if self.on_heavy is not None:
            told, self.on_heavy = self.on_heavy, None
            told(self)

    def _receive_warily(self, data: bytes) -> None:
        """The same for bytes that may hold a RESP3 attribute (`|`), which hiredis would hand out as a reply.

        A `|` after a line's end is one only if the reader has nothing half-read there: feed up to it and see.
        """
        starts = [match.end() for match in _BARS.finditer(data)]
        if data.startswith(b"|") and self._tail == _NEWLINE:
            starts.insert(0, 0)
        start = 0
        for at in starts:
            if at:
                self._reader.feed(data[start:at])
                self._receive()
            if not self._reader.has_data():
                raise errors.ProtocolError("a RESP3 attribute came, which this reader cannot take")
            start = at
        self._reader.feed(data[start:])
        self._receive()


def _may_begin_attribute(data: bytes, tail: int) -> bool:
    """Whether a `|` stands behind a line's end, or there are too many to look at each. `tail` is the byte before."""
    at = data.find(b"|")
    for _ in range(_FEW_BARS):
        if at < 0:
            return False
        if (data[at - 1] if at else tail) == _NEWLINE:
            return True
        at = data.find(b"|", at + 1)
    return True


def _is_push(reply: Any) -> bool:
    if not isinstance(reply, list) or not reply:
        return False
    kind = _word(reply[0])
    return kind in _MESSAGES or kind in _CONFIRMATIONS


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
