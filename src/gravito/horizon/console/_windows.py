"""Windows of time, and the charts of what was counted in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from markupsafe import Markup

from gravito.horizon._figures import Figures
from gravito.horizon.console import _charts
from gravito.horizon.console._format import NONE, count, ms, rate
from gravito.horizon.repository import Metrics

__all__ = ["SPANS", "WINDOWS", "moments", "percentiles", "throughput"]

WINDOWS: Final = ("1h", "24h", "7d")
SPANS: Final = {"1h": "the last hour", "24h": "the last 24 hours", "7d": "the last 7 days"}
SHARES: Final = ((0.5, "p50", "good"), (0.95, "p95", "main"), (0.99, "p99", "bad"))


def moments(metrics: Metrics) -> list[str]:
    """Names for the places on the time axis, in UTC."""
    pattern = "%a %d %H:%M" if metrics.window == "7d" else "%H:%M"
    return [point.at.strftime(pattern) for point in metrics.points]


def throughput(metrics: Metrics) -> Markup:
    """The chart of jobs that went well and runs that failed, a step each."""
    good = [float(point.figures.ok) for point in metrics.points]
    bad = [float(point.figures.retried + point.figures.dead) for point in metrics.points]
    step = "minute" if metrics.step == 60 else "hour"
    return _charts.timeline(
        [_charts.Series("done", good, "good", area=True), _charts.Series("failed runs", bad, "bad")],
        moments(metrics),
        f"Jobs done and runs failed each {step} of {SPANS[metrics.window]}: "
        f"{count(metrics.total.ok)} done, {count(metrics.total.retried + metrics.total.dead)} failed",
        unit=rate,
    )


def percentiles(metrics: Metrics, what: str, read: Callable[[Figures, float], float | None]) -> Markup:
    """The chart of a time's percentiles; where nothing ran, the lines have gaps.

    Args:
        metrics: the window.
        what: the time, in words.
        read: gives a percentile in ms.
    """
    series = [
        _charts.Series(name, [read(point.figures, share) for point in metrics.points], tone)
        for share, name, tone in SHARES
    ]
    said = ", ".join(f"{name} {ms(read(metrics.total, share)) or NONE}" for share, name, _ in SHARES)
    label = f"{what}, percentiles over {SPANS[metrics.window]}: {said}"
    return _charts.timeline(series, moments(metrics), label, unit=ms)
