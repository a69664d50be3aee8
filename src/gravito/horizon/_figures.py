"""What the counters say: how many jobs ended how, and how long they ran and waited. Pure."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

from gravito.horizon._counters import BUCKETS, PLACES, RUN, WAIT

__all__ = [
    "Figures",
    "cut",
    "figures_of",
    "first_of",
    "numbers_of",
    "packed",
    "percentile",
    "shifted",
    "total_of",
]

_BITS: Final = 64  # of a number
_WIDTH: Final = _BITS * PLACES  # bits of a period


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that ended in a stretch of time.

    Args:
        ok: jobs that went well.
        retried: runs that failed and were to be repeated.
        dead: jobs that failed for good in a run. Those given up after crashes have no run that ended: they are in the
            queue's totals alone.
        cancelled: jobs that were stopped while they ran, or discarded.
        run: how many runs took how long, by bucket of `BUCKETS`.
        wait: how many runs began how long after they were due, likewise.
    """

    ok: int = 0
    retried: int = 0
    dead: int = 0
    cancelled: int = 0
    run: dict[int, int] = {}
    wait: dict[int, int] = {}

    @property
    def runs(self) -> int:
        """All of them."""
        return self.ok + self.retried + self.dead + self.cancelled

    @property
    def ended(self) -> int:
        """Jobs that are over."""
        return self.ok + self.dead + self.cancelled

    @property
    def failures(self) -> float | None:
        """The share of runs that failed, from 0 to 1; None without runs."""
        return (self.retried + self.dead) / self.runs if self.runs else None

    def run_ms(self, share: float) -> float | None:
        """Run time in ms that this share of runs did not exceed, as 0.95; None without runs."""
        return percentile(self.run, share)

    def wait_ms(self, share: float) -> float | None:
        """Waiting time in ms, likewise."""
        return percentile(self.wait, share)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """A percentile from a histogram, spread evenly within its bucket; so it is off by the bucket's width at most.

    Args:
        counts: by bucket.
        share: from 0 to 1.

    Returns:
        Milliseconds; None for an empty histogram; the longest bound for what is longer than all.
    """
    buckets = sorted(counts)
    sums = list(accumulate(map(counts.__getitem__, buckets)))
    if not sums or not sums[-1]:
        return None
    rank = share * sums[-1]
    at = bisect_left(sums, rank)
    bucket = buckets[at] if at < len(buckets) else len(BUCKETS)
    if bucket >= len(BUCKETS):
        return BUCKETS[-1]
    low = BUCKETS[bucket - 1] if bucket else 0.0
    before = sums[at - 1] if at else 0
    return round(low + (BUCKETS[bucket] - low) * (max(rank - before, 0) / counts[bucket]), 2)


# -- rows of periods -----------------------------------------------------------------------------------------
#
# What was counted in some minutes or hours is kept as one large number: `PLACES` numbers of 64 bits for each period, the
# oldest one lowest. So the counts of any number of queues are added by one addition for each, in C.


def packed(numbers: Sequence[int], periods_before: int = 0) -> int:
    """The row that has these numbers behind so many empty periods."""
    data = struct.pack(f"<{len(numbers)}Q", *numbers)
    return int.from_bytes(data, "little") << (_WIDTH * periods_before)


def shifted(row: int, periods: int) -> int:
    """The row without its first periods; with as many empty ones in front, if the number is negative."""
    if not periods:
        return row
    return row >> (_WIDTH * periods) if periods > 0 else row << (-_WIDTH * periods)


def cut(row: int, periods: int) -> int:
    """The first periods of a row."""
    return row & ((1 << _WIDTH * periods) - 1) if row.bit_length() > _WIDTH * periods else row


def first_of(row: int) -> int | None:
    """The first period in which something was counted, from 0 on; None if nothing was."""
    return ((row & -row).bit_length() - 1) // _WIDTH if row else None


def total_of(row: int, periods: int) -> int:
    """All periods of a row added up, as a row of one."""
    row = cut(row, periods)
    while periods > 1:
        half = (periods + 1) // 2
        row = shifted(row, half) + cut(row, half)
        periods = half
    return row


def numbers_of(row: int, periods: int = 1) -> list[Sequence[int]]:
    """The numbers of each period."""
    size = periods * _WIDTH // 8
    every = struct.unpack(f"<{periods * PLACES}Q", cut(row, periods).to_bytes(size, "little"))
    return [every[at : at + PLACES] for at in range(0, len(every), PLACES)]


def figures_of(numbers: Sequence[int]) -> Figures:
    """The figures of a period's numbers."""
    ok, retried, dead, cancelled = numbers[:RUN]
    return Figures(
        ok=ok,
        retried=retried,
        dead=dead,
        cancelled=cancelled,
        run={bucket: count for bucket, count in enumerate(numbers[RUN:WAIT]) if count},
        wait={bucket: count for bucket, count in enumerate(numbers[WAIT:]) if count},
    )
