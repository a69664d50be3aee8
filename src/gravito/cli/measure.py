"""How a rate is measured: shared by `gravito bench` and the project's own benchmark.

A `Work` carries out about n operations and says how many they were and how long they took. `Race` runs the works
of several contenders in turn (A B C, A B C, ...), so that a machine that gets slower or faster in between treats
all of them alike. Every contender gets the same time, not the same number of operations: a slow one would
otherwise be measured over seconds and a fast one over milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Get",
    "PipelineGet",
    "Race",
    "Set",
    "Spread",
    "Timing",
    "Work",
    "gets",
    "pipelines",
    "sets",
    "spread_of",
]

Get = Callable[[str], Awaitable[Any]]
Set = Callable[[str, str], Awaitable[Any]]
PipelineGet = Callable[[Sequence[str]], Awaitable[list[Any]]]

WARM_UP = 0.1  # seconds that a trial run must last before its rate is believed


@dataclass(frozen=True)
class Timing:
    """What one run did: `count` operations in `seconds`."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.count / self.seconds


Work = Callable[[int], Awaitable[Timing]]


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of several samples."""

    median: float
    low: float
    high: float
    samples: tuple[float, ...]


def spread_of(samples: Iterable[float]) -> Spread:
    """Summarise samples.

    Args:
        samples: at least one figure; any unit.

    Raises:
        ValueError: there are no samples.
    """
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no samples to summarise")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], tuple(ordered))


def gets(get: Get, keys: Sequence[str], value: str) -> Work:
    """Awaited GETs, one task per key, each asking for its own key again and again.

    Args:
        get: the client's own method, called without a wrapper.
        keys: one per task; each must hold `value`.
        value: what is expected; a client that answers something else is not measured but refused.
    """

    async def caller(key: str, times: int) -> None:
        for _ in range(times):
            reply = await get(key)
        if reply != value:
            raise AssertionError(f"GET answered {reply!r} instead of {value!r}")

    return _tasks(caller, keys)


def sets(set_: Set, keys: Sequence[str], value: str) -> Work:
    """Awaited SETs, one task per key, each writing `value` to its own key again and again."""

    async def caller(key: str, times: int) -> None:
        for _ in range(times):
            await set_(key, value)

    return _tasks(caller, keys)


def pipelines(pipeline: PipelineGet, keys: Sequence[str], value: str) -> Work:
    """Pipelines of one GET per key, without a transaction, one pipeline after the other; counts commands."""

    async def work(count: int) -> Timing:
        rounds = max(1, count // len(keys))
        began = time.perf_counter()
        for _ in range(rounds):
            replies = await pipeline(keys)
        took = time.perf_counter() - began
        if replies != [value] * len(keys):
            raise AssertionError(f"a pipeline of GETs answered {replies[:2]!r}...")
        return Timing(rounds * len(keys), took)

    return work


def _tasks(caller: Callable[[str, int], Awaitable[None]], keys: Sequence[str]) -> Work:
    async def work(count: int) -> Timing:
        times = max(1, count // len(keys))
        began = time.perf_counter()
        await asyncio.gather(*[caller(key, times) for key in keys])
        return Timing(times * len(keys), time.perf_counter() - began)

    return work


@dataclass
class Race:
    """One kind of work, done by several contenders in turn.

    Args:
        works: the work of each contender, by name, in the order of running.
        seconds: how long one sample of one contender should take.
        repeat: samples of each.
        smallest: operations of the first trial run.
    """

    works: Mapping[str, Work]
    seconds: float
    repeat: int
    smallest: int = 500
    failures: dict[str, str] = field(default_factory=dict)  # contender -> why it was left out
    _counts: dict[str, int] = field(default_factory=dict)  # contender -> operations of one sample

    async def run(self, sampled: Callable[[str], None] = lambda name: None) -> dict[str, Spread]:
        """Warm up, then sample all in turn.

        Args:
            sampled: called with the contender's name after each sample, to show progress.

        Returns:
            Operations per second of each contender that could do the work; the others are in `failures`.
        """
        rates: dict[str, list[float]] = {}
        for _ in range(self.repeat):
            for name, work in self.works.items():
                if name not in self.failures:
                    await self._sample(name, work, rates)
                sampled(name)
        return {name: spread_of(found) for name, found in rates.items() if name not in self.failures}

    async def _sample(self, name: str, work: Work, rates: dict[str, list[float]]) -> None:
        try:
            count = self._counts.get(name) or await self._warm_up(name, work)
            settle_garbage()
            timing = await work(count)
        except Exception as error:  # one contender's failure is a note in the report, not the end of it
            self.failures[name] = f"{type(error).__name__}: {error}"
        else:
            rates.setdefault(name, []).append(timing.rate)

    async def _warm_up(self, name: str, work: Work) -> int:
        count = self.smallest
        timing = await work(count)
        while timing.seconds < min(WARM_UP, self.seconds):
            count *= 2
            timing = await work(count)
        self._counts[name] = max(1, int(timing.rate * self.seconds))
        return self._counts[name]


def settle_garbage() -> None:
    """Collect what earlier work left and keep the survivors out of the next collections.

    The collector stays on while a contender runs: what it allocates is part of what it costs.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
