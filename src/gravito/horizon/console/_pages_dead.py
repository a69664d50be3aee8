"""Pages of dead letters and schedules."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response

from gravito.horizon._keys import check_queue
from gravito.horizon.console._site import Ask

__all__ = ["dead", "schedules"]

SIZE: Final = 100  # groups of a page


async def dead(ask: Ask) -> Response:
    """Dead jobs by what they died of."""
    queue = check_queue(ask.text("queue")) if ask.text("queue") else None
    groups, names, total = await asyncio.gather(
        ask.repository.dead_groups(queue), ask.repository.names(), ask.repository.count("dead", queue)
    )
    offset = ask.number("offset")
    return ask.render(
        "dead.html",
        groups=groups[offset : offset + SIZE],
        all_groups=len(groups),
        total=total,
        queue=queue or "",
        queues=names,
        offset=offset,
        size=SIZE,
    )


async def schedules(ask: Ask) -> Response:
    """What fires by itself."""
    return ask.render("schedules.html", rows=await ask.repository.schedules())
