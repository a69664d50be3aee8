"""The rows of a cluster: three nodes, the same clients in their cluster form, and ours on one server beside them."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.contenders import CLUSTERED, OURS, Contender, open_all
from bench.contenders.base import ClusterContender, Command
from bench.machine import pin_beside
from bench.work import KEYS, VALUE, Works, fill
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._nodes import Node
from gravito.cli.measure import Timing, Work, gets

ONE_SERVER = "one server"  # our own client of the engine that the other rows use
NODES = 3
BATCH = 100  # commands of one pipeline
BATCHES = 64  # different ones, made before the clock starts
SEED = 20  # the same batches for every contender and every run
NOTE = (
    f"cluster rows: {NODES} primaries without replicas, on any core but the measuring one;"
    " redis-py opens as many connections as it has tasks, since its cluster client has no pool that waits"
)

Clients = Mapping[str, ClusterContender]


@dataclass(frozen=True)
class ClusterRow:
    """One line of the table; `works` is given the cluster's clients and ours of the single server."""

    name: str  # for --rows and the JSON file
    title: str  # for people
    unit: str
    works: Callable[[Clients, Contender | None], Works]


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Clients, dict[str, str]]]:
    """Start the nodes, connect the clients, write the keys; end all of it when the block ends.

    Yields:
        The connected clients by name, and for each of the others why it is left out.

    Raises:
        EngineError: a node cannot be started, or the nodes do not agree.
    """
    nodes = LocalCluster(NODES)
    measuring = (
        _unpinned()
    )  # threads of a client that start from here on may run anywhere, as in the other rows
    try:
        await asyncio.to_thread(nodes.start)
        async with AsyncExitStack() as stack:
            first = nodes.nodes[0]
            clients, left_out = await open_all(stack, first.host, first.port, CLUSTERED, "Cluster")
            _pinned(measuring, nodes.nodes)
            if clients:
                await fill(next(iter(clients.values())))
            yield clients, left_out
    finally:
        await asyncio.to_thread(nodes.stop)


def _unpinned() -> set[int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    measuring = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return measuring


def _pinned(measuring: set[int] | None, nodes: Sequence[Node]) -> None:
    if measuring is None:
        return
    os.sched_setaffinity(0, measuring)
    for node in nodes:
        if len(measuring) == 1 and node.engine.pid is not None:
            pin_beside(node.engine.pid)


def _get(clients: Clients, _: Contender | None) -> Works:
    return {name: gets(client.get, KEYS, VALUE) for name, client in clients.items()}


def _beside_one_server(clients: Clients, single: Contender | None) -> Works:
    if single is None or OURS not in clients:
        return {}
    return {OURS: gets(clients[OURS].get, KEYS, VALUE), ONE_SERVER: gets(single.get, KEYS, VALUE)}


def _mixed(clients: Clients, _: Contender | None) -> Works:
    batches = _batches()
    return {name: _pipelines(client.pipeline_mixed, batches) for name, client in clients.items()}


def _batches() -> list[list[Command]]:
    """GETs and SETs of random keys, half of each, in random order; a SET has a value."""
    choose = random.Random(SEED)
    values = [None, VALUE] * (BATCH // 2)
    return [
        list(zip(choose.sample(KEYS, BATCH), choose.sample(values, BATCH), strict=True))
        for _ in range(BATCHES)
    ]


def _pipelines(pipeline: Callable[[Sequence[Command]], Any], batches: Sequence[Sequence[Command]]) -> Work:
    async def work(count: int) -> Timing:
        rounds = max(1, count // BATCH)
        began = time.perf_counter()
        for number in range(rounds):
            batch = batches[number % BATCHES]
            replies = await pipeline(batch)
        took = time.perf_counter() - began
        _check(batch, replies)
        return Timing(rounds * BATCH, took)

    return work


def _check(batch: Sequence[Command], replies: Sequence[Any]) -> None:
    """A GET answers the value, a SET says OK in the client's own way; each in its place."""
    told = [
        reply == VALUE if value is None else reply in (True, "OK")
        for (_, value), reply in zip(batch, replies, strict=False)
    ]
    if len(replies) != len(batch) or not all(told):
        raise AssertionError(f"a pipeline of GETs and SETs answered {replies[:2]!r}...")


CLUSTER_ROWS = (
    ClusterRow("cluster500", "cluster GET, 500 tasks", "GET/s", _get),
    ClusterRow("clusterpipe", "cluster pipeline of 100 mixed", "commands/s", _mixed),
    ClusterRow("clusterone", "cluster client against single-server client", "GET/s", _beside_one_server),
)
