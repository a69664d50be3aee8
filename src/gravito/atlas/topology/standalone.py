"""One server: ordinary commands share one wire, the others lease one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gravito.atlas.config import Settings
from gravito.atlas.wire.circuit import Circuit
from gravito.atlas.wire.connect import open_wire
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry
from gravito.atlas.wire.meter import Event, Hooks, Meter
from gravito.atlas.wire.pool import LeasePool
from gravito.atlas.wire.shared import SharedWire
from gravito.atlas.wire.shelves import Shelves
from gravito.atlas.wire.tier import Tier


class Standalone:
    """The wires of one client in one event loop."""

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.meter = Meter(latency=settings.measure_latency)
        self.hooks = hooks
        self.circuit = Circuit(settings)
        self.shared = SharedWire(settings, self._open_shared, self._route, self.meter, hooks, self.circuit)
        self.pool = LeasePool(settings, self.open, self._note_retry)
        self.shared.on_spare = self.pool.adopt
        self.send: Callable[[Entry], None] = self.shared.send  # where an ordinary entry goes now
        self.tier: Tier | None = None  # what is kept here; made by the first tracked read

    def __repr__(self) -> str:
        return f"<Standalone {self.settings.address} {self.shared!r} {self.pool!r}>"

    def _route(self, send: Callable[[Entry], None]) -> None:
        self.send = send if self.tier is None else self.tier.route(self.shared.wire, send)

    def track(self, shelves: Shelves) -> None:
        """Keep on these shelves what tracked reads bring."""
        self.tier = Tier(shelves, self.send)
        self.reroute()

    def reroute(self) -> None:
        """A tier was set: it sees from now on what is sent, and the wire it is sent on."""
        self._route(self.send)

    async def open(self) -> Wire:
        """A new wire to the server, unless the breaker is open."""
        wire = await self.circuit.attempt(lambda: open_wire(self.settings, self.meter))
        self.meter.connects += 1
        wire.counted = True
        return wire

    async def _open_shared(self, fresh: bool) -> Wire:
        return (None if fresh else self.pool.take_idle()) or await self.open()

    def _note_retry(self, entry: Entry, error: Exception) -> None:
        self.meter.retries += 1
        name, address = self.settings.name, self.settings.address
        command, attempt = entry.spec.name, entry.attempt
        self.hooks.tell(
            Event(
                kind="retry",
                connection=name,
                address=address,
                reason=str(error),
                command=command,
                attempt=attempt,
            )
        )

    def wires(self) -> list[Wire]:
        """All wires, shared and leased."""
        return [*self.shared.wires(), *self.pool.wires()]

    def send_apart(self, entry: Entry, hold: float, clean: bool, patience: float = 0.0) -> None:
        """Send an entry on a leased wire; see `LeasePool.run`."""
        if self.tier is not None:
            self.tier.note(entry, apart=True)
        self.pool.run(entry, hold, clean, patience)

    async def aclose(self) -> None:
        """Finish what is in flight, within `timeouts.drain`, and close every wire."""
        try:
            await self.shared.aclose(self.settings.timeouts.drain)
        finally:  # also when it is cancelled
            await self.pool.aclose()
