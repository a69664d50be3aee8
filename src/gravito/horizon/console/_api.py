"""The same data for programs: JSON below /api, described by /api/openapi.json, and the action of every page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gravito.horizon._batches import BatchStatus
from gravito.horizon._chains import ChainStatus
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon._index import State
from gravito.horizon._keys import check_queue
from gravito.horizon._rows import JobDetail
from gravito.horizon._search import JobPage
from gravito.horizon._tags import TagPage
from gravito.horizon._timetable import ScheduleRow
from gravito.horizon.console._actions import ACTIONS, api_action, read_filter
from gravito.horizon.console._fields import FILTER, LIMIT, OFFSET, QUEUE, Parameter, check, whole
from gravito.horizon.console._format import data
from gravito.horizon.console._health import (
    AlertRow,
    CacheReport,
    Connections,
    read_alert_rows,
    read_cache,
    read_connections,
)
from gravito.horizon.console._openapi import Endpoint, describe
from gravito.horizon.console._prometheus import exposition
from gravito.horizon.console._reports import MetricsReport, QueueReport, report_metrics, report_queue
from gravito.horizon.console._server import Server, read_server
from gravito.horizon.console._site import Ask, NotFoundError, Site
from gravito.horizon.console._visit import visit_of
from gravito.horizon.repository import DeadGroup, LimitRow, QueueRow, Window

__all__ = ["ENDPOINTS", "routes"]


class Summary(msgspec.Struct, frozen=True):
    """All queues together.

    Args:
        totals: since the first job: pushed, ok, retry, dead, release, cancelled, crashed.
        queues: each queue now.
        workers: processes.
        server: its own account.
    """

    totals: dict[str, int]
    queues: list[QueueRow]
    workers: int
    server: Server


class BatchPage(msgspec.Struct, frozen=True):
    """Some batches.

    Args:
        total: how many are known.
        batches: the latest first.
    """

    total: int
    batches: list[BatchStatus]


class ChainPage(msgspec.Struct, frozen=True):
    """Some chains.

    Args:
        total: how many are known.
        chains: the latest first.
    """

    total: int
    chains: list[ChainStatus]


async def summary(ask: Ask) -> Summary:
    """All queues, and what was counted since the first job."""
    queues, workers = await ask.repository.queues(), await ask.repository.workers()
    totals: dict[str, int] = {}
    for row in queues:
        for name, number in row.sizes.totals.items():
            totals[name] = totals.get(name, 0) + number
    return Summary(totals, queues, len(workers), await read_server(ask.horizon.client))


async def queues(ask: Ask) -> list[QueueReport]:
    """All queues, and what ended in their last minute."""
    names = await ask.repository.names()
    return await _queues(ask, names)


async def queue(ask: Ask) -> QueueReport:
    """One queue."""
    [row] = await _queues(ask, [await _known(ask)])
    return row


async def _queues(ask: Ask, names: list[str]) -> list[QueueReport]:
    rows, lately = await asyncio.gather(ask.repository.queues(names=names), ask.repository.last_minute(names))
    return [report_queue(row, lately[row.name]) for row in rows]


async def limits(ask: Ask) -> list[LimitRow]:
    """Limits of a queue that are in use."""
    return await ask.repository.limits(await _known(ask))


async def jobs(ask: Ask) -> JobPage:
    """Jobs of one state; with conditions a search, which goes on by its mark."""
    return await ask.repository.jobs(
        cast("State", ask.text("state") or "ready"),
        check_queue(ask.text("queue")) if ask.text("queue") else None,
        offset=ask.number("offset"),
        limit=ask.number("limit", 50, 1, 1000),
        filter=read_filter(ask.text),
        mark=ask.text("mark") or None,
    )


async def job(ask: Ask) -> JobDetail:
    """All that is known of a job."""
    found = await ask.repository.job(ask.place("id"), check_queue(ask.place("queue")))
    if found is None:
        raise NotFoundError(f"There is no job {ask.place('id')!r} in that queue, or no longer.")
    return found


async def dead(ask: Ask) -> list[DeadGroup]:
    """Dead jobs by name and class of error."""
    return await ask.repository.dead_groups(check_queue(ask.text("queue")) if ask.text("queue") else None)


async def batches(ask: Ask) -> BatchPage:
    """Batches, the latest first."""
    return BatchPage(*await ask.repository.batches(ask.number("offset"), ask.number("limit", 50, 1, 1000)))


async def batch(ask: Ask) -> BatchStatus:
    """One batch."""
    return await ask.repository.batch(ask.place("id"))


async def chains(ask: Ask) -> ChainPage:
    """Chains, the latest first, each with its first jobs and its last one."""
    return ChainPage(*await ask.repository.chains(ask.number("offset"), ask.number("limit", 20, 1, 100)))


async def chain(ask: Ask) -> ChainStatus:
    """One chain, with all its jobs."""
    return await ask.repository.chain(ask.place("chain"))


async def tags(ask: Ask) -> TagPage:
    """Watched tags, and which jobs have them among the latest thousand of each state."""
    return await ask.repository.tags()


async def alerts(ask: Ask) -> list[AlertRow]:
    """Alerts, those that fire in front."""
    return await read_alert_rows(ask.site)


async def cache(ask: Ask) -> CacheReport:
    """What a cache's processes have counted together, by template of keys."""
    return await read_cache(ask.site, ask.text("prefix", "cache"))


