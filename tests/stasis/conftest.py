"""Fixtures on the embedded engine, and the stores, each on a place that is empty."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.stasis.stores import STORES, opened

from gravito.stasis._memory import MemoryStore
from gravito.stasis.store import Store
from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]


@pytest.fixture(scope="session")
def gravito_protocol(request: pytest.FixtureRequest) -> int | None:
    """As the option --resp says."""
    return 2 if request.config.getoption("--resp") == 2 else None


@pytest.fixture(params=STORES)
def store_name(request: pytest.FixtureRequest) -> str:
    """Every kind of store that keeps what it is given."""
    name: str = request.param
    return name


@pytest.fixture
def store_url(request: pytest.FixtureRequest, store_name: str) -> str | None:
    """Where the store's server is; None for one without."""
    if store_name == "memory":
        return None
    if store_name.endswith("cluster"):
        url: str = request.getfixturevalue("cluster").url
        return url
    return f"unix://{request.getfixturevalue('redis').settings.path}"


@pytest.fixture
async def store(store_name: str, store_url: str | None, gravito_protocol: int | None) -> AsyncIterator[Store]:
    """A store of each kind, empty."""
    if store_url is None:
        yield MemoryStore()
        return
    protocol = None if store_name.startswith("tiered") else gravito_protocol  # a tier needs RESP3
    async with opened(store_name, store_url, protocol=protocol) as store:
        await store.client.flushall()
        yield store
