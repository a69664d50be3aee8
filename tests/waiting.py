"""Waiting for what has no event of its own, and seeing whether a process runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Let the loop turn until the condition holds; TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for still does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
