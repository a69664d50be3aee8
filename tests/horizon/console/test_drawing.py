"""Charts and the way figures are written. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito.horizon.console import _charts, _format
from gravito.horizon.console._charts import Series

NUMBERS = st.none() | st.floats(0, 1e12)


@given(st.lists(NUMBERS, max_size=50))
def test_a_line_stays_on_its_plot(values: list[float | None]) -> None:
    top = max([value for value in values if value is not None], default=0.0)
    line = _charts.path(values, 100, 50, top)
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", line)
    assert "".join(f"{x} {y}" for x, y in points) == re.sub("[ML]", "", line)
    assert len(points) == sum(value is not None for value in values)
    assert all(0 <= float(x) <= 100 and 0 <= float(y) <= 50 for x, y in points)


def test_a_line_has_a_gap_where_nothing_was_measured() -> None:
    assert _charts.path([0, None, 2, 4], 30, 10, 4) == "M0 10M20 5L30 0"


@given(st.floats(0.001, 1e15))
def test_an_axis_reaches_its_highest_value_in_few_round_steps(top: float) -> None:
    marks = _charts.ticks(top)
    assert marks[0] == 0
    assert marks[-1] >= top * 0.99999
    assert 2 <= len(marks) <= 6
    step = marks[1]
    assert [round(mark / step) for mark in marks] == list(range(len(marks)))


def test_an_axis_of_nothing() -> None:
    assert _charts.ticks(0) == [0.0, 1.0]


def test_a_chart_escapes_what_it_is_given() -> None:
    bad = '<script>"&'
    drawn = [
        _charts.timeline([Series(bad, [1, None], bad), Series("b", [2, 3])], [bad, "x"], bad),
        _charts.spark([1, 2], bad, key=bad),
        _charts.stack([(bad, 1, bad)], bad),
        _charts.bar(0.5, bad, tone=bad, key=bad),
    ]
    for one in drawn:
        assert bad not in one
        assert "<script" not in one
        assert "style" not in one
        assert one.count("<svg") == one.count("</svg>") == 1


def test_a_chart_says_its_values() -> None:
    drawn = _charts.timeline([Series("ok", [1, 2]), Series("bad", [None, 3])], ["10:00", "10:01"], "Jobs")
    assert "10:00: ok 1; bad none" in drawn
    assert "10:01: ok 2; bad 3" in drawn
    assert 'role="img" aria-label="Jobs"' in drawn


def test_a_bar_is_no_longer_than_its_place() -> None:
    assert 'width="100"' in _charts.bar(7, "x")
    assert 'width="0"' in _charts.bar(-1, "x")
    assert _charts.stack([("a", 0, "main")], "x").count("<rect") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 ms"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (4.21, "4.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert _format.duration(seconds) == text
    assert _format.ms(None if seconds is None else seconds * 1000) == text


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("count", 1234567, "1,234,567"),
        ("count", None, "\N{EN DASH}"),
        ("rate", 0, "0"),
        ("rate", 0.034, "0.03"),
        ("rate", 4.21, "4.2"),
        ("rate", 42900.4, "42,900"),
        ("rate", None, "\N{EN DASH}"),
        ("percent", 0, "0 %"),
        ("percent", 0.0001, "<0.1 %"),
        ("percent", 0.033, "3.3 %"),
        ("percent", 1, "100 %"),
        ("percent", None, "\N{EN DASH}"),
        ("size", 512, "512 B"),
        ("size", 2048, "2.0 KiB"),
        ("size", 3 * 1024**4, "3.0 TiB"),
        ("size", None, "\N{EN DASH}"),
        ("short", "abcdef", "abcdef"),
        ("data", {"a": 1}, '{\n  "a": 1\n}'),
        ("data", {(1, 2): {3}}, "{(1, 2): {3}}"),
    ],
)
def test_figures(function: str, value: object, text: str) -> None:
    assert _format.FILTERS[function](value) == text


def test_long_texts_are_cut() -> None:
    assert _format.short("a" * 20, 5) == "aaaa\N{HORIZONTAL ELLIPSIS}"
    assert _format.data("a" * 100, 10).endswith("92 more characters")


def test_a_moment_is_written_in_utc() -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=8)))
    assert (
        _format.when(moment)
        == '<time datetime="2030-01-01T19:04:05.000+00:00">2030-01-01 19:04:05 UTC</time>'
    )
    assert _format.when(None) == '<span class="none">\N{EN DASH}</span>'
