"""What a cache costs on a cluster of three nodes. That it works there: run the suite with `--cluster`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.stasis.workers import PATIENT

from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.stasis import Cache


@pytest.fixture
async def cache(cluster: LocalCluster) -> AsyncIterator[Cache]:
    async with Client.from_url(cluster.url) as client:
        await client.flushall()
        async with Cache(connection=client, fail_safe=PATIENT) as cache:
            yield cache


async def turns(cluster: LocalCluster, work: Callable[[], Awaitable[Any]]) -> list[int]:
    """How often each node had to read from its connections for some work."""

    def count() -> list[int]:
        told = [node.ask("INFO", "stats") for node in cluster.nodes]
        return [int(text.partition("total_reads_processed:")[2].split()[0]) for text in told]

    before = count()
    await work()
    return [after - first - 1 for after, first in zip(count(), before, strict=True)]  # one is our question


async def test_many_is_one_round_trip_to_each_node(cache: Cache, cluster: LocalCluster) -> None:
    values = {f"k:{number}": number for number in range(1000)}
    assert await cache.put_many(values, 60)
    await cache.many(values)  # all nodes are connected

    async def read() -> None:
        assert await cache.many(values) == values

    assert await turns(cluster, read) == [1, 1, 1]  # a server takes 16 KB at a time: these commands have less

    async def write() -> None:
        assert await cache.put_many(values, 60)

    # 1000 blobs of about 60 bytes are several of these portions
    assert max(await turns(cluster, write)) <= 8


async def test_many_of_tags_that_nobody_knew_of_is_one_more(cache: Cache, cluster: LocalCluster) -> None:
    for tag in range(20):
        await cache.tags(f"t:{tag}").put_many({f"k:{tag}:{number}": tag for number in range(50)}, 60)
    values = {f"k:{tag}:{number}": tag for tag in range(20) for number in range(50)}
    fresh = Cache(cache._core.store, fail_safe=PATIENT)  # knows nothing of the tags

    async def read() -> None:
        assert await fresh.many(values) == values

    # An idle connection sends the first of a few commands at once, and the others behind it without waiting.
    assert max(await turns(cluster, read)) <= 3
