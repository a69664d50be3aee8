"""What readers may do to jobs: one by one, or to all that a search finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from gravito.errors import HorizonError
from gravito.horizon._index import State
from gravito.horizon._rows import Filter
from gravito.horizon._search import Search
from gravito.horizon.handle import cancel

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["Acted", "Action", "Acts"]

Action = Literal["retry", "discard", "cancel", "run_now", "delete"]

# The states whose jobs an action can change.
ALLOWED: dict[str, tuple[State, ...]] = {
    "retry": ("dead",),
    "discard": ("done", "dead"),
    "cancel": ("ready", "delayed", "running", "parked"),
    "run_now": ("delayed",),
    "delete": ("ready", "delayed", "running", "parked", "done", "dead"),
}


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an action.

    Args:
        done: jobs that it was done to.
        asked: running jobs that were asked to end; they do so by themselves.
        left: jobs that stay as they are, since they had moved on or another one has their unique key.
    """

    done: int = 0
    asked: int = 0
    left: int = 0

    def plus(self, other: Acted) -> Acted:
        """Both together."""
        return Acted(done=self.done + other.done, asked=self.asked + other.asked, left=self.left + other.left)


class Acts:
    """See the module.

    Args:
        horizon: whose queues.
        search: finds jobs.
    """

    def __init__(self, horizon: Horizon, search: Search) -> None:
        self._horizon = horizon
        self._search = search

    def __repr__(self) -> str:
        return f"<Acts of {self._horizon!r}>"

    async def do(self, action: Action, queue: str, ids: Sequence[str]) -> Acted:
        """Do it to these jobs."""
        _check(action)
        names = list(dict.fromkeys(ids))
        if not names:
            return Acted()
        broker = self._horizon.broker(queue)
        if action == "retry":
            done = len((await broker.retry(names))[0])
        elif action == "discard":
            done = len(await broker.discard(names))
        elif action == "run_now":
            done = len(await broker.promote(names))
        else:
            return await self._end(queue, names, action == "delete")
        return Acted(done=done, left=len(names) - done)

    async def _end(self, queue: str, names: list[str], forget: bool) -> Acted:
        broker = self._horizon.broker(queue)
        states = await broker.cancel(names) if forget else await cancel(self._horizon, queue, names)
        done = sum(state == "cancelled" for state in states.values())
        asked = sum(state == "running" for state in states.values())
        if forget:
            over = [name for name, state in states.items() if state in ("dead", "ended")]
            done += len(await broker.discard(over)) if over else 0
        return Acted(done=done, asked=asked, left=len(names) - done - asked)

    async def all(
        self, action: Action, state: State, queue: str | None, wanted: Filter
    ) -> AsyncIterator[Acted]:
        """Do it to all jobs that a search finds.

        Raises:
            HorizonError: the action does nothing to jobs of this state.
        """
        _check(action)
        if state not in ALLOWED[action]:
            raise HorizonError(f"{action} is for jobs that are {' or '.join(ALLOWED[action])}, not {state}")
        acted = Acted()
        known = await self._names() if queue is None else [queue]
        for name in known:
            async for ids in self._search.each(name, state, wanted):
                if ids:
                    acted = acted.plus(await self.do(action, name, ids))
                    yield acted

    async def _names(self) -> list[str]:
        client = self._horizon.client.with_options(decode_responses=True)
        names = await client.smembers(f"{self._horizon.settings.prefix}:queues")
        return sorted(str(name) for name in names if not str(name).startswith("gravito."))


def _check(action: str) -> None:
    if action not in ALLOWED:
        raise HorizonError(f"{action!r} is no action; allowed: {', '.join(ALLOWED)}")
