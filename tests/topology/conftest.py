"""Topologies of real processes, one of each kind for the whole run; made at the first test that asks for it.

The plain `cluster` is in tests/conftest.py: the cache's tests run on it, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gravito.atlas import Client
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels


@pytest.fixture(scope="session")
def cluster_with_replicas() -> Iterator[LocalCluster]:
    """Three primaries with a replica each. Whoever ends a node lets it rejoin."""
    with LocalCluster(3, 1) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def sentinels() -> Iterator[LocalSentinels]:
    """A primary, two replicas, three sentinels. Whoever ends a node lets it rejoin."""
    with LocalSentinels() as nodes:
        yield nodes


@pytest.fixture
async def redis(cluster: LocalCluster) -> AsyncIterator[ClusterClient]:
    """A client of the three primaries, which are empty."""
    async with Client.from_url(cluster.url) as client:
        assert isinstance(client, ClusterClient)
        await client.flushall()
        yield client
