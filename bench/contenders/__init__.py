"""The clients that are compared, one module each; one that is not installed is left out with a note."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from bench.contenders.base import Contender

__all__ = ["CLUSTERED", "MODULES", "OURS", "Contender", "open_all"]

OURS = "gravito"
MODULES = {  # the contender's name in the report -> its module; the order of running
    OURS: "bench.contenders.ours",
    "redis-py": "bench.contenders.redis_py",
    "coredis": "bench.contenders.coredis",
    "valkey-glide": "bench.contenders.glide",
    "floor": "bench.contenders.floor",
}
CLUSTERED = tuple(name for name in MODULES if name != "floor")  # those that have a client of a cluster


async def open_all(
    stack: AsyncExitStack, host: str, port: int, names: Iterable[str] = tuple(MODULES), kind: str = "Client"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Connect every contender that can be; the stack closes them.

    Args:
        stack: closes what is opened.
        host: where the server, or a node of the cluster, listens.
        port: its TCP port.
        names: which contenders.
        kind: the class of their modules, `Client` or `Cluster`.

    Returns:
        The connected contenders by name, and for each of the others why it is left out.
    """
    connected: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            contender: Contender = getattr(importlib.import_module(MODULES[name]), kind)()
            await contender.open(stack, host, port)
        except Exception as error:  # not installed, or unusable on this machine: the others still run
            left_out[name] = f"left out: {type(error).__name__}: {error}"
        else:
            connected[name] = contender
    return connected, left_out
