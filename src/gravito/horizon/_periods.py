"""Reading the counters of a queue: what `scripts/roll.lua` has added up, and the minutes that are still open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gravito.horizon._counters import PLACES, places
from gravito.horizon._figures import cut, first_of, packed, shifted

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["Counted", "Reader", "Span", "jobs_of", "row_of"]

_MOST: Final = 16_000_000  # bytes of closed rows that are kept: those of a hundred queues
_MINUTES: Final = 200  # open minutes that are remembered
_TRIES: Final = 10  # to close what is open for long: each closes two hundred hours at most
_Key = tuple[str, str, str | None]  # queue, kind of its periods, job
_decode_sums = msgspec.msgpack.Decoder(dict[str, list[int]]).decode
_decode_counts = msgspec.msgpack.Decoder(list[int]).decode


class Span(msgspec.Struct, frozen=True):
    """A row of minutes or hours since the epoch, by the server's clock.

    Args:
        kind: what its periods are.
        first: the oldest one.
        last: the latest one.
    """

    kind: Literal["minutes", "hours"]
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def period(self, minute: int) -> int:
        """The minute itself, or its hour."""
        return minute if self.kind == "minutes" else minute // 60


class Counted(msgspec.Struct, frozen=True):
    """What was counted of a queue, as it was read.

    Args:
        span: when.
        row: the counts of each closed period, as `_figures` packs them.
        open: of the minutes that are not closed, the period that each is in, and the numbers of its jobs.
        before: sums by job before the span, packed; empty unless they were asked for, as `sums`.
        sums: at its end, without the open minutes.
        job: whose alone it is.
    """

    span: Span
    row: int
    open: list[tuple[int, dict[str, list[int]]]] = []
    before: bytes = b""
    sums: bytes = b""
    job: str | None = None


class Reader:
    """Reads the counters of queues. What is closed changes no more, so it is asked for once, and kept while there is room.

    Args:
        most: bytes that it keeps.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: OrderedDict[_Key, tuple[Span, int]] = (
            OrderedDict()
        )  # closed rows, least recently used first
        self._size = 0  # bytes of it
        # What was read last of open minutes, and what it says: of several, one is still written to.
        self._read: OrderedDict[tuple[str, int], tuple[bytes, dict[str, list[int]]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Reader, {self._size} bytes>"

    async def read(
        self, broker: Broker, spans: Sequence[Span], *, job: str | None = None, by_job: bool = False
    ) -> list[Counted]:
        """What was counted of a queue, up to now.

        Args:
            broker: the queue.
            spans: when; 200 periods each at most, and no older than what is kept: two hours of minutes, eight days of
                hours.
            job: of this one alone.
            by_job: each job's numbers, too.
        """
        keys: list[_Key] = [(broker.queue, span.kind, job) for span in spans]
        known, windows = [], []
        for key, span in zip(keys, spans, strict=True):
            first, row, since = self._known(key, span) if by_job else (*self._recall(key, span), False)
            known.append((first, row))
            windows.append((span.kind == "hours", first, span.last, since))
        for _ in range(_TRIES):
            reply = await broker.counts.read(windows, job)
            if reply is not None:
                break
            await broker.counts.close()
        else:  # more hours than a queue keeps: somebody moved the server's clock
            return [Counted(span, 0) for span in spans]
        rolled, counts, flat, befores, sums = reply
        pairs = zip(flat[::2], flat[1::2], strict=True)
        minutes = [(minute, self._parsed((broker.queue, minute), data)) for minute, data in pairs]
        found = []
        for key, span, (first, past), more, before in zip(keys, spans, known, counts, befores, strict=True):
            fresh = int.from_bytes(more, "little") if job is None else _row_of(more)
            row = past + shifted(fresh, span.first - first)
            self._keep(key, span, row, rolled)
            periods = [(span.period(minute), numbers) for minute, numbers in minutes]
            found.append(Counted(span, row, periods, before, sums, job))
        return found

    def _parsed(self, key: tuple[str, int], flat: list[bytes]) -> dict[str, list[int]]:
        """The numbers by job in an open minute's hash."""
        data = b"\0".join(flat)
        known, numbers = self._read.pop(key, (b"", {}))
        if known != data:
            numbers = _by_job(flat)
        self._read[key] = data, numbers
        if len(self._read) > _MINUTES:
            self._read.popitem(last=False)
        return numbers

    def _known(self, key: _Key, span: Span) -> tuple[int, int, int]:
        """As `_recall`, and from when on the sums by job are wanted: the first period in which any job was counted."""
        queue, kind, job = key
        first, row = self._recall((queue, kind, None), span)
        some = first_of(row)
        if some is None:  # the server finds it, if it looks at the whole span
            return span.first, 0, span.first
        if job is not None:
            first, row = self._recall(key, span)
        return first, row, span.first + some

    def _recall(self, key: _Key, span: Span) -> tuple[int, int]:
        """The first period to ask for, and the row of those before it."""
        kept, row = self._kept.get(key, (span, 0))
        if kept is span or not kept.first <= span.first <= kept.last:
            return span.first, 0
        self._kept.move_to_end(key)
        row = shifted(row, span.first - kept.first)
        if kept.last < span.last:
            return kept.last + 1, row
        return span.last + 1, cut(row, len(span))

    def _keep(self, key: _Key, span: Span, row: int, rolled: int) -> None:
        closed = min(span.last, rolled if span.kind == "minutes" else (rolled + 1) // 60 - 1)
        if closed <= span.first:  # nothing, or too little to take the place of a longer one
            return
        kept = Span(span.kind, span.first, closed)
        before, old = self._kept.pop(key, (span, 0))
        row = old if before == kept else cut(row, len(kept))
        self._kept[key] = (kept, row)
        self._size += _bytes(row) - (_bytes(old) if old else 0)
        while self._size > self._most and len(self._kept) > 1:
            _, (_, least) = self._kept.popitem(last=False)
            self._size -= _bytes(least)


def _bytes(row: int) -> int:
    return row.bit_length() // 8 + 500  # with what stands around it


def _row_of(counts: Sequence[bytes]) -> int:
    """The row of one job: of each period, its places and counts."""
    numbers = [0] * (PLACES * len(counts))
    for at, data in enumerate(counts):
        if data:
            flat, first = _decode_counts(data), at * PLACES
            for place, count in zip(flat[::2], flat[1::2], strict=True):
                numbers[first + place] = count
    return packed(numbers)


def row_of(parts: Sequence[Counted], span: Span) -> int:
    """The counts of some queues together, those of open minutes among them.

    Args:
        parts: what was read of each; those of an earlier span of the same kind count up to then.
        span: when.
    """
    row = sum(shifted(part.row, span.first - part.span.first) for part in parts)
    job = parts[0].job if parts else None
    shown: dict[int, list[Sequence[int]]] = {}
    for part in parts:
        for period, jobs in part.open:
            if span.first <= period <= span.last:
                some = jobs.values() if job is None else [jobs[job]] if job in jobs else []
                shown.setdefault(period, []).extend(some)
    for period, several in shown.items():
        row += packed(_together(several), period - span.first)
    return row


def jobs_of(parts: Sequence[Counted], span: Span) -> dict[str, list[int]]:
    """The numbers of the whole span by job, of some queues together."""
    found: dict[str, list[int]] = {}
    open_ones: dict[str, list[Sequence[int]]] = {}
    for part in parts:
        _add_between(found, part.before, part.sums)
        for period, jobs in part.open:
            if span.first <= period <= span.last:
                for name, numbers in jobs.items():
                    open_ones.setdefault(name, []).append(numbers)
    for name, several in open_ones.items():
        found[name] = _together([found[name], *several] if name in found else several)
    return {name: numbers for name, numbers in sorted(found.items()) if any(numbers)}


def _together(several: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*several, strict=True)]


def _by_job(flat: list[bytes]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for field, count in zip(flat[::2], flat[1::2], strict=True):
        name, at = places(field)
        numbers = found.get(name)
        if numbers is None:
            numbers = found[name] = [0] * PLACES
        for place in at:
            numbers[place] += int(count)
    return found


def _add_between(found: dict[str, list[int]], before: bytes, after: bytes) -> None:
    """Add what was counted of each job between two states of a queue's sums."""
    if not after or before == after:
        return
    old: Mapping[str, list[int]] = _decode_sums(before) if before else {}
    for name, counts in _decode_sums(after).items():
        past = old.get(name)
        if past == counts:
            continue
        numbers = found.setdefault(name, [0] * PLACES)
        _add(numbers, counts[2:])
        if past is not None and past[0] == counts[0]:  # else it was forgotten meanwhile, and began anew
            _add(numbers, past[2:], -1)


def _add(numbers: list[int], counts: Sequence[int], sign: int = 1) -> None:
    for place, count in zip(counts[::2], counts[1::2], strict=True):
        numbers[place] += sign * count
