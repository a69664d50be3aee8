"""Schedulers: each fire happens once, whoever runs, stops, dies, or keeps other time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import ConfigurationError
from gravito.horizon._book import Book, Fire, Page, due, milliseconds
from gravito.horizon._plan import Plan
from gravito.horizon.horizon import Horizon
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.worker import Worker, WorkerOptions

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY_MINUTE = Plan(cron="* * * * *")


class Clock:
    """A time that stands until it is moved."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self, server_ms: int) -> int:
        return milliseconds(self.at)

    def move(self, **by: float) -> None:
        """Let time pass."""
        self.at += timedelta(**by)


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


async def ran(horizon: Horizon) -> int:
    """Jobs that a worker finds."""
    worker = Worker(horizon, WorkerOptions(burst=True))
    async with asyncio.timeout(20):
        return (await worker.run()).done


def noted(horizon: Horizon) -> tuple[Any, list[int]]:
    """A job that notes the fires it ran for."""
    fires: list[int] = []

    @horizon.job
    async def note(number: int = 0) -> None:
        fires.append(number)

    return note, fires


# -- which fires are due ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=30), st.sampled_from(["skip", "once", "all"]))
def test_however_time_is_cut_into_looks_nothing_fires_twice(steps: list[int], policy: str) -> None:
    last, now, seen = START, START, []
    for step in steps:
        now += timedelta(seconds=step)
        times, last = due(EVERY_MINUTE, last, now, policy, 10_000)
        seen += times
    assert seen == sorted(set(seen))
    wanted = EVERY_MINUTE.between(START, now, 10_000)
    if policy == "all":
        assert seen == wanted
    assert set(seen) <= set(wanted)
    if all(step <= 30 for step in steps):
        assert seen == wanted


@pytest.mark.parametrize(
    ("policy", "limit", "times"),
    [("skip", 1, []), ("once", 1, [58]), ("all", 100, range(1, 59)), ("all", 3, [56, 57, 58])],
)
def test_missed_fires_by_policy(policy: str, limit: int, times: Sequence[int]) -> None:
    now = START + timedelta(minutes=58, seconds=40)
    found, last = due(EVERY_MINUTE, START, now, policy, limit)
    assert found == [START + timedelta(minutes=minute) for minute in times]
    assert last == now


def test_a_fire_that_is_on_time_makes_up_for_the_missed() -> None:
    now = START + timedelta(minutes=58, seconds=2)
    found, _ = due(EVERY_MINUTE, START, now, "once", 1)
    assert found == [START + timedelta(minutes=58)]


# -- with the server -------------------------------------------------------------------------------------------


async def test_a_new_schedule_does_not_fire_for_the_past(horizon: Horizon) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note).every_minute()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    assert scheduler.fired == 0
    clock.move(minutes=1)
    await scheduler.tick(book)
    assert scheduler.fired == await ran(horizon) == 1


async def test_many_schedulers_fire_each_once(horizon: Horizon, redis: Client) -> None:
    note, fires = noted(horizon)
    horizon.schedule("often", note.make(1)).every(7)
    horizon.schedule("seldom", note.make(2)).every_ten_minutes()
    clock = Clock()
    rivals = [(Scheduler(horizon, clock), Book(horizon)) for _ in range(5)]
    await asyncio.gather(*(scheduler.tick(book) for scheduler, book in rivals))
    for _ in range(60):
        clock.move(seconds=20)
        await asyncio.gather(*(scheduler.tick(book) for scheduler, book in rivals))
    await ran(horizon)
    assert (fires.count(1), fires.count(2)) == (1200 // 7 + (START.timestamp() % 7 + 1200 % 7 >= 7), 2)
    assert sum(scheduler.fired for scheduler, _ in rivals) == len(fires)


async def test_a_scheduler_that_was_frozen_between_look_and_note_fires_nothing(horizon: Horizon) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note).every_minute()
    book = Book(horizon)
    _, pages = await book.read()
    assert pages == {}
    (_, envelope), _ = horizon.prepare(note.make())
    travels = (("default", envelope),)
    assert await book.note([Fire("s", None, "d", 1000, travels)]) == [True]
    await book.relay()
    assert await ran(horizon) == 1
    # it thaws a minute later, its job long done and forgotten, and notes what it had seen before
    assert await book.note([Fire("s", None, "d", 1000, travels)]) == [False]
    await book.relay()
    assert await ran(horizon) == 0


