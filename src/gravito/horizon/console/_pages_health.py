"""Pages of watched tags, alerts, caches and connections."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from gravito.horizon._rows import moment
from gravito.horizon.console._health import read_alert_rows, read_cache, read_connections
from gravito.horizon.console._overview import fingerprint
from gravito.horizon.console._server import read_server
from gravito.horizon.console._site import Ask

__all__ = ["alerts", "connections", "monitoring"]

STATES = ("running", "ready", "delayed", "parked", "done", "dead")


async def monitoring(ask: Ask) -> Response:
    """Tags that are watched."""
    return ask.render("monitoring.html", page=await ask.repository.tags(), states=STATES)


async def alerts(ask: Ask) -> Response:
    """Rules, and which of them have something to say."""
    rows = await read_alert_rows(ask.site)
    return ask.render(
        "alerts.html",
        rows=rows,
        moment=moment,
        live=ask.visit.url("/live/alerts"),
        shape=alerts_shape([(row.name, row.firing) for row in rows]),
    )


def alerts_shape(rows: list[tuple[str, str | None]]) -> str:
    """Another text when an alert begins, ends or says something else."""
    return fingerprint(rows)


async def connections(ask: Ask) -> Response:
    """The cache's counters, this process's connections and the server's commands."""
    prefix = ask.text("prefix", "cache")
    cache, found, server = await asyncio.gather(
        read_cache(ask.site, prefix), read_connections(ask.site), read_server(ask.horizon.client)
    )
    return ask.render("connections.html", cache=cache, found=found, server=server)
