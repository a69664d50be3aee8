"""Counters are closed once and read exactly: whatever was kept in between, whoever reads, and however long ago it was."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gravito.atlas import Client
from gravito.horizon import _figures
from gravito.horizon._broker import Broker
from gravito.horizon._counters import OUTCOMES, PLACES, RUN, WAIT, fields
from gravito.horizon._figures import Figures, cut, first_of, numbers_of, packed, shifted, total_of
from gravito.horizon._messages import Done
from gravito.horizon._periods import Reader, Span, jobs_of, row_of
from gravito.horizon.horizon import Horizon
from gravito.horizon.repository import Metrics, Repository

DAY = 1440  # minutes


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


class Past:
    """Runs that ended in the past, as workers would have counted them."""

    def __init__(self, horizon: Horizon, queue: str) -> None:
        self.broker = horizon.broker(queue)
        self._redis = horizon.client
        self.runs: list[tuple[int, Done]] = []  # minute, run

    async def begin(self, minutes: int) -> int:
        """The queue's first count was so many minutes ago; the present minute."""
        await self.broker.sizes()  # learns the server's time
        now = self.broker.now_ms() // 60_000
        await self._redis.sadd(self.broker.keys.known, self.broker.queue)
        await self._redis.hset(self.broker.keys.part("conf"), "rolled", now - minutes - 1)
        return now

    async def add(self, minute: int, name: str, count: int, draw: random.Random | None = None) -> None:
        """So many runs ended in a minute."""
        draw = draw or random.Random(count)
        sums: Counter[str] = Counter()
        for _ in range(count):
            run, wait = draw.lognormvariate(3, 2), draw.lognormvariate(1, 2)
            outcome = draw.choice(OUTCOMES)
            done = Done(id="x", fence=1, outcome=outcome, name=name, run_ms=run, wait_ms=wait)  # type: ignore[arg-type]
            self.runs.append((minute, done))
            sums.update(fields(done))
        await self._redis.hset(self.broker.keys.minute(minute), mapping=dict(sums))

    def expected(self, first: int, last: int, name: str | None = None) -> Figures:
        """The figures of some minutes."""
        numbers = [0] * PLACES
        for minute, done in self.runs:
            if first <= minute <= last and name in (None, done.name):
                run, wait = (field.split("|") for field in fields(done))
                for place in (OUTCOMES.index(done.outcome), RUN + int(run[2]), WAIT + int(wait[1])):
                    numbers[place] += 1
        return _figures.figures_of(numbers)


