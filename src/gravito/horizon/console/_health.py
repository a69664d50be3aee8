"""Caches and connections: what their counters say. What pages and the JSON API share."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gravito.atlas import DB, Client
from gravito.errors import ConfigurationError, GravitoError, HorizonError, ResponseError
from gravito.horizon._watch import read_alerts
from gravito.horizon.console._site import Site
from gravito.stasis._stats import FIELDS, Counts, by_template

__all__ = ["AlertRow", "CacheReport", "CommandRow", "ConnectionRow", "Connections", "TemplateRow"]

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_MOST: Final = 10_000  # counters of a cache; there are some two thousand at most
_COMMANDS: Final = 20


class TemplateRow(Counts, kw_only=True):
    """Counters of a template of keys, of all processes together.

    Args:
        template: its name.
        hit_rate: the share of reads that were hits; None without reads.
        mean_run_ms: how long its values took to make, on average; None if none was made.
    """

    template: str
    hit_rate: float | None = None
    mean_run_ms: float | None = None


class CacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """A cache.

    Args:
        prefix: its keys'.
        total: all templates together.
        templates: the busiest one first.
    """

    prefix: str
    total: TemplateRow
    templates: list[TemplateRow]


class ConnectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A connection of this process.

    Args:
        name: as it is configured; "queues" for the one that the queues are on, if it has no name.
        address: of its server, without credentials.
        stats: counters of its client since it was made.
        ping_ms: how long one command took just now, of the connection that the queues are on.
    """

    name: str
    address: str
    stats: dict[str, float | None]
    ping_ms: float | None = None


class CommandRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a command, of all its clients since it started.

    Args:
        name: the command.
        calls: how often it ran.
        total_ms: time that it took together.
        mean_us: microseconds that one took.
        p99_us: that 99 of 100 did not exceed; None for servers that do not say.
        failed: calls that ended in an error.
    """

    name: str
    calls: int
    total_ms: float
    mean_us: float
    p99_us: float | None = None
    failed: int = 0


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """This process's connections, and the server's commands, the most expensive ones first."""

    connections: list[ConnectionRow]
    commands: list[CommandRow]


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An alert.

    Args:
        name: its name.
        rule: what it watches; empty for one of another application.
        channels: where it is told.
        firing: what is the matter; None: nothing.
        since: epoch ms of its beginning, of one that fires.
        told: epoch ms of the last message about it.
    """

    name: str
    rule: str = ""
    channels: tuple[str, ...] = ()
    firing: str | None = None
    since: int | None = None
    told: int | None = None


async def read_alert_rows(site: Site) -> list[AlertRow]:
    """All alerts, those that fire in front."""
    firing = await read_alerts(site.horizon)
    known = site.horizon.alerts
    rows = []
    for name in {**known, **firing}:
        alert, state = known.get(name), firing.get(name)
        rows.append(
            AlertRow(
                name=name,
                rule="" if alert is None else repr(alert.rule),
                channels=() if alert is None else tuple(repr(channel) for channel in alert.channels),
                firing=None if state is None else state.text,
                since=None if state is None else state.since,
                told=None if state is None else state.told or None,
            )
        )
    return sorted(rows, key=lambda row: (row.firing is None, row.name))


async def read_cache(site: Site, prefix: str) -> CacheReport:
    """A cache's counters, on the server of the queues.

    Args:
        site: the console.
        prefix: the cache's.

    Raises:
        HorizonError: a prefix that no cache has.
    """
    if not _PREFIX.fullmatch(prefix):
        raise HorizonError(
            f"{prefix[:50]!r} is no prefix of a cache; allowed: 1 to 100 of A-Z a-z 0-9 _ . : / -"
        )
    client: Any = site.horizon.client.with_options(decode_responses=False)
    try:
        found = await client.hgetall(f"{prefix}:s") if await client.hlen(f"{prefix}:s") <= _MOST else {}
    except ResponseError:  # something else has that name
        found = {}
    rows = [_row(name, _fields(one)) for name, one in by_template(found).items()]
    sums = {field: sum(getattr(row, field) for row in rows) for field in FIELDS}
    return CacheReport(prefix=prefix, total=_row("all", sums), templates=rows)


def _row(template: str, counts: Mapping[str, int]) -> TemplateRow:
    reads, runs = counts["hits"] + counts["misses"], counts["runs"]
    return TemplateRow(
        template=template,
        hit_rate=counts["hits"] / reads if reads else None,
        mean_run_ms=counts["run_ms"] / runs if runs else None,
        **counts,
    )


def _fields(counts: Counts) -> dict[str, int]:
    return {field: getattr(counts, field) for field in FIELDS}


async def read_connections(site: Site) -> Connections:
    """The clients of this process, and what the server says of commands."""
    own = site.horizon.client
    clients = {name: client for name in DB.connection_names() if (client := _client(name)) is not None}
    if own not in clients.values():
        clients = {"queues": own, **clients}
    started = time.perf_counter()
    await own.ping()
    took = (time.perf_counter() - started) * 1000
    rows = [
        ConnectionRow(
            name=name,
            address=str(client.settings.address),
            stats=msgspec.structs.asdict(client.stats()),
            ping_ms=round(took, 3) if client is own else None,
        )
        for name, client in clients.items()
    ]
    return Connections(connections=rows, commands=await _commands(own))


def _client(name: str) -> Client | None:
    try:
        return DB.connection(name)
    except ConfigurationError:
        return None


async def _commands(client: Any) -> list[CommandRow]:
    try:
        said, slow = await asyncio.gather(client.info("commandstats"), client.info("latencystats"))
    except GravitoError:  # this user may not ask
        return []
    said, slow = _one_node(said), _one_node(slow)
    rows = [
        CommandRow(
            name=name.removeprefix("cmdstat_").replace("|", " "),
            calls=int(one["calls"]),
            total_ms=round(one["usec"] / 1000, 1),
            mean_us=float(one["usec_per_call"]),
            p99_us=slow.get(name.replace("cmdstat_", "latency_percentiles_usec_", 1), {}).get("p99"),
            failed=int(one.get("failed_calls", 0)),
        )
        for name, one in said.items()
        if name.startswith("cmdstat_") and isinstance(one, Mapping)
    ]
    return sorted(rows, key=lambda row: -row.total_ms)[:_COMMANDS]


def _one_node(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a cluster's answer the first node's part."""
    if any(name.startswith(("cmdstat_", "latency_")) for name in info):
        return info
    nodes = [value for value in info.values() if isinstance(value, Mapping)]
    return nodes[0] if nodes else {}
