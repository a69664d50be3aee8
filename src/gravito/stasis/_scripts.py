"""The Lua scripts of this room, and calls that outlive their caller."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["finish", "keep", "source"]

T = TypeVar("T")

_ending: set[asyncio.Task[Any]] = set()  # a loop keeps only weak references to its tasks


@cache
def source(name: str) -> str:
    """The text of `scripts/<name>`."""
    return (Path(__file__).parent / "scripts" / name).read_text("utf-8")


def keep(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for `work` that nobody needs to refer to."""
    task = asyncio.get_running_loop().create_task(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    return task


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which goes on to its end even when the caller is cancelled meanwhile."""
    return await asyncio.shield(keep(work))