def check(found: Metrics, pasts: list[Past], now: int, job: str | None = None) -> None:
    """That the metrics are those of the runs, step for step and job for job."""
    step = found.step // 60
    first = now - 59 if step == 1 else (now // 60 - len(found.points) + 1) * 60
    for at, point in enumerate(found.points):
        begin = first + at * step
        wanted = add_all([past.expected(begin, begin + step - 1, job) for past in pasts])
        assert point.figures == wanted, (found.window, at)
    assert found.total == add_all([past.expected(first, now, job) for past in pasts])
    names = {done.name for past in pasts for minute, done in past.runs if first <= minute <= now}
    assert set(found.jobs) == names
    for name in names:
        assert found.jobs[name] == add_all([past.expected(first, now, name) for past in pasts]), name


def add_all(parts: list[Figures]) -> Figures:
    run: Counter[int] = Counter()
    wait: Counter[int] = Counter()
    for part in parts:
        run.update(part.run)
        wait.update(part.wait)
    outcomes = {
        name: sum(getattr(part, name) for part in parts) for name in ("ok", "retried", "dead", "cancelled")
    }
    return Figures(run=dict(sorted(run.items())), wait=dict(sorted(wait.items())), **outcomes)


@pytest.mark.parametrize("seed", range(3))
async def test_windows_are_exact_however_they_are_read(horizon: Horizon, seed: int) -> None:
    """Two readers, one that remembers and one that is new each time, while minutes are counted, closed and read."""
    draw = random.Random(seed)
    pasts = [Past(horizon, name) for name in ("a", "b", "c")]
    for past in pasts:
        now = await past.begin(9 * DAY)
    old = Repository(horizon)
    minutes = sorted({now - draw.randrange(9 * DAY) for _ in range(20)} | {now - n for n in range(0, 70, 3)})
    for turn in range(4):
        for past in pasts[:2]:
            for minute in minutes[turn::4]:
                if await unwritten(past, minute):
                    await past.add(
                        minute, draw.choice(["x", "y|z", "Gr\u00fc\u00dfe"]), draw.randint(1, 30), draw
                    )
        if turn % 2:
            await pasts[turn // 2].broker.roll()
            minutes = [
                minute for minute in minutes if minute >= now - 2
            ]  # closed ones are written to no more
        if await passed(horizon, now):
            return  # the minute changed meanwhile: what is expected would be another window
        for reader in (old, Repository(horizon)):
            for window in ("1h", "24h", "7d"):
                found = await reader.metrics(window)  # type: ignore[arg-type]
                if await passed(horizon, now):
                    return
                check(found, pasts, now)
                only = await reader.metrics(window, job="y|z")  # type: ignore[arg-type]
                if await passed(horizon, now):
                    return
                check(only, pasts, now, "y|z")
                each = await reader.totals_of(window, ["a", "b", "c"])  # type: ignore[arg-type]
                assert add_all(list(each.values())) == found.total
        minutes = [minute for minute in minutes if minute >= now - 2]  # readers close what is open for long


async def unwritten(past: Past, minute: int) -> bool:
    return not any(one == minute for one, _ in past.runs)


async def passed(horizon: Horizon, minute: int) -> bool:
    seconds, _ = await horizon.client.time()
    return int(seconds) // 60 != minute


async def test_a_job_that_is_forgotten_begins_anew(horizon: Horizon, redis: Client) -> None:
    past = Past(horizon, "a")
    now = await past.begin(12 * DAY)
    await past.add(now - 11 * DAY, "seldom", 50)
    await past.add(now - 2 * DAY, "often", 5)
    await past.add(now - 90, "seldom", 3)
    await past.broker.roll()
    for reader in (Repository(horizon), Repository(horizon)):
        jobs = (await reader.metrics("7d")).jobs
        assert {name: figures.runs for name, figures in jobs.items()} == {"seldom": 3, "often": 5}
        assert jobs["seldom"] == past.expected(now - DAY, now, "seldom")


async def test_what_is_old_goes(horizon: Horizon, redis: Client) -> None:
    """Records of minutes and hours that no window shows are dropped, whatever jobs they were of."""
    past = Past(horizon, "a")
    now = await past.begin(10 * DAY)
    _, minutes, hours = past.broker.keys.counts
    for ago in range(10 * DAY, 60, -DAY // 2):
        await past.add(now - ago, f"job{ago % 7}", 2)
    for _ in range(2):  # it goes through two hundred hours at once
        await past.broker.roll()
    periods = {int(name.partition("|")[0].removesuffix("b")) for name in await redis.hkeys(hours)}
    assert len(periods) <= 17
    assert min(periods) > now // 60 - 8 * 24 - 2
    kept = {name.partition("|")[0].removesuffix("b") for name in await redis.hkeys(minutes)}
    assert kept == {str(now - ago) for ago in range(10 * DAY, 60, -DAY // 2) if ago < 120} or not kept


async def test_readers_beside_the_closing_see_every_run_once(horizon: Horizon) -> None:
    past = Past(horizon, "a")
    now = await past.begin(40)
    for ago in range(40):
        await past.add(now - ago, f"job{ago % 3}", 10)
    repository = Repository(horizon)

    closing = [asyncio.create_task(past.broker.roll()) for _ in range(3)]
    totals = await asyncio.gather(*[repository.metrics("1h") for _ in range(30)])
    assert {metrics.total.runs for metrics in totals} == {400}
    assert {figures.runs for metrics in totals for figures in metrics.jobs.values()} == {130, 140}
    await asyncio.gather(*closing)


async def test_a_queue_without_counters_has_none(horizon: Horizon) -> None:
    reader, span = Reader(), Span("minutes", 100, 159)
    [found] = await reader.read(horizon.broker("new"), [span], by_job=True)
    assert (row_of([found], span), jobs_of([found], span)) == (0, {})


async def test_what_is_kept_stays_within_its_bounds(horizon: Horizon) -> None:
    reader = Reader(most=30_000)
    pasts = [Past(horizon, f"q{number}") for number in range(20)]
    for past in pasts:
        now = await past.begin(60)
        for ago in range(60, 0, -5):
            await past.add(now - ago, "work", 3)
        await past.broker.roll()
    span = Span("minutes", now - 59, now)
    for _ in range(2):
        for past in pasts:
            [found] = await reader.read(past.broker, [span])
            runs = sum(sum(numbers[: len(OUTCOMES)]) for numbers in numbers_of(row_of([found], span), 60))
            assert runs == past.expected(now - 59, now).runs
            assert reader._size <= 30_000 + 60 * 8 * PLACES


def test_rows_are_added_moved_and_cut() -> None:
    draw = random.Random(7)
    periods = [[draw.randrange(2**40) for _ in range(PLACES)] for _ in range(9)]
    row = sum(packed(numbers, at) for at, numbers in enumerate(periods))
    assert [list(numbers) for numbers in numbers_of(row, 9)] == periods
    assert [list(numbers) for numbers in numbers_of(shifted(row, 4), 5)] == periods[4:]
    assert [list(numbers) for numbers in numbers_of(shifted(row, -1), 10)] == [[0] * PLACES, *periods]
    assert cut(row, 3) == sum(packed(numbers, at) for at, numbers in enumerate(periods[:3]))
    for length in range(1, 10):
        assert list(numbers_of(total_of(row, length))[0]) == [
            sum(column) for column in zip(*periods[:length], strict=True)
        ]
    assert first_of(0) is None
    assert first_of(shifted(row, -5)) == 5


async def test_minutes_are_closed_once_by_however_many(horizon: Horizon, redis: Client) -> None:
    past = Past(horizon, "a")
    now = await past.begin(200)
    for ago in range(200, 3, -1):
        await past.add(now - ago, "work", 2)
    other = Broker(redis, "a")
    await asyncio.gather(*[broker.roll() for broker in (past.broker, other) * 5])
    assert (await Repository(horizon).metrics("24h")).total.runs == 2 * 197
    await other.aclose()
