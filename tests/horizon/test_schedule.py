"""Schedules in words, and what they mean in cron's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravito.errors import ConfigurationError
from gravito.horizon.schedule import Schedule


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
        (lambda s: s.daily().every_five_minutes(), "*/5 * * * *"),
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
        (lambda s: s.every(60).weekdays(), "cannot be combined"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[Schedule], Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        wrong(made())


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, None])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(ConfigurationError, match="printable"):
        Schedule(name)


def test_a_command_is_split_and_never_a_shell_s_line() -> None:
    assert made().command("backup --to '/srv/a b'").argv == ("backup", "--to", "/srv/a b")
    assert made().command(["sh", "-c", "a | b"]).argv == ("sh", "-c", "a | b")
    with pytest.raises(ConfigurationError, match="a job already"):
        Schedule("s", object()).command("true")
