"""A cluster whose slots move and whose primaries are lost, with replicas, under everything that callers do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.bench import CANARY, Bench, row
from tests.faults.rows.failovers import Counter

from gravito.atlas import Client, Settings, Timeouts
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._nodes import Node, until

_LAG = 1.0  # seconds: replication explains the loss of writes that are younger than this when a primary is struck
_NAME = "cluster-row"  # the client's, in CLIENT LIST
_KEYS = 6  # of each kind and slot
_SCRIPT = "return {KEYS[1], redis.call('incr', KEYS[1]), KEYS[2], redis.call('incrby', KEYS[2], ARGV[1])}"


async def _topology(bench: Bench) -> LocalCluster:
    """Three primaries with a replica each; at the end it is asked who is still connected."""
    topology = LocalCluster(3, 1, password=CANARY)
    bench.at_end(topology.stop)
    bench.at_end(lambda: _count_left(bench, topology))
    await asyncio.to_thread(topology.start)
    return topology


def _count_left(bench: Bench, topology: LocalCluster) -> None:
    deadline = time.monotonic() + 2.0
    while (left := sum(_clients(node) for node in topology.nodes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    bench.ledger.figures.wires += left


def _clients(node: Node) -> int:
    return str(node.ask("CLIENT", "LIST")).count(f"name={_NAME} ") if node.running else 0


def _client(bench: Bench, topology: LocalCluster) -> ClusterClient:
    settings = Settings(
        driver="cluster",
        nodes=tuple(node.address for node in topology.nodes),
        password=CANARY,
        client_name=_NAME,
        timeouts=Timeouts(connect=2.0, command=10.0, drain=1.0),
    )
    client = bench.keep(Client(settings))
    assert isinstance(client, ClusterClient)
    return client


# -- slots move ----------------------------------------------------------------------------------------------


class _Load:
    """One task for each kind of call and each tag. Every value names its key, every counter is exact."""

    def __init__(self, bench: Bench, client: ClusterClient, tags: list[str]) -> None:
        self.over = False
        self.calls = 0
        self.slowest = 0.0
        self._bench, self._client, self._tags = bench, client, tags
        self.counts: dict[str, int] = {}  # what each counter must be

    def tasks(self) -> list[asyncio.Task[None]]:
        kinds: list[Callable[[str, int], Awaitable[None]]] = [
            self._values,
            self._counter,
            self._many,
            self._pipeline,
            self._transaction,
            self._script,
            self._list,
        ]
        loop = asyncio.get_running_loop()
        return [loop.create_task(self._repeat(kind, tag)) for kind in kinds for tag in self._tags]

    async def _repeat(self, kind: Callable[[str, int], Awaitable[None]], tag: str) -> None:
        turn = 0
        while not self.over:
            turn += 1
            try:
                await kind(tag, turn)
            except Exception as error:  # no error may reach a caller
                self._bench.ledger.error(error)
                self._bench.ledger.promise(False, f"{kind.__name__} {tag}, turn {turn}: {error!r}")
                return

    async def _ask(self, awaitable: Any) -> Any:
        start = time.monotonic()
        reply = await awaitable
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.calls += 1
        return reply

    def _same(self, reply: Any, expected: Any) -> None:
        if reply != expected:
            self._bench.ledger.figures.wrong += 1
            self._bench.ledger.promise(False, f"{reply!r} came where {expected!r} belongs")

    def _add(self, key: str, amount: int = 1) -> int:
        self.counts[key] = self.counts.get(key, 0) + amount
        return self.counts[key]

    async def _values(self, tag: str, turn: int) -> None:
        """SET, then GET of all, at once: each reply names its key and its turn."""
        keys = [f"{tag}v{i}" for i in range(_KEYS)]
        watch, redis = self._bench.ledger.watch, self._client
        sets = [watch(redis.set(key, f"{key}={turn}")) for key in keys]
        self._same(await self._ask(asyncio.gather(*sets)), [True] * _KEYS)
        gets = [watch(redis.get(key)) for key in keys]
        self._same(await self._ask(asyncio.gather(*gets)), [f"{key}={turn}" for key in keys])

    async def _counter(self, tag: str, turn: int) -> None:
        key = f"{tag}c"
        self._same(await self._ask(self._bench.ledger.watch(self._client.incr(key))), self._add(key))

    async def _many(self, tag: str, turn: int) -> None:
        """MSET, MGET, EXISTS and UNLINK over this task's keys of all slots."""
        keys = [f"{other}m{tag}{i}" for other in self._tags for i in range(2)]
        redis = self._client
        self._same(await self._ask(redis.mset({key: f"{key}={turn}" for key in keys})), True)
        self._same(await self._ask(redis.mget(keys)), [f"{key}={turn}" for key in keys])
        self._same(await self._ask(redis.exists(*keys)), len(keys))
        if turn % 5 == 0:
            self._same(await self._ask(redis.unlink(*keys)), len(keys))

    async def _pipeline(self, tag: str, turn: int) -> None:
        pipe = self._client.pipeline(transaction=False)
        expected: list[Any] = []
        keys = [f"{other}p{tag}" for other in self._tags]
        for key in keys:
            pipe.set(key, f"{key}={turn}").incr(f"{key}n").get(key)
            expected += [True, self._add(f"{key}n"), f"{key}={turn}"]
        pipe.mget(keys).delete(*keys).mget(keys)
        expected += [[f"{key}={turn}" for key in keys], len(keys), [None] * len(keys)]
        self._same(await self._ask(pipe.execute()), expected)

    async def _transaction(self, tag: str, turn: int) -> None:
        one, two = f"{tag}t1", f"{tag}t2"
        pipe = self._client.pipeline().incr(one).set(f"{tag}t", f"{tag}={turn}").incrby(two, 2).get(f"{tag}t")
        expected = [self._add(one), True, self._add(two, 2), f"{tag}={turn}"]
        self._same(await self._ask(pipe.execute()), expected)

    async def _script(self, tag: str, turn: int) -> None:
        one, two = f"{tag}s1", f"{tag}s2"
        reply = await self._ask(self._bench.ledger.watch(self._client.eval(_SCRIPT, 2, one, two, 3)))
        self._same(reply, [one, self._add(one), two, self._add(two, 3)])

    async def _list(self, tag: str, turn: int) -> None:
        """A blocking pop beside the push that ends it, on a leased wire."""
        key = f"{tag}l"
        pop = self._bench.ledger.watch(self._client.blpop(key, 30))
        self._same(await self._ask(self._client.rpush(key, f"{key}={turn}")) > 0, True)
        self._same(await self._ask(pop), (key, f"{key}={turn}"))


