"""A Horizon with a bit of everything in it, and visitors of its console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.horizon.console.browsing import Browser

from gravito.atlas import Client
from gravito.horizon import Concurrency, Horizon, Worker, WorkerOptions
from gravito.horizon.repository import Repository
from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]

# What would run, or be an element, if it were not escaped.
PLANTED = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class World:
    """What the queues hold.

    Attributes:
        places: for each parameter of a path, the value of something that exists.
    """

    def __init__(self, horizon: Horizon) -> None:
        self.horizon = horizon
        self.release = asyncio.Event()  # lets the running job end
        self.places: dict[str, str] = {}

    def path(self, path: str) -> str:
        """A path with its parameters filled in."""
        for name, value in self.places.items():
            path = path.replace("{" + name + "}", value)
        assert "{" not in path, f"World.places lacks a sample for {path}"
        return path


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


@pytest.fixture
async def browse(horizon: Horizon) -> AsyncIterator[Callable[..., Browser]]:
    """Makes visitors of a console with these options."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> Browser:
            browser = Browser(horizon.console(**options))
            stack.push_async_callback(browser.web.aclose)
            return browser

        yield make


@pytest.fixture
async def world(horizon: Horizon) -> AsyncIterator[World]:
    """Jobs that are done, dead, delayed, ready, held back and running, with script wherever text may be."""
    made = World(horizon)

    @horizon.job(name="greet", tags=[PLANTED])
    async def greet(who: str) -> str:
        return f"hello {who}"

    @horizon.job(name="fail", retries=0)
    async def fail(why: str) -> None:
        raise LookupError(why)

    @horizon.job(name="hold", queue="held", concurrency=Concurrency(1, by=lambda key: key), timeout=None)
    async def hold(key: str) -> None:
        await made.release.wait()

    horizon.schedule("nightly", greet.make(PLANTED)).daily().at("02:00")
    done = await greet.meta(note=PLANTED).push(PLANTED)
    batch = await horizon.batch([greet.make(PLANTED) for _ in range(3)], PLANTED).push()
    chain = await horizon.chain(greet.make("a"), greet.make("b")).push()
    dead = await fail.push(PLANTED)
    for _ in range(2):
        await hold.push(PLANTED)
    await greet.on("other").push(PLANTED)
    delayed = await greet.delay(3600).push(PLANTED)
    repository = Repository(horizon)
    worker = Worker(horizon, WorkerOptions(queues=("default", "held"), concurrency=10))
    running = asyncio.create_task(worker.run())
    await done.result(10)
    await dead.wait(10)
    await batch.wait(10)
    async with asyncio.timeout(10):
        while not any(record.jobs for record in await repository.workers()):  # noqa: ASYNC110  # a heartbeat sets no event
            await asyncio.sleep(0.01)
    made.places = {
        "queue": "default",
        "id": done.id,
        "job": dead.id,
        "batch": batch.id,
        "chain": chain.id,
        "delayed": delayed.id,
    }
    yield made
    made.release.set()
    worker.stop()
    await running
