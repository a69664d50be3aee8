"""Reading the counters of a queue: what `scripts/roll.lua` has added up, and the minutes that are still open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gravito.horizon._counters import PLACES, places
from gravito.horizon._figures import packed, shifted

if TYPE_CHECKING:
    from gravito.horizon._broker import Broker

__all__ = ["Counted", "Span", "read_counted"]

_TRIES: Final = 10  # to close what is open for long: each closes two hundred hours at most
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

    def place(self, minute: int) -> int:
        """Which of its periods a minute is in, from 0 on; a number outside if it is in none."""
        return (minute if self.kind == "minutes" else minute // 60) - self.first


class Counted(msgspec.Struct, frozen=True):
    """What was counted of a queue.

    Args:
        span: when.
        row: the counts of each period, as `_figures` packs them.
        jobs: the numbers of the whole span by job, if they were asked for.
    """

    span: Span
    row: int
    jobs: dict[str, list[int]] = {}

    def within(self, span: Span) -> int:
        """Its row, moved into another span of the same kind."""
        return shifted(self.row, span.first - self.span.first)


async def read_counted(
    broker: Broker, span: Span, *, job: str | None = None, by_job: bool = False
) -> Counted:
    """What was counted of a queue, up to now.

    Args:
        broker: the queue.
        span: when; 200 periods at most, and no older than what is kept: two hours of minutes, eight days of hours.
        job: of this one alone.
        by_job: each job's numbers, too.
    """
    for _ in range(_TRIES):
        reply = await broker.counted(span.kind, span.first, span.last, job, by_job)
        if reply is not None:
            break
        await broker.roll()
    else:  # more hours than a queue keeps: somebody moved the server's clock
        return Counted(span, 0)
    _, counts, flat, before, sums = reply
    row = int.from_bytes(counts, "little") if job is None else _row_of(counts)
    jobs = _between(before, sums) if by_job else {}
    for minute, fields in zip(flat[::2], flat[1::2], strict=True):
        if not 0 <= (place := span.place(minute)) < len(span):
            continue
        every = _by_job(fields)
        for name, numbers in every.items() if by_job else ():
            jobs[name] = [a + b for a, b in zip(jobs.get(name, [0] * PLACES), numbers, strict=True)]
        shown = [numbers for name, numbers in every.items() if job in (None, name)]
        row += packed([sum(column) for column in zip(*shown, strict=True)], place)
    return Counted(span, row, {name: numbers for name, numbers in jobs.items() if any(numbers)})


def _by_job(flat: Sequence[bytes]) -> dict[str, list[int]]:
    """The numbers of an open minute, from its hash."""
    found: dict[str, list[int]] = {}
    for field, count in zip(flat[::2], flat[1::2], strict=True):
        name, at = places(field)
        numbers = found.get(name)
        if numbers is None:
            numbers = found[name] = [0] * PLACES
        for place in at:
            numbers[place] += int(count)
    return found


def _row_of(counts: Iterable[bytes]) -> int:
    """The row of one job: of each period, its places and counts."""
    numbers: list[int] = []
    for data in counts:
        period = [0] * PLACES
        _add(period, _decode_counts(data) if data else ())
        numbers += period
    return packed(numbers)


def _between(before: bytes, after: bytes) -> dict[str, list[int]]:
    """What was counted of each job between two states of its sums."""
    old: Mapping[str, list[int]] = _decode_sums(before) if before else {}
    found = {}
    for name, (first, _, *counts) in (_decode_sums(after) if after else {}).items():
        numbers = found[name] = [0] * PLACES
        _add(numbers, counts)
        if name in old and old[name][0] == first:  # else it was forgotten meanwhile, and began anew
            _add(numbers, old[name][2:], -1)
    return found


def _add(numbers: list[int], counts: Sequence[int], sign: int = 1) -> None:
    for place, count in zip(counts[::2], counts[1::2], strict=True):
        numbers[place] += sign * count
