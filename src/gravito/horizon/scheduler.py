"""The scheduler: fires schedules when their time comes. Any number may run; each fire happens once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito import errors
from gravito.horizon._book import Book, Fire, Page, digest, due, milliseconds, moment
from gravito.horizon.call import Call
from gravito.horizon.command import run_command

if TYPE_CHECKING:
    from gravito.horizon._payload import Travel
    from gravito.horizon._plan import Plan
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.schedule import Schedule

__all__ = ["Scheduler"]

_log = logging.getLogger("gravito.horizon")

_LONGEST: Final = (
    15.0  # seconds between two looks into the book, so that pauses and other schedulers' ends are seen
)


class Scheduler:
    """Fires the schedules of a Horizon until it is stopped.

    The time is the server's, so the machines' clocks do not matter. A fire and what it pushes are noted in one step
    on the server; from there it reaches its queue once, whoever dies meanwhile.

    Args:
        horizon: whose schedules.
        clock: the server's time in ms -> the time in ms that schedules go by; for tests that move it.

    Raises:
        ConfigurationError: a schedule that does not say how often, or has nothing to run.
    """

    def __init__(self, horizon: Horizon, clock: Callable[[int], int] = lambda now: now) -> None:
        self.horizon = horizon
        self.fired = 0  # fires that this scheduler was the first to note
        self._clock = clock
        self._stopped = asyncio.Event()
        self._host = socket.gethostname()
        self._plans = {name: schedule.plan for name, schedule in horizon.schedules.items()}
        self._local: set[asyncio.Task[None]] = set()  # commands that run on this machine
        for schedule in horizon.schedules.values():
            _check(schedule)

    def __repr__(self) -> str:
        return f"<Scheduler of {len(self._plans)} schedules, {self.fired} fired>"

    def stop(self) -> None:
        """Let `run` return."""
        self._stopped.set()

    async def run(self) -> None:
        """Fire until `stop`."""
        book = Book(self.horizon)
        while not self._stopped.is_set():
            try:
                pause = await self.tick(book)
            except errors.GravitoError as error:
                _log.warning("schedules cannot fire now: %s", error)
                pause = 1.0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause)
        for task in self._local:
            task.cancel()
        await asyncio.gather(*self._local, return_exceptions=True)

    async def tick(self, book: Book) -> float:
        """Fire what is due now.

        Returns:
            Seconds until the next look.
        """
        server, pages = await book.read()
        now = self._clock(server)
        fires = []
        for name, schedule in self.horizon.schedules.items():
            fire = await self._fire(
                schedule, self._plans[name], pages.get(self._entry(schedule), Page()), now
            )
            if fire is not None:
                fires.append((schedule, fire))
        if fires:
            taken = await book.note([fire for _, fire in fires])
            for (schedule, fire), first in zip(fires, taken, strict=True):
                if first:
                    self._happened(schedule, fire)
        await book.relay()
        return self._until_next(now)

    async def _fire(self, schedule: Schedule, plan: Plan, page: Page, now: int) -> Fire | None:
        name, mark = self._entry(schedule), digest(plan)
        if page.last is None or page.digest != mark:  # new, or said anew: what was before is not missed
            return Fire(name, page.last, mark, now)
        times, last = due(plan, moment(page.last), moment(now), schedule.missed_policy, schedule.missed_limit)
        if not times:
            return None
        if page.paused or not await _wanted(schedule):
            return Fire(name, page.last, mark, milliseconds(last))
        if schedule.everywhere and schedule.argv is not None:
            return Fire(name, page.last, mark, milliseconds(last), here=len(times))
        travels = tuple(self._travel(schedule, milliseconds(at)) for at in times)
        return Fire(name, page.last, mark, milliseconds(last), travels)

    def _travel(self, schedule: Schedule, at: int) -> Travel:
        what = schedule.what
        if schedule.argv is not None:
            what = run_command.make(list(schedule.argv))
        call: Call[Any] = what if isinstance(what, Call) else what.make()
        call = call.tags(f"schedule:{schedule.name}").meta(schedule=schedule.name, fire=at)
        (queue, envelope), _ = self.horizon.prepare(call)
        if schedule.overlap is not None:
            envelope = msgspec.structs.replace(
                envelope, unique=f"schedule:{self._entry(schedule)}", unique_for=schedule.overlap * 1000
            )
        return queue, envelope

    def _happened(self, schedule: Schedule, fire: Fire) -> None:
        times = len(fire.travels) or fire.here
        if times:
            self.fired += times
            _log.info("schedule %r fired %d time(s)", schedule.name, times)
        for _ in range(fire.here):
            task = asyncio.create_task(_run_here(schedule))
            self._local.add(task)
            task.add_done_callback(self._local.discard)

    def _entry(self, schedule: Schedule) -> str:
        return f"{schedule.name}@{self._host}" if schedule.everywhere else schedule.name

    def _until_next(self, now: int) -> float:
        nexts = [plan.after(moment(now)) for plan in self._plans.values()]
        soonest = min((milliseconds(at) for at in nexts if at is not None), default=None)
        return _LONGEST if soonest is None else min(max((soonest - now) / 1000, 0.001), _LONGEST)


async def _run_here(schedule: Schedule) -> None:
    try:
        await run_command(list(schedule.argv or ()))
    except errors.HorizonError as error:
        _log.error("schedule %r: %s", schedule.name, error)


async def _wanted(schedule: Schedule) -> bool:
    if schedule.condition is None:
        return True
    try:
        answer = schedule.condition()
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception:
        _log.exception("schedule %r: its condition failed, so this fire is left out", schedule.name)
        return False
    return bool(answer)


def _check(schedule: Schedule) -> None:
    if schedule.argv is None and not hasattr(schedule.what, "make") and not isinstance(schedule.what, Call):
        raise errors.ConfigurationError(
            f"schedule {schedule.name!r} has nothing to run: give it a job, as `horizon.schedule(name, job)`, or a "
            "`.command(...)`",
            field="schedule",
            value=schedule.what,
            allowed="a job, a job with arguments, or a command",
        )