async def test_a_fire_whose_scheduler_died_before_it_was_sent_on_is_sent_by_the_next(
    horizon: Horizon,
) -> None:
    note, _ = noted(horizon)
    schedule = horizon.schedule("s", note).every_minute()
    clock, book = Clock(), Book(horizon)
    await Scheduler(horizon, clock).tick(book)
    (queue, envelope), _ = horizon.prepare(note.make())
    _, pages = await book.read()
    clock.move(minutes=1)
    page = pages[schedule.name]
    assert await book.note([Fire("s", page.last, page.digest, clock(0), ((queue, envelope),))]) == [True]
    assert await ran(horizon) == 0
    await Scheduler(horizon, clock).tick(Book(horizon))
    assert await ran(horizon) == 1


async def test_a_paused_schedule_does_not_fire_and_makes_up_for_nothing(horizon: Horizon) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note).every_minute().missed("all")
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    await book.pause("s", paused=True)
    for _ in range(3):
        clock.move(minutes=1)
        await scheduler.tick(book)
    assert scheduler.fired == 0
    await book.pause("s", paused=False)
    clock.move(minutes=1)
    await scheduler.tick(book)
    assert scheduler.fired == await ran(horizon) == 1


async def test_a_schedule_that_is_said_anew_starts_anew(horizon: Horizon, redis: Client) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note).daily().missed("all")
    clock, book = Clock(), Book(horizon)
    await Scheduler(horizon, clock).tick(book)
    async with Horizon(redis) as later:
        later.schedule("s", note).every_minute().missed("all")
        clock.move(hours=2)
        scheduler = Scheduler(later, clock)
        await scheduler.tick(book)
        assert scheduler.fired == 0


async def test_without_overlapping_leaves_fires_out_until_the_job_has_ended(horizon: Horizon) -> None:
    note, fires = noted(horizon)
    horizon.schedule("s", note).every_minute().without_overlapping()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    for _ in range(4):
        await scheduler.tick(book)
        clock.move(minutes=1)
    assert await ran(horizon) == 1
    await scheduler.tick(book)
    assert await ran(horizon) == 1
    assert len(fires) == 2


async def test_a_condition_is_asked_at_each_fire(horizon: Horizon) -> None:
    note, _ = noted(horizon)
    answers = [False, True]

    async def condition() -> bool:
        return answers.pop()

    horizon.schedule("s", note).every_minute().when(condition)
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    for _ in range(3):
        await scheduler.tick(book)
        clock.move(minutes=1)
    assert scheduler.fired == 1
    assert not answers


async def test_a_command_runs_as_a_job(horizon: Horizon, tmp_path: Path) -> None:
    made = tmp_path / "made by it"
    horizon.schedule("s").command(["touch", str(made)]).every_minute()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    clock.move(minutes=1)
    await scheduler.tick(book)
    assert await ran(horizon) == 1
    assert made.exists()


async def test_a_command_that_fails_is_dead_with_its_output(horizon: Horizon) -> None:
    from gravito.horizon.command import run_command

    handle = await horizon.push(run_command.make(["sh", "-c", "echo so sorry >&2; exit 3"]))
    await ran(horizon)
    status = await handle.status()
    assert status.state == "dead"
    assert "status 3: so sorry" in str(status.error)


async def test_schedules_without_a_frequency_or_a_job_are_refused(horizon: Horizon) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note)
    with pytest.raises(ConfigurationError, match="does not say how often"):
        Scheduler(horizon)
    horizon.schedules.clear()
    horizon.schedule("t").daily()
    with pytest.raises(ConfigurationError, match="'t' has nothing to run"):
        Scheduler(horizon)


async def test_it_runs_by_the_server_s_clock_until_it_is_stopped(horizon: Horizon) -> None:
    note, fires = noted(horizon)
    horizon.schedule("s", note).every_second()
    scheduler = Scheduler(horizon)
    task = asyncio.create_task(scheduler.run())
    await until(lambda: scheduler.fired >= 2, timeout=20)
    scheduler.stop()
    await task
    await ran(horizon)
    assert len(fires) == scheduler.fired


async def test_a_page_is_forgotten(horizon: Horizon) -> None:
    book = Book(horizon)
    await book.note([Fire("gone", None, "d", 1)])
    assert (await book.read())[1] == {"gone": Page(1, "d")}
    await book.forget("gone")
    assert (await book.read())[1] == {}
