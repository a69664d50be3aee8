"""Schedules: what fires when, said in words: `horizon.schedule("cleanup", cleanup).daily().at("02:00")`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, timedelta, tzinfo
from typing import Any, Literal, Self

from gravito import errors
from gravito.horizon._plan import Plan, Window, clock, refuse, zone

__all__ = ["Missed", "Schedule"]

Missed = Literal["skip", "once", "all"]

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY = range(6)  # the fields of cron with seconds


class Schedule:
    """One schedule of a Horizon; every method changes it and returns it, so that they read as a sentence.

    It fires once for all schedulers that run, on whichever of them is first; `on_all_servers` changes that.

    Args:
        name: unique within the application; the server remembers the fires by it.
        what: a job, or one with its arguments (`cleanup.make(days=3)`); None where `command` says what to run.
    """

    def __init__(self, name: str, what: Any = None) -> None:
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            raise refuse("name", name, "1 to 200 printable characters")
        self.name = name
        self.what = what
        self.argv: tuple[str, ...] | None = None  # of a shell command
        self.everywhere = False
        self.overlap: int | None = None  # seconds that a fire may hold the next ones back; None: it does not
        self.missed_policy: Missed = "once"
        self.missed_limit = 100
        self.condition: Callable[[], Any] | None = None
        self.about: str | None = None
        self._fields = ["0", "*", "*", "*", "*", "*"]
        self._cron: str | None = None  # written by the user, who then owns all fields
        self._interval: timedelta | None = None
        self._zone: tzinfo = UTC
        self._windows: tuple[Window, ...] = ()
        self._said = False  # how often it fires

    def __repr__(self) -> str:
        when = self.expression if self._said else "never yet: no frequency"
        return f"<Schedule {self.name!r} {when}>"

    @property
    def plan(self) -> Plan:
        """When it fires.

        Raises:
            ConfigurationError: nothing was said about that, or the fields contradict each other.
        """
        if not self._said:
            raise errors.ConfigurationError(
                f"schedule {self.name!r} does not say how often: add `.daily()`, `.every_five_minutes()`, "
                "`.cron(...)` or the like",
                field="schedule",
                allowed="a frequency",
            )
        if self._interval is not None:
            return Plan(interval=self._interval, zone=self._zone, windows=self._windows)
        return Plan(cron=self.expression, zone=self._zone, windows=self._windows)

    @property
    def expression(self) -> str:
        """The cron fields, or the interval in words."""
        if self._interval is not None:
            return f"every {self._interval}"
        if self._cron is not None:
            return self._cron
        return " ".join(self._fields if self._fields[_SECOND] != "0" else self._fields[1:])

    @property
    def timezone_name(self) -> str:
        """The zone, as it was given."""
        return str(self._zone)

    # -- how often -------------------------------------------------------------------------------------------

    def cron(self, expression: str) -> Self:
        """Fire by cron fields: five, or six with seconds first. See https://man7.org/linux/man-pages/man5/crontab.5.html

        Raises:
            ConfigurationError: the fields cannot be read.
        """
        Plan(cron=expression)
        self._cron, self._interval, self._said = expression, None, True
        return self

    def every(self, seconds: float | timedelta) -> Self:
        """Fire in intervals, counted from 1970-01-01 UTC.

        Args:
            seconds: one or more.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float, timedelta)):
            raise refuse("every", seconds, "seconds, or a timedelta")
        interval = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        Plan(interval=interval)
        self._interval, self._cron, self._said = interval, None, True
        return self

    def every_second(self) -> Self:
        """Fire each second."""
        return self._set(second="*", minute="*", hour="*")

    def every_ten_seconds(self) -> Self:
        """Fire at second 0, 10, 20 and so on."""
        return self._set(second="*/10", minute="*", hour="*")

    def every_thirty_seconds(self) -> Self:
        """Fire at second 0 and 30."""
        return self._set(second="*/30", minute="*", hour="*")

    def every_minute(self) -> Self:
        """Fire each minute."""
        return self._set(minute="*", hour="*")

    def every_two_minutes(self) -> Self:
        """Fire each second minute of the hour."""
        return self._set(minute="*/2", hour="*")

    def every_five_minutes(self) -> Self:
        """Fire each fifth minute of the hour."""
        return self._set(minute="*/5", hour="*")

    def every_ten_minutes(self) -> Self:
        """Fire each tenth minute of the hour."""
        return self._set(minute="*/10", hour="*")

    def every_fifteen_minutes(self) -> Self:
        """Fire at each quarter of the hour."""
        return self._set(minute="*/15", hour="*")

    def every_thirty_minutes(self) -> Self:
        """Fire at the full and the half hour."""
        return self._set(minute="*/30", hour="*")

    def hourly(self, minute: int = 0) -> Self:
        """Fire each hour, at a minute of it."""
        return self._set(minute=_number("minute", minute, 0, 59), hour="*")

    def every_two_hours(self) -> Self:
        """Fire at each even hour."""
        return self._set(minute="0", hour="*/2")

    def every_six_hours(self) -> Self:
        """Fire at 00:00, 06:00, 12:00 and 18:00."""
        return self._set(minute="0", hour="*/6")

    def daily(self) -> Self:
        """Fire each day at midnight; `at` gives another time."""
        return self._set(minute="0", hour="0")

    def twice_daily(self, first: int = 1, second: int = 13) -> Self:
        """Fire at two full hours of each day."""
        hours = f"{_number('hour', first, 0, 23)},{_number('hour', second, 0, 23)}"
        return self._set(minute="0", hour=hours)

    def weekly(self, day: int | str = "sunday") -> Self:
        """Fire once a week, at midnight."""
        return self._set(minute="0", hour="0").days(day)

    def monthly(self, day: int | Literal["last"] = 1) -> Self:
        """Fire once a month at midnight, on a day of it or on its last.

        A month that lacks the day is left out; "last" exists in every month.
        """
        return self._set(minute="0", hour="0", day="L" if day == "last" else _number("day", day, 1, 31))

    def quarterly(self) -> Self:
        """Fire on the first day of January, April, July and October, at midnight."""
        return self._set(minute="0", hour="0", day="1", month="1,4,7,10")

    def yearly(self) -> Self:
        """Fire on 1 January at midnight."""
        return self._set(minute="0", hour="0", day="1", month="1")

    # -- at which time, on which days ------------------------------------------------------------------------

    def at(self, time: str) -> Self:
        """The time of the day, as "02:00" or "14:30:15"."""
        moment = clock(time)
        return self._set(second=str(moment.second), minute=str(moment.minute), hour=str(moment.hour))

    def days(self, *days: int | str) -> Self:
        """Only on these days of the week: names, or numbers from 0 for Sunday."""
        if not days:
            raise refuse("days", days, "one day of the week or more")
        return self._set(weekday=",".join(str(_weekday(day)) for day in days))

    def weekdays(self) -> Self:
        """Only Monday to Friday."""
        return self._set(weekday="1-5")

    def weekends(self) -> Self:
        """Only Saturday and Sunday."""
        return self._set(weekday="6,0")

    def between(self, begin: str, end: str) -> Self:
        """Only from one time of the day to another, both included; past midnight if `end` is the earlier."""
        self._windows += (Window(clock(begin), clock(end)),)
        return self

    def unless_between(self, begin: str, end: str) -> Self:
        """Not from one time of the day to another."""
        self._windows += (Window(clock(begin), clock(end), inside=False),)
        return self

    def timezone(self, name: str | tzinfo) -> Self:
        """The zone in which times and days are meant; UTC without this."""
        self._zone = zone(name)
        return self

    # -- how -------------------------------------------------------------------------------------------------

    def on_one_server(self) -> Self:
        """Fire once however many schedulers run; this is the default, said for the reader."""
        self.everywhere = False
        return self

    def on_all_servers(self) -> Self:
        """Fire in every scheduler that runs, each for itself."""
        self.everywhere = True
        return self

    def without_overlapping(self, at_most: float | timedelta = 86_400) -> Self:
        """Leave a fire out while the job of an earlier one is not finished.

        Args:
            at_most: seconds after which the earlier one no longer holds it back.
        """
        seconds = at_most.total_seconds() if isinstance(at_most, timedelta) else at_most
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 1:
            raise refuse("without_overlapping", at_most, "one second or more")
        self.overlap = int(seconds)
        return self

    def missed(self, policy: Missed, limit: int = 100) -> Self:
        """What happens with fires for which no scheduler ran.

        Args:
            policy: "skip" leaves them out, "once" makes up for all of them with one, "all" for each.
            limit: of "all": the latest so many.
        """
        if policy not in ("skip", "once", "all"):
            raise refuse("missed", policy, '"skip", "once" or "all"')
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise refuse("missed limit", limit, "1 to 10000")
        self.missed_policy, self.missed_limit = policy, limit
        return self

    def when(self, condition: Callable[[], Any]) -> Self:
        """Fire only if this function, plain or async, says so at that moment."""
        if not callable(condition):
            raise refuse("when", condition, "a function without arguments")
        self.condition = condition
        return self

    def command(self, command: str | Sequence[str]) -> Self:
        """Run a program instead of a job of the application.

        Args:
            command: the program with its arguments; a text is split as a shell would, and no shell runs it. For
                pipes and the like say `["sh", "-c", "..."]`.
        """
        argv = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
        if not argv:
            raise refuse("command", command, "a program and its arguments")
        if self.what is not None:
            raise errors.ConfigurationError(
                f"schedule {self.name!r} has a job already; a command needs a schedule of its own",
                field="command",
                allowed="a job or a command",
            )
        self.argv = tuple(argv)
        return self

    def description(self, text: str) -> Self:
        """A line for people who read the list of schedules."""
        self.about = text
        return self

    def _set(self, **fields: str) -> Self:
        if self._cron is not None or self._interval is not None:
            raise errors.ConfigurationError(
                f"schedule {self.name!r}: {', '.join(fields)} cannot be combined with {self.expression!r}; "
                "write it into the cron fields, or use `between`",
                field="schedule",
                allowed="cron fields, an interval, or words",
            )
        places = {
            "second": _SECOND,
            "minute": _MINUTE,
            "hour": _HOUR,
            "day": _DAY,
            "month": _MONTH,
            "weekday": _WEEKDAY,
        }
        for name, value in fields.items():
            self._fields[places[name]] = value
        self._said = self._said or "weekday" not in fields or len(fields) > 1
        return self


def _number(field: str, value: object, least: int, most: int) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise refuse(field, value, f"{least} to {most}")
    return str(value)


def _weekday(day: int | str) -> int:
    if isinstance(day, str):
        for number, name in enumerate(_DAYS):
            if len(day) >= 3 and name.startswith(day.lower()):
                return number
    elif not isinstance(day, bool) and isinstance(day, int) and 0 <= day <= 6:
        return day
    raise refuse("day", day, "monday to sunday, or 0 (Sunday) to 6")
