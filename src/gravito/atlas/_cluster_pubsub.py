"""Messages on a cluster: classic channels on a wire to any node, sharded ones on a wire to their slot's node.

A sharded channel lives where its slot lives. When the slot moves, the server ends the subscriptions that it had;
they are made again at the new node, with a gap event, for what was published meanwhile is gone.
"""

from __future__ import annotations

from typing import Any

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.pubsub import Hub
from gravito.atlas.subscription import Kind, Subscription, as_bytes
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire.connection import Wire

_TRIES = 5  # to find a slot's node for a new subscription while the slot moves


class _SlotSource(Standalone):
    """What a hub asks of a topology, for the node that serves one slot now."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self.cluster, self.slot = cluster, slot
        self.meter, self.hooks = cluster.meter, cluster.hooks

    async def open(self) -> Wire:
        """A new wire to the slot's primary."""
        await self.cluster.ready()
        node = self.cluster.owners[self.slot]
        if isinstance(node, Lobby):
            self.cluster.refresh_soon()
            raise errors.ClusterDownError(f"no node is known to serve slot {self.slot}")
        try:
            return await node.open()
        except errors.ConnectionError:
            self.cluster.refresh_soon()
            raise


class SlotHub(Hub):
    """The subscriptions to the sharded channels of one slot."""

    def __init__(self, settings: Settings, cluster: Cluster, slot: int) -> None:
        super().__init__(settings, _SlotSource(cluster, slot))
        self._cluster = cluster

    async def _tell(self, wire: Wire, verb: str, keys: list[bytes]) -> None:
        try:
            await super()._tell(wire, verb, keys)
        except errors.MovedError as error:
            self._cluster.moved(error)
            raise

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"sunsubscribe" and push[1] in self._tables["ssubscribe"] and self._wire is not None:
            # Nobody here has left this channel: its slot has moved. Not in the midst of reading.
            lost = errors.ConnectionLostError(
                f"the slot of channel {push[1].decode(errors='replace')} has moved"
            )
            self._loop.call_soon(self._wire.close, lost)
            self._cluster.refresh_soon()
            return
        super()._on_push(push)

    async def forget(self, subscription: Subscription, keys: set[bytes]) -> None:
        """A subscription leaves; with the last one the wire is closed."""
        await super().forget(subscription, keys)
        if self._wire is not None and not self._tables["ssubscribe"]:
            self._wire.close()


class ClusterHub(Hub):
    """All subscriptions of a cluster's client in one loop."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        super().__init__(settings, cluster)
        self._cluster = cluster
        self._by_slot: dict[int, SlotHub] = {}
        cluster.on_left = self._left

    async def subscribe(
        self, kind: Kind, channels: tuple[Any, ...], text: bool, **options: Any
    ) -> Subscription:
        """Listen on channels; the sharded ones of a call are in one slot, as the server demands.

        Raises:
            CrossSlotError: they are not.
        """
        if kind != "ssubscribe":
            return await super().subscribe(kind, channels, text, **options)
        slots = {slot_of(as_bytes(name)) for name in channels if name is not None and not callable(name)}
        if len(slots) > 1:
            raise errors.CrossSlotError(
                f"SSUBSCRIBE: the channels are in {len(slots)} slots ({', '.join(map(str, sorted(slots)))}). Subscribe "
                "to them one by one, or give them a common {tag}"
            )
        slot = next(iter(slots), 0)
        hub = self._by_slot.setdefault(slot, SlotHub(self._settings, self._cluster, slot))
        for _ in range(_TRIES):
            try:
                return await hub.subscribe(kind, channels, text, **options)
            except errors.MovedError:  # noted
                continue
        return await hub.subscribe(kind, channels, text, **options)

    def _left(self, names: set[str]) -> None:
        """Nodes that have left the cluster live on, perhaps, but hear nothing of it."""
        if self._wire is not None and self._wire.address in names:
            self._wire.close(errors.ConnectionLostError(f"{self._wire.address} has left the cluster"))

    def wires(self) -> list[Wire]:
        """The open wires."""
        return [*super().wires(), *(wire for hub in self._by_slot.values() for wire in hub.wires())]

    def disown(self) -> None:
        """In a forked child: the messages are the parent's."""
        super().disown()
        for hub in self._by_slot.values():
            hub.disown()

    async def aclose(self) -> None:
        """End all subscriptions and their wires."""
        await super().aclose()
        for hub in self._by_slot.values():
            await hub.aclose()
