"""The clients that are compared, one module each; one that is not installed is left out with a note."""

from __future__ import annotations

import importlib
from contextlib import AsyncExitStack

from bench.contenders.base import Contender

__all__ = ["MODULES", "OURS", "Contender", "open_all"]

OURS = "gravito"
MODULES = {  # the contender's name in the report -> its module; the order of running
    OURS: "bench.contenders.ours",
    "redis-py": "bench.contenders.redis_py",
    "coredis": "bench.contenders.coredis",
    "valkey-glide": "bench.contenders.glide",
    "floor": "bench.contenders.floor",
}


async def open_all(
    stack: AsyncExitStack, host: str, port: int
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Connect every contender that can be; the stack closes them.

    Returns:
        The connected contenders by name, and for each of the others why it is left out.
    """
    connected: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for name, module in MODULES.items():
        try:
            contender: Contender = importlib.import_module(module).Client()
            await contender.open(stack, host, port)
        except Exception as error:  # not installed, or unusable on this machine: the others still run
            left_out[name] = f"left out: {type(error).__name__}: {error}"
        else:
            connected[name] = contender
    return connected, left_out
