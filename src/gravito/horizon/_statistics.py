"""Throughput, run time and waiting time over a window of time, from the counters that finishing a job keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gravito.errors import HorizonError
from gravito.horizon._figures import Figures, figures_of, numbers_of, total_of
from gravito.horizon._periods import Counted, Span, read_counted

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["Metrics", "Point", "Statistics", "Window", "metrics_of"]

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

    def __repr__(self) -> str:
        return f"<Statistics of {self._horizon!r}>"

    async def span(self, window: Window) -> Span:
        """The minutes or hours of a window that ends now.

        Raises:
            HorizonError: there is no such window.
        """
        if window != "1h" and window not in _HOURS:
            raise HorizonError(f"{window!r} is no window; allowed: 1h, 24h, 7d")
        seconds, _ = await self._horizon.client.time()
        minute = int(seconds) // 60
        if window == "1h":
            return Span("minutes", minute - 59, minute)
        return Span("hours", minute // 60 - _HOURS[window] + 1, minute // 60)

    async def counted(
        self, span: Span, queues: Sequence[str], job: str | None = None, *, by_job: bool = False
    ) -> list[Counted]:
        """What was counted of each of some queues; see `read_counted`."""
        brokers = [self._horizon.broker(name) for name in queues]
        return await asyncio.gather(
            *[read_counted(broker, span, job=job, by_job=by_job) for broker in brokers]
        )

    async def metrics(
        self, window: Window, queues: Sequence[str], job: str | None = None, *, by_job: bool = True
    ) -> Metrics:
        """The figures of some queues together; without those by job, if nobody looks at them."""
        span = await self.span(window)
        return metrics_of(window, span, await self.counted(span, queues, job, by_job=by_job))

    async def totals(self, window: Window, queues: Sequence[str]) -> dict[str, Figures]:
        """The figures of a whole window, by queue."""
        span = await self.span(window)
        parts = await self.counted(span, queues)
        return {name: total_figures(part.row, span) for name, part in zip(queues, parts, strict=True)}

    async def minute(self, queues: Sequence[str]) -> dict[str, Figures]:
        """What ended in the last minute that is over, by queue."""
        now = (await self.span("1h")).last
        span = Span("minutes", now - 1, now - 1)
        return {
            name: total_figures(part.row, span)
            for name, part in zip(queues, await self.counted(span, queues), strict=True)
        }


def total_figures(row: int, span: Span) -> Figures:
    """The figures of a whole row."""
    return figures_of(numbers_of(total_of(row, len(span)))[0])


def metrics_of(window: Window, span: Span, parts: Sequence[Counted]) -> Metrics:
    """What was counted of some queues, together. Pure.

    Args:
        window: as it is called.
        span: of the window.
        parts: of each queue; those that were read earlier count up to then.
    """
    row = sum(part.within(span) for part in parts)
    step = 60 if span.kind == "minutes" else 3600
    points = tuple(
        Point(at=datetime.fromtimestamp((span.first + at) * step, UTC), figures=figures_of(numbers))
        for at, numbers in enumerate(numbers_of(row, len(span)))
    )
    return Metrics(
        window=window,
        step=step,
        points=points,
        total=total_figures(row, span),
        jobs=_jobs([part.jobs for part in parts]),
    )


def _jobs(parts: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Figures]:
    sums: dict[str, list[Sequence[int]]] = {}
    for part in parts:
        for name, numbers in part.items():
            sums.setdefault(name, []).append(numbers)
    return {
        name: figures_of([sum(column) for column in zip(*several, strict=True)])
        for name, several in sorted(sums.items())
    }
