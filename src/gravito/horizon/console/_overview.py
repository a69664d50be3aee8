"""What the first pages show: all queues, all workers and the server, as values that the page and its live update share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gravito.horizon._figures import Figures
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon.console import _charts
from gravito.horizon.console._format import NONE, count, duration, ms, percent, rate, size
from gravito.horizon.console._live import Values
from gravito.horizon.console._server import Server, read_server
from gravito.horizon.console._site import Site
from gravito.horizon.repository import Metrics, QueueRow

__all__ = [
    "SHOWN",
    "Overview",
    "fingerprint",
    "load",
    "overview_values",
    "process_values",
    "queue_shape",
    "queue_values",
    "read_overview",
    "read_rate",
    "worker_shape",
    "worker_values",
]

# Seconds for which live pages show the same: workers say something every two seconds, an hour and the server move slowly.
_ROWS: Final = 0.9
_WORKERS: Final = 2.0
_HOUR: Final = 5.0
_SERVER: Final = 10.0
_RATES: Final = 15.0
SHOWN: Final = 8  # workers on the overview
_TOTALS: Final = ("pushed", "ok", "retry", "dead", "cancelled", "crashed")


class Overview(msgspec.Struct, frozen=True):
    """All of it at one moment."""

    queues: Sequence[QueueRow]
    workers: Sequence[WorkerRecord]
    hour: Metrics
    server: Server
    rates: Mapping[str, Figures]  # of the last minute, by queue

    @property
    def shape(self) -> str:
        """Another text if there is a row more or less, or the charts have another minute: the page is read anew."""
        minute = self.hour.points[-1].at
        queues = [(row.name, row.sizes.paused) for row in self.queues]
        return fingerprint(
            [minute, *queues, [(worker.id, worker.state) for worker in self.workers], self.server.warnings]
        )


def fingerprint(parts: Iterable[Any]) -> str:
    """A short text that differs when the parts do."""
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:12]


async def read_overview(
    site: Site, *, live: bool = False, counted: tuple[Metrics, Mapping[str, Figures]] | None = None
) -> Overview:
    """Ask the repository.

    Args:
        site: the console.
        live: for those who ask again and again: what moves slowly is asked for less often, many queues in turns.
        counted: the last hour, and each queue's last minute, of who has them already.
    """
    workers, server = await asyncio.gather(
        site.lately("workers", live * _WORKERS, site.repository.workers),
        site.lately("server", live * _SERVER, lambda: read_server(site.horizon.client)),
    )
    if live:
        rows = await site.lately("rows", _ROWS, lambda: site.rotation.look(workers, server.commands))
        hour, rates = await site.lately("hour", _HOUR, site.rotation.hour)
        return Overview(rows, workers, hour, server, rates)
    names = await site.repository.names()
    rows = await site.repository.queues(workers, names)
    if counted is None:
        counted = await site.repository.statistics.hour(names)
    return Overview(rows, workers, counted[0], server, counted[1])


async def read_rate(site: Site, name: str, *, live: bool = False) -> Figures:
    """What ended in the last minute in one queue."""

    async def read() -> Figures:
        return (await site.repository.last_minute([name]))[name]

    return await site.lately(f"rate of {name}", live * _RATES, read)


def queue_shape(site: Site, row: QueueRow) -> str:
    """Another text when the queue is paused or goes on, and each minute: charts and tables are read anew."""
    return f"{row.sizes.paused} {site.horizon.broker(row.name).now_ms() // 60_000}"


def load(row: QueueRow, workers: Sequence[WorkerRecord]) -> float | None:
    """The share of the places for running jobs that are taken by this queue's; None without workers."""
    places = sum(worker.concurrency for worker in workers if row.name in worker.queues)
    return min(1.0, row.sizes.running / places) if places else None


