"""How long to wait before a job is tried again. Pure arithmetic: no clock, no I/O.

A backoff is a function from the attempt that failed (1 for the first) to seconds. `read` makes one of what users
write: `"exponential"`, `"fixed"`, a number of seconds, a list of them, or a function of their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gravito.errors import ConfigurationError

__all__ = ["Backoff", "Exponential", "Fixed", "Listed", "read", "wait_ms"]

Backoff = Callable[[int], float]

_LONGEST = 365 * 86_400.0  # seconds; also keeps what a user's function returns within the server's numbers
_ALLOWED = "'exponential', 'fixed', seconds, a list of seconds, or a function of the attempt"


class Fixed(msgspec.Struct, frozen=True):
    """The same wait each time.

    Args:
        seconds: how long.
    """

    seconds: float = 10.0

    def __post_init__(self) -> None:
        _check("seconds", self.seconds)

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after this attempt (1 for the first)."""
        return self.seconds


class Exponential(msgspec.Struct, frozen=True, kw_only=True):
    """Waits that double: `base * factor ** (attempt - 1)`, at most `cap`, less a random share.

    Args:
        base: seconds, the first wait.
        factor: each wait is this much longer than the one before; at least 1.
        cap: seconds; no wait is longer.
        jitter: the largest share (0 to 1) by which a wait is shortened at random, so that what failed together is
            not tried again together.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 600.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        _check("base", self.base)
        _check("cap", self.cap)
        _check("factor", self.factor, low=1.0)
        _check("jitter", self.jitter, high=1.0)

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after this attempt (1 for the first)."""
        return self.longest(attempt) * (1.0 - self.jitter * random.random())

    def longest(self, attempt: int) -> float:
        """The same without jitter."""
        if self.base <= 0:
            return 0.0
        # by logarithms: the power of a large attempt is beyond what a float holds
        doublings = (max(attempt, 1) - 1) * math.log(self.factor)
        if doublings >= math.log(max(self.cap, self.base) / self.base):
            return self.cap
        return min(self.cap, self.base * math.exp(doublings))


class Listed(msgspec.Struct, frozen=True):
    """One wait after the other; the last one again and again.

    Args:
        waits: seconds, at least one entry.
    """

    waits: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.waits:
            raise _wrong(self.waits, "an empty list has no wait")
        for wait in self.waits:
            _check("waits", wait)

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after this attempt (1 for the first)."""
        return self.waits[min(max(attempt, 1), len(self.waits)) - 1]


def read(given: str | float | Sequence[float] | Backoff) -> Backoff:
    """Make a backoff of what a user wrote.

    Args:
        given: "exponential", "fixed", seconds, a list of seconds, or a function of the attempt.

    Raises:
        ConfigurationError: anything else.
    """
    if callable(given):
        return given
    if isinstance(given, str):
        if given == "exponential":
            return Exponential()
        if given == "fixed":
            return Fixed()
        raise _wrong(given, "no backoff has this name")
    if isinstance(given, bool):
        raise _wrong(given, "not a backoff")
    if isinstance(given, (int, float)):
        return Fixed(float(given))
    if isinstance(given, Sequence):
        waits: Sequence[Any] = given
        return Listed(tuple(waits))
    raise _wrong(given, "not a backoff")


def wait_ms(backoff: Backoff, attempt: int) -> int:
    """Milliseconds to wait after this attempt; never negative, at most a year.

    Raises:
        ConfigurationError: a user's function returned what is no number of seconds.
    """
    seconds = backoff(attempt)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        raise _wrong(seconds, "the backoff's function must return seconds")
    return round(min(max(seconds, 0.0), _LONGEST) * 1000)


def _check(name: str, value: object, *, low: float = 0.0, high: float = _LONGEST) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # `number` narrows it, mypy does not see it
        allowed = f"a number from {low:g} to {high:g}"
        message = f"backoff: {name} is {value!r}; allowed: {allowed}"
        raise ConfigurationError(message, field=f"backoff.{name}", value=value, allowed=allowed)


def _wrong(value: object, reason: str) -> ConfigurationError:
    message = f"backoff is {value!r}: {reason}; allowed: {_ALLOWED}"
    return ConfigurationError(message, field="backoff", value=value, allowed=_ALLOWED)
