"""How long to wait before the next attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gravito import errors
from gravito.horizon import Exponential, Fixed, Listed, _backoff

SECONDS = st.floats(0, 1e6, allow_nan=False)
ATTEMPTS = st.integers(1, 10_000)


@settings(deadline=None)
@given(ATTEMPTS, st.floats(0.001, 1e4), st.floats(1, 10), st.floats(0.001, 1e5), st.floats(0, 1))
def test_exponential_stays_between_its_bounds(
    attempt: int, base: float, factor: float, cap: float, jitter: float
) -> None:
    backoff = Exponential(base=base, factor=factor, cap=cap, jitter=jitter)
    longest = backoff.longest(attempt)
    assert longest <= cap
    assert longest <= backoff.longest(attempt + 1) * (1 + 1e-9)
    waited = backoff(attempt)
    assert longest * (1 - jitter) * (1 - 1e-9) <= waited <= longest


def test_exponential_doubles() -> None:
    backoff = Exponential(base=1, factor=2, cap=10, jitter=0)
    assert [round(backoff(attempt), 9) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads() -> None:
    backoff = Exponential(base=100, jitter=0.5)
    assert len({backoff(1) for _ in range(20)}) > 10


@settings(deadline=None)
@given(ATTEMPTS, st.lists(SECONDS, min_size=1, max_size=10))
def test_listed_goes_on_with_its_last(attempt: int, waits: list[float]) -> None:
    assert Listed(tuple(waits))(attempt) == (waits[attempt - 1] if attempt <= len(waits) else waits[-1])


@pytest.mark.parametrize(
    ("given", "first", "third"),
    [
        ("fixed", 10, 10),
        (5, 5, 5),
        (0, 0, 0),
        ([1, 2], 1, 2),
        ((1.5,), 1.5, 1.5),
        (lambda attempt: attempt * 3, 3, 9),
    ],
)
def test_what_users_write(given: Any, first: float, third: float) -> None:
    backoff = _backoff.read(given)
    assert (backoff(1), backoff(3)) == (first, third)


def test_exponential_by_name() -> None:
    assert _backoff.read("exponential") == Exponential()
    assert _backoff.read(Fixed(3)) == Fixed(3)


@pytest.mark.parametrize(
    "given", ["slow", [], [-1], ["1"], [True], True, None, -1, float("nan"), {}, object()]
)
def test_what_is_no_backoff(given: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="backoff") as caught:
        _backoff.read(given)
    assert caught.value.field in ("backoff", "backoff.waits", "backoff.seconds")


@pytest.mark.parametrize("options", [{"base": -1}, {"factor": 0.5}, {"jitter": 2}, {"cap": "1"}])
def test_exponentials_own_fields(options: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=next(iter(options))):
        Exponential(**options)


@settings(deadline=None)
@given(st.floats(allow_nan=False) | st.integers())
def test_milliseconds_are_bounded(seconds: float) -> None:
    assert 0 <= _backoff.wait_ms(lambda _: seconds, 1) <= 365 * 86_400_000


@pytest.mark.parametrize("answer", [None, "3", True, float("nan")])
def test_a_users_function_must_return_seconds(answer: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="must return seconds"):
        _backoff.wait_ms(lambda _: answer, 1)
