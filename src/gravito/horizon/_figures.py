"""What the counters say: how many jobs ended how, and how long they ran and waited. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gravito.horizon._counters import BUCKETS, parse

__all__ = ["Counts", "Fields", "Figures", "percentile"]

Counts = Mapping[int, int]  # by the number that `Fields` gives a counter

_OUTCOMES: Final = {"ok": "ok", "retry": "retried", "dead": "dead", "cancelled": "cancelled"}


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
    total = sum(counts.values())
    if not total:
        return None
    rank, before = share * total, 0
    for bucket in sorted(counts):
        count = counts[bucket]
        if before + count >= rank:
            if bucket >= len(BUCKETS):
                return BUCKETS[-1]
            low = BUCKETS[bucket - 1] if bucket else 0.0
            return round(low + (BUCKETS[bucket] - low) * (max(rank - before, 0) / count), 2)
        before += count
    return BUCKETS[-1]


class Fields:
    """Numbers for the names of counters, which are the same in all minutes, hours and queues, and what each counts."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._meanings: list[tuple[str, str, int, str]] = []  # by number: kind, outcome, bucket, job

    def __repr__(self) -> str:
        return f"<Fields {len(self._meanings)}>"

    def __len__(self) -> int:
        return len(self._meanings)

    def number(self, field: bytes) -> int:
        """The number of a counter."""
        number = self._numbers.get(field)
        if number is None:
            number = self._numbers[field] = len(self._meanings)
            self._meanings.append(parse(field.decode()))
        return number

    def figures(self, counts: Counts, job: str | None = None) -> Figures:
        """The figures; of one job alone if it is named."""
        meanings = self._meanings
        if job is not None:
            counts = {number: count for number, count in counts.items() if meanings[number][3] == job}
        return self._figures(counts)

    def by_job(self, counts: Counts) -> dict[str, Figures]:
        """As `figures`, for each job by its name."""
        found: dict[str, dict[int, int]] = {}
        for number, count in counts.items():
            found.setdefault(self._meanings[number][3], {})[number] = count
        return {name: self._figures(part) for name, part in sorted(found.items())}

    def _figures(self, counts: Counts) -> Figures:
        outcomes: dict[str, int] = {}
        run: dict[int, int] = {}
        wait: dict[int, int] = {}
        for number, count in counts.items():
            kind, outcome, bucket, _ = self._meanings[number]
            if kind == "w":
                wait[bucket] = wait.get(bucket, 0) + count
            else:
                run[bucket] = run.get(bucket, 0) + count
                name = _OUTCOMES[outcome]
                outcomes[name] = outcomes.get(name, 0) + count
        return Figures(**outcomes, run=run, wait=wait)


def added(parts: Iterable[Counts]) -> dict[int, int]:
    """Counts of several stretches, or queues, together."""
    sums: dict[int, int] = {}
    for part in parts:
        for number, count in part.items():
            sums[number] = sums.get(number, 0) + count
    return sums
