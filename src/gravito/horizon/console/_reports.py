"""What the JSON API says of figures: what the counters have, and what the pages make of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from gravito.horizon._counters import BUCKETS
from gravito.horizon._figures import Figures
from gravito.horizon.repository import Metrics, QueueRow, Window

__all__ = ["MetricsReport", "QueueReport", "report_metrics", "report_queue"]


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Times in ms that 50, 95 and 99 of 100 runs did not exceed; None without runs."""

    p50: float | None
    p95: float | None
    p99: float | None


class FiguresReport(Figures, frozen=True, kw_only=True):
    """Runs that ended in a stretch of time; `run` and `wait` have counts by bucket of `buckets_ms`.

    Args:
        run_percentiles: how long the runs took.
        wait_percentiles: how long after they were due they began.
    """

    run_percentiles: Percentiles
    wait_percentiles: Percentiles


class PointReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a window: `figures` of the time from `at` on."""

    at: datetime
    figures: FiguresReport


class MetricsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the counters say about a window of time.

    Args:
        window: 1h in steps of a minute, 24h and 7d in steps of an hour; the last step is the present one, so far.
        step: seconds of a step.
        buckets_ms: the longest time of each bucket of the histograms, by its number; one more bucket has no bound.
        points: the steps, the oldest first.
        total: of all steps.
        jobs: the same by the job's name.
    """

    window: Window
    step: int
    buckets_ms: tuple[float, ...]
    points: list[PointReport]
    total: FiguresReport
    jobs: dict[str, FiguresReport]


class QueueReport(QueueRow, frozen=True, kw_only=True):
    """A queue now, and what ended in it in the last minute that is over."""

    last_minute: FiguresReport


def report_metrics(metrics: Metrics) -> MetricsReport:
    """The metrics with what can be read off them."""
    return MetricsReport(
        window=metrics.window,
        step=metrics.step,
        buckets_ms=BUCKETS,
        points=[PointReport(at=point.at, figures=report_figures(point.figures)) for point in metrics.points],
        total=report_figures(metrics.total),
        jobs={name: report_figures(figures) for name, figures in metrics.jobs.items()},
    )


def report_queue(row: QueueRow, lately: Figures) -> QueueReport:
    """A queue with its last minute."""
    return QueueReport(**msgspec.structs.asdict(row), last_minute=report_figures(lately))


def report_figures(figures: Figures) -> FiguresReport:
    """The figures with their percentiles."""
    return FiguresReport(
        **msgspec.structs.asdict(figures),
        run_percentiles=_percentiles(figures.run_ms),
        wait_percentiles=_percentiles(figures.wait_ms),
    )


def _percentiles(read: Callable[[float], float | None]) -> Percentiles:
    return Percentiles(p50=read(0.5), p95=read(0.95), p99=read(0.99))
