"""The local tier of a cluster: a tier for each node's wire, all on the same shelves.

What is kept of a key was read from the node that serves its slot, and only that node's announcements count for it.
So an entry goes when its slot's owner changes in the client's table, and a node vouches for what was read from it
only while it serves: it is asked for a sign of life with a read, which a node refuses that has become a replica
(MOVED), or that is cut off from the others (CLUSTERDOWN).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gravito import errors
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology._node import NEVER, ClusterNode
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.wire import resp
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.flight import Flight
from gravito.atlas.wire.shelves import Shelves
from gravito.atlas.wire.tier import Tier

if TYPE_CHECKING:
    from gravito.atlas.topology.cluster import Cluster

_PTTL = Spec.of("PTTL", Route.READ_ONLY)


class NodeTier(Tier):
    """What is kept of one node."""

    # Once a slot is on its way to another node, a key that is not here is made there: this node never says so.
    keeps_absent = False

    def __init__(self, shelves: Shelves, node: ClusterNode, cluster: Cluster) -> None:
        super().__init__(shelves, node.send)
        self._cluster = cluster

    def crash(self, flight: Flight, error: Exception) -> None:
        """A read that this node could not be sent goes to the one that takes its place."""
        away = isinstance(error, errors.ConnectionError)
        for waiter in flight.waiters:
            if away and not waiter.future.done() and self._cluster.take_back(waiter, error):
                flight.waiters = [each for each in flight.waiters if each is not waiter]
        super().crash(flight, error)

    def _question_of_life(self, future: asyncio.Future[Any]) -> Entry:
        kept = self.shelves.latest_of(self)
        assert kept is not None  # nothing is asked for nothing
        return Entry(future, resp.encode(("PTTL", kept.key)), _PTTL, None, True, retry=NEVER)

    def _alive(self, asked_at: float, error: BaseException | None) -> None:
        if error is None:
            self._confirm(asked_at)
        elif isinstance(error, errors.MovedError):
            self.clear()
            self._cluster.moved(error)
        elif isinstance(error, errors.ClusterDownError):
            self._cluster.refresh_soon()


class NodeTiers:
    """The tiers of a cluster's nodes. Stands where a server's tier stands.

    Args:
        shelves: where all of them keep what they read.
        cluster: who serves what.
    """

    def __init__(self, shelves: Shelves, cluster: Cluster) -> None:
        self.shelves = shelves
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<NodeTiers {self._all()}>"

    def _all(self) -> list[Tier]:
        return [node.tier for node in self._cluster.everyone() if node.tier is not None]

    def of(self, slot: int) -> Tier | None:
        """The tier of the node that serves a slot; None while nobody is known to."""
        node = self._cluster.owners[slot]
        if isinstance(node, Lobby):
            return None
        if node.tier is None:
            node.tier = NodeTier(self.shelves, node, self._cluster)
            node.reroute()
        return node.tier

    def clear(self) -> None:
        """Forget everything."""
        for tier in self._all():
            tier.clear()

    def left(self, slots: set[int]) -> None:
        """These slots have other owners now: what was kept of them is announced by nobody."""
        tiers = self._all()
        keys = {*self.shelves.keys, *[key for tier in tiers for key in tier.flying]}
        for key in keys:
            if slot_of(key) in slots:
                for tier in tiers:
                    tier.drop(key)
