"""Schedules that cannot fire: they say so, hold up no other, and are made up for; nothing ends in silence."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.horizon.test_scheduler import Clock, noted, ran
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import GravitoError
from gravito.horizon import Call, Horizon, Middleware
from gravito.horizon._book import Book
from gravito.horizon._minded import minded
from gravito.horizon.process import Work, _work
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.worker import Worker, WorkerOptions


class Guard(Middleware):
    """Refuses jobs that are tagged so, for as long as it is told."""

    refusing = True

    def pushing(self, call: Call[Any]) -> Call[Any]:
        if self.refusing and "exit" in call.how.tags:
            sys.exit(3)
        if self.refusing and "refused" in call.how.tags:
            raise ValueError("not allowed today")
        return call


@pytest.fixture
def guard() -> Guard:
    """To be told when it is over."""
    return Guard()


@pytest.fixture
async def horizon(redis: Client, guard: Guard) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis, middleware=[guard]) as made:
        yield made


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about schedules that cannot fire."""
    return [text for text in caplog.messages if "cannot fire" in text]


@pytest.mark.parametrize("how", ["refused", "exit"])
async def test_a_schedule_that_cannot_fire_holds_up_no_other(
    horizon: Horizon, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    note, fires = noted(horizon)
    horizon.schedule("bad", note.make(1).tags(how)).every_minute()
    horizon.schedule("far", note.make(3).delay(9e9)).every_minute()  # more than the queue takes
    horizon.schedule("good", note.make(2)).every_minute()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    for _ in range(4):
        await scheduler.tick(book)
        clock.move(minutes=1)
    await ran(horizon)
    assert fires == [2, 2, 2]
    why = "not allowed today" if how == "refused" else "3"
    assert said(caplog)[0] == f"schedule 'bad' cannot fire: {why}; trying again in 1 s"
    assert "schedule 'far' cannot fire: job " in said(caplog)[1]
    assert "delay is 9000000000000" in said(caplog)[1]


async def test_it_is_tried_again_in_growing_pauses(
    horizon: Horizon, caplog: pytest.LogCaptureFixture
) -> None:
    note, _ = noted(horizon)
    horizon.schedule("bad", note.make(1).tags("refused")).hourly()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    clock.move(hours=1)
    pauses = [await scheduler.tick(book)]
    for _ in range(100):
        clock.move(seconds=pauses[-1])
        pauses.append(await scheduler.tick(book))
    tries = [int(text.split()[-2]) for text in said(caplog)]
    assert tries[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(tries[10:]) == {300}
    assert max(pauses) == 15  # as long as pauses and other schedulers' ends may go unseen


@pytest.mark.parametrize(("policy", "times"), [("all", 3), ("once", 1), ("skip", 0)])
async def test_what_it_missed_is_made_up_for_by_its_policy(
    horizon: Horizon, guard: Guard, policy: Any, times: int
) -> None:
    note, fires = noted(horizon)
    horizon.schedule("bad", note.make(1).tags("refused")).every_minute().missed(policy)
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    for _ in range(3):
        clock.move(minutes=1)
        await scheduler.tick(book)
    guard.refusing = False
    clock.move(seconds=40)
    await scheduler.tick(book)
    await ran(horizon)
    assert len(fires) == times


async def test_a_condition_that_exits_or_hangs_leaves_its_fire_out(
    horizon: Horizon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, fires = noted(horizon)

    async def exits() -> bool:
        sys.exit(3)

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr("gravito.horizon.scheduler._CONDITION", 0.01)
    horizon.schedule("exits", note.make(1)).every_minute().when(exits)
    horizon.schedule("hangs", note.make(2)).every_minute().when(hangs)
    horizon.schedule("good", note.make(3)).every_minute()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    clock.move(minutes=1)
    async with asyncio.timeout(20):
        await scheduler.tick(book)
    await ran(horizon)
    assert fires == [3]
    for name in ("exits", "hangs"):
        assert f"schedule '{name}': its condition failed, so this fire is left out" in caplog.messages


async def test_a_schedule_that_is_added_later_fires(
    horizon: Horizon, caplog: pytest.LogCaptureFixture
) -> None:
    note, fires = noted(horizon)
    horizon.schedule("first", note.make(1)).every_minute()
    clock, book = Clock(), Book(horizon)
    scheduler = Scheduler(horizon, clock)
    await scheduler.tick(book)
    horizon.schedule("later", note.make(2)).every_minute()
    horizon.schedule("unsaid", note.make(3))
    for _ in range(2):
        await scheduler.tick(book)
        clock.move(minutes=1)
    await scheduler.tick(book)
    assert (await ran(horizon), sorted(fires)) == (4, [1, 1, 2, 2])
    assert "schedule 'unsaid' cannot fire: schedule 'unsaid' does not say how often" in said(caplog)[0]


async def test_a_scheduler_lives_through_every_error_and_says_it_once(
    horizon: Horizon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, _ = noted(horizon)
    horizon.schedule("s", note).every_second()
    read, wrongs = Book.read, [GravitoError("away"), GravitoError("away"), RuntimeError("a bug")]

    async def faulty(book: Book) -> Any:
        if wrongs:
            raise wrongs.pop(0)
        return await read(book)

    monkeypatch.setattr(Book, "read", faulty)
    scheduler = Scheduler(horizon)
    task = asyncio.create_task(scheduler.run())
    await until(lambda: scheduler.fired, timeout=20)
    scheduler.stop()
    await task
    assert said(caplog) == ["schedules cannot fire now: away; trying again"]


# -- in a worker process -----------------------------------------------------------------------------------------


async def stopped_after(horizon: Horizon, condition: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Work as `gravito horizon work` does until something holds; the exit status."""
    workers: list[Worker] = []

    class Kept(Worker):
        def __init__(self, horizon: Horizon, options: WorkerOptions | None = None) -> None:
            super().__init__(horizon, options)
            workers.append(self)

    monkeypatch.setattr("gravito.horizon.process.Worker", Kept)
    task = asyncio.create_task(_work(horizon, Work(target="", queues=("default",))))
    async with asyncio.timeout(20):
        await until(lambda: task.done() or condition(), timeout=20)
        workers[0].stop()
        return await task


async def test_a_schedule_of_a_start_up_hook_fires(redis: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    horizon = Horizon(redis)
    note, fires = noted(horizon)

    @horizon.on_startup
    async def add() -> None:
        await asyncio.sleep(0.05)  # the scheduler would have begun by now
        horizon.schedule("added", note.make(2)).every_second()

    assert await stopped_after(horizon, lambda: fires, monkeypatch) == 0


async def test_a_process_whose_scheduler_dies_says_so_and_ends(
    redis: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    horizon = Horizon(redis)
    note, _ = noted(horizon)
    horizon.schedule("s", note).every_second()

    async def dies(self: Scheduler) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Scheduler, "run", dies)
    assert await stopped_after(horizon, lambda: False, monkeypatch) == 1
    record = next(record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert "a part of this process failed, so it ends" in record.message
    assert record.exc_info is not None
    assert "a bug" in str(record.exc_info[1])


async def test_a_worker_s_helper_that_fails_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrongs = [ValueError("one"), SystemExit(3)]

    async def run() -> None:
        if wrongs:
            raise wrongs.pop(0)

    monkeypatch.setattr("gravito.horizon._minded._PAUSES", (0.0,))
    async with asyncio.timeout(20):
        await minded("the heartbeat", run)
    assert caplog.messages == ["the heartbeat failed; it begins anew in 0 s"] * 2
