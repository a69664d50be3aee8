"""Fixtures of queues on the embedded engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gravito.atlas import Client
from gravito.horizon._broker import Broker
from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]


@pytest.fixture(scope="session")
def gravito_protocol(request: pytest.FixtureRequest) -> int | None:
    """As the option --resp says."""
    return 2 if request.config.getoption("--resp") == 2 else None


@pytest.fixture
async def brokers(redis: Client) -> AsyncIterator[Callable[..., Broker]]:
    """Makes brokers on the empty engine, and closes them."""
    async with AsyncExitStack() as stack:

        def make(queue: str = "q", client: Client = redis, **options: Any) -> Broker:
            broker = Broker(client, queue, **options)
            stack.push_async_callback(broker.aclose)
            return broker

        yield make


@pytest.fixture
def broker(brokers: Callable[..., Broker]) -> Broker:
    """A broker of the queue "q"."""
    return brokers()
