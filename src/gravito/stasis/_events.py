"""What a cache tells those who listen: hits, misses, writes, and what went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final, Literal, get_args

import msgspec

from gravito.errors import ConfigurationError

__all__ = ["Event", "Events"]

_logger = logging.getLogger("gravito.stasis")

Kind = Literal["hit", "miss", "write", "forget", "flush", "stale", "error"]
KINDS: Final = get_args(Kind)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a cache."""

    kind: Kind
    key: str | None = None  # without the cache's prefix; None where the event is about no single key
    template: str | None = None  # the group that the key is counted with
    tags: tuple[str, ...] = ()  # of a flush: those that were flushed
    store: str = ""  # the store's name
    error: BaseException | None = None
    seconds: float | None = None  # of a write: how long the factory took


class Events:
    """Callbacks by kind. Who has none of a kind pays one attribute for asking."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._tasks: set[asyncio.Future[Any]] = set()  # what asynchronous callbacks still do
        self.hit: tuple[Callable[[Event], Any], ...] = ()
        self.miss: tuple[Callable[[Event], Any], ...] = ()
        self.write: tuple[Callable[[Event], Any], ...] = ()
        self.forget: tuple[Callable[[Event], Any], ...] = ()
        self.flush: tuple[Callable[[Event], Any], ...] = ()
        self.stale: tuple[Callable[[Event], Any], ...] = ()
        self.error: tuple[Callable[[Event], Any], ...] = ()

    def add(self, kind: str, callback: Callable[[Event], Any]) -> Callable[[], None]:
        """Call `callback(event)` at each event of a kind; what is returned ends that.

        Raises:
            ConfigurationError: there is no such kind, or nothing to call.
        """
        if kind not in KINDS:
            raise ConfigurationError(
                f"there is no event {kind!r}; allowed: {', '.join(KINDS)}",
                field="event",
                value=kind,
                allowed=KINDS,
            )
        if not callable(callback):
            raise ConfigurationError(
                f"callback is {callback!r:.100}; allowed: a function that takes an event, plain or async",
                field="callback",
                value=callback,
            )
        setattr(self, kind, (*getattr(self, kind), callback))
        return lambda: setattr(self, kind, tuple(one for one in getattr(self, kind) if one is not callback))

    def tell(self, kind: Kind, key: str | None = None, template: str | None = None, **about: Any) -> None:
        """Call the kind's callbacks. One that fails is logged: the cache goes on, and so do the others."""
        callbacks = getattr(self, kind)
        if not callbacks:
            return
        event = Event(kind=kind, key=key, template=template, store=self._store, **about)
        for callback in callbacks:
            try:
                result = callback(event)
                if isawaitable(result):
                    task = asyncio.ensure_future(result)
                    self._tasks.add(task)
                    task.add_done_callback(self._done)
            except Exception:
                _logger.exception("a callback of the event %r failed", kind)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("an asynchronous callback of an event failed", exc_info=error)
