"""Messages for a subscriber that is being measured, published by another process.

The publisher keeps a window of messages ahead of the receiver and no more: it waits for credit, so that no
contender has to drop messages and the publisher is never what is measured.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench import publisher
from bench.machine import pin_beside

WINDOW = 4  # batches ahead of the receiver; small enough for any client's buffer of messages


class Feed:
    """The receiver's side: `open()` once subscribed, `arrived(payload)` per message, `finished` at the last."""

    def __init__(self, count: int, credit: int) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seconds = 0.0  # from opening to the last message
        self._count = count
        self._credit = credit  # file descriptor: one byte asks for one more batch
        self._seen = 0
        self._began = 0.0

    def open(self) -> None:
        """Let the publisher begin; the clock starts."""
        self._began = time.perf_counter()
        os.write(self._credit, b"." * WINDOW)

    def arrived(self, payload: Any) -> None:
        """Count one message."""
        self._seen += 1
        if self._seen == self._count:
            self.seconds = time.perf_counter() - self._began
            self.finished.set_result(None)
        elif not self._seen % publisher.BATCH and self._seen + WINDOW * publisher.BATCH <= self._count:
            os.write(self._credit, b".")


@asynccontextmanager
async def feed(host: str, port: int, channel: str, count: int) -> AsyncIterator[Feed]:
    """Start a publisher of `count` messages (whole batches) that waits for the feed to open."""
    taken, credit = os.pipe()
    process = _start_publisher(taken, host, str(port), channel, str(count))
    os.close(taken)
    try:
        pin_beside(process.pid)
        assert process.stdout is not None
        if not await asyncio.to_thread(process.stdout.readline):  # "ready"
            raise RuntimeError("the publisher could not reach the engine")
        yield Feed(count, credit)
    finally:
        os.close(credit)  # the publisher ends when its credit does
        await asyncio.to_thread(process.communicate)


def _start_publisher(credit: int, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", publisher.__file__, *arguments]
    return subprocess.Popen(command, stdin=credit, stdout=subprocess.PIPE)
