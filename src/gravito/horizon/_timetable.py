"""Schedules as readers see them: when each fired, when it will, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from gravito.errors import ConfigurationError, HorizonError
from gravito.horizon._book import Book, Page
from gravito.horizon._book import moment as at_moment
from gravito.horizon._rows import moment
from gravito.horizon._scheduled import scheduled
from gravito.horizon.call import Call
from gravito.horizon.command import run_command

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.schedule import Schedule

__all__ = ["ScheduleRow", "Timetable"]


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule.

    Args:
        name: its name.
        here: whether this application has it; of others, only what the server remembers is known.
        plan: its cron fields, or its interval.
        zone: the name of its time zone.
        what: the job or the command that it runs.
        queue: where its job goes.
        about: its description.
        paused: whether it fires.
        next: when it fires next.
        last: when it fired last.
        job: id of what that pushed.
        outcome: the state of that job, if the queue still knows it.
    """

    name: str
    here: bool = True
    plan: str = ""
    zone: str = ""
    what: str = ""
    queue: str = ""
    about: str | None = None
    paused: bool = False
    next: datetime | None = None
    last: datetime | None = None
    job: str = ""
    outcome: str | None = None


class Timetable:
    """See the module.

    Args:
        horizon: whose schedules.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon

    def __repr__(self) -> str:
        return f"<Timetable of {self._horizon!r}>"

    async def rows(self) -> list[ScheduleRow]:
        """All schedules, by name."""
        now, pages = await Book(self._horizon).read()
        schedules = self._horizon.schedules
        rows = [
            await self._row(schedule, self._page(schedule, pages), now) for schedule in schedules.values()
        ]
        others = [name for name in pages if name not in schedules and name.partition("@")[0] not in schedules]
        rows += [_remembered(name, pages[name]) for name in others]
        return sorted(rows, key=lambda row: row.name)

    async def pause(self, name: str, paused: bool) -> None:
        """Stop it from firing, or let it fire again; on all servers, if it fires on each."""
        book = Book(self._horizon)
        _, pages = await book.read()
        entries = [entry for entry in pages if entry == name or entry.startswith(f"{name}@")]
        if not entries and name not in self._horizon.schedules:
            raise HorizonError(f"there is no schedule {name!r}")
        for entry in entries or [name]:
            await book.pause(entry, paused)

    async def run(self, name: str) -> str:
        """Push its job now; the job's id."""
        schedule = self._horizon.schedules.get(name)
        if schedule is None:
            raise HorizonError(f"this application has no schedule {name!r}")
        call = scheduled(schedule).tags(f"schedule:{name}").meta(schedule=name)
        return (await self._horizon.push(call)).id

    def _page(self, schedule: Schedule, pages: dict[str, Page]) -> Page:
        """Its entry; of a schedule that fires on every server, the one that fired last."""
        own = [page for name, page in pages.items() if name == schedule.name]
        if schedule.everywhere:
            own = [page for name, page in pages.items() if name.startswith(f"{schedule.name}@")]
        return max(own, key=lambda page: page.fired or 0, default=Page())

    async def _row(self, schedule: Schedule, page: Page, now: int) -> ScheduleRow:
        try:
            following = schedule.plan.after(at_moment(now))
            plan = schedule.expression
        except ConfigurationError as error:
            following, plan = None, str(error)
        queue, what = _target(schedule)
        outcome = (await self._horizon.broker(queue).look(page.job)).state if page.job and queue else None
        return ScheduleRow(
            name=schedule.name,
            plan=plan,
            zone=schedule.timezone_name,
            what=what,
            queue=queue,
            about=schedule.about,
            paused=page.paused,
            next=None if page.paused else following,
            last=moment(page.fired),
            job=page.job,
            outcome=outcome,
        )


def _remembered(name: str, page: Page) -> ScheduleRow:
    return ScheduleRow(name=name, here=False, paused=page.paused, last=moment(page.fired), job=page.job)


def _target(schedule: Schedule) -> tuple[str, str]:
    if schedule.argv is not None:
        return run_command.definition.options.queue, " ".join(schedule.argv)
    what = schedule.what
    if isinstance(what, Call):
        return what.queue, what.definition.name
    definition = getattr(what, "definition", None)
    return (definition.options.queue, definition.name) if definition is not None else ("", repr(what))
