"""The run of a job, as its own code sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from gravito.errors import HorizonError, PayloadError
from gravito.horizon._current import running
from gravito.horizon._packing import Place
from gravito.horizon._payload import Attempt, Body, Travel

if TYPE_CHECKING:
    from gravito.horizon.call import Call
    from gravito.horizon.handle import JobHandle
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.job import Definition, Job

__all__ = ["JobContext", "Progress", "Signal", "Stop", "current_job"]

R = TypeVar("R")

_LONGEST: Final = 100 * 365 * 86_400  # seconds that a job may be put off
_NOTE: Final = 1000  # characters of what a job says of its progress

Stop = Literal["timeout", "cancel", "shutdown", "lost"]
"""Why the worker ends a run: its time is up, somebody asked for it, the worker leaves, or its lease is gone."""

Progress = tuple[float, float | None, str | None]
"""How far a job is: done, of how much, and a word about it."""


class Signal(BaseException):
    """Not an error: how a job's code tells the worker what to do with it.

    A BaseException, so that a job's own `except Exception` lets it pass.
    """

    def __init__(
        self, wish: Literal["release", "retry", "fail"], delay: float = 0.0, reason: str = ""
    ) -> None:
        super().__init__(wish, delay, reason)
        self.wish = wish
        self.delay = delay  # seconds
        self.reason = reason


class JobContext:
    """One run of a job: `current_job()` gives it, and so does a parameter `job: JobContext = inject()`.

    Attributes:
        id: the job's.
        queue: where it came from.
        attempt: 1 for the first; a release is not counted.
        crashes: earlier runs whose worker died.
        fence: grows with each run. Hand it to what must refuse a run that was overtaken.
    """

    # Defaults of the class: one context is made for each run, and few runs change these.
    instance: Job | None = None  # of the class form
    broken: BaseException | None = None  # why it cannot be run
    started: float = 0.0  # epoch ms, the server's clock
    observed: bool = False  # telemetry tells of this run
    stopped: Stop | None = None  # why the worker ended it
    pushes: list[Travel] | None = None  # that go with its completion
    progressed: Progress | None = None  # the latest
    definition: Definition | None = None  # None: no such job here
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})
    trail: tuple[Attempt, ...] = ()  # earlier attempts
    _tell: Callable[[JobContext], None] | None = None  # carries progress to the queue
    _loop: asyncio.AbstractEventLoop | None = None  # the worker's

    def __init__(self, horizon: Horizon, queue: str, id: str, fence: int, attempt: int, crashes: int) -> None:
        self.horizon = horizon
        self.queue = queue
        self.id = id
        self.fence = fence
        self.attempt = attempt
        self.crashes = crashes
        self.raw = b""  # the body as it came
        self.body: Body = UNREAD

    def __repr__(self) -> str:
        return f"<JobContext {self.name!r} {self.id}, attempt {self.attempt}>"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.body.name

    @property
    def tags(self) -> tuple[str, ...]:
        """The words it can be found by."""
        return self.body.extra.tags if self.body.extra else ()

    @property
    def meta(self) -> dict[str, Any]:
        """What `.meta(...)` said at the push."""
        return (self.body.extra.meta if self.body.extra else None) or {}

    @property
    def batch(self) -> str | None:
        """Id of the batch it is part of."""
        return self.body.extra.batch if self.body.extra else None

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Tell how far it is; from the event loop or from the job's thread. Handles and the console show the latest.

        Args:
            done: how much is done; without `total`, a share from 0 to 1.
            total: of how much.
            note: a few words; 1,000 characters of them are kept.

        Raises:
            PayloadError: `done` or `total` is no number.
        """
        said = None if note is None else str(note)[:_NOTE].encode(errors="backslashreplace").decode()
        self.progressed = (_number("done", done), None if total is None else _number("total", total), said)
        if self._tell is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._tell, self)

    def push(self, call: Call[R]) -> JobHandle[R]:
        """Queue another job together with this one's completion: both happen, or neither. It is not queued if this
        run fails. From the event loop or from the job's thread; nothing is awaited.
        """
        travel, handle = self.horizon.prepare(call, Place(parent=self.id), self._loop)
        if self.pushes is None:
            self.pushes = []
        self.pushes.append(travel)
        return handle

    def release(self, delay: float | timedelta = 0.0) -> NoReturn:
        """End this run and put the job back, without counting an attempt.

        Args:
            delay: seconds until it may run again, or a timedelta; at most 100 years.

        Raises:
            PayloadError: the delay is none; to the job it is a failure as any other.
        """
        raise Signal("release", _seconds("release", delay))

    def retry(self, delay: float | timedelta | None = None, reason: str = "") -> NoReturn:
        """End this run and ask for another attempt; when there is none left, the job is dead.

        Args:
            delay: seconds until then, or a timedelta; at most 100 years. None for the job's backoff.
            reason: kept as its failure.

        Raises:
            PayloadError: the delay is none; to the job it is a failure as any other.
        """
        raise Signal("retry", -1.0 if delay is None else _seconds("retry", delay), reason)

    def fail(self, reason: str) -> NoReturn:
        """End the job for good: it goes to the dead letters with this reason."""
        raise Signal("fail", 0.0, reason)


def _number(name: str, given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise PayloadError(f"progress: {name} is {given!r}; allowed: a number")
    return number


def _seconds(word: str, delay: object) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    # not a number is between nothing
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= _LONGEST:
        raise PayloadError(
            f"{word}: the delay is {delay!r}; allowed: seconds from 0 to 100 years, or a timedelta"
        )
    return seconds


UNREAD = Body(0, "", None, 0, 0, 0)  # type: ignore[arg-type]  # stands for a body that could not be read


def current_job() -> JobContext:
    """The run that this code is part of.

    Raises:
        HorizonError: it is part of none; a job with `cpu=True` runs in a process without one.
    """
    run = running.get(None)
    if run is None:
        raise HorizonError("no job runs here; current_job() works in a job's own task or thread")
    return run
