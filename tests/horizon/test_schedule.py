"""Schedules in words, and what they mean in cron's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravito.errors import ConfigurationError
from gravito.horizon import Horizon, Job, job
from gravito.horizon._scheduled import check_schedule, scheduled
from gravito.horizon.schedule import Schedule


@job(name="schedule.work")
async def work(number: int = 1) -> None:
    """What is scheduled here."""


@job(name="schedule.needs")
async def needs(number: int) -> None:
    """What is scheduled without what it needs."""


class Scheduled(Job):
    """The same as a class."""

    async def handle(self) -> None: ...


def made() -> Schedule:
    """One that says nothing yet."""
    return Schedule("s")


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (lambda s: s.every_second(), "* * * * * *"),
        (lambda s: s.every_ten_seconds(), "*/10 * * * * *"),
        (lambda s: s.every_thirty_seconds(), "*/30 * * * * *"),
        (lambda s: s.every_minute(), "* * * * *"),
        (lambda s: s.every_two_minutes(), "*/2 * * * *"),
        (lambda s: s.every_five_minutes(), "*/5 * * * *"),
        (lambda s: s.every_ten_minutes(), "*/10 * * * *"),
        (lambda s: s.every_fifteen_minutes(), "*/15 * * * *"),
        (lambda s: s.every_thirty_minutes(), "*/30 * * * *"),
        (lambda s: s.hourly(), "0 * * * *"),
        (lambda s: s.hourly(17), "17 * * * *"),
        (lambda s: s.every_two_hours(), "0 */2 * * *"),
        (lambda s: s.every_six_hours(), "0 */6 * * *"),
        (lambda s: s.daily(), "0 0 * * *"),
        (lambda s: s.daily().at("02:00"), "0 2 * * *"),
        (lambda s: s.daily().at("02:00:30"), "30 0 2 * * *"),
        (lambda s: s.twice_daily(1, 13), "0 1,13 * * *"),
        (lambda s: s.weekly(), "0 0 * * 0"),
        (lambda s: s.weekly("fri").at("8:15"), "15 8 * * 5"),
        (lambda s: s.monthly(), "0 0 1 * *"),
        (lambda s: s.monthly("last").at("23:00"), "0 23 L * *"),
        (lambda s: s.quarterly(), "0 0 1 1,4,7,10 *"),
        (lambda s: s.yearly(), "0 0 1 1 *"),
        (lambda s: s.daily().weekdays(), "0 0 * * 1-5"),
        (lambda s: s.weekends().every_five_minutes(), "*/5 * * * 6,0"),
        (lambda s: s.daily().days("mon", 3), "0 0 * * 1,3"),
        (lambda s: s.at("05:00").daily(), "0 5 * * *"),
        (lambda s: s.at("05:00"), "0 5 * * *"),
        (lambda s: s.weekdays().at("05:00"), "0 5 * * 1-5"),
        (lambda s: s.at("05:00").weekly("monday"), "0 5 * * 1"),
        (lambda s: s.at("05:00").monthly("last"), "0 5 L * *"),
        (lambda s: s.at("05:00").yearly(), "0 5 1 1 *"),
        (lambda s: s.weekdays().every_five_minutes(), "*/5 * * * 1-5"),
        (lambda s: s.cron("5 4 * * SUN"), "5 4 * * SUN"),
        (lambda s: s.every(90), "every 0:01:30"),
    ],
)
def test_words_mean_fields(words: Callable[[Schedule], Schedule], fields: str) -> None:
    schedule = words(made())
    assert schedule.expression == fields
    assert schedule.plan.after(datetime(2026, 1, 1, tzinfo=UTC)) is not None


def test_the_time_is_meant_in_the_zone() -> None:
    schedule = Schedule("daily-cleanup").daily().at("02:00").timezone("Asia/Taipei").on_one_server()
    assert schedule.plan.after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, 18, tzinfo=UTC)


def test_windows_narrow_it() -> None:
    plan = made().hourly().between("8:00", "17:00").unless_between("12:00", "13:00").plan
    day = datetime(2026, 1, 1, tzinfo=UTC)
    hours = [fire.hour for fire in plan.between(day, day + timedelta(hours=23), 100)]
    assert hours == [8, 9, 10, 11, 14, 15, 16, 17]


def test_a_schedule_without_a_frequency_says_so() -> None:
    for schedule in (made(), made().weekdays(), made().timezone("UTC")):
        with pytest.raises(ConfigurationError, match=r"'s' does not say how often"):
            _ = schedule.plan


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda s: s.daily().at("26:00"), "26:00"),
        (lambda s: s.cron("* *"), "five or six"),
        (lambda s: s.every(0.5), "one second"),
        (lambda s: s.every(True), "seconds"),
        (lambda s: s.hourly(60), "0 to 59"),
        (lambda s: s.monthly(32), "1 to 31"),
        (lambda s: s.weekly("noday"), "monday"),
        (lambda s: s.weekly("s"), "monday"),
        (lambda s: s.days(), "one day"),
        (lambda s: s.days(7), "0 \\(Sunday\\)"),
        (lambda s: s.timezone("Nowhere/At_all"), "IANA"),
        (lambda s: s.missed("never"), "skip"),
        (lambda s: s.missed("all", 0), "10000"),
        (lambda s: s.without_overlapping(0), "one second"),
        (lambda s: s.when(5), "a function"),
        (lambda s: s.command(""), "a program"),
        (lambda s: s.cron("* * * * *").at("02:00"), "cannot be combined"),
        (lambda s: s.at("02:00").cron("* * * * *"), "cannot be combined"),
        (lambda s: s.every(60).weekdays(), "cannot be combined"),
        (lambda s: s.weekdays().every(60), "cannot be combined"),
        (lambda s: s.weekdays().cron("0 2 * * *"), "cannot be combined"),
        (lambda s: s.every_five_minutes().at("02:00"), "at cannot be combined with every_five_minutes"),
        (lambda s: s.at("02:00").every_five_minutes(), "every_five_minutes cannot be combined with at"),
        (lambda s: s.hourly().at("02:30"), "at cannot be combined with hourly"),
        (lambda s: s.twice_daily().at("02:30"), "cannot be combined"),
        (lambda s: s.daily().every_five_minutes(), "every_five_minutes cannot be combined with daily"),
        (lambda s: s.daily().monthly(15), "cannot be combined"),
        (lambda s: s.daily().cron("* * * * *"), "cannot be combined"),
        (lambda s: s.daily().every(60), "cannot be combined"),
        (lambda s: s.daily().at("02:00").at("14:00"), "said before"),
        (lambda s: s.weekdays().weekends(), "said before"),
        (lambda s: s.weekly("monday").days("friday"), "said before"),
        (lambda s: s.weekdays().weekly("monday"), "said before"),
        (lambda s: s.monthly(15).weekdays(), "day of the month"),
        (lambda s: s.weekdays().monthly(15), "day of the month"),
        (lambda s: s.command("echo 'x"), "No closing quotation"),
        (lambda s: s.command(5), "a program and its arguments"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[Schedule], Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        wrong(made())


@pytest.mark.parametrize("what", ["schedule.work", made, 3, object, Job, Scheduled(), work.function])
def test_what_is_no_job_is_refused_where_it_is_said(what: Any) -> None:
    horizon = Horizon()
    with pytest.raises(ConfigurationError, match=r"schedule 's' cannot run .*; allowed: a job"):
        horizon.schedule("s", what)
    assert horizon.schedules == {}


@pytest.mark.parametrize(
    "what", [work, work.on("other"), work.make(2), needs.make(2), Scheduled, Scheduled.make()]
)
def test_what_can_be_scheduled(what: Any) -> None:
    schedule = Schedule("s", what).daily()
    check_schedule(schedule)
    assert scheduled(schedule).definition is what.definition


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        (Schedule("s", work), "'s' does not say how often"),
        (Schedule("s").daily(), "'s' has nothing to run"),
        (
            Schedule("s", needs).daily(),
            r"'s' cannot run its job without arguments.*'schedule\.needs'.*number",
        ),
        (
            Schedule("s", work).daily().at("02:00").between("08:00", "09:00"),
            "'s' never fires: '0 2 [*] [*] [*]' has no moment between 08:00:00 and 09:00:00",
        ),
        (
            Schedule("s", work).hourly().between("08:10", "08:20").timezone("Asia/Taipei"),
            "'s' never fires",
        ),
    ],
)
def test_what_could_not_do_its_work_is_refused_by_the_check(schedule: Schedule, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        check_schedule(schedule)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, None])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(ConfigurationError, match="printable"):
        Schedule(name)


def test_a_command_is_split_and_never_a_shell_s_line() -> None:
    assert made().command("backup --to '/srv/a b'").argv == ("backup", "--to", "/srv/a b")
    assert made().command(["sh", "-c", "a | b"]).argv == ("sh", "-c", "a | b")
    with pytest.raises(ConfigurationError, match="a job already"):
        Schedule("s", work).command("true")
