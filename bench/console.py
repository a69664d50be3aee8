"""`python -m bench.console`: the console before a million jobs in 50 queues, 200 workers, and a week of counters.

One queue is filled by real pushes and a real worker; the server copies it to the others. Every page and every route
of the API is asked for again and again; then 100 pages stay open while a worker runs at full load, and the commands
that the console costs the server are set beside those of the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import uvicorn

from bench.engine import running
from gravito.atlas import Client
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon._counters import bucket, fields
from gravito.horizon._heartbeat import RunningJob, WorkerKeys, WorkerRecord, _encode, _Note
from gravito.horizon._keys import Keys
from gravito.horizon._messages import Done
from gravito.horizon.console._api import ENDPOINTS
from gravito.horizon.console._pages import PAGES

QUEUES, WORKERS, NAMES = 50, 200, 20
TARGET = 300.0  # ms at p95
SHARE = 0.02  # of the commands that the queue executes, for 100 open pages
OPEN = 100
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
    say(f"{each:,} jobs in one queue")
    keys = Keys("b00")
    await count(horizon.client, keys, names)
    await copy(horizon.client, keys)
    await populate(horizon)
    first = await horizon.console().site.repository.job(chain.jobs[0].id)
    assert first is not None
    return {
        "queue": "b00",
        "id": handles[-1].id,
        "batch": batch.id,
        "chain": str(first.chain),
        "job": names[0],
    }


async def count(client: Client, keys: Keys, names: Sequence[str]) -> None:
    """A week of counters, all names in every hour and in every minute of the last one."""
    seconds, _ = await client.time()
    minute, draw = int(seconds) // 60, random.Random(1)
    periods = [(keys.minute(minute - back), 3600 * 3) for back in range(1, 125)]
    periods += [(keys.hour(minute // 60 - back), 8 * 86_400) for back in range(1, 168)]
    for key, life in periods:
        counts: dict[str, int] = {}
        for name in names:
            for _ in range(8):
                run, wait = draw.lognormvariate(3, 1.5), draw.lognormvariate(2, 2)
                outcome = draw.choices(("ok", "retry", "dead"), (95, 4, 1))[0]
                done = Done(id="x", fence=1, outcome=outcome, name=name, run_ms=run, wait_ms=wait)
                assert bucket(run) >= 0
                for field in fields(done):
                    counts[field] = counts.get(field, 0) + draw.randint(1, 900)
        await client.hset(key, mapping=counts)
        await client.expire(key, life)
    await client.hset(keys.part("conf"), "rolled", minute - 3)


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


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[str, int]]:
    """The console as a process of its own: its address, and its process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.console", "--serve", url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        yield line.decode().strip(), process.pid
    finally:
        process.terminate()
        await process.wait()


def serve(url: str) -> None:
    """What that process does."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1000)
        horizon = Horizon(Client.from_url(url))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(horizon.console(), log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run([listener])


def addresses(places: dict[str, str]) -> list[str]:
    """Every page and every route, and lists at their far end."""
    found = [page.path.format(**places) for page in PAGES]
    found += ["/?window=7d", "/queues/b00?window=7d", "/jobs?state=ready&offset=500000"]
    found += ["/jobs?state=dead&offset=9000", "/jobs?state=done&name=shop.tasks.job03"]
    for one in ENDPOINTS:
        path = one.path.format(**places) if "batches/{" not in one.path else f"/api/batches/{places['batch']}"
        found.append(path)
    return [*found, "/api/metrics?window=7d", "/metrics", "/healthz"]


async def ask(address: str, paths: Sequence[str], times: int) -> list[dict[str, Any]]:
    """Each path so many times: how long it took."""
    rows = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as web:
        for path in paths:
            took = []
            for _ in range(times):
                begin = time.perf_counter()
                answer = await web.get(path, headers={"accept": "*/*"})
                took.append((time.perf_counter() - begin) * 1000)
                answer.raise_for_status()
            cuts = quantiles(took, n=20)
            rows.append(
                {
                    "path": path,
                    "first": took[0],
                    "p50": cuts[9],
                    "p95": cuts[18],
                    "bytes": len(answer.content),
                }
            )
    return rows


def memory(pid: int) -> int:
    """Resident bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def calls(client: Client) -> int:
    """Commands that the server has executed, those inside of scripts too."""
    said = await client.info("commandstats")
    return sum(int(one["calls"]) for one in said.values())


