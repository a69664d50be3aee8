"""The scheduler: fires schedules when their time comes. Any number may run; each fire happens once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from gravito import errors
from gravito.horizon._book import Book, Fire, Page, digest, due, milliseconds, moment
from gravito.horizon._pack import check
from gravito.horizon._scheduled import check_schedule, scheduled
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
_AGAIN: Final = 300  # seconds, at most, until a schedule that cannot fire is tried again
_CONDITION: Final = 10.0  # seconds that a condition may take; all schedules wait for it


class Scheduler:
    """Fires the schedules of a Horizon until it is stopped.

    The time is the server's, so the machines' clocks do not matter. A fire and what it pushes are noted in one step
    on the server; from there it reaches its queue once, whoever dies meanwhile. A schedule that cannot fire is logged
    and tried again, in growing pauses; what it misses until then is made up for by its policy.

    Args:
        horizon: whose schedules; those that are added later count, too.
        clock: the server's time in ms -> the time in ms that schedules go by; for tests that move it.

    Raises:
        ConfigurationError: a schedule that does not say how often, has nothing to run or not all arguments for it, or
            never fires.
    """

    def __init__(self, horizon: Horizon, clock: Callable[[int], int] = lambda now: now) -> None:
        self.horizon = horizon
        self.fired = 0  # fires that this scheduler was the first to note
        self._clock = clock
        self._stopped = asyncio.Event()
        self._host = socket.gethostname()
        self._plans: dict[Schedule, Plan] = {}  # of those that were seen
        self._failing: dict[Schedule, tuple[int, int]] = {}  # failures in a row, and ms of the next try
        self._local: set[asyncio.Task[None]] = set()  # commands that run on this machine
        for schedule in horizon.schedules.values():
            self._plan(schedule)

    def __repr__(self) -> str:
        return f"<Scheduler of {len(self.horizon.schedules)} schedules, {self.fired} fired>"

    def stop(self) -> None:
        """Let `run` return."""
        self._stopped.set()

    async def run(self) -> None:
        """Fire until `stop`; a server that is away is no reason to end."""
        book = Book(self.horizon)
        failures = 0
        while not self._stopped.is_set():
            try:
                pause = await self.tick(book)
                failures = 0
            except Exception as error:
                pause = 1.0
                level = logging.DEBUG if failures else logging.WARNING  # once, however long it lasts
                failures += 1
                _log.log(level, "schedules cannot fire now: %s; trying again", error, exc_info=_trace(error))
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
        following = now + round(_LONGEST * 1000)
        fires = []
        for schedule in list(self.horizon.schedules.values()):
            fire, following_of_it = await self._look(schedule, pages, now)
            if fire is not None:
                fires.append((schedule, fire))
            following = min(following, following_of_it or following)
        if fires:
            taken = await book.note([fire for _, fire in fires])
            for (schedule, fire), first in zip(fires, taken, strict=True):
                if first:
                    self._happened(schedule, fire)
        await book.relay()
        return max((following - now) / 1000, 0.001)

    async def _look(
        self, schedule: Schedule, pages: Mapping[str, Page], now: int
    ) -> tuple[Fire | None, int | None]:
        """What a schedule fires now, and the ms of the next look at it. One that fails holds up no other."""
        failures, again = self._failing.get(schedule, (0, 0))
        if now < again:
            return None, again
        try:
            plan = self._plan(schedule)
            fire = await self._fire(schedule, plan, pages.get(self._entry(schedule), Page()), now)
            following = plan.after(moment(now))
        except (Exception, SystemExit) as error:  # the user's own code runs in there
            pause = min(2 ** min(failures, 10), _AGAIN)
            self._failing[schedule] = (failures + 1, now + pause * 1000)
            text = "schedule %r cannot fire: %s; trying again in %d s"
            _log.error(text, schedule.name, error, pause, exc_info=_trace(error))
            return None, now + pause * 1000
        self._failing.pop(schedule, None)
        return fire, None if following is None else milliseconds(following)

    def _plan(self, schedule: Schedule) -> Plan:
        plan = self._plans.get(schedule)
        if plan is None:
            check_schedule(schedule)
            plan = self._plans[schedule] = schedule.plan
        return plan

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
        call = scheduled(schedule).tags(f"schedule:{schedule.name}").meta(schedule=schedule.name, fire=at)
        (queue, envelope), _ = self.horizon.prepare(call)
        if schedule.overlap is not None:
            envelope = msgspec.structs.replace(
                envelope, unique=f"schedule:{self._entry(schedule)}", unique_for=schedule.overlap * 1000
            )
        return queue, check(envelope)  # here: what the queue refuses would hold up all that is fired later

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


async def _run_here(schedule: Schedule) -> None:
    try:
        await run_command(list(schedule.argv or ()))
    except Exception as error:
        _log.error("schedule %r: %s", schedule.name, error, exc_info=_trace(error))


def _trace(error: BaseException) -> BaseException | None:
    """Where it came from, unless its text says all."""
    return None if isinstance(error, errors.GravitoError) else error


async def _wanted(schedule: Schedule) -> bool:
    if schedule.condition is None:
        return True
    try:
        answer = schedule.condition()
        if inspect.isawaitable(answer):
            async with asyncio.timeout(_CONDITION):
                answer = await answer
    except (Exception, SystemExit):
        _log.exception("schedule %r: its condition failed, so this fire is left out", schedule.name)
        return False
    return bool(answer)
