"""Code around all jobs: named hooks, on the pushing and on the running side."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravito.horizon.call import Call
    from gravito.horizon.context import JobContext
    from gravito.horizon.handle import JobHandle

__all__ = ["Hooks", "Middleware", "Proceed"]

log = logging.getLogger("gravito.horizon")

Proceed = Callable[[], Awaitable[Any]]


class Middleware:
    """Derive, and write the hooks that are needed; those left out cost nothing.

    Those of the first middleware come first; `around` of the first is outermost. Hooks other than `around` and
    `pushing` only hear of what happens: they may be `async`, what they return is dropped, and an error in one of them
    is logged and changes nothing.
    """

    def pushing(self, call: Call[Any]) -> Call[Any]:
        """A job is about to be pushed, by whatever way. Returns the call, or a changed one, as `call.tags("web")`.
        An error stops the push."""
        return call

    def pushed(self, call: Call[Any], handle: JobHandle[Any]) -> Any:
        """A job was pushed, by itself or by `push_many`."""

    async def around(self, job: JobContext, proceed: Proceed) -> Any:
        """A job runs: `return await proceed()`, with what is to be before and after. An error counts as the job's."""
        return await proceed()

    def started(self, job: JobContext) -> Any:
        """A run begins."""

    def succeeded(self, job: JobContext, result: Any) -> Any:
        """A run has its result, which is on its way to the queue."""

    def retried(self, job: JobContext, error: BaseException, delay: float) -> Any:
        """A run failed, and another one follows in `delay` seconds."""

    def died(self, job: JobContext, error: BaseException) -> Any:
        """A run failed, and was the last: the job goes to the dead letters."""

    def released(self, job: JobContext, delay: float) -> Any:
        """The job goes back to its queue, without an attempt being counted."""

    def cancelled(self, job: JobContext, error: BaseException) -> Any:
        """The job was cancelled while it ran, or discarded because of this error."""


class Hooks:
    """Which hooks there are, found once.

    Args:
        middleware: in order.
    """

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        self.pushing = _written(middleware, "pushing")
        self.pushed = _written(middleware, "pushed")
        self.around = _written(middleware, "around")
        self.started = _written(middleware, "started")
        self.succeeded = _written(middleware, "succeeded")
        self.retried = _written(middleware, "retried")
        self.died = _written(middleware, "died")
        self.released = _written(middleware, "released")
        self.cancelled = _written(middleware, "cancelled")

    def wrap(self, job: JobContext, innermost: Proceed) -> Awaitable[Any]:
        """The run, inside of every `around`."""
        proceed = innermost
        for around in reversed(self.around):
            proceed = _bound(around, job, proceed)
        return proceed()


def _bound(around: Callable[..., Awaitable[Any]], job: JobContext, proceed: Proceed) -> Proceed:
    return lambda: around(job, proceed)


async def tell_after(hooks: Sequence[Callable[..., Any]], *args: Any) -> None:
    """The same behind a run: what came of it is decided. Neither a cancellation that comes now changes that, nor a hook
    that exits or releases the job."""
    for hook in hooks:
        try:
            answer = hook(*args)
            if inspect.isawaitable(answer):
                await answer
        except asyncio.CancelledError:
            log.warning("middleware hooks were cut short: the job was stopped when it had just ended")
            return
        except BaseException:
            log.exception("the middleware hook %s failed", _named(hook))


async def tell(hooks: Sequence[Callable[..., Any]], *args: Any) -> None:
    """Call hooks that only listen."""
    for hook in hooks:
        try:
            answer = hook(*args)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("the middleware hook %s failed", _named(hook))


def _named(hook: Callable[..., Any]) -> str:
    return str(getattr(hook, "__qualname__", hook))


def _written(middleware: Sequence[Middleware], name: str) -> tuple[Callable[..., Any], ...]:
    return tuple(
        getattr(item, name)
        for item in middleware
        if getattr(type(item), name, None) is not getattr(Middleware, name)
    )
