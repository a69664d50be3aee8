"""Fail-safe: how long a cache waits for its store, and what it does without one.

A store that is down or frozen costs the first caller the soft timeout. That opens the breaker: everybody else is
told at once that there is no store, and one probe at a time asks whether it is back. Invalidations and locks do not
come by here: a lost invalidation must never be silent.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import msgspec

from gravito import errors
from gravito.stasis._awaitables import All, Ready

__all__ = ["FailSafe", "Guard", "StoreDownError"]

_logger = logging.getLogger("gravito.stasis")

_LATE = 0.1  # part of the timeout: a timer that fires later than that tells of a busy loop


class StoreDownError(errors.ConnectionError):
    """The breaker is open: nothing was asked of the store."""


# What means that the store is away, as against an error of the call itself.
AWAY = (errors.ConnectionError, errors.TimeoutError, StoreDownError, OSError)
# Replies of a server that is there and cannot serve now; they pass, and do not open the breaker.
UNABLE = (
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.ClusterDownError,
    errors.BusyError,
    errors.TryAgainError,
)


class FailSafe(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache does when its store does not answer.

    Args:
        timeout: seconds that a read or a write waits for the store; None for as long as the connection waits.
        failures: failures in a row before the breaker opens.
        probe: seconds between two questions whether the store is back, while the breaker is open.
        on_error: "miss": reads find nothing, factories run, `put` returns False, and an `error` event says why.
            "raise": the store's error goes to the caller.

    Raises:
        ConfigurationError: a value that is not positive, or another word.
    """

    timeout: float | None = 0.25
    failures: int = 1
    probe: float = 0.5
    on_error: Literal["miss", "raise"] = "miss"

    def __post_init__(self) -> None:
        for field in ("timeout", "failures", "probe"):
            value = getattr(self, field)
            if value is None and field == "timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise _refused(field, value, "a number above 0")
        if self.on_error not in ("miss", "raise"):
            raise _refused("on_error", self.on_error, "'miss' or 'raise'")


def _refused(field: str, value: Any, allowed: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"FailSafe: {field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed
    )


