"""What a row reports: zeros that must be zero, how long recovery took, and what was promised and not kept."""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gravito import errors

ZEROS = ("wrong", "unsettled", "wires", "tasks", "entries", "secrets")


class Figures(msgspec.Struct):
    """A row's result, as it is written to the JSON file."""

    row: str
    fault: str
    full: bool = False
    operations: int = 0
    wrong: int = 0  # replies that reached another caller, acknowledged writes that are not there, ...
    unsettled: int = 0  # futures that nobody settled
    wires: int = 0  # open after the client was closed, or lent and never given back
    tasks: int = 0  # still there after the client was closed
    entries: int = 0  # commands left in some queue of an idle client
    secrets: int = 0  # times the password was seen in a log, an error, a repr or a process's arguments
    retries: int = 0  # attempts after the first that errors or the ledger know of
    ambiguous: int = 0  # errors that say that the command may have been applied
    recoveries: int = 0
    recovery_p50: float | None = None  # seconds
    recovery_p99: float | None = None
    bound: float | None = None  # seconds that no recovery or detection may take
    memory: float | None = None  # MiB, peak above what there was before
    seconds: float = 0.0
    notes: dict[str, Any] = msgspec.field(default_factory=dict)
    broken: list[str] = msgspec.field(default_factory=list)  # promises that were not kept

    @property
    def kept(self) -> bool:
        """All zeros, and no promise broken."""
        return not self.broken and not any(getattr(self, name) for name in ZEROS)


class Ledger:
    """Collects while a row runs."""

    def __init__(self, row: str, fault: str, full: bool, secret: str) -> None:
        self.figures = Figures(row, fault, full)
        self.errors: Counter[str] = Counter()  # by class
        self._secret = secret
        self._watched: list[Any] = []  # entries and futures
        self._recoveries: list[float] = []
        self._started = time.monotonic()

    def promise(self, kept: Any, text: str) -> None:
        """Note a promise that was not kept."""
        if not kept:
            self.figures.broken.append(text)

    def watch(self, entry: Any) -> Any:
        """An entry or future that must be settled at the row's end."""
        self._watched.append(getattr(entry, "future", entry))
        return entry

    def error(self, error: BaseException) -> None:
        """Count an error that a caller got; look for the password in it."""
        self.errors[type(error).__name__] += 1
        self.figures.ambiguous += bool(getattr(error, "maybe_applied", False))
        self.figures.retries += max(0, getattr(error, "attempt", 1) - 1)
        shown = [repr(error), str(error), repr(getattr(error, "__dict__", "")), repr(error.args)]
        if self.errors[type(error).__name__] <= 20:  # formatting is slow
            shown += traceback.format_exception(error)
        self.look("\n".join(shown))
        self.promise(
            isinstance(error, (errors.GravitoError, asyncio.CancelledError)), f"a foreign error: {error!r}"
        )

    def look(self, text: str) -> None:
        """Count the password's occurrences in something that people see."""
        self.figures.secrets += text.count(self._secret)

    def recovered(self, seconds: float) -> None:
        """One recovery, or one detection, took so long."""
        self._recoveries.append(seconds)

    def note(self, **values: Any) -> None:
        """A figure of this row alone."""
        for name, value in values.items():
            self.figures.notes[name] = round(value, 4) if isinstance(value, float) else value

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Measure the peak of this process's memory over what it was at the start, in MiB."""
        before = _reset_peak()
        yield
        if before is not None:
            self.figures.memory = round((_status("VmHWM") - before) / 1024, 1)

    def finish(self) -> Figures:
        """The figures."""
        figures = self.figures
        figures.unsettled += sum(not future.done() for future in self._watched)
        times = sorted(self._recoveries)
        if times:
            figures.recoveries = len(times)
            figures.recovery_p50 = round(times[len(times) // 2], 4)
            figures.recovery_p99 = round(times[min(len(times) - 1, int(len(times) * 0.99))], 4)
            if figures.bound is not None:
                self.promise(
                    times[-1] <= figures.bound, f"took {times[-1]:.3f} s, over {figures.bound:.3f} s"
                )
        if self.errors:
            figures.notes["errors"] = dict(self.errors.most_common())
        figures.seconds = round(time.monotonic() - self._started, 2)
        return figures


def _reset_peak() -> int | None:
    """Let the kernel forget the peak; KiB in use now, or None where there is no /proc."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])
