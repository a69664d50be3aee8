"""Throughput, run time and waiting time over a window of time, from the counters that finishing a job keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gravito.errors import HorizonError
from gravito.horizon._figures import Figures, figures_of, numbers_of, shifted, total_of
from gravito.horizon._periods import Counted, Reader, Span, jobs_of, row_of

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["Metrics", "Point", "Statistics", "Window", "by_queue", "hour_of", "last_minute", "metrics_of"]

Window = Literal["1h", "24h", "7d"]

_MINUTE: Final = 60_000  # ms
_HOURS: Final = {"24h": 24, "7d": 168}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a window: `figures` of the time from `at` on."""

    at: datetime
    figures: Figures


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the counters say about a window of time.

    Args:
        window: 1h in steps of a minute, 24h and 7d in steps of an hour; the last step is the present one, so far.
        step: seconds of a step.
        points: the steps, the oldest first.
        total: of all steps.
        jobs: the same by the job's name.
    """

    window: Window
    step: int
    points: tuple[Point, ...]
    total: Figures
    jobs: dict[str, Figures]


class Statistics:
    """Reads the counters of queues.

    Args:
        horizon: whose queues.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._reader = Reader()

    def __repr__(self) -> str:
        return f"<Statistics of {self._horizon!r}>"

    async def span(self, window: Window) -> Span:
        """The minutes or hours of a window that ends now.

        Raises:
            HorizonError: there is no such window.
        """
        if window != "1h" and window not in _HOURS:
            raise HorizonError(f"{window!r} is no window; allowed: 1h, 24h, 7d")
        return _span(window, await self._minute())

    async def _minute(self) -> int:
        seconds, _ = await self._horizon.client.time()
        return int(seconds) // 60

    async def counted(
        self, span: Span, queues: Sequence[str], job: str | None = None, *, by_job: bool = False
    ) -> list[Counted]:
        """What was counted of each of some queues; see `Reader`."""
        return [one for [one] in await self._counted([span], queues, job, by_job)]

    async def _counted(
        self, spans: Sequence[Span], queues: Sequence[str], job: str | None = None, by_job: bool = False
    ) -> list[list[Counted]]:
        brokers = [self._horizon.broker(name) for name in queues]
        return await asyncio.gather(
            *[self._reader.read(broker, spans, job=job, by_job=by_job) for broker in brokers]
        )

    async def metrics(
        self, window: Window, queues: Sequence[str], job: str | None = None, *, by_job: bool = True
    ) -> Metrics:
        """The figures of some queues together; without those by job, if nobody looks at them."""
        span = await self.span(window)
        parts = await self.counted(span, queues, job, by_job=by_job)
        return metrics_of(window, span, parts, by_job=by_job)

    async def each(self, window: Window, queues: Sequence[str]) -> tuple[Metrics, dict[str, Figures]]:
        """The figures of some queues together, and of each of them."""
        span = await self.span(window)
        parts = await self.counted(span, queues, by_job=True)
        return metrics_of(window, span, parts, by_job=True), by_queue(span, queues, parts)

    async def all(self, queues: Sequence[str]) -> tuple[dict[Window, Metrics], dict[str, Figures]]:
        """The metrics of every window, without those by job, and the figures of the last minute that is over, by queue."""
        minute = await self._minute()
        hour, day, week = _span("1h", minute), _span("24h", minute), _span("7d", minute)
        found = await self._counted((hour, week), queues)
        row = row_of([one for _, one in found], week)
        lately, minutes = hour_of(hour, {name: one for name, (one, _) in zip(queues, found, strict=True)})
        days = _metrics("24h", day, shifted(row, day.first - week.first))
        return {"1h": lately, "24h": days, "7d": _metrics("7d", week, row)}, minutes

    async def hour(self, queues: Sequence[str]) -> tuple[Metrics, dict[str, Figures]]:
        """The metrics of 1h without those by job, and the figures of the last minute that is over, by queue."""
        span = await self.span("1h")
        return hour_of(span, dict(zip(queues, await self.counted(span, queues), strict=True)))

    async def totals(self, window: Window, queues: Sequence[str]) -> dict[str, Figures]:
        """The figures of a whole window, by queue."""
        span = await self.span(window)
        return by_queue(span, queues, await self.counted(span, queues))


def _span(window: Window, minute: int) -> Span:
    if window == "1h":
        return Span("minutes", minute - 59, minute)
    return Span("hours", minute // 60 - _HOURS[window] + 1, minute // 60)


def by_queue(span: Span, queues: Iterable[str], parts: Iterable[Counted]) -> dict[str, Figures]:
    """The figures of a whole span, by queue. Pure."""
    return {name: _total(row_of([part], span), span) for name, part in zip(queues, parts, strict=True)}


def hour_of(span: Span, parts: Mapping[str, Counted]) -> tuple[Metrics, dict[str, Figures]]:
    """The metrics of 1h, and the figures of the last minute that is over, by queue. Pure."""
    every = list(parts.values())
    return metrics_of("1h", span, every), by_queue(last_minute(span), parts, every)


def last_minute(span: Span) -> Span:
    """Of a span of minutes, the last one that is over."""
    return Span(span.kind, span.last - 1, span.last - 1)


def _total(row: int, span: Span) -> Figures:
    return figures_of(numbers_of(total_of(row, len(span)))[0])


def metrics_of(window: Window, span: Span, parts: Sequence[Counted], *, by_job: bool = False) -> Metrics:
    """What was counted of some queues, together. Pure.

    Args:
        window: as it is called.
        span: of the window.
        parts: of each queue; see `row_of`.
        by_job: each job's figures, too, for which the parts were read.
    """
    found = jobs_of(parts, span) if by_job else {}
    jobs = {name: figures_of(numbers) for name, numbers in found.items()}
    return _metrics(window, span, row_of(parts, span), jobs)


def _metrics(window: Window, span: Span, row: int, jobs: dict[str, Figures] | None = None) -> Metrics:
    step = 60 if span.kind == "minutes" else 3600
    points = tuple(
        Point(at=datetime.fromtimestamp((span.first + at) * step, UTC), figures=figures_of(numbers))
        for at, numbers in enumerate(numbers_of(row, len(span)))
    )
    return Metrics(window=window, step=step, points=points, total=_total(row, span), jobs=jobs or {})
