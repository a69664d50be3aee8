"""Figures of all queues for Prometheus, read when it asks. https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from gravito.horizon._figures import Figures
from gravito.horizon.repository import QueueRow, Repository

__all__ = ["exposition"]

_QUANTILES = (0.5, 0.95, 0.99)


class _Once(Collector):
    """Gives what was read for this one question."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def __repr__(self) -> str:
        return f"<_Once {len(self._families)}>"

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry lives as long as the question."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return self._families


async def exposition(repository: Repository, accept: str) -> tuple[bytes, str]:
    """The figures as text, and its media type.

    Args:
        repository: what is read.
        accept: the header of that name; decides the format.
    """
    names, workers = await asyncio.gather(repository.names(), repository.workers())
    rows, hours = await asyncio.gather(repository.queues(workers, names), repository.totals_of("1h", names))
    registry = CollectorRegistry()
    registry.register(_Once(families(rows, hours, len(workers))))
    encoder, kind = choose_encoder(accept)
    return encoder(registry), kind


def families(rows: Sequence[QueueRow], hours: Mapping[str, Figures], workers: int) -> list[Metric]:
    """What was read, as Prometheus has it. Pure."""
    jobs = GaugeMetricFamily("gravito_horizon_jobs", "Jobs by state.", labels=("queue", "state"))
    ended = CounterMetricFamily(
        "gravito_horizon_events", "What happened to jobs since the first one.", labels=("queue", "event")
    )
    oldest = GaugeMetricFamily(
        "gravito_horizon_oldest_seconds", "Age of the ready job that waits longest.", labels=("queue",)
    )
    paused = GaugeMetricFamily("gravito_horizon_paused", "Whether the queue is paused.", labels=("queue",))
    serving = GaugeMetricFamily(
        "gravito_horizon_queue_workers", "Processes that serve it.", labels=("queue",)
    )
    labels = ("queue", "quantile")
    run = GaugeMetricFamily("gravito_horizon_run_seconds", "Run time in the last hour.", labels=labels)
    wait = GaugeMetricFamily("gravito_horizon_wait_seconds", "Waiting time in the last hour.", labels=labels)
    for row in rows:
        sizes, hour = row.sizes, hours[row.name]
        states = {name: getattr(sizes, name) for name in ("delayed", "running", "parked", "done", "dead")}
        for state, number in {"ready": row.ready, **states}.items():
            jobs.add_metric((row.name, state), number)
        for event, number in sorted(sizes.totals.items()):
            ended.add_metric((row.name, event), number)
        oldest.add_metric((row.name,), row.oldest or 0.0)
        paused.add_metric((row.name,), float(sizes.paused))
        serving.add_metric((row.name,), row.workers)
        for share in _QUANTILES:
            for family, value in ((run, hour.run_ms(share)), (wait, hour.wait_ms(share))):
                if value is not None:
                    family.add_metric((row.name, str(share)), value / 1000)
    alive = GaugeMetricFamily("gravito_horizon_workers", "Worker processes.", value=workers)
    return [jobs, ended, oldest, paused, serving, run, wait, alive]
