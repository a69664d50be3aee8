"""Fixtures on the embedded engine, and the stores, each on a place that is empty.

With `--cluster` the server is three nodes whose slots keep moving, for every test but those that say why they cannot:
`one_server` marks what is about a single server, or brings its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.stasis.moving import Mover, moving_cluster
from tests.stasis.stores import STORES, opened, url_of

from gravito import testing
from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.stasis._memory import MemoryStore
from gravito.stasis.store import Store
from gravito.testing import gravito_engine

__all__ = ["gravito_engine"]

_SERVER = frozenset({"redis", "gravito_cache"})  # fixtures that come of the server
_ELSEWHERE = frozenset({"memory", "cluster", "tiered-cluster"})  # parameters that use another place than it


def pytest_configure(config: pytest.Config) -> None:
    """Markers of this folder."""
    config.addinivalue_line("markers", "one_server(reason): not on a cluster; see tests/stasis/conftest.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--cluster`, only what uses the server."""
    if not config.getoption("--cluster"):
        return
    chosen = [item for item in items if isinstance(item, pytest.Function) and _on_cluster(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


def _on_cluster(item: pytest.Function) -> bool:
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    if item.get_closest_marker("one_server") or not (_SERVER | {"store_url"}).intersection(item.fixturenames):
        return False
    return not any(isinstance(value, str) and value in _ELSEWHERE for value in params.values())


@pytest.fixture(scope="session")
def gravito_protocol(request: pytest.FixtureRequest) -> int | None:
    """As the option --resp says."""
    return 2 if request.config.getoption("--resp") == 2 else None


@pytest.fixture(scope="session")
def moving() -> Iterator[tuple[LocalCluster, Mover]]:
    """Three nodes, their slots on the move."""
    with moving_cluster() as cluster:
        yield cluster


@pytest.fixture
def redis(request: pytest.FixtureRequest, gravito_protocol: int | None) -> Iterator[Client]:
    """As that of gravito.testing; with `--cluster` a client of three nodes, which are empty."""
    if not request.config.getoption("--cluster"):
        path = request.getfixturevalue("gravito_engine").ensure()
        testing.empty(path)
        client = Client.from_url(f"unix://{path}", protocol=gravito_protocol)
    else:
        cluster, mover = request.getfixturevalue("moving")
        mover.empty()
        client = Client.from_url(cluster.url, protocol=gravito_protocol)
    yield client
    testing._close(client)


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
    return url_of(request.getfixturevalue("redis"))


@pytest.fixture
async def store(store_name: str, store_url: str | None, gravito_protocol: int | None) -> AsyncIterator[Store]:
    """A store of each kind, empty."""
    if store_url is None:
        yield MemoryStore()
        return
    protocol = None if store_name.startswith("tiered") else gravito_protocol  # a tier needs RESP3
    async with opened(store_name, store_url, protocol=protocol) as store:
        if store_name.endswith("cluster"):  # `redis` is empty
            await store.client.flushall()
        yield store
