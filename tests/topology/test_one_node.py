"""What a cluster's client does with one of its nodes: sessions, MONITOR, cursors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster

from gravito import errors
from gravito.atlas import Client
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas.topology.slots import slot_of

KEYS = [f"k{number}" for number in range(60)]  # of all nodes


class TestSessions:
    async def test_by_key(self, redis: ClusterClient) -> None:
        for key in KEYS[:6]:  # of more than one node
            async with redis.client(key=key) as session:
                await session.execute("MULTI")
                await session.set(key, "v")
                assert await session.execute("EXEC") == ["OK"]
                assert await session.wait(0, 100) == 0
                assert await session.get(key) == "v"
            assert await redis.get(key) == "v"
        assert redis.stats().leased == 0

    async def test_by_node(self, redis: ClusterClient) -> None:
        names = set()
        for node in redis.get_primaries():
            async with redis.client(node) as session:
                await session.client_setname(f"at-{node.name}")
                assert await session.client_getname() == f"at-{node.name}"
                names |= {entry["name"] for entry in await redis.client_list(target_nodes=node)}
        assert {f"at-{node.name}" for node in redis.get_primaries()} <= names

    async def test_of_any_primary(self, cluster: LocalCluster) -> None:
        async with Client.from_url(cluster.url) as client, client.client() as session:
            assert (await session.role())[0] in ("master", b"master")

    async def test_a_prefix_counts(self, cluster: LocalCluster, redis: ClusterClient) -> None:
        async with Client.from_url(cluster.url, key_prefix="p:") as prefixed:
            for key in KEYS[:6]:
                async with prefixed.client(key=key) as session:
                    await session.set(key, "v")
                assert await redis.get(f"p:{key}") == "v"

    async def test_a_key_of_another_node_is_its_caller_s_matter(self, redis: ClusterClient) -> None:
        """It cannot be answered there; nothing is sent elsewhere behind the session's back."""
        node = redis.get_node_from_key("k1")
        other = next(each for each in redis.get_primaries() if each is not node)
        async with redis.client(other) as session:
            with pytest.raises(errors.MovedError, match=str(node.port)):
                await session.get("k1")
            assert await session.ping() is True

    async def test_moved_is_learnt(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        slot = slot_of("{m}")
        source = await asyncio.to_thread(cluster.owner_of, slot)
        target = next(node for node in cluster.nodes if node is not source)
        await redis.set("{m}a", 1)
        await asyncio.to_thread(cluster.migrate, slot, target)
        try:
            async with redis.client(key="{m}a") as session:
                with pytest.raises(errors.MovedError):
                    await session.get("{m}a")
            async with redis.client(key="{m}a") as session:
                assert await session.get("{m}a") == "1"
        finally:
            await asyncio.to_thread(cluster.wait)
            await asyncio.to_thread(cluster.migrate, slot, source)
            await asyncio.to_thread(cluster.wait)

    @pytest.mark.parametrize("node", ["primaries", "127.0.0.1:7000", 7])
    async def test_what_is_no_node(self, redis: ClusterClient, node: Any) -> None:
        for call in (redis.client, redis.monitor):
            with pytest.raises(errors.DataError, match=r"target_node is of type .*get_node_from_key\(\)"):
                call(node)

    async def test_a_node_or_a_key(self, redis: ClusterClient) -> None:
        with pytest.raises(errors.DataError, match="give one of them"):
            redis.client(redis.get_random_node(), key="k")

    async def test_a_tracked_view_has_them(self, redis: ClusterClient) -> None:
        async with redis.tracked().client(key="k1") as session:
            assert await session.set("k1", 1)


class TestMonitor:
    async def test_of_a_named_node(self, redis: ClusterClient) -> None:
        for key in ("a", "b"):
            node = redis.get_node_from_key(key)
            async with redis.monitor(target_node=node) as monitor:
                await redis.set(key, "v")
                async with asyncio.timeout(5):
                    while (seen := await monitor.next_command())["command"] != f"SET {key} v":
                        pass
                assert seen["db"] == 0
        assert redis.stats().leased == 0

    async def test_of_any_primary(self, redis: ClusterClient) -> None:
        async with redis.monitor() as monitor:
            await redis.ping(target_nodes="primaries")
            assert (await asyncio.wait_for(monitor.next_command(), 5))["command"] == "PING"


class TestScan:
    async def test_all_primaries_from_the_start(self, redis: ClusterClient) -> None:
        await redis.mset(dict.fromkeys(KEYS, 1))
        cursors, found = await redis.scan(match="k*", count=3)
        assert set(cursors) == {node.name for node in redis.get_primaries()}
        asked = 1
        while any(cursors.values()):
            before = dict(cursors)
            cursors, more = await redis.scan(cursors, match="k*", count=3)
            found += more
            asked += 1
            assert all(cursors[name] == 0 for name, at in before.items() if at == 0)
        assert sorted(found) == sorted(KEYS)
        assert asked > 2

    async def test_as_redis_py_s_cluster_client(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        await redis.mset(dict.fromkeys(KEYS, 1))
        theirs = RedisCluster.from_url(f"redis://{cluster.nodes[0].address}", decode_responses=True)
        try:
            for options in ({}, {"count": 5}, {"match": "k1*"}, {"count": 100, "_type": "string"}):
                assert _sorted(await redis.scan(**options)) == _sorted(await theirs.scan(**options))
        finally:
            await theirs.aclose()
        assert _sorted(await redis.execute("SCAN", 0)) == _sorted(await redis.scan())

    async def test_one_node(self, redis: ClusterClient) -> None:
        await redis.set("k", 1)
        node = redis.get_node_from_key("k")
        assert await redis.scan(target_nodes=node) == (0, ["k"])
        assert await redis.scan(target_nodes="primaries", match="nothing") == {
            each.name: (0, []) for each in redis.get_primaries()
        }

    async def test_a_prefix_is_put_on_and_taken_off(
        self, cluster: LocalCluster, redis: ClusterClient
    ) -> None:
        await redis.set("other", 1)
        async with Client.from_url(cluster.url, key_prefix="p:") as prefixed:
            await prefixed.mset(dict.fromkeys(KEYS, 1))
            cursors, found = await prefixed.scan(count=5)
            while any(cursors.values()):
                cursors, more = await prefixed.scan(cursors, count=5)
                found += more
            assert sorted(found) == sorted(KEYS)

    async def test_a_cursor_of_nobody(self, redis: ClusterClient) -> None:
        with pytest.raises(errors.DataError, match="belongs to one node"):
            await redis.scan(7)
        with pytest.raises(errors.DataError, match=r"no node gone:1 is known now; begin again"):
            await redis.scan({"gone:1": 7})


def _sorted(found: Any) -> Any:
    cursors, keys = found
    return cursors, sorted(keys)
