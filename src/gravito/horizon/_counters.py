"""What is counted when a job ends, and how: the one place that knows the buckets and the names of the fields."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import Final

from gravito.horizon._messages import Done

__all__ = ["BUCKETS", "OUTCOMES", "PLACES", "RUN", "WAIT", "bucket", "fields", "parse", "places"]

# Upper ends in ms, five to a decade: 1 ms, 1.6, 2.5, 4, 6.3, 10 and so on to 2.8 h; the last bucket has no end.
BUCKETS: Final = tuple(round(10 ** (step / 5), 1) for step in range(36))

# Where a count stands among the numbers of a closed minute or hour; `scripts/roll.lua` writes them.
OUTCOMES: Final = ("ok", "retry", "dead", "cancelled")
RUN: Final = len(OUTCOMES)  # the first bucket of run times
WAIT: Final = RUN + len(BUCKETS) + 1  # the first bucket of waiting times
PLACES: Final = WAIT + len(BUCKETS) + 1


def bucket(ms: float) -> int:
    """Index of the bucket that a time falls into; `len(BUCKETS)` for what is longer than all."""
    return bisect_left(BUCKETS, ms)


def fields(done: Done) -> tuple[str, ...]:
    """The fields of the minute's hash that a completion raises by one."""
    if done.outcome == "release":
        return ()
    return _fields(done.name, done.outcome, bucket(done.run_ms), bucket(done.wait_ms))


@lru_cache(maxsize=10_000)
def _fields(name: str, outcome: str, run: int, wait: int) -> tuple[str, ...]:
    return f"r|{outcome}|{run}|{name}", f"w|{wait}|{name}"


def parse(field: str) -> tuple[str, str, int, str]:
    """A field's kind ("r" run time, "w" waiting time), outcome ("" for waiting time), bucket and job name."""
    kind, rest = field[0], field[2:]
    outcome = ""
    if kind == "r":
        outcome, _, rest = rest.partition("|")
    number, _, name = rest.partition("|")
    return kind, outcome, int(number), name


@lru_cache(maxsize=50_000)
def places(field: bytes) -> tuple[str, tuple[int, ...]]:
    """A field's job name, and the places of the numbers that it is part of."""
    kind, outcome, number, name = parse(field.decode())
    if kind == "w":
        return name, (WAIT + number,)
    return name, (RUN + number, OUTCOMES.index(outcome))
