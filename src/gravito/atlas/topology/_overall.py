"""What others ask of a topology's shared wire and of its pool, answered for all nodes of a cluster together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gravito import errors
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.pool import LeasePool

if TYPE_CHECKING:
    from gravito.atlas.topology._node import ClusterNode
    from gravito.atlas.topology.cluster import Cluster


class Waiting:
    """What others ask of a shared wire, over all nodes."""

    wire = None  # a cluster has no single one

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def waiting(self) -> int:
        """Entries that wait for a wire, for room, or for a map."""
        return len(self._cluster.lobby) + sum(node.shared.waiting for node in self._cluster.everyone())

    @property
    def connecting(self) -> bool:
        """True while there is no map, or a node is being connected to."""
        cluster = self._cluster
        return not cluster._known.is_set() or any(node.shared.connecting for node in cluster.everyone())


class Leases:
    """What others ask of a pool, over all nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lent: dict[Wire, LeasePool] = {}

    def _sum(self, name: str) -> int:
        return sum(getattr(node.pool, name) for node in self._cluster.everyone())

    @property
    def lent(self) -> int:
        """Wires in use."""
        return self._sum("lent")

    @property
    def idle(self) -> int:
        """Wires open and free."""
        return self._sum("idle")

    @property
    def waiting(self) -> int:
        """Callers that wait for a wire."""
        return self._sum("waiting")

    async def acquire(self, slot: int | None = None, node: ClusterNode | None = None) -> Wire:
        """A wire to a node, to that of a slot, or to any primary, until `release`."""
        await self._cluster.ready()
        chosen: ClusterNode | Lobby | None = node
        if chosen is None:
            chosen = self._cluster.default_node() if slot is None else self._cluster.owners[slot]
        if isinstance(chosen, Lobby):
            raise errors.ClusterDownError(f"no node serves slot {slot}")
        wire = await chosen.pool.acquire()
        self._lent[wire] = chosen.pool
        return wire

    def release(self, wire: Wire, clean: bool) -> None:
        """Give it back to its node."""
        pool = self._lent.pop(wire, None)
        if pool is not None:
            pool.release(wire, clean)

    def drop_idle(self) -> None:
        """Close the wires that are open and free."""
        for node in self._cluster.everyone():
            node.pool.drop_idle()
