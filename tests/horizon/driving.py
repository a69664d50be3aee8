"""The smallest worker: one job at a time, by hand, so that a test sees each completion."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from gravito.horizon import Horizon
from gravito.horizon._messages import Done
from gravito.horizon._run import Runner, Well
from gravito.horizon.context import JobContext

_numbers = itertools.count(1)  # a worker's id is never used twice


async def thread(
    job: JobContext, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A lane that has a thread for everything."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def drain(horizon: Horizon, queue: str = "default", most: int = 1000) -> list[Done]:
    """Run what is ready or delayed, until nothing is left, and give the completions in order."""
    broker = horizon.broker(queue)
    worker = f"w{next(_numbers)}"
    runner = Runner(horizon, queue, worker, broker.now_ms)
    ended: list[Done] = []
    handed: list[Done] = []
    while len(ended) < most:
        step = await broker.step(worker, handed, 1)
        handed = []
        for claimed in step.claimed:
            ended_so = await asyncio.create_task(runner.run(runner.open(claimed), thread))
            handed.append(ended_so.done() if isinstance(ended_so, Well) else ended_so)
        ended += handed
        if not handed:
            if step.next_due_ms is None:
                break
            await broker.wait(min(0.2, max(0.01, (step.next_due_ms - step.now_ms) / 1000)))
    await broker.step(worker, handed, 0)
    return ended
