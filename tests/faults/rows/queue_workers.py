"""The job queue: workers that die, freeze, are told to stop, or run what kills them."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from tests.faults import application
from tests.faults.bench import Bench, row
from tests.faults.workers import QUEUE, crew, settled

from gravito.horizon import Horizon


@row(
    "queue-kill9",
    "a worker with 50 jobs of 2 s is killed -9 while another one is idle",
    "all 50 run again within 15 s of it; no completion is accepted twice",
)
async def kill9(bench: Bench) -> None:
    lease = bench.pick(2.0, 10.0)  # the short form waits less; 10 is the default
    bench.ledger.figures.bound = 15.0
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        go = workers.folder / "go"
        first, second = workers.start(), workers.start(**{application.HOLD: str(go)})
        await workers.ready(first, second)
        await horizon.push_many(application.sleep.make(number, 2.0) for number in range(50))
        await workers.wait(lambda: len(workers.runs.began()) == 50, 30.0, "50 jobs that begin")
        go.touch()
        killed = time.monotonic()
        first.end()
        await workers.wait(lambda: len(workers.runs.began(killed)) == 50, 30.0, "50 jobs that begin again")
        bench.ledger.recovered(max(run.at for run in workers.runs.all) - killed)
        sizes = await settled(bench, horizon)
    bench.ledger.figures.operations = 50
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - 50) + sizes.dead
    bench.ledger.figures.wrong += sum(count != 1 for count in workers.runs.ended().values())
    bench.ledger.note(lease=lease)


@row(
    "queue-kills",
    "workers are killed -9 at random under load",
    "every job that was pushed ends, and one completion of each is accepted; runs that were cut short are run again",
)
async def kills(bench: Bench) -> None:
    count, span = bench.pick(2_000, 100_000), bench.pick(6.0, 600.0)
    lease = bench.pick(1.0, 10.0)
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        producer = asyncio.create_task(_produce(horizon, count, span))
        alive = [workers.start("-c", "20") for _ in range(3)]
        await workers.ready(*alive)
        end, killed = time.monotonic() + span, 0
        while time.monotonic() < end:
            await asyncio.sleep(random.uniform(0.5, bench.pick(1.5, 8.0)))
            place = random.randrange(3)
            alive[place].end()
            alive[place] = workers.start("-c", "20")
            killed += 1
        await producer
        sizes = await settled(bench, horizon, bench.pick(30.0, 180.0))
    ended, began = workers.runs.ended(), workers.runs.began()
    bench.ledger.figures.operations = count
    bench.ledger.figures.wrong += count - sum(number in ended for number in range(count))
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - count) + sizes.dead
    bench.ledger.note(
        kills=killed,
        cut_short=sizes.totals.get("crashed", 0),
        began_twice_percent=100 * (began.total() - count) / count,
        ended_twice_percent=100 * (ended.total() - count) / count,
    )


async def _produce(horizon: Horizon, count: int, span: float) -> None:
    """Jobs of up to 20 ms, evenly over the time."""
    begun, pushed = time.monotonic(), 0
    while pushed < count:
        due = min(count, int(count * (time.monotonic() - begun) / span) + 1)
        calls = [application.sleep.make(number, random.uniform(0, 0.02)) for number in range(pushed, due)]
        await horizon.push_many(calls)
        pushed = due
        await asyncio.sleep(0.02)


@row(
    "queue-long-jobs",
    "jobs that run for many leases (async, in a thread, in a process) beside idle workers",
    "none is delivered again while its worker lives",
)
async def long_jobs(bench: Bench) -> None:
    lease, seconds = bench.pick(1.0, 10.0), bench.pick(4.0, 600.0)
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        await workers.ready(*[workers.start() for _ in range(2)])
        kinds = (application.sleep, application.thread, application.process)
        await horizon.push_many(kinds[number % 3].make(number, seconds) for number in range(6))
        sizes = await settled(bench, horizon, seconds + 30)
    runs = workers.runs
    bench.ledger.figures.operations = runs.began().total()
    bench.ledger.figures.wrong += abs(runs.began().total() - 6) + abs(sizes.totals["ok"] - 6)
    bench.ledger.promise("crashed" not in sizes.totals, f"a lease ended: {sizes.totals}")
    bench.ledger.note(seconds=seconds, leases=seconds / lease)


@row(
    "queue-sigterm",
    "SIGTERM of workers under load, with jobs that end within the grace time and jobs that do not",
    "a worker ends within the grace time and a second; what it releases runs elsewhere, no attempt is charged",
)
async def sigterm(bench: Bench) -> None:
    rounds, grace = bench.pick(3, 30), 1.0
    server = bench.server()
    bench.ledger.figures.bound = grace + 1.0
    options = ("-c", "50", "--grace", str(grace))
    pushed = 0
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        alive = workers.start(*options)
        await workers.ready(alive)
        for _ in range(rounds):
            some = range(pushed, pushed + 300)
            pushed += 300
            # one in a hundred may outlive the grace time; its next worker ends it
            await horizon.push_many(application.sleep.make(n, 0.02 if n % 100 else 2.5) for n in some)
            await asyncio.sleep(random.uniform(0.05, 0.3))
            following = workers.start(*options)
            await workers.ready(following)
            alive.send(signal.SIGTERM)
            took = await workers.wait(lambda each=alive: each.process.poll() is not None, 10.0, "the end")  # type: ignore[misc]
            bench.ledger.recovered(took)
            bench.ledger.promise("Stopped:" in alive.text, alive.text[-500:])
            alive = following
        sizes = await settled(bench, horizon)
    bench.ledger.figures.operations = pushed
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - pushed) + sizes.dead
    bench.ledger.figures.wrong += pushed - len(workers.runs.ended())
    bench.ledger.promise(workers.runs.attempts() == 1, f"attempt {workers.runs.attempts()}")
    bench.ledger.promise("crashed" not in sizes.totals, f"leases ended: {sizes.totals}")
    bench.ledger.note(released=sizes.totals.get("release", 0))


@row(
    "queue-frozen",
    "a worker is stopped (SIGSTOP) past its lease while it has jobs, and thawed when others have run these",
    "what it hands in then is refused; each job is accepted once",
)
async def frozen(bench: Bench) -> None:
    rounds, lease, jobs = bench.pick(1, 10), 1.0, 20
    server = bench.server()
    refused = 0
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        for turn in range(rounds):
            numbers = range(turn * jobs, (turn + 1) * jobs)
            first = workers.start("-c", str(jobs))
            await workers.ready(first)
            await horizon.push_many(application.sleep.make(number, 0.5) for number in numbers)
            await workers.wait(lambda n=numbers: set(n) <= set(workers.runs.began()), 20.0, "jobs that begin")  # type: ignore[misc]
            first.send(signal.SIGSTOP)
            second = workers.start("-c", str(jobs))
            await settled(bench, horizon)
            first.send(signal.SIGCONT)
            # a frozen worker's jobs end together with its thaw, or are stopped when it hears that they are others'
            await workers.wait(
                lambda each=first: "refused" in each.text or "lost" in each.text, 10.0, "a refusal"
            )  # type: ignore[misc]
            refused += first.text.count("was refused")
            for each in (first, second):
                each.send(signal.SIGTERM)
                each.process.wait(20)
        sizes = await settled(bench, horizon)
    bench.ledger.figures.operations = rounds * jobs
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - rounds * jobs) + sizes.dead
    bench.ledger.note(refused=refused, runs=workers.runs.began().total())


@row(
    "queue-crash",
    "a job that kills its process, again and again, beside 40 others in the same worker, under a supervisor",
    "it is dead after 3 crashes, with that reason; the others all end well",
)
async def crash(bench: Bench) -> None:
    lease, rounds = 1.0, bench.pick(1, 5)
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        for turn in range(rounds):
            first = turn * 100
            await horizon.push_many(application.sleep.make(first + n, 0.3) for n in range(20))
            deadly = await horizon.push(application.die.make(first + 99))
            await horizon.push_many(application.sleep.make(first + n, 0.3) for n in range(20, 40))
            if not turn:
                workers.start("-c", "10", "-p", "2")
            await settled(bench, horizon)
            status = await deadly.status()
            bench.ledger.promise(status.state == "dead" and "died 3 times" in str(status.error), f"{status}")
            bench.ledger.figures.wrong += abs(workers.runs.began()[first + 99] - 3)
        sizes = await horizon.broker(QUEUE).sizes()
    bench.ledger.figures.operations = rounds * 41
    bench.ledger.figures.wrong += abs(sizes.totals.get("ok", 0) - rounds * 40) + abs(sizes.dead - rounds)
    bench.ledger.note(crashed=sizes.totals.get("crashed", 0), runs=workers.runs.began().total())
