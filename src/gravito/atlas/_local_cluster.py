"""A cluster of embedded engines on this machine, for development and for tests.

with LocalCluster(primaries=3, replicas=1) as cluster:
    print(cluster.url)
"""

from __future__ import annotations

from collections.abc import Mapping

from gravito.atlas._nodes import FORMED_WITHIN, LEAN, Node, Topology, fields, free_ports, secrets, until
from gravito.atlas.embedded import Directive, Engine

__all__ = ["LocalCluster"]

SLOTS = 16384
Picture = tuple[tuple[int, int, tuple[int, ...]], ...]


class LocalCluster(Topology):
    """A cluster of embedded engines, its slots spread evenly.

    Args:
        primaries: nodes that own slots, at least 3 (a majority must be left to vote when one is lost).
        replicas: of each primary.
        host: the address that all listen on.
        port: the first of consecutive ports, the bus 10,000 above them; 0 for free ones.
        password: of the default user on every node.
        node_timeout: seconds after which a node that is silent counts as lost.
        directives: further lines of every node's configuration.

    Raises:
        ValueError: too few primaries, or a negative number of replicas.
    """

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 0,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        password: str | None = None,
        node_timeout: float = 1.0,
        directives: Mapping[str, Directive] | None = None,
    ) -> None:
        if primaries < 3 or replicas < 0:
            raise ValueError(
                f"a cluster has at least 3 primaries and 0 replicas, not {primaries} and {replicas}"
            )
        count = primaries * (1 + replicas)
        ports = list(range(port, port + count)) if port else free_ports(count)
        own: dict[str, Directive] = {
            **LEAN,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": int(node_timeout * 1000),
            "cluster-replica-validity-factor": 0,
            "cluster-migration-barrier": SLOTS,  # replicas stay where they were put
            **secrets(password),
            **(directives or {}),
        }
        self.replicas_each = replicas
        self._primaries = primaries
        self.nodes = [Node(Engine(port=each, host=host, directives=own), password) for each in ports]

    def __repr__(self) -> str:
        return f"<LocalCluster {', '.join(node.address for node in self.nodes)}>"

    @property
    def url(self) -> str:
        """`redis+cluster://` with every node, without a password."""
        return "redis+cluster://" + ",".join(node.address for node in self.nodes)

    def primaries(self) -> list[Node]:
        """The nodes that run and own slots now, by their own word."""
        return [node for node in self.nodes if node.running and self.role(node) == "master"]

    def replicas(self) -> list[Node]:
        """The nodes that run and copy another one now."""
        return [node for node in self.nodes if node.running and self.role(node) == "slave"]

    def role(self, node: Node) -> str:
        """ "master" or "slave", the server's own words."""
        return str(node.ask("ROLE")[0])

    def node_id(self, node: Node) -> str:
        """The 40 letters that name a node in the cluster."""
        return str(node.ask("CLUSTER", "MYID"))

    def owner_of(self, slot: int) -> Node:
        """The node that serves a slot, by the word of the first one that runs.

        Raises:
            LookupError: nobody serves it.
        """
        asked = next(node for node in self.nodes if node.running)
        for first, last, (_, port, *_), *_ in asked.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def migrate(self, slot: int, target: Node, *, batch: int = 100) -> None:
        """Move one slot and its keys to another primary, as `redis-cli --cluster reshard` does. Blocking.

        Between the steps the server answers with ASK and TRYAGAIN, afterwards with MOVED.
        """
        source = self.owner_of(slot)
        source_id, target_id = self.node_id(source), self.node_id(target)
        if source_id == target_id:
            return
        # A target that has not heard of the newest epoch would claim the slot with an older one; a late word of
        # the source then wins against it, and takes the keys with it.
        until(self._of_one_epoch, "the nodes to agree on the epoch")
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        secret = ("AUTH", target._password) if target._password else ()
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, batch):
            source.ask("MIGRATE", target.host, target.port, "", 0, 5000, *secret, "KEYS", *keys)
        for node in (target, source, *(each for each in self.primaries() if each not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def rejoin(self, node: Node) -> None:
        """Start a node that was killed, empty, as a replica of the primary that has the fewest. Blocking."""
        node.start()
        others = [each for each in self.nodes if each is not node and each.running]
        known = {address: name for each in others for name, address in _known(each).items()}
        old = known.get(node.address)
        if old is not None:
            for each in others:
                each.ask("CLUSTER", "FORGET", old)
        owners = _owned(_picture(others[0]))
        primaries = [each for each in others if each.port in owners]
        fewest = min(primaries, key=lambda each: len(each.ask("ROLE")[2]))
        node.ask("CLUSTER", "MEET", fewest.host, fewest.port)
        name = self.node_id(fewest)
        until(lambda: name in _known(node), "the node to hear of its primary")
        node.ask("CLUSTER", "REPLICATE", name)
        self.wait()

    def wait(self, timeout: float = FORMED_WITHIN) -> None:
        """Wait until every node that runs says that the cluster is whole, and its replicas are connected.

        Raises:
            EngineError: they did not within `timeout` seconds.
        """
        until(self._whole, "the nodes to agree on the cluster", timeout)

    def _of_one_epoch(self) -> bool:
        running = [node for node in self.nodes if node.running]
        return len({fields(node.ask("CLUSTER", "INFO"))["cluster_current_epoch"] for node in running}) == 1

    def _whole(self) -> bool:
        running = [node for node in self.nodes if node.running]
        maps = set()
        for node in running:
            info = fields(node.ask("CLUSTER", "INFO"))
            if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) < len(running):
                return False
            maps.add(_picture(node))
            role = node.ask("ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
        seen = {port for picture in maps for _, _, ports in picture for port in ports}
        return len(maps) == 1 and seen >= {node.port for node in running}

    def _form(self) -> None:
        primaries, rest = self.nodes[: self._primaries], self.nodes[self._primaries :]
        bounds = [round(SLOTS * index / len(primaries)) for index in range(len(primaries) + 1)]
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)  # distinct ones, so that none has to be fought out
        for node, first, end in zip(primaries, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTS", *range(first, end))
        seed = self.nodes[0]
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", seed.host, seed.port)
        names = [self.node_id(node) for node in primaries]
        for index, node in enumerate(rest):
            name = names[index % len(names)]
            until(lambda node=node, name=name: name in _known(node), "the nodes to meet")  # type: ignore[misc]
            node.ask("CLUSTER", "REPLICATE", name)
        self.wait()


def _known(node: Node) -> dict[str, str]:
    """Ids of the nodes that a node has shaken hands with, and their addresses."""
    lines = [line.split(" ")[:3] for line in str(node.ask("CLUSTER", "NODES")).splitlines()]
    return {name: address.partition("@")[0] for name, address, flags in lines if "handshake" not in flags}


def _owned(picture: Picture) -> set[int]:
    """Ports of the primaries in a picture of the slots."""
    return {ports[0] for _, _, ports in picture}


def _picture(node: Node) -> Picture:
    """Who serves what, by one node's word: (first slot, last slot, ports with the primary's first)."""
    return tuple(
        (first, last, (primary[1], *sorted(copy[1] for copy in copies)))
        for first, last, primary, *copies in sorted(node.ask("CLUSTER", "SLOTS"))
    )
