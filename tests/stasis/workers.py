"""What other processes do to a cache: `python -m tests.stasis.workers NAME URL JSON`.

A worker prints "ready", begins when a line comes, and prints what it has to say as lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gravito.stasis import FailSafe

ROOT = Path(__file__).parents[2]
PATIENT = FailSafe(timeout=30)  # a busy machine is no store that is away


class Worker:
    """A process that runs one of the functions below."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()

    async def says(self, within: float = 60) -> Any:
        """Its next line, if it comes within so many seconds."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            line = await self._process.stdout.readline()
        assert line, "the worker has ended"
        return json.loads(line)

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker(name: str, url: str, **args: Any) -> AsyncIterator[Worker]:
    """Start one, and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.stasis.workers", name, url, json.dumps(args)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Worker(process)
    try:
        assert await made.says() == "ready"
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else it is closed by the collector, with a warning


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def crowd(client: Any, callers: int, seconds: float) -> None:
    """Some callers ask for one missing key at the same time."""
    from gravito.stasis import Cache

    cache = Cache(connection=client, fail_safe=PATIENT)

    async def factory() -> int:
        await asyncio.sleep(seconds)
        return int(await client.incr("runs"))

    await cache.remember("warm", 60, lambda: 0)  # the server knows the scripts, and this process the roots
    cache = Cache(connection=client, fail_safe=PATIENT)
    before = client.stats().commands
    values = await asyncio.gather(*[cache.remember("k", 60, factory) for _ in range(callers)])
    say({"values": values, "commands": client.stats().commands - before, "runs": cache.stats().runs})


async def compute(client: Any, key: str, value: str, seconds: float, lease: float) -> None:
    """Compute one key for so long, and tell when that has begun."""
    from gravito.stasis import Cache

    async def factory() -> str:
        say("computing")
        await asyncio.sleep(seconds)
        return value

    say(await Cache(connection=client, fail_safe=PATIENT, lease=lease).remember(key, 60, factory))


async def refresh(client: Any, key: str, lease: float) -> None:
    """Be the one that refreshes a stale value, for ever."""
    from gravito.stasis import Cache

    async def factory() -> None:
        say("computing")
        await asyncio.sleep(600)

    await Cache(connection=client, fail_safe=PATIENT, lease=lease).flexible(key, 0.05, 600, factory)
    await asyncio.sleep(600)


async def readers(
    client: Any, fresh: float, stale: float, cost: float, seconds: float, per_second: int, ahead: float
) -> None:
    """Ask for one key so often, with the application's clock set wrong by `ahead` seconds."""
    from gravito.stasis import Cache

    real = time.time
    time.time = lambda: real() + ahead
    cache = Cache(connection=client, fail_safe=PATIENT)

    async def factory() -> int:
        now = await client.time()
        await client.rpush("starts", now[0] * 1000 + now[1] // 1000)
        await asyncio.sleep(cost)
        return int(await client.incr("values"))

    async def read() -> int:
        value: int = await cache.flexible("report", fresh, stale, factory)
        return value

    first = await read()
    warm = cache.stats()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    tasks = []
    while loop.time() < end:
        tasks.append(loop.create_task(read()))
        await asyncio.sleep(1 / per_second)
    values = [first, *await asyncio.gather(*tasks)]
    stats = cache.stats()
    say({"misses": stats.misses - warm.misses, "backward": values != sorted(values)})


async def churn(client: Any, rounds: int, tag: str) -> None:
    """Flush a tag and remember keys under it, at the same time."""
    from gravito.stasis import Cache

    cache = Cache(connection=client, fail_safe=PATIENT).tags(tag)

    async def one(number: int) -> None:
        if number % 2:
            await cache.flush()
        else:
            await cache.remember(f"k:{number % 100}", 60, lambda: number)

    for start in range(0, rounds, 500):
        await asyncio.gather(*[one(number) for number in range(start, min(start + 500, rounds))])
    say("done")


async def put(client: Any, key: str, value: str, store: str) -> None:
    """Write a key, then read it for each line that comes."""
    from gravito.stasis import Cache

    cache = Cache(store, connection=client, fail_safe=PATIENT)
    await cache.put(key, value, 60)
    say("written")
    while await asyncio.to_thread(sys.stdin.readline):
        say(await cache.get(key))


WORK: dict[str, Callable[..., Awaitable[None]]] = {
    each.__name__: each for each in (crowd, compute, refresh, readers, churn, put)
}


async def main(name: str, url: str, args: dict[str, Any]) -> None:
    from gravito.atlas import Client

    async with Client.from_url(url) as client:
        await client.ping()
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        await WORK[name](client, **args)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
