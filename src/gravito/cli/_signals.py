"""Running in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

__all__ = ["UntilSignal"]


class _Stop(BaseException):
    """A signal asked for the end. Not KeyboardInterrupt: waiting for a child treats that one specially."""


class UntilSignal:
    """`with UntilSignal(stop):` leaves the block at SIGINT or SIGTERM, and calls `stop` in any case.

    Args:
        stop: ends what the block has started; bounded in time, for no further signal breaks it off.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._before: dict[signal.Signals, Any] = {}  # the handlers that were there

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        asked = isinstance(error, _Stop)
        if asked:
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)
        self._stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return asked


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stop
