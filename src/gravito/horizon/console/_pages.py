"""The pages: overview, queues, one queue, workers; and the list of all pages, which is the menu too.

How to write a further page
---------------------------
1. A function in `_pages_<what>.py`: `async def jobs(ask: Ask) -> Response`. It reads from `ask.repository` only (what is
   missing there is added there), takes parameters by `ask.text("q")`, `ask.choice("window", ("1h", "24h"))`,
   `ask.number("offset")` and `ask.place("queue")` (a `{queue}` of its path), and ends with
   `return ask.render("jobs.html", jobs=..., ...)`. Nothing found: `raise NotFoundError("there is no job ...")`. Errors of
   the server need no care: they become a page of their own.
2. An entry in `PAGES` below: path, name, function, and a title if it belongs into the menu.
3. A template that begins with `{% extends "base.html" %}`, imports `{% import "parts.html" as ui with context %}`, sets
   `{% set active = "jobs" %}` (the name of the page that is lit in the menu), and fills the blocks `title`, `actions`
   (buttons right of the heading) and `content`. It knows `url(path, name=value)` for every address (never write one by
   hand: the console may be mounted anywhere), `asset`, `charts` (`_charts.py`), `visit`, `site`, and the filters of
   `_format.py`: `count rate percent duration ms size when short data`.
   From `parts.html`: `ui.tile(label, value, key=..., hint=...)`, `ui.button(action, label, fields, kind=...)` (a form
   with one button that POSTs to an action), `ui.badge(state)`, `ui.empty(text)`, `ui.pager(offset, limit, total, query)`,
   `ui.windows(current, ...)`, `ui.hidden()` (the CSRF token, for a form of your own with `method="post"`).
   Classes worth knowing: `grid tiles`, `card`, `table-wrap` around each `<table>`, `num` (cells of figures), `mono`,
   `muted`, `row-actions`, `form-line` (filters in one line), `code` (a `<pre>`), `timeline`.
4. No `style=`, no `onclick=`, no `<style>`, no script of the page's own, no `|safe`: the policy lets nothing in, and a
   test walks all pages. Sizes are attributes of SVG (see `charts.bar`, `charts.stack`), behaviour is an attribute that
   `console.js` knows: `data-confirm`, `data-select-all`, `data-copy`, `data-submit`, `data-key`.
5. Live values: a function in `_live_pages.py` with `@source("jobs")` gives a flat dict, key -> text; the page passes
   `live=ask.visit.url("/live/jobs", of=...)` and has elements with `data-key="..."`. By `data-to="d"` (or "width") the
   value goes to that attribute instead of the text. A key `shape` that differs from the page's `shape=` makes the script
   read the page anew and replace its content. Write the value with the same function of `_format.py` on both sides.
   An open page that reads itself anew has `ask.again`: then take what was read lately, by `ask.site.lately(key, seconds,
   read)`, since a hundred pages may do so at once.
6. A change is a function in `_actions*.py` with `@action("job.something")`; see there.
7. The test `tests/horizon/console/test_walk.py` visits whatever is in `PAGES`; give it a sample for new parameters.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response

from gravito.horizon.console._overview import (
    SHOWN,
    load,
    overview_values,
    queue_shape,
    queue_values,
    read_overview,
    read_rate,
    worker_shape,
    worker_values,
)
from gravito.horizon.console._pages_batches import batch, batches, chain
from gravito.horizon.console._pages_dead import dead, schedules
from gravito.horizon.console._pages_health import alerts, connections, monitoring
from gravito.horizon.console._pages_jobs import job, jobs, running
from gravito.horizon.console._pages_metrics import metrics as metrics_page
from gravito.horizon.console._site import Ask, NotFoundError, Page
from gravito.horizon.console._windows import SPANS, WINDOWS, throughput

__all__ = ["PAGES"]

_AGAIN: Final = (
    20.0  # seconds for which what moves slowly is taken as it was, by pages that read themselves anew
)
WORKERS: Final = 25  # of a page
PRIORITIES: Final = ("critical", "high", "default", "low")


async def overview(ask: Ask) -> Response:
    """Everything at a glance."""
    window = ask.choice("window", WINDOWS)
    names = await ask.repository.names()
    windows, rates = await ask.site.lately(
        "windows", 60.0 * ask.again, lambda: ask.repository.statistics.all(names)
    )
    seen = await read_overview(ask.site, live=ask.again, counted=(windows["1h"], rates))
    windows = {**windows, "1h": seen.hour}
    return ask.render(
        "overview.html",
        seen=seen,
        value=overview_values(seen),
        windows=windows,
        window=window,
        chart=throughput(windows[window]),  # type: ignore[index]  # one of WINDOWS
        load={row.name: load(row, seen.workers) for row in seen.queues},
        spans=SPANS,
        shown=SHOWN,
        live=ask.visit.url("/live/overview"),
        shape=seen.shape,
    )


async def queues(ask: Ask) -> Response:
    """All queues, by state and priority."""
    seen = await read_overview(ask.site, live=ask.again)
    return ask.render(
        "queues.html",
        seen=seen,
        value=overview_values(seen),
        priorities=PRIORITIES,
        live=ask.visit.url("/live/overview"),
        shape=seen.shape,
    )


async def queue(ask: Ask) -> Response:
    """One queue."""
    name, window = ask.place("queue"), ask.choice("window", WINDOWS)
    if name not in await ask.repository.names():
        raise NotFoundError(f"There is no queue {name!r}, or it never had a job.")
    site, age = ask.site, _AGAIN * ask.again  # seconds
    workers = await site.lately("workers", min(age, 2.0), ask.repository.workers)
    row, limits, metrics, rates = await asyncio.gather(
        ask.repository.queue(name, workers),
        site.lately(f"limits of {name}", age, lambda: ask.repository.limits(name)),
        site.lately(f"{window} of {name}", age, lambda: ask.repository.metrics(window, name)),  # type: ignore[arg-type]  # one of WINDOWS
        read_rate(site, name, live=ask.again),
    )
    return ask.render(
        "queue.html",
        row=row,
        workers=[worker for worker in workers if name in worker.queues],
        limits=limits,
        metrics=metrics,
        window=window,
        chart=throughput(metrics),
        value=queue_values(row, workers, rates),
        load=load(row, workers),
        priorities=PRIORITIES,
        spans=SPANS,
        live=ask.visit.url("/live/queue", of=name),
        shape=queue_shape(site, row),
    )


async def workers(ask: Ask) -> Response:
    """All worker processes, and what they do."""
    records = await ask.site.lately("workers", 2.0 * ask.again, ask.repository.workers)
    offset = ask.number("offset")
    shown = records[offset : offset + WORKERS]
    return ask.render(
        "workers.html",
        workers=shown,
        total=len(records),
        offset=offset,
        size=WORKERS,
        value=worker_values(shown, ask.horizon.broker("default").now_ms()),
        live=ask.visit.url("/live/workers"),
        shape=worker_shape(records),
    )


PAGES: Final = [
    Page("/", "overview", overview, "Overview"),
    Page("/queues", "queues", queues, "Queues"),
    Page("/queues/{queue}", "queue", queue),
    Page("/jobs", "jobs", jobs, "Jobs"),
    Page("/jobs/{queue}/{id}", "job", job),
    Page("/running", "running", running),
    Page("/dead", "dead", dead, "Dead letters"),
    Page("/batches", "batches", batches, "Batches and chains"),
    Page("/batches/{batch}", "batch", batch),
    Page("/chains/{chain}", "chain", chain),
    Page("/workers", "workers", workers, "Workers"),
    Page("/statistics", "metrics", metrics_page, "Metrics"),
    Page("/schedules", "schedules", schedules, "Schedules"),
    Page("/monitoring", "monitoring", monitoring, "Monitoring"),
    Page("/alerts", "alerts", alerts, "Alerts"),
    Page("/connections", "connections", connections, "Cache and connections"),
]
