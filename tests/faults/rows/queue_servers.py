"""The job queue: answers that are lost, servers that go away, come back elsewhere, or move slots."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from tests.faults import application
from tests.faults.bench import CANARY, Bench, row
from tests.faults.workers import QUEUE, Workers, crew, settled

from gravito.atlas import Client, Settings, Timeouts
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels
from gravito.horizon import Horizon

_TIMES = Timeouts(connect=2.0, command=5.0, drain=1.0)


@row(
    "queue-lost-answers",
    "answers of pushes, claims and finishes are lost on the wire, again and again",
    "each job that was pushed is one job, runs once, and is accepted once",
)
async def lost_answers(bench: Bench) -> None:
    count = bench.pick(1_500, 60_000)
    server = bench.server()
    near, far = bench.proxy(server), bench.proxy(server)  # of the producer, of the workers
    async with crew(bench, bench.client(near), {"port": far.port}) as (workers, horizon):
        await workers.ready(workers.start(), workers.start())
        pushing = asyncio.create_task(_push_slowly(horizon, count))
        cuts = 0
        while not pushing.done():
            await asyncio.sleep(random.uniform(0.05, 0.2))
            proxy = random.choice([near, far])
            # the next answers end in the middle, or before their first byte
            await asyncio.to_thread(proxy.allow, random.choice([0, 0, 5, 100, 5000]), "reset")
            cuts += 1
        await pushing
        await asyncio.to_thread(near.release)
        await asyncio.to_thread(far.release)
        sizes = await settled(bench, horizon)
        began = workers.runs.began()
    bench.ledger.figures.operations = count
    bench.ledger.figures.wrong += abs(sizes.totals["pushed"] - count) + abs(sizes.totals["ok"] - count)
    bench.ledger.figures.wrong += abs(began.total() - count) + count - len(began)
    bench.ledger.note(cuts=cuts)


async def _push_slowly(horizon: Horizon, count: int) -> None:
    for number in range(0, count, 10):
        some = range(number, min(count, number + 10))
        await horizon.push_many(application.sleep.make(each, 0.01) for each in some)
        await asyncio.sleep(0.02)


class _Load:
    """Jobs that are pushed without end, to see when they run again."""

    def __init__(self, bench: Bench, workers: Workers, horizon: Horizon) -> None:
        self.bench, self.workers, self.horizon = bench, workers, horizon
        self.pushed = 0
        self.over = False
        self.task = asyncio.create_task(self._push())

    async def _push(self) -> None:
        while not self.over:
            some = range(self.pushed, self.pushed + 5)
            await self.horizon.push_many(application.sleep.make(number, 0.005) for number in some)
            self.pushed += 5  # an error of the push ends the row: it is repeated for 30 s
            await asyncio.sleep(0.01)

    async def returned(self, since: float, within: float) -> None:
        """Wait until a job has begun after this moment; note how long that took."""
        await self.workers.wait(lambda: self.workers.runs.began(since), within, "jobs that run again")
        first = min((run.at for run in self.workers.runs.all if run.at >= since), default=since + within)
        self.bench.ledger.recovered(first - since)

    async def finish(self, may_lose: bool = False) -> None:
        """End the pushing; every job must have ended, once."""
        self.over = True
        await self.task
        sizes = await settled(self.bench, self.horizon)
        runs = self.workers.runs
        lost = self.pushed - len(runs.ended())
        figures = self.bench.ledger.figures
        figures.operations = self.pushed
        if not may_lose:
            figures.wrong += lost + abs(sizes.totals["ok"] - self.pushed)
        self.bench.ledger.promise(not sizes.dead, f"dead: {sizes.dead}")
        twice = runs.began().total() - len(runs.began())
        self.bench.ledger.note(
            lost=lost, began_twice=twice, ended_twice=runs.ended().total() - len(runs.ended())
        )


@row(
    "queue-engine-gone",
    "the engine (append-only file, synced always) is killed -9 under load, and comes back 30 s later",
    "workers go on within 2 s of its return by themselves; no job is lost, none is accepted twice",
)
async def engine_gone(bench: Bench) -> None:
    away, rounds = bench.pick(2.0, 30.0), bench.pick(1, 4)
    server = bench.server(bench.folder())
    bench.ledger.figures.bound = bench.pick(5.0, 2.0)
    client = bench.client(server)
    async with crew(bench, client, {"port": server.port}) as (workers, horizon):
        horizon.broker(QUEUE)._caller._patience = 120.0  # the producer outlives the fault as well
        await workers.ready(workers.start(), workers.start())
        load = _Load(bench, workers, horizon)
        for _ in range(rounds):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(away)
            await asyncio.to_thread(server.restart)
            await load.returned(time.monotonic(), 20.0)
        await load.finish()
    bench.ledger.note(away=away)


@row(
    "queue-clients-killed",
    "all clients of the server are killed (CLIENT KILL), again and again, under load",
    "workers go on within 2 s by themselves; no job is lost, none runs twice",
)
async def clients_killed(bench: Bench) -> None:
    rounds = bench.pick(5, 100)
    server = bench.server()
    bench.ledger.figures.bound = bench.pick(5.0, 2.0)
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        await workers.ready(workers.start(), workers.start())
        load = _Load(bench, workers, horizon)
        for _ in range(rounds):
            await asyncio.sleep(0.3)
            for kind in ("normal", "pubsub"):
                await asyncio.to_thread(server.kill_clients, kind)
            await load.returned(time.monotonic(), 20.0)
        await load.finish()
        began = workers.runs.began()
        bench.ledger.figures.wrong += began.total() - len(began)
    bench.ledger.note(kills=rounds)


@row(
    "queue-failover",
    "kill -9 of the primary under load, with three sentinels and two replicas",
    "workers go on within 2 s of the new primary's word, by themselves; lost are only jobs of the last second",
)
async def failover(bench: Bench) -> None:
    topology = LocalSentinels(password=CANARY, sentinel_password=CANARY)
    bench.at_end(topology.stop)
    await asyncio.to_thread(topology.start)
    nodes = [node.address for node in topology.sentinels]
    fields: dict[str, Any] = {
        "driver": "sentinel",
        "nodes": nodes,
        "service": topology.service,
        "sentinel_password": CANARY,
    }
    client = bench.keep(
        Client(Settings(**{**fields, "nodes": tuple(nodes)}, password=CANARY, timeouts=_TIMES))
    )
    bench.ledger.figures.bound = bench.pick(5.0, 2.0)
    took: list[float] = []
    async with crew(bench, client, fields) as (workers, horizon):
        await workers.ready(workers.start(), workers.start())
        load = _Load(bench, workers, horizon)
        for _ in range(bench.pick(1, 10)):
            await asyncio.sleep(1.0)
            lost = await asyncio.to_thread(topology.primary)
            struck = time.monotonic()
            await asyncio.to_thread(lost.kill)
            await asyncio.to_thread(topology.succeed, lost)
            took.append(time.monotonic() - struck)
            await load.returned(time.monotonic(), 20.0)
            await asyncio.to_thread(topology.rejoin, lost)
        await load.finish(may_lose=True)
    bench.ledger.note(failovers=len(took), vote_seconds=max(took))


@row(
    "queue-slot-moves",
    "the queue's slot moves from primary to primary and back, in a cluster, under load",
    "workers go on within 2 s by themselves; no job is lost, none runs twice",
)
async def slot_moves(bench: Bench) -> None:
    topology = LocalCluster(3, password=CANARY)
    bench.at_end(topology.stop)
    await asyncio.to_thread(topology.start)
    nodes = [node.address for node in topology.nodes]
    fields: dict[str, Any] = {"driver": "cluster", "nodes": nodes}
    client = bench.keep(
        Client(Settings(**{**fields, "nodes": tuple(nodes)}, password=CANARY, timeouts=_TIMES))
    )
    slot = client.keyslot(QUEUE)
    bench.ledger.figures.bound = bench.pick(5.0, 2.0)
    async with crew(bench, client, fields) as (workers, horizon):
        await workers.ready(workers.start(), workers.start())
        load = _Load(bench, workers, horizon)
        for turn in range(bench.pick(3, 30)):
            await asyncio.sleep(0.3)
            others = [node for node in topology.nodes if node is not topology.owner_of(slot)]
            await asyncio.to_thread(topology.migrate, slot, others[turn % len(others)])
            await load.returned(time.monotonic(), 20.0)
        await load.finish()
        began = workers.runs.began()
        bench.ledger.figures.wrong += began.total() - len(began)
