"""SCAN on a cluster: each primary has a cursor of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from gravito import errors
from gravito.atlas import _fanout
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.wire.entry import Entry

if TYPE_CHECKING:
    from gravito.atlas._cluster_client import ClusterClient

Scan = Callable[..., Awaitable[Any]]  # one node's: (cursor, target_nodes=node, ...) -> cursor, keys
Found = tuple[dict[str, int], list[Any]]  # cursors by node name, and keys


async def begin(cluster: Cluster, entry: Entry, rest: tuple[Any, ...]) -> Found:
    """All primaries from the start, as redis-py's cluster client does it.

    Raises:
        DataError: the cursor is not 0, so it is some node's, and which one is not said.
    """
    if rest and rest[0] not in (0, "0", b"0"):
        raise errors.DataError(
            f"SCAN {rest[0]!r}: a cursor belongs to one node; name it with target_nodes=, give scan() the cursors that "
            "it returned, or use scan_iter()"
        )
    await cluster.ready()
    nodes = cluster.primaries()
    parts = [_fanout.child(entry, convert=True) for _ in nodes]
    for node, part in zip(nodes, parts, strict=True):
        node.send(part)
    return _joined([node.name for node in nodes], await _fanout.all_of(parts))


async def go_on(
    client: ClusterClient, scan: Scan, cursors: Mapping[str, Any], arguments: dict[str, Any]
) -> Found:
    """The next keys of each node that is not through.

    Raises:
        DataError: a node has left the cluster.
    """
    nodes = {name: client.get_node(node_name=name) for name, cursor in cursors.items() if int(cursor)}
    gone = [name for name, node in nodes.items() if node is None]
    if gone:
        raise errors.DataError(f"scan(): no node {', '.join(gone)} is known now; begin again with cursor 0")
    parts = [scan(cursors[name], target_nodes=node, **arguments) for name, node in nodes.items()]
    found, keys = _joined(list(nodes), await asyncio.gather(*parts))
    return {**dict.fromkeys(cursors, 0), **found}, keys


async def every_key(
    client: ClusterClient, scan: Scan, target: Any, arguments: dict[str, Any]
) -> AsyncIterator[Any]:
    """Node by node until each is through."""
    await client._cluster.ready()
    for node in client._targets(target):
        cursor: Any = 0
        while True:
            cursor, found = await scan(cursor, target_nodes=node, **arguments)
            for key in found:
                yield key
            if not int(cursor):
                break


def _joined(names: list[str], replies: list[Any]) -> Found:
    cursors = {name: int(cursor) for name, (cursor, _) in zip(names, replies, strict=True)}
    return cursors, [key for _, found in replies for key in found]
