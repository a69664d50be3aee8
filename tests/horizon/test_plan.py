"""When schedules fire: cron, intervals, windows, and the changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito.errors import ConfigurationError
from gravito.horizon._plan import Plan, Window, clock, zone

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = st.datetimes(
    datetime(2020, 1, 1),
    datetime(2035, 1, 1),
    timezones=st.just(UTC),
)
PLANS = st.one_of(
    st.sampled_from(
        [
            "* * * * *",
            "*/10 * * * * *",
            "0 2 * * *",
            "30 2 * * *",
            "0 9 * * MON-FRI",
            "0 0 L * *",
            "15 */6 1,15 * *",
        ]
    ).map(lambda cron: Plan(cron=cron, zone=BERLIN)),
    st.integers(1, 10**6).map(lambda seconds: Plan(interval=timedelta(seconds=seconds))),
    st.just(Plan(cron="*/20 * * * *", zone=BERLIN, windows=(Window(time(8), time(17)),))),
)


@given(PLANS, MOMENTS)
def test_looking_back_finds_what_looking_ahead_found(plan: Plan, moment: datetime) -> None:
    fire = plan.after(moment)
    assert fire is not None
    assert fire > moment
    assert plan.before(fire) == fire
    previous = plan.before(fire - timedelta(microseconds=1))
    assert previous is not None
    assert previous <= moment


@given(PLANS, MOMENTS, st.integers(1, 30))
def test_a_walk_ahead_and_a_look_back_name_the_same_fires(plan: Plan, moment: datetime, count: int) -> None:
    fires, at = [], moment
    for _ in range(count):
        following = plan.after(at)
        assert following is not None
        fires.append(following)
        at = following
    assert plan.between(moment, at, limit=count + 5) == fires
    assert plan.between(moment, at, limit=1) == fires[-1:]


def local(plan: Plan, since: datetime, until: datetime) -> list[str]:
    """The fires as a clock on the wall shows them."""
    return [fire.astimezone(plan.zone).strftime("%d %H:%M %z") for fire in plan.between(since, until, 100)]


def test_a_time_that_the_spring_leaves_out_fires_when_the_clock_has_jumped() -> None:
    plan = Plan(cron="30 2 * * *", zone=BERLIN)
    fires = local(plan, datetime(2026, 3, 28, 12, tzinfo=BERLIN), datetime(2026, 3, 31, tzinfo=BERLIN))
    assert fires == ["29 03:00 +0200", "30 02:30 +0200"]


def test_a_time_that_comes_twice_in_autumn_fires_once() -> None:
    plan = Plan(cron="30 2 * * *", zone=BERLIN)
    fires = local(plan, datetime(2026, 10, 24, 12, tzinfo=BERLIN), datetime(2026, 10, 26, 12, tzinfo=BERLIN))
    assert fires == ["25 02:30 +0200", "26 02:30 +0100"]


def test_what_repeats_goes_by_the_time_that_passes() -> None:
    plan = Plan(cron="*/30 * * * *", zone=BERLIN)
    since = datetime(2026, 10, 25, 0, tzinfo=UTC) - timedelta(minutes=31)
    fires = plan.between(since, since + timedelta(hours=3), 100)
    assert [later - earlier for earlier, later in pairwise(fires)] == [timedelta(minutes=30)] * (
        len(fires) - 1
    )
    assert len(fires) == 6


def test_a_window_may_go_past_midnight() -> None:
    plan = Plan(cron="0 * * * *", windows=(Window(time(22), time(2)),))
    fires = plan.between(datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, 12, tzinfo=UTC), 100)
    assert [fire.hour for fire in fires] == [22, 23, 0, 1, 2]


def test_a_window_may_be_what_is_left_out() -> None:
    plan = Plan(cron="0 * * * *", windows=(Window(time(1), time(22), inside=False),))
    fires = plan.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), 100)
    assert [fire.hour for fire in fires] == [23, 0]


def test_a_plan_whose_window_admits_nothing_has_no_fire() -> None:
    plan = Plan(cron="0 12 * * *", windows=(Window(time(1), time(2)),))
    assert plan.with_(cron="0 12 1 1 *").after(datetime(2026, 1, 1, 13, tzinfo=UTC)) is None


def test_seconds_may_come_first() -> None:
    plan = Plan(cron="*/15 * * * * *")
    at = datetime(2026, 1, 1, 0, 0, 14, 999999, tzinfo=UTC)
    assert plan.after(at) == datetime(2026, 1, 1, 0, 0, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "2", "25:00", "12:60", "a:b", "1:2:3:4", None])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a time of the day"):
        clock(text)


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", 5])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="IANA"):
        zone(name)


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "every day", "* * * * * * *", "0 0 30 2 *"])
def test_what_is_no_cron_is_refused(cron: str) -> None:
    with pytest.raises(ConfigurationError, match="cron fields"):
        Plan(cron=cron)


def test_an_interval_has_a_second_at_least() -> None:
    with pytest.raises(ConfigurationError, match="one second"):
        Plan(interval=timedelta(milliseconds=500))


class Asked(Window):
    """A window that counts how often it is asked."""

    asked = 0

    def admits(self, moment: datetime) -> bool:
        Asked.asked += 1
        return super().admits(moment)


def test_that_a_window_never_opens_is_seen_after_some_days() -> None:
    windows = (Asked(time(8), time(9)), Window(time(10), time(11)))
    assert (
        Plan(cron="* * * * *", zone=BERLIN, windows=windows).after(datetime(2026, 1, 1, tzinfo=UTC)) is None
    )
    assert 2 * 24 * 60 < Asked.asked < 5 * 24 * 60
    leap = Plan(cron="0 * 29 2 *", zone=BERLIN, windows=(Window(time(22), time(23)),))
    assert leap.after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 21, tzinfo=UTC)