async def rate(client: Client, seconds: float) -> float:
    """Commands a second while this waits, without those of asking for it."""
    before, begin = await calls(client), time.perf_counter()
    await asyncio.sleep(seconds)
    return (await calls(client) - before - 1) / (time.perf_counter() - begin)


async def watched(client: Client, address: str, page: str, seconds: float) -> float:
    """Commands a second that 100 open pages cost, on a server that does nothing else."""

    async def watch(web: httpx.AsyncClient) -> None:
        while True:
            async with web.stream("GET", f"/live/{page}") as answer:
                async for _ in answer.aiter_bytes():
                    pass

    limits = httpx.Limits(max_connections=OPEN)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits) as web:
        watchers = [asyncio.create_task(watch(web)) for _ in range(OPEN)]
        await asyncio.sleep(3)
        found = await rate(client, seconds)
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return found


async def loaded(horizon: Horizon, seconds: float) -> tuple[float, float]:
    """Jobs and commands a second of a worker at full load, and of whoever pushes to it."""
    job = horizon.job(name="bench.nothing", queue="load", retries=0)(_nothing)
    worker = Worker(horizon, WorkerOptions(queues=("load",), concurrency=200))

    async def push() -> None:
        pushed = 0
        while True:
            await horizon.push_many(job.make() for _ in range(500))
            pushed += 500
            while pushed > worker.tally.done + 20_000:  # noqa: ASYNC110  # a tally sets no event
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(push()), asyncio.create_task(worker.run())]
    await asyncio.sleep(2)
    done, begin = worker.tally.done, time.perf_counter()
    commands = await rate(horizon.client, seconds)
    jobs = (worker.tally.done - done) / (time.perf_counter() - begin)
    tasks[0].cancel()
    worker.stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    return jobs, commands


def _nothing() -> None: ...


async def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """All of it."""

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    with running() as engine:
        url = f"redis://{engine.host}:{engine.port}"
        client = Client.from_url(url)
        async with Horizon(client) as horizon:
            places = await fill(horizon, chosen.jobs, say)
            say(f"filled; the server uses {int((await client.info('memory'))['used_memory']) >> 20} MiB")
            async with serving(url) as (address, pid):
                rows = await ask(address, addresses(places), chosen.times)
                after_first = memory(pid)
                again = await ask(address, addresses(places), chosen.times)
                say(f"the console uses {after_first >> 20} MiB, then {memory(pid) >> 20} MiB")
                live = {
                    page: await watched(client, address, page, chosen.seconds)
                    for page in ("overview", "running")
                }
                grown = memory(pid)
            jobs, commands = await loaded(horizon, chosen.seconds)
        await client.aclose()
    return {
        "first": rows,
        "warm": again,
        "memory": [after_first, grown],
        "live": live,
        "queue": {"jobs": jobs, "commands": commands},
    }


def report(found: dict[str, Any]) -> bool:
    """Print the table; whether the targets are met."""
    print(f"{'path':44} {'first':>8} {'p50':>7} {'p95':>7}   ms")
    good = True
    for cold, warm in zip(found["first"], found["warm"], strict=True):
        met = warm["p95"] < TARGET and cold["p95"] < TARGET
        good &= met
        mark = "" if met else " over"
        print(f"{warm['path'][:44]:44} {cold['first']:8.0f} {warm['p50']:7.0f} {warm['p95']:7.0f}{mark}")
    queue = found["queue"]
    print(f"a worker: {queue['jobs']:,.0f} jobs/s, {queue['commands']:,.0f} commands/s")
    for page, commands in found["live"].items():
        share = commands / queue["commands"]
        good &= share < SHARE
        print(f"{OPEN} open pages of {page}: {commands:,.0f} commands/s, {share:.1%}")
    print("memory of the console: " + ", ".join(f"{one >> 20} MiB" for one in found["memory"]))
    return good


def main() -> int:
    """Measure; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=50, help="requests of each path")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which commands are counted")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return 0
    logging.getLogger("gravito").setLevel(logging.CRITICAL)  # dead jobs are wanted here
    found = asyncio.run(measure(chosen))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
