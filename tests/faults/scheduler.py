"""A scheduler process whose time runs faster: `python -m tests.faults.scheduler START END BEGAN SPEED NAME`.

START and END are epoch ms of the time that it goes by, BEGAN is the server's time at START, SPEED how much faster it
passes. It says "over" when END has come.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from tests.faults import application

from gravito.horizon import Horizon
from gravito.horizon.scheduler import Scheduler

ZONE = "Europe/Berlin"


def add_schedules(horizon: Horizon, name: str) -> None:
    """One that repeats by the clock, one at a time that a night lacks or has twice, one by the time that passes."""
    for schedule in (
        horizon.schedule(f"{name}-often", application.sleep.make(1)).cron("*/15 * * * *"),
        horizon.schedule(f"{name}-daily", application.sleep.make(2)).daily().at("02:30"),
        horizon.schedule(f"{name}-even", application.sleep.make(3)).every(
            int(timedelta(minutes=7).total_seconds())
        ),
    ):
        schedule.timezone(ZONE).missed("all", 10_000)


async def main(start: int, end: int, began: int, speed: int, name: str) -> None:
    """Fire until the time is over."""
    from tests.faults.worker import horizon

    add_schedules(horizon, name)
    scheduler = Scheduler(horizon, lambda now: min(end, start + (now - began) * speed))
    running = asyncio.create_task(scheduler.run())
    broker = horizon.broker("faults")
    await broker.sizes()
    while start + (broker.now_ms() - began) * speed < end:  # noqa: ASYNC110  # time has no event
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    print("over", flush=True)
    scheduler.stop()
    await running
    await horizon.aclose()
    await horizon.client.aclose()


if __name__ == "__main__":
    *_times, _name = sys.argv[1:]
    asyncio.run(main(*map(int, _times), _name))
