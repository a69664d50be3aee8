"""What may be tried again, and when: pure arithmetic.

Tried again without asking: what was never written; what the server says it did not apply; read-only commands.
Never silently: a write whose reply was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gravito import errors
from gravito.atlas.config import Retry, Settings
from gravito.atlas.wire.entry import Entry

# The server says with these that it did not carry the command out and may do so later.
NOT_APPLIED = (
    errors.LoadingError,
    errors.TryAgainError,
    errors.ClusterDownError,
    errors.MasterDownError,
    errors.BusyError,
)


# Connecting that failed with these fails again: waiting corrects no password and no setting.
FINAL = (
    errors.AuthenticationError,
    errors.CircuitOpenError,
    errors.ConfigurationError,
    errors.EngineError,
    errors.ProtocolError,
    errors.TLSError,
)


def is_final(error: Exception) -> bool:
    """Whether connecting again can only fail again; some failures of TLS may pass."""
    return isinstance(error, FINAL) and getattr(error, "final", True)


def is_stranger(error: Exception) -> bool:
    """NOAUTH: the server does not know this connection (any more). WRONGPASS is final."""
    return isinstance(error, errors.AuthenticationError) and error.status_code == "NOAUTH"


NO_TIMEOUT = 5.0  # seconds to go on for when commands have no deadline


def delay(policy: Retry, attempt: int, draw: Callable[[], float]) -> float:
    """Seconds to wait before try `attempt + 1`: exponential backoff with full jitter.

    `draw` gives a number in [0, 1); it is passed in so that the arithmetic stays testable.
    """
    ceiling: float = min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 30))
    return draw() * ceiling


def may_resend(entry: Entry, settings: Settings) -> bool:
    """After its wire ended with the entry in flight: True when sending it again cannot apply it twice, or is wished."""
    policy = entry.retry or settings.retry
    return (entry.spec.read_only or policy.writes) and entry.attempt <= policy.attempts


def pause_after(
    entry: Entry,
    error: Exception,
    settings: Settings,
    now: float,
    draw: Callable[[], float] = random.random,
    more: tuple[type[Exception], ...] = (),
) -> float | None:
    """After an error reply: seconds after which to send the entry again, its `attempt` raised; None for never.

    Only what the server did not apply is sent again, until the command's deadline: a server that is loading
    refuses quickly, so the number of attempts is no measure, except that a policy of 0 never tries again. `more`
    are refusals that pass in this topology.
    """
    policy = entry.retry or settings.retry
    if not isinstance(error, (*NOT_APPLIED, *more)) or policy.attempts == 0:
        return None
    if not entry.deadline:
        entry.deadline = now + (settings.timeouts.command or NO_TIMEOUT)
    left = entry.deadline - now
    if left <= 0:
        return None
    pause = min(delay(policy, entry.attempt, draw), left)
    entry.attempt += 1
    return pause
