"""Topologies of real processes, one of each kind for the whole run; made at the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Three primaries. Whoever moves slots moves them back; nobody ends a node of this one."""
    with LocalCluster(3) as nodes:
        yield nodes


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
