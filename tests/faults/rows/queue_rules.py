"""The job queue: races for one job, floods, what cannot be run, and what is to be stopped."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import msgspec
from tests.faults import application
from tests.faults.bench import Bench, row
from tests.faults.control import Control
from tests.faults.workers import QUEUE, Workers, crew, settled

from gravito import errors
from gravito.horizon import Horizon, HorizonSettings


@row(
    "queue-unique",
    "50 producers, each with a connection of its own, race for one unique job",
    "one of them gets a new job and the others its handle; a finished job's key can be used again at once",
)
async def unique(bench: Bench) -> None:
    rounds = bench.pick(3, 100)
    server = bench.server()
    clients = [bench.client(server) for _ in range(50)]
    horizons = [Horizon(client) for client in clients]
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        for number in range(rounds):
            calls = [application.one.make(number, producer) for producer in range(50)]
            await horizon.broker(QUEUE).pause()  # one that has run in the middle of it would let in another
            racers = zip(horizons, calls, strict=True)
            handles = await asyncio.gather(*[racer.push(call) for racer, call in racers])
            bench.ledger.figures.wrong += len({handle.id for handle in handles}) - 1
            bench.ledger.figures.wrong += abs(sum(handle.new for handle in handles) - 1)
            await horizon.broker(QUEUE).resume()
            if not number:
                workers.start()
            await handles[0].wait(30.0)
            again = await horizons[1].push(application.one.make(number, 1))
            bench.ledger.promise(again.new, "the key of a finished job was still taken")
        sizes = await settled(bench, horizon)
        bench.ledger.figures.wrong += abs(workers.runs.began().total() - 2 * rounds)
        bench.ledger.figures.wrong += abs(sizes.totals["pushed"] - 2 * rounds)
        for each in horizons:
            await each.aclose()
    bench.ledger.figures.operations = rounds * 51


@row(
    "queue-flood",
    "one tenant of a queue pushes 100,000 jobs while ten others push one now and then",
    "the others' jobs wait at most twice as long (p99) as without the flood",
)
async def flood(bench: Bench) -> None:
    many, each = bench.pick(8_000, 100_000), bench.pick(20, 100)
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        await workers.ready(workers.start("-c", "10"))
        alone = await _waits(workers, horizon, "a", each)
        await _flood(horizon, many)
        during = await _waits(workers, horizon, "b", each)
        left = await horizon.broker(QUEUE).sizes()
        bench.ledger.promise(left.fair > 0, "the flood had run off")
        await settled(bench, horizon, 300.0)
        ran = len(workers.runs.all)
    total = many + 20 * each
    bench.ledger.figures.operations = total
    bench.ledger.figures.wrong += abs(ran - total)
    slack = bench.pick(0.2, 0.02)  # seconds; waits are short, and the machine has other work
    bench.ledger.promise(during <= 2 * alone + slack, f"p99 {during:.3f} s, without the flood {alone:.3f} s")
    bench.ledger.note(p99_idle=alone, p99_flooded=during, in_line=left.fair)


async def _flood(horizon: Horizon, count: int) -> None:
    """Many jobs of one tenant, all of them in line before the first one runs."""
    broker = horizon.broker(QUEUE)
    await broker.pause()
    await horizon.push_many(application.tenant.make("flood", n) for n in range(count))
    await broker.resume()
    await asyncio.sleep(0.2)


async def _waits(workers: Workers, horizon: Horizon, letter: str, each: int) -> float:
    """Ten tenants push a job every 20 ms; the p99 of the seconds until these begin."""
    pushed: dict[tuple[str, int], float] = {}
    for number in range(each):
        for tenant in range(10):
            name = f"{letter}{tenant}"
            pushed[name, number] = time.monotonic()
            await horizon.push(application.tenant.make(name, number))
        await asyncio.sleep(0.02)
    began: dict[tuple[str, int], float] = {}
    end = time.monotonic() + 30.0
    while len(began) < len(pushed) and time.monotonic() < end:
        await asyncio.sleep(0.2)
        began = {(run.what, run.number): run.at for run in workers.runs.all if run.what[0] == letter}
    waits = sorted(began.get(key, end) - at for key, at in pushed.items())
    return waits[int(len(waits) * 0.99)]


@row(
    "queue-refusals",
    "unknown job, misfit arguments, result that cannot be encoded, payload too big, server out of memory",
    "refused at push, or kept among the dead with the reason; nothing loops, nothing is dropped",
)
async def refusals(bench: Bench) -> None:
    server = bench.server(directives={"maxmemory": "40mb"})
    ledger = bench.ledger
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        await workers.ready(workers.start())

        @horizon.job(name="faults.newer", queue=QUEUE)
        async def newer() -> None: ...

        dead = {
            "there is no job 'faults.newer'": await horizon.push(newer.make()),
            "cannot": await horizon.push(application.odd.make(1)),
        }
        # an argument that another program has put there
        travel, handle = horizon.prepare(application.sleep.make(2))
        wrong = msgspec.structs.replace(travel[1], body=travel[1].body.replace(b"number", b"nvmber"))
        await horizon.broker(QUEUE).push(wrong)
        dead["nvmber"] = handle
        for text, each in dead.items():
            status = await each.wait(20.0)
            ledger.promise(status.state == "dead" and text in str(status.error), f"{text}: {status}")
        for call in (lambda: application.sleep.make("two"), lambda: application.sleep.make(1, minutes=3)):  # type: ignore[arg-type, call-arg]
            try:
                await horizon.push(call())  # type: ignore[no-untyped-call]
                ledger.promise(False, "arguments that don't fit were taken")
            except errors.PayloadError as error:
                ledger.error(error)
        await _too_big(bench, horizon)
        await _out_of_memory(bench, server, workers, horizon)
        sizes = await settled(bench, horizon)
    ledger.figures.operations = sizes.totals["pushed"]
    ledger.figures.wrong += abs(workers.runs.began()[1] - 1) + abs(sizes.dead - 3)
    ledger.figures.wrong += abs(sizes.totals["pushed"] - sizes.totals["ok"] - sizes.dead)


async def _too_big(bench: Bench, horizon: Horizon) -> None:
    async with Horizon(horizon.client, settings=HorizonSettings(max_bytes=100)) as small:

        @small.job(queue=QUEUE)
        async def text(value: str) -> None: ...

        try:
            await small.push(text.make("x" * 200))
            bench.ledger.promise(False, "a payload over its limit was taken")
        except errors.PayloadError as error:
            bench.ledger.promise("100" in str(error), str(error))


async def _out_of_memory(bench: Bench, server: Control, workers: Workers, horizon: Horizon) -> None:
    """Fill the server with jobs; pushes are refused, workers go on and make room."""
    pushed = 10
    await horizon.broker(QUEUE).pause()
    try:
        while pushed < 2_000_000:
            some = range(pushed, pushed + 2_000)
            await horizon.push_many(application.sleep.make(n).meta(filling="x" * 2_000) for n in some)
            pushed += 2_000
    except errors.OutOfMemoryError as error:
        bench.ledger.error(error)
        bench.ledger.promise("maxmemory" in str(error), str(error))
    sizes = await horizon.broker(QUEUE).sizes()
    bench.ledger.note(jobs_when_full=sum(sizes.ready))
    bench.ledger.promise(sum(sizes.ready) > 1_000, f"{sizes}")
    await asyncio.to_thread(server.set, "maxmemory", "1mb")  # nothing fits any more, not even the resuming
    await horizon.broker(QUEUE).resume()
    await settled(bench, horizon)
    await asyncio.to_thread(server.set, "maxmemory", "40mb")
    handle = await horizon.push(application.sleep.make(9))
    bench.ledger.promise((await handle.wait(20.0)).state == "ok", "no job runs after the memory was full")


@row(
    "queue-stops",
    "running jobs that are cancelled, or outlive their time: on the loop, in a process, in a thread",
    "on the loop: stopped within 200 ms; a process: killed; a thread: reported as still running",
)
async def stops(bench: Bench) -> None:
    rounds = bench.pick(3, 50)
    server = bench.server()
    bench.ledger.figures.bound = bench.pick(1.0, 0.2)
    ledger = bench.ledger
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        await workers.ready(workers.start())
        for number in range(rounds):
            handle = await horizon.push(application.sleep.make(number, 3600))
            await workers.wait(lambda n=number: workers.runs.began()[n], 20.0, "a job that begins")  # type: ignore[misc]
            asked = time.monotonic()
            await handle.cancel()
            status = await handle.wait(20.0)
            ledger.recovered(time.monotonic() - asked)
            ledger.promise(status.state == "cancelled", f"{status}")
            handle = await horizon.push(application.stubborn.make(1000 + number))
            status = await handle.wait(20.0)
            ran = defaultdict(
                float, {run.what: run.at for run in workers.runs.all if run.number == 1000 + number}
            )
            ledger.promise(
                status.state == "dead" and "longer than its timeout" in str(status.error), f"{status}"
            )
            ledger.recovered(ran["e"] - ran["b"] - 0.5)
        handle = await horizon.push(application.spin.make(2000))
        status = await handle.wait(30.0)
        ledger.promise("longer than its timeout" in str(status.error), f"{status}")
        pid = next(run.pid for run in workers.runs.all if run.number == 2000)
        await workers.wait(lambda: not _alive(pid), 5.0, "the process's end")
        handle = await horizon.push(application.held.make(2001, 1.5))
        status = await handle.wait(20.0)
        ledger.promise("may still be running" in str(status.error), f"{status}")
        await workers.wait(lambda: workers.runs.ended()[2001], 20.0, "the thread's end, which is its own")
    ledger.figures.operations = 2 * rounds + 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
