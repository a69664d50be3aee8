"""Counters of a cache, by key template; told to the server now and then, so that terminals see all processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import msgspec

__all__ = ["FIELDS", "CacheStats", "Counts", "Tallies", "by_template"]

MOST_TEMPLATES: Final = (
    256  # further ones are counted together: keys without a pattern must not fill the memory
)
OTHERS: Final = "(others)"
FIELDS: Final = (
    "hits",
    "misses",
    "stales",
    "writes",
    "forgets",
    "flushes",
    "errors",
    "runs",
    "run_ms",
)

Report = Callable[[Mapping[str, int]], Awaitable[Any]]


class Counts(msgspec.Struct):
    """Counters of one template."""

    hits: int = 0  # values given from the store, stale ones included
    misses: int = 0
    stales: int = 0  # hits that were past their fresh time
    writes: int = 0
    forgets: int = 0
    flushes: int = 0
    errors: int = 0
    runs: int = 0  # of factories
    run_ms: int = 0  # that these took together


class CacheStats(Counts, kw_only=True):
    """What this process has counted: all together, and each template by itself."""

    store: str  # its name
    breaker_open: bool  # the store is taken for down
    templates: dict[str, Counts]

    @property
    def hit_rate(self) -> float:
        """Hits in all reads, 0 to 1; 0 without reads."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0


class Tallies:
    """A `Counts` for each template: what a decorator names, else the part of the key in front of the first colon."""

    def __init__(self, interval: float = 5.0) -> None:
        self._interval = interval  # seconds between two reports
        self._counts: dict[str, Counts] = {}
        self._reported: dict[str, Counts] = {}  # what the server knows already
        self._report: Report | None = None  # None: nobody to tell
        self._timer: asyncio.TimerHandle | None = None  # set while there is something to report
        self._loop: asyncio.AbstractEventLoop | None = None  # the timer's
        self._telling: asyncio.Task[None] | None = None
        self.idle = False  # there is somebody to tell, and no report is due: `wake` before counting

    def of(self, key: str) -> Counts:
        """The counters of a key's group."""
        if self.idle:
            self.wake()
        group = key.partition(":")[0]
        return self._counts.get(group) or self.named(group)

    def hit(self, keys: Collection[str]) -> None:
        """Count a hit of each key."""
        if not keys:
            return
        first, last = min(keys), max(keys)
        group, colon, _ = first.partition(":")
        if colon and last.startswith(group + colon):  # and so does everything between the two
            self.of(first).hits += len(keys)
            return
        for group, count in Counter([key.partition(":")[0] for key in keys]).items():
            self.of(group).hits += count

    @staticmethod
    def group(key: str) -> str:
        """What a key without a template is counted with."""
        return key.partition(":")[0]

    def named(self, template: str) -> Counts:
        """The counters of a template."""
        if self.idle:
            self.wake()
        counts = self._counts.get(template)
        if counts is None:
            if len(self._counts) >= MOST_TEMPLATES:
                template = OTHERS
            counts = self._counts.setdefault(template, Counts())
        return counts

    def stats(self, store: str, breaker_open: bool) -> CacheStats:
        """A copy of all counters; without templates of which nothing was counted."""
        nothing, counted = Counts(), self._counts.items()
        templates = {name: msgspec.structs.replace(counts) for name, counts in counted if counts != nothing}
        sums = {field: sum(getattr(each, field) for each in templates.values()) for field in FIELDS}
        return CacheStats(**sums, store=store, breaker_open=breaker_open, templates=templates)

    # -- reports ---------------------------------------------------------------------------------------------

    def tell(self, report: Report) -> None:
        """Report to `report` from now on: it gets what was added to each `template|field` since the last time."""
        self._report = report
        self.idle = self._timer is None

    def wake(self) -> None:
        """Report within the interval; an idle cache reports nothing."""
        self.idle = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._start, self._loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self.idle = True
        self._telling = loop.create_task(self.flush(), name="gravito cache statistics")

    def check(self) -> None:
        """A timer of a loop that was closed will never fire."""
        if self._loop is not None and self._loop.is_closed():
            self._timer = self._loop = None
            self.idle = self._report is not None

    async def flush(self) -> None:
        """Report now. What cannot be delivered is added to the next report."""
        added = self._added()
        if self._report is None or not added:
            return
        before = {name: msgspec.structs.replace(counts) for name, counts in self._counts.items()}
        try:
            await self._report(added)
        except Exception:  # statistics must never fail the work that they are about
            return
        self._reported = before

    def _added(self) -> dict[str, int]:
        nothing = Counts()
        added = {}
        for name, counts in self._counts.items():
            known = self._reported.get(name, nothing)
            for field in FIELDS:
                more = getattr(counts, field) - getattr(known, field)
                if more:
                    added[f"{name}|{field}"] = more
        return added

    def close(self) -> None:
        """No further reports by themselves."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.idle = self._report is not None


def by_template(found: Mapping[Any, Any]) -> dict[str, Counts]:
    """The counters of the server's hash; the busiest template first. What is no counter of ours is left out."""
    templates: dict[str, Counts] = {}
    for name, value in found.items():
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        template, _, field = text.rpartition("|")
        if field in FIELDS:
            setattr(templates.setdefault(template, Counts()), field, int(value))
    return dict(sorted(templates.items(), key=lambda item: (-item[1].hits - item[1].misses, item[0])))
