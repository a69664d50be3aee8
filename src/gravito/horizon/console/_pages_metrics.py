"""The page of metrics: throughput, run time and waiting time, by queue and by job."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from gravito.horizon._figures import Figures
from gravito.horizon._keys import check_queue
from gravito.horizon.console._site import Ask
from gravito.horizon.console._windows import SPANS, WINDOWS, moments, percentiles, throughput

__all__ = ["metrics"]

_ROWS: Final = 200  # of each table


async def metrics(ask: Ask) -> Response:
    """What was counted, of all jobs, of one queue's, or of one job."""
    window: Any = ask.choice("window", WINDOWS)
    queue = check_queue(ask.text("queue")) if ask.text("queue") else None
    job = ask.text("job") or None
    names = await ask.repository.names()

    if queue is None and job is None:
        shown, queues = await ask.repository.statistics.each(window, names)
    else:
        shown, queues = await ask.repository.metrics(window, queue, job), {}
    jobs = sorted(shown.jobs.items(), key=lambda pair: (-pair[1].runs, pair[0]))
    return ask.render(
        "metrics.html",
        metrics=shown,
        window=window,
        queue=queue or "",
        job=job or "",
        query={"queue": queue, "job": job},
        names=names,
        jobs=jobs[:_ROWS],
        known=sorted({*shown.jobs, *ask.horizon.jobs}),
        more=max(0, len(jobs) - _ROWS),
        queues={name: queues[name] for name in names[:_ROWS] if name in queues and queues[name].runs},
        throughput=throughput(shown),
        run=percentiles(shown, "Run time", Figures.run_ms),
        wait=percentiles(shown, "Waiting time", Figures.wait_ms),
        steps=[(moment, point.figures) for moment, point in zip(moments(shown), shown.points, strict=True)],
        span=SPANS[window],
    )
