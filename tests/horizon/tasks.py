"""What the jobs of these tests do; importable by processes that are started for them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def double(number: int) -> int:
    """A result."""
    return 2 * number


def pid() -> int:
    """Which process this is."""
    return os.getpid()


def fail(message: str) -> None:
    """An error that both sides know."""
    raise LookupError(message)


class OddError(Exception):
    """An error that cannot be pickled back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def fail_oddly() -> None:
    """Raise it."""
    raise OddError(1, 2)


def unsendable() -> object:
    """A result that stays where it is."""
    return lambda: None


def die() -> None:
    """End the process as the kernel's killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def spin(mark: str) -> None:
    """Run until killed; `mark` tells that it has begun."""
    Path(mark).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
