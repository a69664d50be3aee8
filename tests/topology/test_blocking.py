"""Blocking commands whose server is the wrong one while they wait: they go on waiting at the right one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels
from gravito.atlas._nodes import Node
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.wire import resp

BEGAN = 30.0  # seconds: a caller's own timeout, longer than any test


async def blocked(node: Node, count: int = 1) -> None:
    """Wait until the server keeps so many clients waiting."""
    await until(lambda: f"blocked_clients:{count}\r" in str(node.ask("INFO", "clients")) + "\r")


def asked_for(call: Any) -> float:
    """The timeout that a call was last sent with, in seconds."""
    return float(resp.unpack(call.packed)[-1])


@pytest.fixture
async def client(sentinels: LocalSentinels) -> AsyncIterator[Client]:
    await asyncio.to_thread(sentinels.wait)
    async with Client.from_url(sentinels.url) as client:
        yield client
        await client.flushall()


class Demoted:
    """The primary that sentinels name is made a replica, and a primary again at the end, before they notice."""

    def __init__(self, sentinels: LocalSentinels) -> None:
        self.primary, self.other = sentinels.primary(), sentinels.replicas()[0]
        self._sentinels = sentinels

    async def __aenter__(self) -> None:
        self.primary.ask("REPLICAOF", self.other.host, self.other.port)

    async def __aexit__(self, *exc: object) -> None:
        self.primary.ask("REPLICAOF", "NO", "ONE")


class TestDemotion:
    @pytest.mark.parametrize(
        ("call", "push", "reply"),
        [
            (lambda on: on.blpop("l", BEGAN), lambda on: on.rpush("l", "x"), ("l", "x")),
            (lambda on: on.blpop("l", 0), lambda on: on.rpush("l", "x"), ("l", "x")),
            (lambda on: on.blmove("l", "m", BEGAN), lambda on: on.rpush("l", "x"), "x"),
            pytest.param(
                lambda on: on.blmpop(BEGAN, 1, "l", direction="LEFT"),
                lambda on: on.rpush("l", "x"),
                ["l", ["x"]],
                marks=pytest.mark.needs("BLMPOP"),
            ),
            (lambda on: on.bzpopmin("z", BEGAN), lambda on: on.zadd("z", {"a": 1}), ("z", "a", 1.0)),
            (
                lambda on: on.xread({"s": "0"}, block=int(BEGAN * 1000)),
                lambda on: on.xadd("s", {"f": "v"}, id="1-1"),
                [["s", [("1-1", {"f": "v"})]]],
            ),
        ],
    )
    async def test_who_was_not_served_waits_at_the_next_primary(
        self,
        client: Client,
        sentinels: LocalSentinels,
        call: Callable[[Client], Awaitable[Any]],
        push: Callable[[Client], Awaitable[Any]],
        reply: Any,
    ) -> None:
        told: list[str] = []
        client.on_retry(lambda event: told.append(event.reason))
        demoted = Demoted(sentinels)
        waiting = asyncio.ensure_future(call(client))
        await blocked(demoted.primary)
        async with demoted:
            await until(lambda: told)
            assert "instance state changed" in told[0]
        await blocked(demoted.primary)
        await push(client)
        assert await asyncio.wait_for(waiting, 10) == reply

    async def test_no_longer_than_its_own_time(self, client: Client, sentinels: LocalSentinels) -> None:
        demoted = Demoted(sentinels)
        short, long = client.blpop("l", 1.5), client.blpop("l", BEGAN)
        await blocked(demoted.primary, 2)
        await asyncio.sleep(0.2)  # of its time is over
        async with demoted:
            await until(lambda: asked_for(short) < 1.5)
        await blocked(demoted.primary, 2)
        assert asked_for(short) <= 1.3
        assert BEGAN - 10 < asked_for(long) <= BEGAN - 0.2
        assert await asyncio.wait_for(short, 10) is None
        long.close()

    @pytest.mark.parametrize(
        "call",
        [
            lambda on: on.wait(9, int(BEGAN * 1000)),  # it was about the writes of its connection
            lambda on: on.xread(
                {"s": "$"}, block=int(BEGAN * 1000)
            ),  # what came meanwhile would be passed over
        ],
    )
    async def test_what_would_mean_something_else_is_the_caller_s(
        self, client: Client, sentinels: LocalSentinels, call: Callable[[Client], Awaitable[Any]]
    ) -> None:
        demoted = Demoted(sentinels)
        waiting = asyncio.ensure_future(call(client))
        await blocked(demoted.primary)
        async with demoted:
            with pytest.raises(errors.ResponseError, match="UNBLOCKED") as caught:
                await asyncio.wait_for(waiting, 10)
        assert not caught.value.maybe_applied

    async def test_who_wants_no_retry_gets_none(self, client: Client, sentinels: LocalSentinels) -> None:
        demoted = Demoted(sentinels)
        waiting = asyncio.ensure_future(client.with_options(retry=Retry(attempts=0)).blpop("l", BEGAN))
        await blocked(demoted.primary)
        async with demoted:
            with pytest.raises(errors.ResponseError, match="UNBLOCKED"):
                await asyncio.wait_for(waiting, 10)

    async def test_client_unblock_is_the_caller_s(self, client: Client, sentinels: LocalSentinels) -> None:
        waiting = asyncio.ensure_future(client.blpop("l", BEGAN))
        await blocked(sentinels.primary())
        (name,) = [entry["id"] for entry in await client.client_list() if "b" in entry["flags"]]
        await client.client_unblock(int(name), error=True)
        with pytest.raises(errors.ResponseError, match="client unblocked via CLIENT UNBLOCK"):
            await asyncio.wait_for(waiting, 10)

    async def test_one_server_alone_has_no_other(self, client: Client, sentinels: LocalSentinels) -> None:
        demoted = Demoted(sentinels)
        async with Client.from_url(f"redis://{demoted.primary.address}") as single:
            waiting = asyncio.ensure_future(single.blpop("l", BEGAN))
            await blocked(demoted.primary)
            async with demoted:
                with pytest.raises(errors.ResponseError, match="UNBLOCKED"):
                    await asyncio.wait_for(waiting, 10)


class TestFailover:
    async def test_who_waited_at_the_old_primary_waits_on_at_the_new_one(
        self, client: Client, sentinels: LocalSentinels
    ) -> None:
        """A planned one: the old primary lives. It is asked to let them go, so it is certain that it served nobody."""
        old = sentinels.primary()
        calls = [client.blpop("l", BEGAN), client.blpop("l", 0), client.bzpopmin("z", BEGAN)]
        await blocked(old, 3)
        await asyncio.to_thread(sentinels.sentinels[0].ask, "SENTINEL", "FAILOVER", sentinels.service)
        await asyncio.to_thread(sentinels.succeed, old)
        await blocked(sentinels.primary(), 3)
        assert asked_for(calls[0]) < BEGAN
        await client.rpush("l", "a", "b")
        await client.zadd("z", {"m": 1})
        got = await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert sorted(got[:2]) == [("l", "a"), ("l", "b")]
        assert got[2] == ("z", "m", 1.0)
        await asyncio.to_thread(sentinels.rejoin, old)

    async def test_a_silent_primary_leaves_them_in_doubt(
        self, client: Client, sentinels: LocalSentinels
    ) -> None:
        waiting = asyncio.ensure_future(client.blpop("l", BEGAN))
        lost = sentinels.primary()
        await blocked(lost)
        lost.suspend()
        with pytest.raises(errors.ConnectionError, match="the primary is no longer") as caught:
            await asyncio.wait_for(waiting, 20)
        assert caught.value.maybe_applied
        await asyncio.to_thread(sentinels.rejoin, lost)

    async def test_nothing_is_lost_between_the_two(self, sentinels: LocalSentinels) -> None:
        """A server is asked to let go whom it may be serving at that moment: each element reaches one caller."""
        node = sentinels.primary()
        async with (
            Client.from_url(f"redis://{node.address}") as single,
            Client.from_url(f"redis://{node.address}") as other,
        ):
            await single.ping()
            pool = single._state().topology.pool
            pool.elsewhere = (errors.ReadOnlyError,)  # as behind sentinels
            got: list[str] = []
            for number in range(300):
                call = asyncio.ensure_future(single.blpop("l", BEGAN))
                await until(lambda: pool._waits)
                await asyncio.sleep(number % 3 * 0.001)
                (wire,) = pool._waits
                assert pool.let_go(wire) is not None
                if number % 2:  # by two connections: the server takes the one or the other first
                    push, unblock = (
                        other.rpush("l", number),
                        single.client_unblock(wire.client_id, error=True),
                    )
                else:
                    unblock, push = (
                        single.client_unblock(wire.client_id, error=True),
                        other.rpush("l", number),
                    )
                await unblock
                got.append((await asyncio.wait_for(call, 10))[1])
                await push
            assert got == [str(number) for number in range(300)]
            assert single.stats().retries > 10
            assert await single.llen("l") == 0


class TestCluster:
    async def test_the_replica_takes_over(self, cluster_with_replicas: LocalCluster) -> None:
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url) as client:
            await client.delete("list")
            old = await asyncio.to_thread(cluster.owner_of, slot_of("list"))
            successor = next(node for node in cluster.replicas() if node.ask("ROLE")[2] == old.port)
            waiting = client.blpop("list", BEGAN)
            await blocked(old)
            await asyncio.sleep(0.1)  # of its time is over
            successor.ask("CLUSTER", "FAILOVER")
            await blocked(successor)
            assert asked_for(waiting) <= BEGAN - 0.1
            await client.rpush("list", "x")
            assert await asyncio.wait_for(waiting, 10) == ("list", "x")
            await asyncio.to_thread(cluster.wait)

    async def test_the_slot_moves(self, cluster: LocalCluster) -> None:
        slot = slot_of("{m}")
        source = await asyncio.to_thread(cluster.owner_of, slot)
        target = next(node for node in cluster.nodes if node is not source)
        async with Client.from_url(cluster.url) as client:
            await client.delete("{m}list")
            waiting = client.blpop("{m}list", BEGAN)
            await blocked(source)
            try:
                await asyncio.to_thread(cluster.migrate, slot, target)
                await blocked(target)
                assert asked_for(waiting) < BEGAN
                target.ask("RPUSH", "{m}list", "x")
                assert await asyncio.wait_for(waiting, 10) == ("{m}list", "x")
            finally:
                await asyncio.to_thread(cluster.wait)
                await asyncio.to_thread(cluster.migrate, slot, source)
                await asyncio.to_thread(cluster.wait)

    async def test_behind_asking_nobody_waits_with_it(self, cluster: LocalCluster) -> None:
        """It has a connection to itself at the node that takes the slot over, too."""
        slot = slot_of("{m}")
        source = await asyncio.to_thread(cluster.owner_of, slot)
        target = next(node for node in cluster.nodes if node is not source)
        async with Client.from_url(cluster.url) as client:
            assert isinstance(client, ClusterClient)
            await client.delete("{m}list")
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.node_id(source))
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.node_id(target))
            try:
                waiting = asyncio.ensure_future(client.blpop("{m}list", BEGAN))
                await blocked(target)
                assert await client.ping(target_nodes=client.get_node(node_name=target.address))
                assert not waiting.done()
                await client.rpush("{m}list", "x")
                assert await asyncio.wait_for(waiting, 10) == ("{m}list", "x")
            finally:
                target.ask("CLUSTER", "SETSLOT", slot, "STABLE")
                source.ask("CLUSTER", "SETSLOT", slot, "STABLE")