class Guard:
    """Watches over what is asked of a store, in all event loops of the process.

    Args:
        settings: None for a store of this process, which cannot be away.
        probe: asks the store anything; it answered if no error comes.
        name: of the store, for the log.
        starting: whether the store is an engine of this process that has not been started yet, which the first
            question does: until that is answered, nothing is bounded but by the connection's own times.
    """

    def __init__(
        self,
        settings: FailSafe | None,
        probe: Callable[[], Awaitable[Any]],
        name: str,
        *,
        starting: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.open = False  # the breaker
        self.spell = 0  # how often the breaker has opened; what was shared during one spell ends with it
        self._probe = probe
        self._name = name  # of the store, for the log
        self.failures = 0  # in a row
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()
        # the last of them: a look-up by weak key costs more than all the rest
        self._here: tuple[asyncio.AbstractEventLoop | None, _Line | None] = (None, None)
        self._timeout: float | None = None  # the soft timeout in force
        self._starting: Callable[[], bool] | None = starting
        if settings is None or not starting():
            self._up()
        self._asking: asyncio.AbstractEventLoop | None = None  # the loop that probes
        self._probing: asyncio.Task[None] | None = None  # held, for a loop keeps weak references only

    def within(self, waiting: Awaitable[Any], *, writes: bool = False) -> Awaitable[Any]:
        """The awaitable, with the soft timeout on it. If it `writes`, being late leaves open whether it did."""
        if self._timeout is None:
            if self._starting is None:
                return waiting
            if self._starting():
                return self._started(waiting)
            self._up()
            return self.within(waiting, writes=writes)
        if writes and not isinstance(waiting, Ready):
            return self._bounded(waiting, writes)
        # atlas' entries carry their future, so that many of them need one timer and none a task
        future = getattr(waiting, "future", None)
        if future is not None:
            self._watch(future)
        elif isinstance(waiting, Future):
            self._watch(waiting)
        elif isinstance(waiting, All):
            for command in waiting.commands:
                if (future := getattr(command, "future", None)) is not None:
                    self._watch(future)
        elif not isinstance(waiting, Ready):
            return self._bounded(waiting)
        return waiting

    async def _started(self, waiting: Awaitable[Any]) -> Any:
        """The result, which ends the time of starting."""
        result = await waiting
        self._up()
        return result

    def _up(self) -> None:
        """From now on the store answers in time, or is away."""
        self._starting, self._timeout = None, self.settings.timeout if self.settings is not None else None

    def _watch(self, future: Future[Any]) -> None:
        if future.done():
            return
        loop = get_running_loop()
        here, line = self._here
        if loop is not here or line is None:
            line = self._lines.get(loop)
            if line is None:
                assert self._timeout is not None
                line = self._lines[loop] = _Line(loop, self._timeout, self)
            self._here = loop, line
        line.add(future)

    async def _bounded(self, waiting: Awaitable[Any], writes: bool = False) -> Any:
        assert self._timeout is not None
        try:
            async with asyncio.timeout(None) as scope:
                patience = _Patience(get_running_loop(), self._timeout, scope)
                try:
                    result = await waiting
                finally:
                    patience.end()
        except TimeoutError:
            if scope.expired():
                raise self.late(writes) from None
            raise
        self.failures = 0
        return result

    def late(self, writes: bool = False) -> errors.TimeoutError:
        """The error for what was not answered in time."""
        doubt = "; it may have been applied" if writes else ""
        late = errors.TimeoutError(f"the store {self._name} did not answer within {self._timeout:g} s{doubt}")
        late.maybe_applied = writes
        return late

    # -- the breaker -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise StoreDownError while the breaker is open."""
        if self.open:
            if self._asking is not None and self._asking.is_closed():  # nobody probes any more
                self._later(get_running_loop())
            raise StoreDownError(f"the store {self._name} is taken for down; it is asked again now and then")

    def bears(self, error: BaseException) -> bool:
        """Note a failure; True if the cache goes on without the store, False if the caller has to know."""
        if self.settings is None:
            return False
        if isinstance(error, AWAY):
            if not isinstance(error, StoreDownError):
                self.failures += 1
                if self.failures >= self.settings.failures and not self.open:
                    self._trip(error)
        elif not isinstance(error, UNABLE):
            return False
        return self.settings.on_error == "miss"

    def _trip(self, error: BaseException) -> None:
        assert self.settings is not None
        self.open = True
        self.spell += 1
        _logger.warning("the cache goes on without its store %s: %s", self._name, error)
        self._later(get_running_loop())

    def _later(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self.settings is not None
        self._asking = loop
        loop.call_later(self.settings.probe, self._start_probe, loop)

    def _start_probe(self, loop: asyncio.AbstractEventLoop) -> None:
        self._probing = loop.create_task(self._ask(loop), name="gravito cache probe")

    async def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self.within(self._probe())
        except Exception:
            self._later(loop)
            return
        self.open = False
        self.failures = 0
        _logger.warning("the store %s of the cache is back", self._name)


class _Patience:
    """The soft timeout of one block; a busy loop is no fault of the store, as below."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, scope: asyncio.Timeout) -> None:
        self._loop = loop
        self._timeout = timeout
        self._scope = scope
        self._begin()

    def _begin(self) -> None:
        self._due = self._loop.time() + self._timeout
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._due > self._timeout * _LATE:
            self._begin()
        else:
            self._scope.reschedule(now)

    def end(self) -> None:
        """It was in time."""
        self._timer.cancel()


class _Line:
    """The futures of one loop that wait for the store, oldest first, and one timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, guard: Guard) -> None:
        self._now = loop.time
        self._call_at = loop.call_at
        self._timeout = timeout
        self._guard = guard
        self._waiting: deque[tuple[float, Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when it should fire

    def add(self, future: Future[Any]) -> None:
        waiting = self._waiting
        while waiting and waiting[0][1].done():  # replies come in order: what is answered is in front
            done = waiting.popleft()[1]
            if self._guard.failures and not done.cancelled() and done.exception() is None:
                self._guard.failures = 0
        deadline = self._now() + self._timeout
        waiting.append((deadline, future))
        if self._timer is None:
            self._due = deadline
            self._timer = self._call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        waiting, now = self._waiting, self._now()
        if waiting and now - self._due > self._timeout * _LATE:
            # The loop was busy with something else: what it could not send, or not read, is no fault of the store.
            self._due = now + self._timeout
            self._timer = self._call_at(self._due, self._tick)
            return
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now):
            future = waiting.popleft()[1]
            if not future.done():
                future.set_exception(self._guard.late())
        if waiting:
            self._due = waiting[0][0]
            self._timer = self._call_at(self._due, self._tick)
