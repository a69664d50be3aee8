"""Who is in a cluster, as its nodes say: those that are known are asked first, then the seeds, which may be gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from gravito import errors
from gravito.atlas import _addresses
from gravito.atlas.config import Settings
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology.slots import Node, SlotMap

PATIENCE = 1.0  # seconds for one node to say what it knows


class Survey:
    """Asks for the map, and knows the seeds.

    Args:
        settings: of the cluster.
        lobby: is told why there is no map.
        make: gives the node of an address.
        reached: gives the place where an announced node is reached.
    """

    def __init__(
        self,
        settings: Settings,
        lobby: Lobby,
        make: Callable[[Node], ClusterNode],
        reached: Callable[[Node], Node],
    ) -> None:
        self._settings = settings
        self._lobby = lobby
        self._make = make
        self._reached = reached
        self.seeds = [Node(*_addresses.split(each, 6379)) for each in settings.nodes]
        self.strangers: list[ClusterNode] = []  # seeds that the map calls by another name

    def __repr__(self) -> str:
        return f"<Survey of {self._settings.address}>"

    async def look(self, known: Mapping[tuple[str, int], ClusterNode]) -> SlotMap | None:
        """What the first node that answers says of the cluster; None if nobody says anything of use."""
        for node in self._sources(known):
            try:
                async with asyncio.timeout(min(PATIENCE, self._settings.timeouts.connect)):
                    reply = await node.ask("CLUSTER", "SLOTS")
                found = SlotMap.from_slots(reply, node.host, self._reached)
                if found.covered:
                    return found
                self._lobby.reason = errors.ClusterDownError(
                    f"{node.name} knows of no node that serves a slot"
                )
            except errors.ResponseError as error:
                self._lobby.reason = errors.ConfigurationError(
                    f"connection '{self._settings.name}': {node.name} does not say who is in its cluster ({error}). "
                    "A single server is redis://",
                    field="driver",
                )
            except errors.GravitoError as error:
                self._lobby.reason = error
            except TimeoutError:
                self._lobby.reason = errors.ConnectTimeoutError(f"{node.name} does not answer")
        return None

    def _sources(self, known: Mapping[tuple[str, int], ClusterNode]) -> list[ClusterNode]:
        """Whom to ask: nodes that are connected, other nodes, seeds."""
        nodes = list(known.values())
        random.shuffle(nodes)
        nodes.sort(key=lambda node: not node.connected)
        for place in self.seeds:
            if (place.host, place.port) not in known:
                same = [node for node in self.strangers if (node.host, node.port) == (place.host, place.port)]
                if not same:
                    same = [self._make(place)]
                    self.strangers += same
                nodes += same
        return nodes