def overview_values(seen: Overview) -> dict[str, str]:
    """All values of the overview by their key."""
    rows, hour = seen.queues, seen.hour
    lately = hour.points[-2].figures  # the last minute that is over
    values = {
        "shape": seen.shape,
        "all.ready": count(sum(row.ready for row in rows)),
        "all.delayed": count(sum(row.sizes.delayed for row in rows)),
        "all.running": count(sum(row.sizes.running for row in rows)),
        "all.parked": count(sum(row.sizes.parked for row in rows)),
        "all.dead": count(sum(row.sizes.dead for row in rows)),
        "all.oldest": duration(max([row.oldest for row in rows if row.oldest is not None], default=None)),
        "all.workers": count(len(seen.workers)),
        "minute.ok": rate(lately.ok / 60),
        "minute.failed": count(lately.retried + lately.dead),
        "minute.wait": ms(lately.wait_ms(0.95)),
        "minute.run": ms(lately.run_ms(0.95)),
        "hour.ok": count(hour.total.ok),
        "hour.failures": percent(hour.total.failures),
        "hour.wait": ms(hour.total.wait_ms(0.95)),
        "hour.run": ms(hour.total.run_ms(0.95)),
        "hour.line": _charts.spark_path([float(point.figures.ended) for point in hour.points[:-1]]),
        "server.memory": size(seen.server.memory),
        "server.commands": count(seen.server.commands),
        "server.clients": count(seen.server.clients),
    }
    for name in _TOTALS:
        values[f"total.{name}"] = count(sum(row.sizes.totals.get(name, 0) for row in rows))
    for row in rows:
        values.update(queue_values(row, seen.workers, seen.rates.get(row.name)))
    for worker in seen.workers[:SHOWN]:
        values.update(process_values(worker))
    return values


def queue_values(
    row: QueueRow, workers: Sequence[WorkerRecord], lately: Figures | None = None
) -> dict[str, str]:
    """The values of one queue.

    Args:
        row: as it is now.
        workers: all of them.
        lately: what ended in the last minute, if that is known.
    """
    sizes, share = row.sizes, load(row, workers)
    key = f"q.{row.name}"
    values = {
        f"{key}.ready": count(row.ready),
        f"{key}.delayed": count(sizes.delayed),
        f"{key}.running": count(sizes.running),
        f"{key}.parked": count(sizes.parked),
        f"{key}.done": count(sizes.done),
        f"{key}.dead": count(sizes.dead),
        f"{key}.oldest": duration(row.oldest),
        f"{key}.workers": count(row.workers),
        f"{key}.rate": NONE if lately is None else rate(lately.ok / 60),
        f"{key}.failed": NONE if lately is None else count(lately.retried + lately.dead),
        f"{key}.load": NONE if share is None else percent(share),
        f"{key}.bar": f"{100 * (share or 0):.1f}",
        f"{key}.fair": count(sizes.fair),
    }
    for line, number in enumerate(sizes.ready):
        values[f"{key}.ready{line}"] = count(number)
    for name in _TOTALS:
        values[f"{key}.total.{name}"] = count(sizes.totals.get(name, 0))
    return values


def worker_values(workers: Sequence[WorkerRecord], now_ms: int) -> Values:
    """The values of all workers."""
    values = {"shape": worker_shape(workers), "all.workers": count(len(workers))}
    for worker in workers:
        key = f"w.{worker.id}"
        values.update(process_values(worker))
        values[f"{key}.waiting"] = count(worker.waiting)
        values[f"{key}.done"] = count(worker.tally.get("done", 0))
        values[f"{key}.bar"] = f"{100 * min(1.0, worker.running / worker.concurrency):.1f}"
        values[f"{key}.up"] = duration((now_ms - worker.started) / 1000)
        for job in worker.jobs[:20]:
            values[f"{key}.job.{job.id}"] = duration(max(0, now_ms - job.since) / 1000)
    return values


def worker_shape(workers: Sequence[WorkerRecord]) -> str:
    """Another text if a worker or a job has come or gone."""
    return fingerprint((worker.id, worker.state, [job.id for job in worker.jobs]) for worker in workers)


def process_values(worker: WorkerRecord) -> dict[str, str]:
    """What every list of workers says of one."""
    key = f"w.{worker.id}"
    return {
        f"{key}.running": count(worker.running),
        f"{key}.cpu": f"{worker.cpu:.0f} %",
        f"{key}.memory": size(worker.memory),
    }
