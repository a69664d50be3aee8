"""One node of a cluster: its wires, and what goes back to the cluster because the node does not serve it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from gravito import errors
from gravito.atlas.config import Retry, Settings
from gravito.atlas.topology import slots
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.failures import lost_reply
from gravito.atlas.wire.meter import Hooks, Meter
from gravito.atlas.wire.resp import encode
from gravito.atlas.wire.shared import SharedWire

NEVER = Retry(attempts=0)  # of entries that concern one node and no other


class Owner(Protocol):
    """What a node asks of its cluster."""

    def redirect(self, entry: Entry, error: Exception) -> bool:
        """Take an entry that a node refused; False if the error is the caller's."""

    def take_back(self, entry: Entry, cause: Exception) -> bool:
        """Take an entry that a node could not be sent; False if it has to fail."""

    def refresh_soon(self) -> None:
        """Look at the cluster again."""


class NodeWire(SharedWire):
    """A node's shared wire. Entries that were not applied here go to the node that will."""

    owner: Owner
    passed_over = False  # it was silent, and another node has its slots: nothing waits for it any more

    def _on_refusal(self, wire: Wire, entry: Entry, error: Exception) -> bool:
        if not self._closed and self.owner.redirect(entry, error):
            self._again(entry, error)
            return True
        if isinstance(error, errors.AskError):
            return False
        return super()._on_refusal(wire, entry, error)

    def _on_end(self, wire: Wire, error: Exception, sent: list[Entry], unsent: list[Entry]) -> None:
        super()._on_end(wire, error, sent, unsent)
        if not self._closed:
            self.owner.refresh_soon()

    def _park(self, entry: Entry) -> None:
        gone = self._closed or self.passed_over
        if gone and self.owner.take_back(entry, errors.ConnectionLostError("the node has left the cluster")):
            return
        super()._park(entry)

    def _fail_parked(self, cause: Exception) -> None:
        parked, self._parked = self._parked, deque()
        for entry in parked:
            if not entry.future.done() and not self.owner.take_back(entry, cause):
                entry.fail(lost_reply(entry, cause, written=False))


class ClusterNode(Standalone):
    """A node's shared wire and its leased ones."""

    def __init__(
        self, settings: Settings, hooks: Hooks, meter: Meter, owner: Owner, place: slots.Node
    ) -> None:
        self.host, self.port = place.host, place.port
        self.name = place.address
        self.primary = True  # by the last map
        self.rtt = 0.0  # seconds, measured where reads go to the nearest
        self._reads = settings.read_from != "primary"  # replicas are read: its wires say READONLY
        own = msgspec.structs.replace(
            settings,
            driver="redis",
            host=place.host,
            port=place.port,
            nodes=(),
            address_map=None,
            read_from="primary",
        )
        super().__init__(own, hooks)
        self.meter = meter
        shared = NodeWire(own, self._open_shared, self._route, meter, hooks, self.circuit)
        shared.owner = owner
        self.silent = False  # it owes replies and has said nothing since the last look
        self._heard = -1  # bytes read from it then; below 0 without a connection
        shared.on_spare = self.pool.adopt
        self.shared: NodeWire = shared
        self.send: Callable[[Entry], None] = shared.send
        self.pool.redirect = owner.redirect

    def __repr__(self) -> str:
        return f"<ClusterNode {self.name} {self.server_type}>"

    @property
    def server_type(self) -> str:
        """redis-py's word for the role: "primary" or "replica"."""
        return "primary" if self.primary else "replica"

    @property
    def connected(self) -> bool:
        """Whether its shared wire is open."""
        return self.shared.wire is not None

    async def open(self) -> Wire:
        """A new wire; one that may serve a replica's data where replicas are read."""
        wire = await super().open()
        if self._reads:
            future = self.loop.create_future()
            wire.send(Entry(future, encode(("READONLY",)), Spec.of("READONLY"), None, True))
            try:
                await future
            except BaseException:
                wire.close()
                raise
        return wire

    def look(self) -> bool:
        """Whether it owes replies, or a connection, and has said nothing since the last look."""
        wire = self.shared.wire
        if wire is not None:
            owes, heard = wire.in_flight > 0, wire.read
        else:
            owes = self.shared.connecting and self.shared.waiting > 0
            heard = -2 if owes else -1
        self.silent = owes and heard == self._heard
        self._heard = heard
        return self.silent

    def pass_over(self) -> None:
        """Another node has its slots and this one is silent: what can be sent again goes there now."""
        self.shared.passed_over = True
        cause = errors.ConnectionLostError(f"{self.name} is silent, and another node has its slots")
        if self.shared.wire is not None:
            self.shared.wire.fail(cause)
        else:
            self.shared._fail_parked(cause)

    def ask(self, *args: Any, text: bool = True) -> Entry:
        """Send a command to this node and to no other; its reply is not converted."""
        spec = Spec.of(str(args[0]), Route.NEUTRAL)
        entry = Entry(self.loop.create_future(), encode(args), spec, None, text, retry=NEVER)
        self.send(entry)
        return entry

    async def measure(self, patience: float) -> None:
        """Note its round trip; `patience` seconds for one that does not answer within them."""
        self.rtt = patience
        try:
            async with asyncio.timeout(patience):
                await self.ask("PING")  # the first one may have to connect
                start = self.loop.time()
                await self.ask("PING")
                self.rtt = self.loop.time() - start
        except (errors.GravitoError, TimeoutError):
            pass

    def demote(self) -> None:
        """It was a primary: its wires are opened anew, so that they serve a replica's reads."""
        if self._reads and self.shared.wire is not None:
            self.shared._retire(self.shared.wire, spare=False)
            self.pool.drop_idle()
