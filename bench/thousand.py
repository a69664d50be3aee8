"""What a large cluster costs one process: its map, its refreshes, its connections.

`python -m bench.thousand [NODES] [RANGES]` makes the reply of CLUSTER SLOTS for so many nodes, half of them replicas, lays
it over a client's tables and prints sizes and times; no such cluster is started. The connections are real ones, to one
engine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hiredis

from bench.engine import running
from gravito.atlas.config import Settings
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.topology.slots import SLOTS, Node, SlotMap
from gravito.atlas.wire.meter import Hooks, Meter

RUNS = 15
WIRES = 300  # real connections, from which the cost of one is derived


def reply_of(nodes: int, ranges: int) -> bytes:
    """CLUSTER SLOTS as the server encodes it: `nodes` half primaries, half replicas; slots in `ranges` runs."""
    shards = nodes // 2
    bounds = [SLOTS * at // ranges for at in range(ranges + 1)]
    lines = [f"*{ranges}\r\n"]
    for at, (first, end) in enumerate(pairwise(bounds)):
        shard = at % shards
        lines.append(f"*4\r\n:{first}\r\n:{end - 1}\r\n")
        lines += [_node(number) for number in (shard, shard + shards)]
    return "".join(lines).encode()


def _node(number: int) -> str:
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return f"*4\r\n${len(host)}\r\n{host}\r\n:6379\r\n$40\r\n{number:040x}\r\n*0\r\n"


def parsed(reply: bytes) -> Any:
    """The reply as a wire hands it out."""
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(reply)
    return reader.gets()


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds, the lowest of some runs: what is above that is other work on the machine."""
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return min(took)


def weighed(work: Callable[[], Any]) -> float:
    """KiB of Python's memory that the result of `work` holds."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = work()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del held
    return size / 1024


async def of_the_map(nodes: int, ranges: int) -> list[tuple[str, str]]:
    """Rows about the map of such a cluster: (what, figure)."""
    reply = reply_of(nodes, ranges)
    ready = parsed(reply)
    found = SlotMap.from_slots(ready, "asked")
    settings = Settings.from_url("redis+cluster://10.0.0.0")

    def adopting() -> Cluster:
        cluster = Cluster(settings, Hooks())
        cluster._adopt(SlotMap.from_slots(parsed(reply), "asked"))
        return cluster

    cluster = adopting()
    rows = [
        ("reply of CLUSTER SLOTS", f"{len(reply) / 1000:.0f} kB"),
        ("reading it", f"{timed(lambda: parsed(reply)):.1f} ms"),
        ("making the map of it", f"{timed(lambda: SlotMap.from_slots(ready, 'asked')):.1f} ms"),
        ("laying it over the tables", f"{timed(lambda: cluster._adopt(found)):.1f} ms"),
        (
            "looking for silent nodes, each second",
            f"{timed(lambda: sum(node.look() for node in cluster.nodes.values())):.2f} ms",
        ),
        ("memory of the map", f"{weighed(lambda: SlotMap.from_slots(parsed(reply), 'asked')):.0f} KiB"),
        ("memory of everything, unconnected", f"{weighed(adopting):.0f} KiB"),
    ]
    await cluster.aclose()
    return rows


async def of_wires(host: str, port: int) -> tuple[str, str]:
    """Resident memory of one connected node, by the growth of this process."""
    cluster = Cluster(Settings.from_url(f"redis+cluster://{host}:{port}"), Hooks())
    place = Node(host, port)
    settings = Settings.from_url(f"redis+cluster://{host}:{port}")
    nodes = [ClusterNode(settings, Hooks(), Meter(), cluster, place) for _ in range(WIRES)]
    gc.collect()
    before = _resident()
    for node in nodes:
        await node.ask("PING")
    grown = (_resident() - before) / WIRES
    for node in nodes:
        await node.aclose()
    await cluster.aclose()
    return ("resident memory of one connection", f"{grown:.1f} KiB")


def _resident() -> float:
    """KiB; the peak where there is no /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return float(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.thousand", description="A large cluster's cost.")
    parser.add_argument("nodes", type=int, nargs="?", default=1000, help="primaries and replicas together")
    parser.add_argument("ranges", type=int, nargs="?", help="runs of slots; by default one for each primary")
    chosen = parser.parse_args(arguments)
    ranges = chosen.ranges or chosen.nodes // 2
    if not 2 <= chosen.nodes <= SLOTS or not chosen.nodes // 2 <= ranges <= SLOTS:
        parser.error(f"2 to {SLOTS} nodes, and from one run of slots for each primary to {SLOTS}")
    print(f"{chosen.nodes} nodes, {ranges} runs of slots")
    with running() as engine:
        wires = asyncio.run(of_wires(engine.host, engine.port))  # first, before others have left room behind
    rows = [*asyncio.run(of_the_map(chosen.nodes, ranges)), wires]
    for what, figure in rows:
        print(f"  {what:<40}{figure:>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
