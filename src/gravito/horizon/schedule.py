"""Schedules: what fires when, said in words: `horizon.schedule("cleanup", cleanup).daily().at("02:00")`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, time, timedelta, tzinfo
from typing import Any, Literal, Self

from gravito import errors
from gravito.horizon._plan import Plan, Window, clock, refuse, zone
from gravito.horizon.call import Call, Pending
from gravito.horizon.job import FunctionJob, Job

__all__ = ["Missed", "Schedule"]

Missed = Literal["skip", "once", "all"]

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_FIELDS = ("second", "minute", "hour", "day", "month", "weekday")  # of cron with seconds
_TIMED = ("daily", "weekly", "monthly", "quarterly", "yearly")  # the words that go with `at`
_WHAT = (
    "a job (a function with @job, or a class that derives from Job), a job with its arguments, as job.make(...), or "
    "None where .command(...) says what to run"
)


class Schedule:
    """One schedule of a Horizon; every method changes it and returns it, so that they read as a sentence.

    The order of the words does not matter; what cannot be meant together is refused. It fires once for all schedulers
    that run, on whichever of them is first; `on_all_servers` changes that.

    Args:
        name: unique within the application; the server remembers the fires by it.
        what: a job, or one with its arguments (`cleanup.make(days=3)`); None where `command` says what to run.

    Raises:
        ConfigurationError: a name that cannot be used, or `what` is no job.
    """

    def __init__(self, name: str, what: Any = None) -> None:
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            raise refuse("name", name, "1 to 200 printable characters")
        if not _is_job(what):
            raise errors.ConfigurationError(
                f"schedule {name!r} cannot run {what!r}; allowed: {_WHAT}",
                field="what",
                value=what,
                allowed=_WHAT,
            )
        self.name = name
        self.what = what
        self.argv: tuple[str, ...] | None = None  # of a shell command
        self.everywhere = False
        self.overlap: int | None = None  # seconds that a fire may hold the next ones back; None: it does not
        self.missed_policy: Missed = "once"
        self.missed_limit = 100
        self.condition: Callable[[], Any] | None = None
        self.about: str | None = None
        self._often: str | None = None  # the word that says how often it fires
        self._fields: dict[str, str] = {}  # of cron, as far as words set them
        self._time: time | None = None
        self._cron: str | None = None  # written by the user, who then owns all fields
        self._interval: timedelta | None = None
        self._zone: tzinfo = UTC
        self._windows: tuple[Window, ...] = ()

    def __repr__(self) -> str:
        when = self.expression if self._often or self._time else "never yet: no frequency"
        return f"<Schedule {self.name!r} {when}>"

    @property
    def plan(self) -> Plan:
        """When it fires.

        Raises:
            ConfigurationError: nothing was said about that, or the fields contradict each other.
        """
        if self._often is None and self._time is None:
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
        fields = {**dict.fromkeys(_FIELDS, "*"), "second": "0", **self._fields}
        if (at := self._time) is not None:
            fields |= {"second": str(at.second), "minute": str(at.minute), "hour": str(at.hour)}
        return " ".join(list(fields.values())[1 if fields["second"] == "0" else 0 :])

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
        self._fires("cron")
        self._cron = expression
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
        self._fires("every")
        self._interval = interval
        return self

    def every_second(self) -> Self:
        """Fire each second."""
        return self._fires("every_second", second="*", minute="*", hour="*")

    def every_ten_seconds(self) -> Self:
        """Fire at second 0, 10, 20 and so on."""
        return self._fires("every_ten_seconds", second="*/10", minute="*", hour="*")

    def every_thirty_seconds(self) -> Self:
        """Fire at second 0 and 30."""
        return self._fires("every_thirty_seconds", second="*/30", minute="*", hour="*")

    def every_minute(self) -> Self:
        """Fire each minute."""
        return self._fires("every_minute", minute="*", hour="*")

    def every_two_minutes(self) -> Self:
        """Fire each second minute of the hour."""
        return self._fires("every_two_minutes", minute="*/2", hour="*")

    def every_five_minutes(self) -> Self:
        """Fire each fifth minute of the hour."""
        return self._fires("every_five_minutes", minute="*/5", hour="*")

    def every_ten_minutes(self) -> Self:
        """Fire each tenth minute of the hour."""
        return self._fires("every_ten_minutes", minute="*/10", hour="*")

    def every_fifteen_minutes(self) -> Self:
        """Fire at each quarter of the hour."""
        return self._fires("every_fifteen_minutes", minute="*/15", hour="*")

    def every_thirty_minutes(self) -> Self:
        """Fire at the full and the half hour."""
        return self._fires("every_thirty_minutes", minute="*/30", hour="*")

    def hourly(self, minute: int = 0) -> Self:
        """Fire each hour, at a minute of it."""
        return self._fires("hourly", minute=_number("minute", minute, 0, 59), hour="*")

    def every_two_hours(self) -> Self:
        """Fire at each even hour."""
        return self._fires("every_two_hours", minute="0", hour="*/2")

    def every_six_hours(self) -> Self:
        """Fire at 00:00, 06:00, 12:00 and 18:00."""
        return self._fires("every_six_hours", minute="0", hour="*/6")

    def daily(self) -> Self:
        """Fire each day at midnight; `at` gives another time."""
        return self._fires("daily", minute="0", hour="0")

    def twice_daily(self, first: int = 1, second: int = 13) -> Self:
        """Fire at two full hours of each day."""
        hours = f"{_number('hour', first, 0, 23)},{_number('hour', second, 0, 23)}"
        return self._fires("twice_daily", minute="0", hour=hours)

    def weekly(self, day: int | str = "sunday") -> Self:
        """Fire once a week, at midnight."""
        return self._fires("weekly", minute="0", hour="0").days(day)

    def monthly(self, day: int | Literal["last"] = 1) -> Self:
        """Fire once a month at midnight, on a day of it or on its last.

        A month that lacks the day is left out; "last" exists in every month.
        """
        return self._fires(
            "monthly", minute="0", hour="0", day="L" if day == "last" else _number("day", day, 1, 31)
        )

    def quarterly(self) -> Self:
        """Fire on the first day of January, April, July and October, at midnight."""
        return self._fires("quarterly", minute="0", hour="0", day="1", month="1,4,7,10")

    def yearly(self) -> Self:
        """Fire on 1 January at midnight."""
        return self._fires("yearly", minute="0", hour="0", day="1", month="1")

    # -- at which time, on which days ------------------------------------------------------------------------

    def at(self, time: str) -> Self:
        """The time of the day, as "02:00" or "14:30:15". Without another word it fires each day then.

        Raises:
            ConfigurationError: it is no time; or a word beside it fires more than once a day, or owns all fields.
        """
        moment = clock(time)
        if self._time is not None:
            raise self._wrong("at() was said before; a second time needs a schedule of its own, or `cron`")
        if self._often is not None and self._often not in _TIMED:
            raise self._wrong(_clash("at", self._often))
        self._time = moment
        return self

    def days(self, *days: int | str) -> Self:
        """Only on these days of the week: names, or numbers from 0 for Sunday."""
        if not days:
            raise refuse("days", days, "one day of the week or more")
        return self._on("days", ",".join(str(_weekday(day)) for day in days))

    def weekdays(self) -> Self:
        """Only Monday to Friday."""
        return self._on("weekdays", "1-5")

    def weekends(self) -> Self:
        """Only Saturday and Sunday."""
        return self._on("weekends", "6,0")

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
        try:
            argv = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
        except (ValueError, TypeError) as error:  # as a quotation mark that is not closed
            raise refuse("command", command, f"a program and its arguments ({error})") from error
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

    def _fires(self, word: str, **fields: str) -> Self:
        """Note the word that says how often."""
        if self._often is not None:
            raise self._wrong(_clash(word, self._often))
        if self._time is not None and word not in _TIMED:
            raise self._wrong(_clash(word, "at"))
        self._refuse_days(word, fields, self._fields)
        self._often = word
        self._fields |= fields
        return self

    def _on(self, word: str, weekday: str) -> Self:
        if "weekday" in self._fields:
            raise self._wrong(f"{word}() says the days of the week, which were said before; say them once")
        if self._often is not None:
            self._refuse_days(self._often, self._fields, {"weekday": weekday})
        self._fields["weekday"] = weekday
        return self

    def _refuse_days(self, word: str, fields: Mapping[str, str], others: Mapping[str, str]) -> None:
        """Days of the week beside what has days of its own, or has no fields."""
        if "weekday" in others and word in ("cron", "every"):
            raise self._wrong(_clash(word, "days of the week"))
        if "weekday" in others and "day" in fields:  # cron fires when either fits
            raise self._wrong(f"{word}() names a day of the month; ask for the day of the week in `when`")

    def _wrong(self, reason: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(
            f"schedule {self.name!r}: {reason}", field="schedule", allowed="words that can be meant together"
        )


def _is_job(what: Any) -> bool:
    if isinstance(what, type):
        return issubclass(what, Job) and hasattr(what, "definition")
    return what is None or isinstance(what, (FunctionJob, Pending, Call))


def _clash(word: str, other: str) -> str:
    return (
        f"{word} cannot be combined with {other}; say one of them, or write it as `cron`. `at` goes with "
        f"{', '.join(_TIMED)}"
    )


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
