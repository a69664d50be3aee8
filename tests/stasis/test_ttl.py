"""Times to live."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito import errors
from gravito.stasis._ttl import MAX_MS, check_jitter, ttl_ms

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (None, None),
        (1, 1000),
        (300, 300_000),
        (0.5, 500),
        (0.0001, 1),
        (1.0005, 1001),
        (MAX_MS // 1000, MAX_MS),
        (timedelta(minutes=5), 300_000),
        (timedelta(microseconds=1), 1),
        (timedelta(days=1, microseconds=1), 86_400_001),
        (NOW + timedelta(seconds=5), 5000),
        (NOW + timedelta(microseconds=1), 1),
        (datetime(2026, 3, 1, 2, tzinfo=timezone(timedelta(hours=1))), 3_600_000),
    ],
)
def test_milliseconds(ttl: Any, expected: int | None) -> None:
    assert ttl_ms(ttl, now=NOW) == expected


@pytest.mark.parametrize(
    ("ttl", "message"),
    [
        (0, "ttl 0 is not positive: give more than 0 seconds, None for without end"),
        (-1, "ttl -1 is not positive"),
        (-0.0, "ttl -0.0 is not positive"),
        (-0.0001, "is not positive"),
        (math.nan, "ttl nan is not positive"),
        (-math.inf, "is not positive"),
        (math.inf, "ttl inf is longer than 100 years"),
        (1e300, "is longer than 100 years"),
        (10**30, "is longer than 100 years"),
        (MAX_MS // 1000 + 1, "is longer than 100 years"),
        (timedelta.max, "is longer than 100 years"),
        (timedelta(0), "is not positive"),
        (timedelta(seconds=-1), "is not positive"),
        (NOW, "has passed: give a time to come, or forget the key"),
        (NOW - timedelta(days=1), "has passed"),
        (datetime.max.replace(tzinfo=UTC), "longer than 100 years"),
        (datetime(2030, 1, 1), "has no time zone: make it aware"),
        (True, "ttl True is a bool: give seconds, a timedelta, an aware datetime, or None"),
        ("300", "ttl '300' is a str: give seconds"),
        (Decimal(1), "is a Decimal"),
        (NOW.date(), "is a date"),
    ],
)
def test_what_is_refused(ttl: Any, message: str) -> None:
    with pytest.raises(errors.InvalidTTLError, match=message) as caught:
        ttl_ms(ttl, now=NOW)
    assert isinstance(caught.value, ValueError)


def test_a_datetime_counts_from_now() -> None:
    ms = ttl_ms(datetime.now(UTC) + timedelta(hours=1))
    assert ms is not None
    assert 0 < ms <= 3_600_000


@given(ttl=st.integers(1, 10_000), jitter=st.floats(0, 0.99))
def test_jitter_only_shortens_and_never_to_nothing(ttl: int, jitter: float) -> None:
    ms = ttl_ms(ttl, jitter)
    assert ms is not None
    assert max(1, math.floor(ttl * 1000 * (1 - jitter))) - 1 <= ms <= ttl * 1000


def test_jitter_spreads() -> None:
    drawn = {ttl_ms(1000, 0.5) for _ in range(100)}
    assert len(drawn) > 50
    assert ttl_ms(0.001, 0.99) == 1
    assert ttl_ms(None, 0.5) is None


def test_what_a_jitter_is() -> None:
    assert [check_jitter(each) for each in (0, 0.1, 0.99)] == [0, 0.1, 0.99]
    for wrong in (-0.1, 1, 1.5, math.nan, math.inf, True, "0.1", None):
        with pytest.raises(errors.InvalidTTLError, match="give a fraction of the ttl, from 0 to less than 1"):
            check_jitter(wrong)  # type: ignore[arg-type]
