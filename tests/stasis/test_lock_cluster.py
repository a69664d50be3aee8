"""Locks and limiters on a cluster of three nodes, their slots on the move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gravito.atlas import Client
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.stasis.limiter import Kind, Limiter
from gravito.stasis.lock import Lock


@pytest.fixture
async def redis(cluster: LocalCluster) -> AsyncIterator[ClusterClient]:
    async with Client.from_url(cluster.url) as client:
        assert isinstance(client, ClusterClient)
        await client.flushall()
        yield client


async def test_many_names_on_all_nodes(redis: ClusterClient, cluster: LocalCluster) -> None:
    async with Client.from_url(cluster.url) as other:
        for name in [f"job:{n}" for n in range(30)] + ["a{b}c", "{", "a}"]:
            lease = await Lock(redis, name, ttl=30).acquire(0)
            assert lease is not None
            waiting = asyncio.create_task(Lock(other, name).acquire())
            await asyncio.sleep(0.005)
            await lease.release()
            next_ = await asyncio.wait_for(waiting, 5)
            assert next_ is not None
            assert next_.fence > lease.fence
            await next_.release()
    assert [key async for key in redis.scan_iter() if not key.endswith(":f")] == []


async def test_a_slot_that_moves(redis: ClusterClient, cluster: LocalCluster) -> None:
    """The holder keeps its lock, fences go on growing, and who waits there is woken here."""
    slot = redis.keyslot("cache:l:{jobs}")
    source = cluster.owner_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    try:
        async with Client.from_url(cluster.url) as other:
            lease = await Lock(redis, "jobs", ttl=30, renew=True).acquire(0)
            assert lease is not None
            waiting = asyncio.create_task(Lock(other, "jobs", ttl=30).acquire())
            await asyncio.sleep(0.05)
            await asyncio.to_thread(cluster.migrate, slot, target)
            await lease.extend()
            assert await Lock(redis, "jobs").acquire(0) is None
            await lease.release()
            next_ = await asyncio.wait_for(waiting, 10)
            assert next_ is not None
            assert next_.fence > lease.fence
            await next_.release()
    finally:
        await asyncio.to_thread(cluster.migrate, slot, source)
        await asyncio.to_thread(cluster.wait)


async def test_counting_right_while_the_slot_moves(redis: ClusterClient, cluster: LocalCluster) -> None:
    slot = redis.keyslot("cache:l:{jobs}")
    source = cluster.owner_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    count = 0

    async def work(client: Client) -> None:
        nonlocal count
        for _ in range(40):
            async with Lock(client, "jobs", ttl=30):
                seen = count
                await asyncio.sleep(0)
                count = seen + 1

    async with Client.from_url(cluster.url) as other:
        workers = [asyncio.create_task(work(client)) for client in (redis, other) for _ in range(3)]
        for node in (target, source):
            await asyncio.to_thread(cluster.migrate, slot, node)
        await asyncio.gather(*workers)
    assert count == 240


@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
async def test_limiters(redis: ClusterClient, kind: Kind) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=5, per=3600, kind=kind)
    for ip in range(20):
        decisions = await asyncio.gather(*[limiter.attempt(ip=ip) for _ in range(8)])
        assert sum(map(bool, decisions)) == 5
    assert await limiter.reset(ip=1)
