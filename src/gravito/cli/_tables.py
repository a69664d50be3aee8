"""How the terminal shows jobs, queues and workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.table import Table

from gravito.cli._output import table
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon._rows import JobRow
from gravito.horizon.repository import QueueRow

__all__ = ["ago", "jobs_table", "megabytes", "queues_table", "span", "workers_table"]


def queues_table(queues: Iterable[QueueRow]) -> Table:
    """One line for each queue."""
    numbers = ("ready", "delayed", "running", "parked", "dead", "done", "oldest", "workers")
    return table(
        *("queue", *numbers, ""),
        rows=[
            (
                row.name,
                row.ready,
                row.sizes.delayed,
                row.sizes.running,
                row.sizes.parked,
                row.sizes.dead,
                row.sizes.totals.get("ok", 0),
                span(row.oldest),
                row.workers,
                "paused" if row.sizes.paused else "",
            )
            for row in queues
        ],
        right=numbers,
    )


def jobs_table(jobs: Iterable[JobRow]) -> Table:
    """One line for each job."""
    return table(
        *("id", "job", "queue", "state", "attempt", "when", "error"),
        rows=[
            (
                job.id,
                job.name,
                job.queue,
                job.state,
                job.attempt,
                ago(job.ended or job.due or job.pushed),
                _short(f"{job.error_type or ''}: {job.error}" if job.error else ""),
            )
            for job in jobs
        ],
        right=("attempt",),
    )


def workers_table(workers: Iterable[WorkerRecord], now_ms: int) -> Table:
    """One line for each worker process."""
    numbers = ("running", "done", "failed", "cpu %", "MiB", "up")
    return table(
        *("worker", "queues", "state", *numbers),
        rows=[
            (
                worker.id,
                ", ".join(worker.queues),
                worker.state,
                f"{worker.running}/{worker.concurrency}",
                worker.tally.get("done", 0),
                worker.tally.get("dead", 0) + worker.tally.get("retried", 0),
                f"{worker.cpu:.0f}",
                megabytes(worker.memory),
                span((now_ms - worker.started) / 1000),
            )
            for worker in workers
        ],
        right=numbers,
    )


def span(seconds: float | None) -> str:
    """A time in the unit that fits: 0.2 s, 45 s, 12 min, 3 h, 2 d."""
    if seconds is None:
        return ""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600)):
        if abs(seconds) < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if abs(value) < 10 and unit == "s" else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def ago(at: datetime | None) -> str:
    """How long ago, or in how long."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def megabytes(size: int) -> str:
    """Bytes as MiB."""
    return f"{size / 1048576:.0f}"


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
