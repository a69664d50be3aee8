"""The jobs of the shop, and its worker.

gravito horizon work jobs:horizon --queues default,reports
"""

from __future__ import annotations

import asyncio
import json

from gravito.atlas import Client
from gravito.horizon import Horizon, JobContext, inject, job

horizon = Horizon()
horizon.provide(Client, lambda: horizon.client)  # what jobs get for `redis: Client = inject()`


@job(retries=5, backoff="exponential", timeout=30, tags=["orders"])
async def ship(order: str, item: str, redis: Client = inject(), job: JobContext = inject()) -> str:
    """Pack an order, and tell whoever looks at the shop's page."""
    for step, done in enumerate(("picked", "packed", "shipped"), 1):
        await asyncio.sleep(0.05)  # the work
        job.progress(step, 3, done)
        await redis.publish("orders", json.dumps({"order": order, "item": item, "state": done}))
    await redis.incr("shop:shipped")
    return f"{item} is on its way"


@job(queue="reports", unique=True)
async def report(redis: Client = inject()) -> int:
    """How many orders were shipped so far."""
    return int(await redis.get("shop:shipped") or 0)


horizon.schedule("shipped-so-far", report).every_minute().description("How many orders were shipped")