@row(
    "slots-move",
    "slots with keys migrated one by one, from primary to primary and back, with replicas, under load",
    "no error reaches a caller; each reply is its command's; every counter is exact",
)
async def slots_move(bench: Bench) -> None:
    topology = await _topology(bench)
    client = _client(bench, topology)
    tags = [f"{{slot {number}}}" for number in range(bench.pick(3, 36))]
    load = _Load(bench, client, tags)
    tasks = load.tasks()
    moves = 0
    try:
        for tag in tags:
            slot = client.keyslot(tag)
            home = await asyncio.to_thread(topology.owner_of, slot)
            others = [node for node in topology.nodes[:3] if node is not home]
            for target in (*others, home):
                await asyncio.to_thread(topology.migrate, slot, target, batch=2)
                moves += 1
    finally:
        load.over = True
        bench.ledger.promise(await _ended(tasks), "a call did not end")
    for key, count in load.counts.items():
        reply = await client.get(key)
        bench.ledger.figures.wrong += reply != str(count)
        bench.ledger.promise(reply == str(count), f"{key} is {reply}, not {count}")
    bench.ledger.figures.operations = load.calls
    bench.ledger.note(
        migrations=moves, slots=len(tags), slowest=load.slowest, redirected=client.stats().retries
    )


async def _ended(tasks: list[asyncio.Task[None]]) -> bool:
    _, left = await asyncio.wait(tasks, timeout=40)
    for task in left:
        task.cancel()
    return not left


# -- primaries are lost --------------------------------------------------------------------------------------


@row(
    "cluster-failover",
    "kill -9 and SIGSTOP of a cluster's primary in turn, under INCRs, with a replica each",
    "each future settles; nothing is applied twice; of acknowledged writes only those of the last second may be gone",
)
async def cluster_failover(bench: Bench) -> None:
    topology = await _topology(bench)
    client = _client(bench, topology)
    counters = {f"count {index}": Counter(bench, client, f"count {index}") for index in range(24)}
    tasks = [asyncio.ensure_future(counter.run()) for counter in counters.values()]
    cycles = bench.pick(2, 20)
    bench.ledger.figures.bound = 10.0
    for cycle in range(cycles):
        await asyncio.sleep(0.3)
        await _strike(bench, topology, client, counters, kill=cycle % 2 == 0)
    for counter in counters.values():
        counter.over = True
    await asyncio.gather(*tasks)
    oldest = max(counter.oldest for counter in counters.values())
    bench.ledger.promise(oldest <= _LAG, f"a write was lost that was {oldest:.2f} s old")
    bench.ledger.figures.operations = acknowledged = sum(each.acknowledged for each in counters.values())
    bench.ledger.note(
        failovers=cycles,
        acknowledged=acknowledged,
        lost=sum(counter.lost for counter in counters.values()),
        oldest_lost=oldest,
    )


async def _strike(
    bench: Bench, topology: LocalCluster, client: ClusterClient, counters: dict[str, Counter], kill: bool
) -> None:
    """Lose a primary; wait until its keys are counted again; let it come back as a replica."""
    lost = random.choice(await asyncio.to_thread(topology.primaries))
    hurt = [each for key, each in counters.items() if client.get_node_from_key(key).port == lost.port]
    await asyncio.to_thread(lost.kill if kill else lost.suspend)
    struck = time.monotonic()
    for counter in hurt:
        counter.struck = struck
        counter.news.clear()
    try:
        async with asyncio.timeout(20):
            news = [asyncio.ensure_future(counter.news.wait()) for counter in hurt]
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
            bench.ledger.recovered(time.monotonic() - struck)
            await asyncio.gather(*news)
    except TimeoutError:
        bench.ledger.promise(False, "no increment went through after the primary was lost")
    if kill:
        await asyncio.to_thread(topology.rejoin, lost)
    else:
        lost.resume()
        await asyncio.to_thread(topology.wait)
    await asyncio.to_thread(_catch_up, topology)


def _catch_up(topology: LocalCluster) -> None:
    """A copy that has just been made has a backlog to read: what is lost then says nothing of a cluster at work."""
    for primary in topology.primaries():
        _, offset, copies = primary.ask("ROLE")
        ports = {int(port) for _, port, _ in copies}
        for node in topology.nodes:
            if node.port in ports:
                until(lambda node=node, offset=offset: node.ask("ROLE")[4] >= offset, "a replica to catch up")  # type: ignore[misc]
