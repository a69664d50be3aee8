"""A million jobs in 50 queues, a week of counters and 200 workers, for `bench.console`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from gravito.atlas import Client
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon._counters import fields
from gravito.horizon._heartbeat import RunningJob, WorkerKeys, WorkerRecord, _encode, _Note
from gravito.horizon._keys import Keys
from gravito.horizon._messages import Done

QUEUES, WORKERS, NAMES = 50, 200, 20
_COPY = """
for i, to in ipairs(ARGV) do
  for _, key in ipairs(KEYS) do
    local copy = string.gsub(key, '{b00}', '{' .. to .. '}', 1)
    redis.call('COPY', key, copy, 'REPLACE')
  end
end
return 1
"""


async def fill(horizon: Horizon, jobs: int, say: Any) -> dict[str, str]:
    """A queue with its share of all jobs, and as many copies as are wanted; a job, a batch and a chain to look at."""
    each = jobs // QUEUES
    names = [f"shop.tasks.job{number:02}" for number in range(NAMES)]
    made = []
    for number, name in enumerate(names):

        def run(number: int, fails: bool = False) -> int:
            if fails:
                raise LookupError(f"item {number} is gone")
            return number

        made.append(horizon.job(name=name, queue="b00", retries=0, tags=[f"t{number % 5}"])(run))
    ended, dead, delayed = each // 5, each // 20, each // 10
    calls = [made[n % NAMES].make(n) for n in range(ended - dead)]
    calls += [made[n % NAMES].make(n, fails=True) for n in range(dead)]
    handles = await horizon.push_many(calls)
    batch = await horizon.batch([made[0].make(n) for n in range(20)], "Guests").push()
    chain = await horizon.chain(made[1].make(1), made[2].make(2)).push()
    await Worker(horizon, WorkerOptions(queues=("b00",), burst=True, concurrency=200)).run()
    await horizon.push_many(made[n % NAMES].delay(3600 + n).make(n) for n in range(delayed))
    await horizon.push_many(made[n % NAMES].make(n) for n in range(each - ended - delayed))
    await horizon.broker("b00").step("bench", [], 200)  # so many run
    say(f"{each:,} jobs in one queue")
    keys = Keys("b00")
    await count(horizon, names)
    await copy(horizon.client, keys)
    await populate(horizon)
    await horizon.console().site.repository.watch_tag("t3")
    first = await horizon.console().site.repository.job(chain.jobs[0].id)
    assert first is not None
    return {
        "queue": "b00",
        "id": handles[-1].id,
        "batch": batch.id,
        "chain": str(first.chain),
        "job": names[0],
    }


async def count(horizon: Horizon, names: Sequence[str]) -> None:
    """A week of counters: all names in every hour and in every minute of the last two, closed by the queue itself."""
    client, broker, draw = horizon.client, horizon.broker("b00"), random.Random(1)
    minute = broker.now_ms() // 60_000
    minutes = [*range(minute - 120, minute), *range(minute - 167 * 60, minute - 120, 60)]
    for one in minutes:
        counts: dict[str, int] = {}
        for name in names:
            for _ in range(8):
                run, wait = draw.lognormvariate(3, 1.5), draw.lognormvariate(2, 2)
                outcome = draw.choices(("ok", "retry", "dead"), (95, 4, 1))[0]
                done = Done(id="x", fence=1, outcome=outcome, name=name, run_ms=run, wait_ms=wait)
                by = draw.randint(1, 900)
                for field in fields(done):
                    counts[field] = counts.get(field, 0) + by
        await client.hset(broker.keys.minute(one), mapping=counts)
    await client.hset(broker.keys.part("conf"), "rolled", minutes[120] - 1)
    await broker.roll()


async def traffic(horizon: Horizon, names: Sequence[str]) -> None:
    """What the simulated workers do to the counters: each second some of this minute's; twice a minute they are closed."""
    draw, turn = random.Random(3), 0
    while True:
        for number in range(QUEUES):
            broker = horizon.broker(f"b{number:02}")
            done = Done(
                id="x", fence=1, outcome="ok", name=draw.choice(names), run_ms=draw.lognormvariate(3, 1.5)
            )
            async with horizon.client.pipeline(transaction=False) as pipe:
                for field in fields(done):
                    pipe.hincrby(broker.keys.minute(broker.now_ms() // 60_000), field, 1)
                await pipe.execute()
            if (turn + number) % 30 == 0:
                await broker.roll()
        turn += 1
        await asyncio.sleep(1)


async def copy(client: Client, keys: Keys) -> None:
    """Everything that the first queue has, under the names of the others."""
    found = [key async for key in client.scan_iter(match=f"{keys.base}*", count=5000)]
    others = [f"b{number:02}" for number in range(1, QUEUES)]
    for other in others:
        await client.eval(_COPY, len(found), *found, other)
    await client.sadd(keys.known, *others)


async def populate(horizon: Horizon) -> None:
    """Records of workers that nobody runs; they stay for an hour."""
    keys, draw = WorkerKeys(horizon.settings.prefix), random.Random(2)
    now = horizon.broker("b00").now_ms()
    for number in range(WORKERS):
        queues = tuple(f"b{(number + step) % QUEUES:02}" for step in range(4))
        jobs = tuple(
            RunningJob(f"w{number}j{n}", queues[0], "shop.tasks.job00", now - draw.randint(1, 90_000), 1)
            for n in range(20)
        )
        record = WorkerRecord(
            id=f"host{number // 8}:{4000 + number}:{number:08x}",
            host=f"host{number // 8}",
            pid=4000 + number,
            queues=queues,
            concurrency=100,
            started=now - 86_400_000,
            at=now,
            cpu=50.0,
            memory=90_000_000,
            running=20,
            jobs=jobs,
            tally={"done": 1_000_000},
        )
        await horizon.client.set(keys.record(record.id), _encode(_Note(record)), ex=3600)
        await horizon.client.zadd(keys.list, {record.id: now})
