"""What the jobs of these tests do; importable by processes that are started for them."""

from __future__ import annotations

import os
import signal
import threading
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


class ApiError(ConnectionError):
    """An error whose constructor takes other things than its `args`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def fail_at_the_api(code: int) -> None:
    """Raise it."""
    raise ApiError(code, "no answer")


class PrefixedError(Exception):
    """An error that pickle makes anew without an error, and with another text."""

    def __init__(self, text: str) -> None:
        super().__init__(f"partner: {text}")


def fail_prefixed() -> None:
    """Raise it."""
    raise PrefixedError("busy")


def fail_locally() -> None:
    """Raise an error of a class that only this process has, with something that stays here."""

    class LocalError(ApiError):
        pass

    error = LocalError(7, "gone")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


only_here = lambda: None  # noqa: E731  # what pickle finds no name for


class Unreadable:
    """A result that can be sent, and not be read."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def unsendable(kind: str = "local", mark: str | None = None) -> object:
    """A result that stays where it is; `mark` gets a line for each run."""
    if mark is not None:
        with Path(mark).open("a") as file:
            file.write("ran\n")
    return {"local": lambda: None, "module": only_here, "unreadable": Unreadable()}[kind]


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
