"""The job queue: clocks that are wrong, delays, and schedules that several processes fire."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from datetime import UTC, datetime, timedelta

from tests.faults import application
from tests.faults.application import SKEW
from tests.faults.bench import Bench, row
from tests.faults.scheduler import add_schedules
from tests.faults.workers import QUEUE, Workers, crew, settled

from gravito.horizon import Horizon
from gravito.horizon._book import Book, milliseconds
from gravito.horizon._broker import Broker
from gravito.horizon._payload import read_body
from gravito.horizon.scheduler import Scheduler

_HOUR = 3_600_000  # ms
# Every score of the sorted set moves back, as if that time had passed.
_PASS = """
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do redis.call('ZADD', KEYS[1], 'XX', string.format('%d', all[i + 1] - ARGV[1]), all[i]) end
return #all / 2
"""


@row(
    "queue-clocks",
    "one worker's clock is an hour slow, another one's an hour fast; immediate and delayed jobs, and a kill",
    "no effect: each job runs once, when it is due; leases end when they ought to",
)
async def clocks(bench: Bench) -> None:
    count, lease, delay = bench.pick(300, 3_000), bench.pick(1.0, 10.0), 2.0
    server = bench.server()
    async with crew(bench, bench.client(server), {"port": server.port}, lease) as (workers, horizon):
        slow, fast = workers.start(**{SKEW: "-3600"}), workers.start(**{SKEW: "3600"})
        await workers.ready(slow, fast)
        pushed = time.monotonic()
        calls = [application.sleep.make(number, 0.01) for number in range(count)]
        await horizon.push_many(
            call.delay(delay) if number % 2 else call for number, call in enumerate(calls)
        )
        await settled(bench, horizon)
        began = {run.number: run.at - pushed for run in workers.runs.all if run.what == "b"}
        bench.ledger.figures.wrong += abs(workers.runs.began().total() - count)
        early = min(at for number, at in began.items() if number % 2)
        late = max(at for number, at in began.items() if number % 2) - delay
        bench.ledger.promise(early >= delay - 0.05, f"a delayed job began after {early:.3f} s")
        await horizon.push_many(application.sleep.make(count + number, 1.0) for number in range(20))
        await workers.wait(lambda: len(workers.runs.began()) == count + 20, 20.0, "20 more")
        killed = time.monotonic()
        fast.end()
        await settled(bench, horizon)
        again = [run.at - killed for run in workers.runs.all if run.what == "b" and run.at > killed]
        bench.ledger.promise(all(at <= lease + 5.0 for at in again), f"recovered after {again} s")
        sizes = await horizon.broker(QUEUE).sizes()
    bench.ledger.figures.operations = count + 20
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - count - 20) + sizes.dead
    bench.ledger.note(latest_delayed=late, taken_over=len(again))


@row(
    "queue-schedulers",
    "five schedulers, frozen, killed and started again at random, over both changes of a time zone's clock",
    "each fire happens exactly once: at every wall clock time that there is",
)
async def schedulers(bench: Bench) -> None:
    server = bench.server()
    hours, speed = bench.pick(6, 40), 3600  # an hour passes in a second
    wanted: set[tuple[str, int]] = set()
    struck = 0
    async with crew(bench, bench.client(server), {"port": server.port}) as (workers, horizon):
        # the night without 02:00 to 03:00, and the one that has it twice
        for change in (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)):
            start = change - timedelta(hours=hours / 2)
            end = start + timedelta(hours=hours)
            add_schedules(horizon, f"{change:%B}")
            await Scheduler(horizon, lambda _, at=start: milliseconds(at)).tick(Book(horizon))  # type: ignore[misc]
            for name, schedule in horizon.schedules.items():
                wanted |= {(name, milliseconds(at)) for at in schedule.plan.between(start, end, 100_000)}
            began = await server_ms(horizon)
            marks = [
                str(each) for each in (milliseconds(start), milliseconds(end), began, speed, f"{change:%B}")
            ]
            struck += await _strike(workers, ["-m", "tests.faults.scheduler", *marks], hours * 3600 / speed)
            await Scheduler(horizon, lambda _, at=end: milliseconds(at)).tick(Book(horizon))  # type: ignore[misc]
            horizon.schedules.clear()
        fires = await _fires(horizon.broker(QUEUE))
    bench.ledger.figures.operations = len(fires)
    bench.ledger.figures.wrong += len(fires) - len(set(fires)) + len(set(fires) ^ wanted)
    bench.ledger.note(fires=len(fires), struck=struck)


async def _strike(workers: Workers, line: list[str], seconds: float) -> int:
    """Five schedulers, of which one after the other is frozen for a while, or killed and replaced; how often."""
    five = [workers.script(line) for _ in range(5)]
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(0.1, 0.4))
        place, count = random.randrange(5), count + 1
        if random.random() < 0.5:
            five[place].send(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(random.uniform(0.2, 2.0), five[place].send, signal.SIGCONT)
        else:
            five[place].end()
            five[place] = workers.script(line)
    for each in five:
        each.send(signal.SIGCONT)
        await workers.wait(lambda each=each: "over" in each.text, 30.0, f"a scheduler's end: {each.text}")  # type: ignore[misc]
    return count


async def _fires(broker: Broker) -> list[tuple[str, int]]:
    """What reached the queue: schedules' names, and the times for which they fired."""
    found = []
    while claimed := (await broker.step("reader", [], 200)).claimed:
        for job in claimed:
            extra = read_body(job.body).extra
            assert extra is not None
            assert extra.meta is not None
            found.append((extra.meta["schedule"], extra.meta["fire"]))
    return found


