"""What live pages hear: a source for each kind of page, at `GET /live/<name>`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gravito.horizon.console._health import read_alert_rows
from gravito.horizon.console._live import EVENTS, Values
from gravito.horizon.console._overview import (
    overview_values,
    queue_shape,
    queue_values,
    read_overview,
    read_rate,
    worker_values,
)
from gravito.horizon.console._pages_batches import batch_values
from gravito.horizon.console._pages_health import alerts_shape
from gravito.horizon.console._pages_jobs import running_values
from gravito.horizon.console._site import Ask, NotFoundError, Site

__all__ = ["SOURCES", "live_route", "source"]

Source = Callable[[Site, str], Awaitable[Values]]
SOURCES: Final[dict[str, Source]] = {}  # by name
_PACES: Final[dict[str, int]] = {}  # likewise: seconds between two samples, if the console's own are one


def source(name: str, every: int = 1) -> Callable[[Source], Source]:
    """Decorator: a source of this name. It gets the parameter `of` of the address as its second argument.

    Args:
        name: below /live/.
        every: seconds between two samples.
    """

    def enter(function: Source) -> Source:
        assert name not in SOURCES
        SOURCES[name], _PACES[name] = function, every
        return function

    return enter


def live_route(site: Site) -> Route:
    """Server-sent events."""

    async def endpoint(request: Request) -> Response:
        ask = Ask(site, request)
        name, of = ask.place("name"), ask.text("of")
        found = SOURCES.get(name)
        if found is None:
            raise NotFoundError(f"there are no live values {name!r}")
        if request.method == "HEAD":  # nobody watches
            return Response(media_type=EVENTS)
        response = site.live.response(f"{name}?{of}", lambda: found(site, of), _PACES[name])
        return response or JSONResponse({"error": "too many open pages"}, 503, {"retry-after": "10"})

    return Route("/live/{name}", endpoint, name="live")


@source("overview")
async def overview(site: Site, of: str) -> Values:
    """All queues, the workers' number, the last hour and the server."""
    return overview_values(await read_overview(site, live=True))


@source("queue", every=2)
async def queue(site: Site, of: str) -> Values:
    """One queue; `of` is its name."""
    workers = await site.lately("workers", 2.0, site.repository.workers)
    row = await site.repository.queue(of, workers)
    rate = await read_rate(site, of, live=True)
    return {"shape": queue_shape(site, row), **queue_values(row, workers, rate)}


@source("workers", every=2)
async def workers(site: Site, of: str) -> Values:
    """All workers."""
    records = await site.lately("workers", 2.0, site.repository.workers)
    return worker_values(records, site.horizon.broker("default").now_ms())


@source("running", every=2)
async def running(site: Site, of: str) -> Values:
    """What the workers run."""
    return await running_values(site, await site.lately("workers", 2.0, site.repository.workers))


@source("batch", every=2)
async def batch(site: Site, of: str) -> Values:
    """One batch; `of` is its id."""
    return batch_values(await site.repository.batch(of))


@source("alerts", every=2)
async def alerts(site: Site, of: str) -> Values:
    """Which alerts fire."""
    return {"shape": alerts_shape([(row.name, row.firing) for row in await read_alert_rows(site)])}
