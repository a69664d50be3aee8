"""Times to live, in the units that people write and the milliseconds that servers take."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Final

from gravito import errors

__all__ = ["MAX_MS", "TTL", "check_jitter", "ttl_ms"]

TTL = int | float | timedelta | datetime | None

# A century. The server would take more, but a number beyond it is a mistake in the unit.
MAX_MS: Final = 100 * 365 * 24 * 3600 * 1000
_MS: Final = timedelta(milliseconds=1)


def ttl_ms(ttl: TTL, jitter: float = 0.0, now: datetime | None = None, what: str = "ttl") -> int | None:
    """Milliseconds that an entry lives, None for without end.

    Args:
        ttl: seconds, a timedelta, an aware datetime (the end), or None for without end. A datetime is turned
            into a time from now by the application's clock, once and here; from then on only the server's
            clock counts.
        jitter: the result is shorter by a random part of up to this fraction, 0 <= jitter < 1, so that entries
            that were written together do not end together.
        now: the time that a datetime is compared with; the application's clock if None.
        what: the argument that errors name.

    Raises:
        InvalidTTLError: zero, negative, not a number, too long, a naive datetime, one that has passed, or
            another type. What is shorter than a millisecond counts as one.
    """
    if type(ttl) is int:
        ms = ttl * 1000
    elif ttl is None:
        return None
    elif isinstance(ttl, bool) or not isinstance(ttl, int | float | timedelta | datetime):
        raise errors.InvalidTTLError(
            f"{what} {ttl!r} is a {type(ttl).__name__}: give seconds, a timedelta, an aware datetime, or None for without end"
        )
    else:
        ms = _inexact_ms(ttl, now, what)
    if not 0 < ms <= MAX_MS:
        raise errors.InvalidTTLError(_why_not(ttl, ms, what))
    return max(1, int(ms - random.random() * jitter * ms)) if jitter else ms


def check_jitter(jitter: float) -> float:
    """`jitter` itself if it is a fraction that `ttl_ms` takes.

    Raises:
        InvalidTTLError: it is not a number from 0 to less than 1.
    """
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter < 1:
        raise errors.InvalidTTLError(f"jitter {jitter!r}: give a fraction of the ttl, from 0 to less than 1")
    return jitter


def _inexact_ms(ttl: float | timedelta | datetime, now: datetime | None, what: str) -> int:
    """Whole milliseconds, rounded up so that what is positive stays positive. NaN counts as zero."""
    if isinstance(ttl, datetime):
        if ttl.utcoffset() is None:
            raise errors.InvalidTTLError(
                f"{what} {ttl!r} has no time zone: make it aware, for instance with tzinfo=UTC"
            )
        ttl = ttl - (datetime.now(UTC) if now is None else now)
    if isinstance(ttl, timedelta):
        whole, rest = divmod(ttl, _MS)
        return whole + bool(rest)
    if not math.isfinite(ttl):
        return MAX_MS + 1 if ttl > 0 else 0
    return math.ceil(ttl * 1000)


def _why_not(ttl: TTL, ms: int, what: str) -> str:
    """The message for a number that is out of range."""
    whole = what == "ttl"  # of an entry, which may be without end, or not be at all
    if ms > MAX_MS:
        why, instead = "is longer than 100 years: seconds are meant", ", and None is without end"
    elif isinstance(ttl, datetime):
        why, instead = "has passed: give a time to come", ", or forget the key"
    else:
        why = "is not positive: give more than 0 seconds"
        instead = ", None for without end, or forget the key"
    return f"{what} {ttl!r} {why}{instead if whole else ''}"