async def server_ms(horizon: Horizon) -> int:
    """The server's clock."""
    seconds, micros = await horizon.client.execute_command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


@row(
    "queue-delayed",
    "many jobs delayed by seconds, in real time, and as many by up to 48 h whose time is moved",
    "each runs once; by the real clock at most 100 ms late at p99",
)
async def delayed(bench: Bench) -> None:
    count, span = bench.pick(1_000, 10_000), bench.pick(3.0, 60.0)
    server = bench.server()
    client = bench.client(server)
    async with crew(bench, client, {"port": server.port}) as (workers, horizon):
        await workers.ready(workers.start(), workers.start())
        begun = time.monotonic()
        delays = [2.0 + random.uniform(0, span) for _ in range(count)]
        pushed: dict[int, float] = {}
        for first in range(0, count, 500):
            some = range(first, min(count, first + 500))
            await horizon.push_many(application.sleep.make(n).delay(delays[n]) for n in some)
            pushed |= dict.fromkeys(some, time.monotonic())  # from here on at the latest it counts
        await settled(bench, horizon, span + 30.0)
        late = sorted(
            run.at - pushed[run.number] - delays[run.number] for run in workers.runs.all if run.what == "b"
        )
        # 48 hours in jumps of some
        calls = [application.sleep.make(count + n).delay(random.uniform(60, 48 * 3600)) for n in range(count)]
        await horizon.push_many(calls)
        jumps = bench.pick(6, 48)
        for _ in range(jumps):
            await client.eval(_PASS, 1, horizon.broker(QUEUE).keys.part("delayed"), 48 * _HOUR // jumps)
            await asyncio.sleep(0.2)
        sizes = await settled(bench, horizon)
        began = workers.runs.began()
    bench.ledger.figures.operations = 2 * count
    bench.ledger.figures.wrong += abs(began.total() - 2 * count) + 2 * count - len(began)
    bench.ledger.figures.wrong += abs(sizes.totals["ok"] - 2 * count)
    p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    bench.ledger.promise(late[0] > -0.3, f"{late[0]:.3f} s early")
    bench.ledger.promise(p99 <= bench.pick(2.0, 0.1), f"{p99:.3f} s late at p99")
    bench.ledger.note(late_p50=p50, late_p99=p99, late_most=late[-1], took=time.monotonic() - begun)
