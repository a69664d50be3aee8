"""Bytes per command with 100,000 commands in flight, each way in a process of its own.

Run as a program (`python -m bench.memory WAY HOST PORT COUNT`) it does one way and prints the growth of its peak
resident memory in bytes. Resident memory, not tracemalloc: buffers that C code holds count as well.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

COUNT = 100_000  # commands
REDIS_PY_PIPELINE = "redis-py (pipeline)"
OURS_PIPELINE = "gravito (pipeline)"
OURS_GATHERED = "gravito (gather)"
OURS_AWAITED = "gravito (awaited)"
ROOT = Path(__file__).parent.parent


async def _ours_gathered(host: str, port: int, keys: list[str], value: str) -> int:
    from gravito.atlas.client import Client

    async with Client.from_url(f"redis://{host}:{port}/0") as client:
        await client.set(keys[0], value)
        get = client.get

        async def work() -> list[Any]:
            return list(await asyncio.gather(*[get(key) for key in keys]))

        return await _growth(work, value)


async def _ours_awaited(host: str, port: int, keys: list[str], value: str) -> int:
    from gravito.atlas.client import Client

    async with Client.from_url(f"redis://{host}:{port}/0") as client:
        await client.set(keys[0], value)
        get = client.get

        async def work() -> list[Any]:
            sent = [get(key) for key in keys]  # on their way at once; no task for each, as gather makes
            return [await reply for reply in sent]

        return await _growth(work, value)


async def _ours_pipeline(host: str, port: int, keys: list[str], value: str) -> int:
    from gravito.atlas.client import Client

    async with Client.from_url(f"redis://{host}:{port}/0") as client:
        return await _growth_of_pipeline(client, keys, value)


async def _redis_py_pipeline(host: str, port: int, keys: list[str], value: str) -> int:
    import redis.asyncio

    async with redis.asyncio.Redis(host=host, port=port, decode_responses=True) as client:
        return await _growth_of_pipeline(client, keys, value)


WAYS: dict[str, Callable[[str, int, list[str], str], Coroutine[Any, Any, int]]] = {
    OURS_GATHERED: _ours_gathered,
    OURS_AWAITED: _ours_awaited,
    OURS_PIPELINE: _ours_pipeline,
    REDIS_PY_PIPELINE: _redis_py_pipeline,
}


async def _growth_of_pipeline(client: Any, keys: list[str], value: str) -> int:
    await client.set(keys[0], value)

    async def work() -> list[Any]:
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        return list(await pipe.execute())

    return await _growth(work, value)


async def _growth(work: Callable[[], Awaitable[list[Any]]], value: str) -> int:
    gc.collect()
    _forget_peak()
    before = _peak()
    replies = await work()
    after = _peak()
    if any(reply != value for reply in replies):
        raise AssertionError("a reply is not the value that was set")
    return after - before


def _forget_peak() -> None:
    # importing and connecting may have peaked higher than what is held now, and would hide as much of the growth
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    try:
        # not ru_maxrss: that one starts from what the parent had when it forked
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def bytes_per_command(way: str, host: str, port: int, count: int = COUNT) -> float:
    """Measure one way in a fresh process.

    Raises:
        RuntimeError: the process failed; carries the last line it complained with.
    """
    command = [sys.executable, "-m", "bench.memory", way, host, str(port), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no complaint").splitlines()[-1])
    return int(done.stdout) / count


def main(way: str, host: str, port: str, count: str) -> None:
    """Do one way and print the bytes that it took."""
    keys = ["bench:memory"] * int(count)
    print(asyncio.run(WAYS[way](host, int(port), keys, "v" * 32)))


if __name__ == "__main__":
    main(*sys.argv[1:])
