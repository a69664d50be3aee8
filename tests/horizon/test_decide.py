"""What becomes of a run that did not return: a pure function."""

from __future__ import annotations

import asyncio

import pytest

from gravito.errors import ConfigurationError, JobTimeoutError
from gravito.horizon._backoff import Fixed
from gravito.horizon._run import decide
from gravito.horizon.context import Signal, Stop
from gravito.horizon.options import Options

OPTIONS = Options(retries=2, backoff=Fixed(3), timeout=5)
CANCELLED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("error", "attempt", "stopped", "outcome", "state", "delay"),
    [
        (ValueError(), 1, None, "retry", "retry", 3000),
        (ValueError(), 2, None, "retry", "retry", 3000),
        (ValueError(), 3, None, "dead", "dead", 0),
        (SystemExit(), 1, None, "dead", "dead", 0),
        (KeyboardInterrupt(), 1, None, "dead", "dead", 0),
        (CANCELLED, 1, None, "retry", "retry", 3000),  # the job's own doing
        (CANCELLED, 1, "timeout", "retry", "retry", 3000),
        (CANCELLED, 3, "timeout", "dead", "dead", 0),
        (CANCELLED, 1, "cancel", "cancelled", "cancelled", 0),
        (CANCELLED, 9, "shutdown", "release", "release", 0),
        (CANCELLED, 1, "lost", "release", "release", 0),
        (ValueError(), 1, "cancel", "retry", "retry", 3000),  # it failed before the cancellation reached it
        (Signal("release", 1.5), 99, None, "release", "release", 1500),
        (Signal("retry", -1.0), 1, None, "retry", "retry", 3000),
        (Signal("retry", 0.5), 1, None, "retry", "retry", 500),
        (Signal("retry", 0.5), 3, None, "dead", "dead", 0),
        (Signal("fail", 0, "no"), 1, None, "dead", "dead", 0),
    ],
)
def test_verdicts(
    error: BaseException, attempt: int, stopped: Stop | None, outcome: str, state: str, delay: int
) -> None:
    verdict = decide(error, attempt, OPTIONS, stopped)
    assert (verdict.outcome, verdict.state, verdict.delay) == (outcome, state, delay)


def test_only_some_errors_are_retried() -> None:
    options = Options(retry_on=(OSError,), discard_on=(FileNotFoundError,), backoff=Fixed(0))
    assert decide(PermissionError(), 1, options).outcome == "retry"
    assert decide(FileNotFoundError(), 1, options).state == "discarded"
    assert decide(ValueError(), 1, options).outcome == "dead"
    assert decide(CANCELLED, 1, options, "timeout").outcome == "retry"


def test_a_timeout_says_how_long() -> None:
    verdict = decide(CANCELLED, 1, OPTIONS, "timeout")
    assert isinstance(verdict.error, JobTimeoutError)
    assert "5 seconds" in str(verdict.error)


def test_a_broken_backoff_ends_the_job_and_keeps_its_error() -> None:
    first = ValueError("first")
    verdict = decide(first, 1, Options(backoff=lambda _: None))  # type: ignore[arg-type,return-value]  # a mistake
    assert verdict.outcome == "dead"
    assert isinstance(verdict.error, ConfigurationError)
    assert verdict.error.__context__ is first
