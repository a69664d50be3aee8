"""A whole topology of embedded engines in the foreground."""

from __future__ import annotations

import time
from dataclasses import dataclass

import typer

from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import SENTINEL_OFFSET, LocalSentinels
from gravito.atlas._nodes import BUS_OFFSET, Node
from gravito.cli._signals import UntilSignal

__all__ = ["Shape", "run_topology"]

_LOOK = 0.5  # seconds between two looks at the processes
_SENTINELS = 3


@dataclass(frozen=True)
class Shape:
    """What to start."""

    primaries: int  # of a cluster; 0 for a primary with sentinels
    replicas: int  # of each primary

    def ports(self, first: int) -> list[int]:
        """Every TCP port that is needed when the nodes' own begin at `first`."""
        count = (self.primaries or 1) * (1 + self.replicas)
        nodes = list(range(first, first + count))
        if self.primaries:
            return nodes + [each + BUS_OFFSET for each in nodes]
        return nodes + [first + SENTINEL_OFFSET + index for index in range(_SENTINELS)]

    def build(self, host: str, port: int, password: str | None) -> LocalCluster | LocalSentinels:
        """The topology, not started yet."""
        if self.primaries:
            return LocalCluster(self.primaries, self.replicas, host=host, port=port, password=password)
        return LocalSentinels(
            self.replicas, _SENTINELS, host=host, port=port, password=password, sentinel_password=password
        )


def run_topology(shape: Shape, host: str, port: int, password: str | None) -> bool:
    """Serve until a signal; a process that ends is reported, for that is what one tries here.

    Returns:
        False when the last process has ended by itself.

    Raises:
        EngineError: it could not be started.
    """
    topology = shape.build(host, port, password)
    with UntilSignal(topology.stop):
        topology.start()
        typer.echo(_state(topology, password is not None))
        up = set(topology.nodes)
        while up:
            time.sleep(_LOOK)
            for node in [node for node in up if not node.running]:
                up.remove(node)
                typer.echo(f"{node.address} has ended.")
        return False
    return True


def _state(topology: LocalCluster | LocalSentinels, password: bool) -> str:
    url = topology.url.replace("://", "://:***@") if password else topology.url
    if password and isinstance(topology, LocalSentinels):
        url += "?sentinel_password=***"
    lines = [f"Serving  {url}", "Data     in memory, gone at the end"]
    lines += [f"{_part(topology, node):<8} {node.address}, pid {node.engine.pid}" for node in topology.nodes]
    return "\n".join([*lines, "Stop with Ctrl-C."])


def _part(topology: LocalCluster | LocalSentinels, node: Node) -> str:
    if isinstance(topology, LocalSentinels) and node in topology.sentinels:
        return "Sentinel"
    return "Primary" if node.ask("ROLE")[0] == "master" else "Replica"
