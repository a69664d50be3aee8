"""Which Horizon, and which run of a job, is meant when nobody says it."""

from __future__ import annotations

import gc
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

from gravito.errors import HorizonError

if TYPE_CHECKING:
    from gravito.horizon.context import JobContext
    from gravito.horizon.horizon import Horizon

__all__ = ["current_horizon", "enter", "leave", "running", "use"]

running: ContextVar[JobContext] = ContextVar("gravito.horizon.job")
"""The run that the code is part of; each run has a task or a thread's context of its own."""

_open: weakref.WeakSet[Horizon] = weakref.WeakSet()  # made in this process, and not closed
_chosen: weakref.ref[Horizon] | None = None  # by use(); goes before the only one


def enter(horizon: Horizon) -> None:
    """A Horizon was made."""
    _open.add(horizon)


def leave(horizon: Horizon) -> None:
    """A Horizon was closed."""
    global _chosen
    _open.discard(horizon)
    if _chosen is not None and _chosen() is horizon:
        _chosen = None


def use(horizon: Horizon) -> None:
    """Take this one where several are open."""
    global _chosen
    _open.add(horizon)
    _chosen = weakref.ref(horizon)


def current_horizon() -> Horizon:
    """The Horizon of the running job, else the chosen one, else the only one.

    Raises:
        HorizonError: there is none, or there are several.
    """
    run = running.get(None)
    if run is not None:
        return run.horizon
    chosen = _chosen() if _chosen is not None else None
    if chosen is not None:
        return chosen
    if len(_open) > 1:
        gc.collect()  # one that was dropped, but is part of a cycle, must not count
    if len(_open) == 1:
        return next(iter(_open))
    if not _open:
        raise HorizonError(
            "there is no Horizon in this process: make one (`horizon = Horizon()`), or import the module that does"
        )
    raise HorizonError(
        f"{len(_open)} Horizons are open in this process: say which by `@horizon.job`, `horizon.push(...)` or "
        "`horizon.use()`"
    )
