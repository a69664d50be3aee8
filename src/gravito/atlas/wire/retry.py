"""What may be tried again, and when: pure arithmetic.

Tried again without asking: what was never written; what the server says it did not apply; read-only commands.
Never silently: a write whose reply was lost.
"""

from __future__ import annotations

from collections.abc import Callable

from gravito import errors
from gravito.atlas.config import Retry
from gravito.atlas.wire.entry import Entry

# The server says with these that it did not carry the command out and may do so later.
NOT_APPLIED = (
    errors.LoadingError,
    errors.TryAgainError,
    errors.ClusterDownError,
    errors.MasterDownError,
    errors.BusyError,
)


def delay(policy: Retry, attempt: int, draw: Callable[[], float]) -> float:
    """Seconds to wait before try `attempt + 1`: exponential backoff with full jitter.

    `draw` gives a number in [0, 1); it is passed in so that the arithmetic stays testable.
    """
    ceiling: float = min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 30))
    return draw() * ceiling


def may_resend(entry: Entry, policy: Retry) -> bool:
    """After its wire ended with the entry in flight: True when sending it again cannot apply it twice."""
    return entry.spec.read_only and entry.attempt <= policy.attempts


def may_retry_reply(entry: Entry, error: Exception, now: float, pause: float) -> bool:
    """After an error reply: True when the server did not apply it and the deadline allows one more try."""
    return isinstance(error, NOT_APPLIED) and now + pause < entry.deadline
