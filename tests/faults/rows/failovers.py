"""Primaries that are lost for good, and who takes their place."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from tests.faults.bench import CANARY, Bench, row

from gravito import errors
from gravito.atlas import Client, Settings, Timeouts
from gravito.atlas._local_sentinels import LocalSentinels

_LAG = 1.0  # seconds: replication explains the loss of writes that are younger than this when the primary is struck


class Counter:
    """One task's INCRs on a key of its own: what was acknowledged, and what of it came back."""

    def __init__(self, bench: Bench, client: Client, key: str) -> None:
        self.acknowledged = self.lost = 0
        self.oldest = 0.0  # seconds: how long before the stroke the oldest lost write had been acknowledged
        self.struck = 0.0  # when the primary was
        self.news = asyncio.Event()  # an increment that began after the stroke was acknowledged
        self.over = False
        self._bench, self._client, self._key = bench, client, key
        self._last = self._doubts = 0
        self._acks: deque[tuple[int, float]] = deque(maxlen=10_000)

    async def run(self) -> None:
        ledger = self._bench.ledger
        while not self.over:
            begun = time.monotonic()
            try:
                value = await ledger.watch(self._client.incr(self._key))
            except errors.GravitoError as error:
                ledger.error(error)
                self._doubts += bool(error.maybe_applied)
                await asyncio.sleep(0.005)
                continue
            self._check(value)
            self._acks.append((value, time.monotonic()))
            self.acknowledged += 1
            if begun > self.struck:
                self.news.set()

    def _check(self, value: int) -> None:
        # More than was asked for was applied twice. Less was acknowledged by a primary that took it along.
        self._bench.ledger.figures.wrong += value > self._last + self._doubts + 1
        if value <= self._last:
            gone = [at for earlier, at in self._acks if earlier >= value]
            self.lost += len(gone)
            self.oldest = max(self.oldest, self.struck - min(gone))
            self._acks.clear()
        self._last, self._doubts = value, 0


@row(
    "failover",
    "kill -9 and SIGSTOP of the primary in turn, under INCRs, with three sentinels and two replicas",
    "each future settles; nothing is applied twice; of acknowledged writes only those of the last second may be gone",
)
async def failover(bench: Bench) -> None:
    topology = LocalSentinels(password=CANARY, sentinel_password=CANARY)
    bench.at_end(topology.stop)
    await asyncio.to_thread(topology.start)
    settings = Settings(
        driver="sentinel",
        nodes=tuple(node.address for node in topology.sentinels),
        service=topology.service,
        password=CANARY,
        sentinel_password=CANARY,
        timeouts=Timeouts(connect=2.0, command=5.0, drain=1.0),
    )
    client = bench.keep(Client(settings))
    counters = [Counter(bench, client, f"count {index}") for index in range(16)]
    tasks = [asyncio.ensure_future(counter.run()) for counter in counters]
    cycles = bench.pick(2, 20)
    bench.ledger.figures.bound = 10.0
    for cycle in range(cycles):
        await asyncio.sleep(0.3)
        await _strike(bench, topology, counters, kill=cycle % 2 == 0)
    for counter in counters:
        counter.over = True
    await asyncio.gather(*tasks)
    oldest = max(counter.oldest for counter in counters)
    bench.ledger.promise(oldest <= _LAG, f"a write was lost that was {oldest:.2f} s old")
    bench.ledger.figures.operations = acknowledged = sum(counter.acknowledged for counter in counters)
    bench.ledger.note(
        failovers=cycles,
        acknowledged=acknowledged,
        lost=sum(counter.lost for counter in counters),
        oldest_lost=oldest,
    )


async def _strike(bench: Bench, topology: LocalSentinels, counters: list[Counter], kill: bool) -> None:
    """Lose the primary, wait until increments go through again, and let it come back as a replica."""
    lost = await asyncio.to_thread(topology.primary)
    await asyncio.to_thread(lost.kill if kill else lost.suspend)
    struck = time.monotonic()
    for counter in counters:
        counter.struck = struck
        counter.news.clear()
    try:
        async with asyncio.timeout(20):
            await asyncio.wait(
                [asyncio.ensure_future(counter.news.wait()) for counter in counters],
                return_when=asyncio.FIRST_COMPLETED,
            )
            bench.ledger.recovered(time.monotonic() - struck)
            for counter in counters:
                await counter.news.wait()
    except TimeoutError:
        bench.ledger.promise(False, "no increment went through after the primary was lost")
    await asyncio.to_thread(topology.rejoin, lost)