async def connections(ask: Ask) -> Connections:
    """Connections of the console's process, and the server's most expensive commands."""
    return await read_connections(ask.site)


async def workers(ask: Ask) -> list[WorkerRecord]:
    """Worker processes that said something lately."""
    return await ask.repository.workers(ask.number("offset"), ask.number("limit", 1000, 1, 1000))


async def schedules(ask: Ask) -> list[ScheduleRow]:
    """Schedules, with their next and latest fires."""
    return await ask.repository.schedules()


async def metrics(ask: Ask) -> MetricsReport:
    """Throughput, run time and waiting time over a window."""
    found = await ask.repository.metrics(
        cast("Window", ask.text("window") or "1h"),
        check_queue(ask.text("queue")) if ask.text("queue") else None,
        ask.text("job") or None,
    )
    return report_metrics(found)


_SEARCH: Final = (
    Parameter("state", "Which jobs; ready if it is not given.", State),
    QUEUE,
    OFFSET,
    LIMIT,
    Parameter("mark", "Of the page before, in a search."),
    *FILTER,
)

ENDPOINTS: Final = (
    Endpoint("/api/summary", summary, Summary),
    Endpoint("/api/queues", queues, list[QueueReport]),
    Endpoint("/api/queues/{queue}", queue, QueueReport),
    Endpoint("/api/queues/{queue}/limits", limits, list[LimitRow]),
    Endpoint("/api/jobs", jobs, JobPage, _SEARCH),
    Endpoint("/api/jobs/{queue}/{id}", job, JobDetail),
    Endpoint("/api/dead", dead, list[DeadGroup], (QUEUE,)),
    Endpoint("/api/batches", batches, BatchPage, (OFFSET, LIMIT)),
    Endpoint("/api/batches/{id}", batch, BatchStatus),
    Endpoint(
        "/api/chains",
        chains,
        ChainPage,
        (OFFSET, Parameter("limit", "Entries to give, 1 to 100.", whole(1, 100))),
    ),
    Endpoint("/api/chains/{chain}", chain, ChainStatus),
    Endpoint("/api/tags", tags, TagPage),
    Endpoint("/api/alerts", alerts, list[AlertRow]),
    Endpoint(
        "/api/cache", cache, CacheReport, (Parameter("prefix", "The cache's; cache if it is not given."),)
    ),
    Endpoint("/api/connections", connections, Connections),
    Endpoint("/api/workers", workers, list[WorkerRecord], (OFFSET, LIMIT)),
    Endpoint("/api/schedules", schedules, list[ScheduleRow]),
    Endpoint(
        "/api/metrics",
        metrics,
        MetricsReport,
        (
            Parameter("window", "1h if it is not given.", Window),
            QUEUE,
            Parameter("job", "Of this job alone."),
        ),
    ),
)


def routes(site: Site) -> list[Route]:
    """All of them."""
    description = describe(ENDPOINTS, ACTIONS, site.title)

    async def openapi(request: Request) -> Response:
        servers = [{"url": visit_of(request).root or "/"}]  # each mount has its own
        return Response(_encode({**description, "servers": servers}), media_type="application/json")

    async def act(request: Request) -> Response:
        return await api_action(Ask(site, request))

    async def prometheus(request: Request) -> Response:
        content, kind = await exposition(site.repository, request.headers.get("accept", ""))
        return Response(content, media_type=kind)

    return [
        *[Route(one.path, _reading(site, one), name=f"api_{one.read.__name__}") for one in ENDPOINTS],
        Route("/api/openapi.json", openapi, name="openapi"),
        Route("/api/actions/{name}", act, methods=["POST"], name="api_action"),
        Route("/metrics", prometheus, name="prometheus"),
    ]


def _reading(site: Site, one: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        query = request.query_params
        check([(name, query.getlist(name)) for name in query], one.parameters)
        for parameter in one.parameters:
            parameter.check(query.get(parameter.name, "").strip())
        return Response(_encode(await one.read(Ask(site, request))), media_type="application/json")

    return endpoint


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):  # arguments or a result that have no JSON
        assert isinstance(value, JobDetail)
        plain = (
            None if value.arguments is None else {name: data(one) for name, one in value.arguments.items()}
        )
        return msgspec.json.encode(msgspec.structs.replace(value, arguments=plain, result=data(value.result)))


async def _known(ask: Ask) -> str:
    name = ask.place("queue")
    if name not in await ask.repository.names():
        raise NotFoundError(f"There is no queue {name!r}.")
    return name
