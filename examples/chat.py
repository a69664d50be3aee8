"""A chat in the terminal, over publish and subscribe.

python chat.py ann kitchen
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from gravito.atlas import DB


async def typed() -> AsyncIterator[str]:
    """The lines that are typed, until the end of the input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().rstrip("\n")


def show(line: object) -> None:
    """Somebody said something."""
    print(line, flush=True)


async def main(name: str, room: str) -> None:
    """Say what is typed, show what is said."""
    redis, channel = DB.connection(), f"chat:{room}"
    subscription = await redis.subscribe(channel, show, on_gap=lambda gap: show(f"(missed something: {gap})"))
    await redis.publish(channel, f"* {name} came in")
    async for line in typed():
        await redis.publish(channel, f"{name}: {line}")
    await subscription.unsubscribe()
    await redis.publish(channel, f"* {name} left")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "lobby"))
    except IndexError:
        sys.exit("usage: python chat.py NAME [ROOM]")
    except KeyboardInterrupt:
        pass
