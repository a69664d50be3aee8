"""What a client holds in one event loop, how it ends there, and the sum over all loops."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.meter import Histogram, Hooks, Meter, Stats

if TYPE_CHECKING:
    from gravito.atlas.pubsub import Hub


class LoopState:
    """A client's wires in one loop, and its subscriptions once there are any."""

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self.topology = _topology(settings, hooks)
        self.hub: Hub | None = None  # made by the first subscription
        self.guard = _close_with_the_loop(self)
        # Started here and suspended: a loop that ends in order (asyncio.run) closes its suspended generators
        # and with this one the wires, so that a script needs no closing line.
        try:
            self.guard.__anext__().send(None)
        except StopIteration:
            pass

    def wires(self) -> list[Wire]:
        """All wires that are open, those of subscriptions too."""
        wires = [*self.topology.wires(), *(self.hub.wires() if self.hub is not None else ())]
        return [wire for wire in wires if wire.ended is None]

    def disown(self) -> None:
        """In a forked child: nothing here may be used, and whoever tries is told."""
        if self.hub is not None:
            self.hub.disown()
        for wire in self.wires():
            wire.disown()

    def warn(self, source: object, closed_loop: bool) -> None:
        """Warn of wires that nobody closed; `closed_loop` says that nobody can any more."""
        wires = self.wires()
        if not wires:
            return
        settings = self.topology.settings
        where = f"connection '{settings.name}' ({settings.address})"
        in_flight = sum(wire.in_flight + wire.unsent for wire in wires)
        if closed_loop:
            what = (
                f"the event loop was closed while {where} was open in it, with {in_flight} commands in flight"
            )
        else:
            what = f"unclosed client of {where}"
        warnings.warn(
            f"{what}; use `await client.aclose()` or `async with`",
            ResourceWarning,
            source=source,
            stacklevel=3,
        )

    async def aclose(self) -> None:
        """End the subscriptions and the wires."""
        try:
            if self.hub is not None:
                await self.hub.aclose()
        finally:
            await self.topology.aclose()


def _topology(settings: Settings, hooks: Hooks) -> Standalone:
    if settings.driver == "sentinel":
        from gravito.atlas.topology.sentinel import Sentinel  # noqa: PLC0415  # only who uses it pays for it

        return Sentinel(settings, hooks)
    if settings.driver == "cluster":
        from gravito.atlas.topology.cluster import Cluster  # noqa: PLC0415  # the same

        return Cluster(settings, hooks)
    return Standalone(settings, hooks)


async def _close_with_the_loop(state: LoopState) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await state.aclose()


def no_loop(command: str) -> errors.LoopError:
    """The error for a call that no event loop runs for."""
    return errors.LoopError(
        f"{command} was called with no event loop running. Call it inside an async function, as in "
        "`asyncio.run(main())`; after a fork, in a loop of the child's own."
    )


class LoopStates(dict[asyncio.AbstractEventLoop, LoopState]):
    """What a client holds, by loop: wires never leave theirs."""

    __slots__ = ("_hooks", "_settings", "past")  # a look-up as fast as a plain dictionary's

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        super().__init__()
        self._settings = settings
        self._hooks = hooks
        self.past = Meter()  # counters of loops that are done with

    def open(self, loop: asyncio.AbstractEventLoop, source: object) -> LoopState:
        """A state for a loop that has none. Those of closed loops are dropped, with a warning that names `source`."""
        for other in [other for other in list(self) if other.is_closed()]:
            gone = self.pop(other, None)
            if gone is not None:
                self.past.merge(gone.topology.meter)
                gone.warn(source, closed_loop=True)
        state = self[loop] = LoopState(self._settings, self._hooks)
        return state

    def summary(self) -> Stats:
        """The counters of all loops, and what their wires hold now."""
        states = list(self.values())
        topologies = [state.topology for state in states]
        total = Meter(latency=True)
        for meter in (self.past, *[topology.meter for topology in topologies]):
            total.merge(meter)
        latency = total.latency or Histogram()
        wires = [wire for state in states for wire in state.wires()]
        return Stats(
            **total.counters(),
            in_flight=sum(wire.in_flight for wire in wires),
            waiting=sum(topology.shared.waiting + topology.pool.waiting for topology in topologies),
            connections=len(wires),
            leased=sum(topology.pool.lent for topology in topologies),
            idle=sum(topology.pool.idle for topology in topologies),
            latency_p50=latency.quantile(0.5),
            latency_p99=latency.quantile(0.99),
        )

    async def aclose(self, source: object) -> None:
        """Close the wires of this loop, and those of others in their own loop where it runs."""
        if not self:  # as in a forked child, which may get here with no loop running
            return
        here = asyncio.get_running_loop()
        for loop, state in list(self.items()):
            self.pop(loop, None)
            if loop is here:
                try:
                    await state.guard.aclose()
                finally:  # also when it is cancelled
                    self.past.merge(state.topology.meter)
                continue
            self.past.merge(state.topology.meter)
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(state.guard.aclose(), loop)
            elif loop.is_closed():
                state.warn(source, closed_loop=True)
