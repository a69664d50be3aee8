"""Nodes that announce addresses which the client cannot use: a map says where they are reached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.faults.proxy import Proxy
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry, Timeouts
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels
from gravito.atlas._nodes import free_ports
from gravito.atlas._nodes import until as blocking_until

HOST = "127.0.0.1"
Address = tuple[str, int]


class Hidden:
    """Three primaries that announce ports on which nobody listens, and a proxy before each."""

    def __init__(self, cluster: LocalCluster, announced: list[int], proxies: list[Proxy]) -> None:
        self.cluster, self.announced, self.proxies = cluster, announced, proxies
        self.ids = [cluster.node_id(node) for node in cluster.nodes]
        self.map = {
            f"{HOST}:{port}": f"{HOST}:{proxy.port}" for port, proxy in zip(announced, proxies, strict=True)
        }
        self.url = f"redis+cluster://{HOST}:{proxies[0].port}"

    @classmethod
    def start(cls, stack: ExitStack) -> Hidden:
        cluster = stack.enter_context(LocalCluster(3))
        announced = free_ports(3)
        for node, port in zip(cluster.nodes, announced, strict=True):
            node.ask("CONFIG", "SET", "cluster-announce-bus-port", node.port + 10_000)
            node.ask("CONFIG", "SET", "cluster-announce-port", port)
        proxies = [stack.enter_context(Proxy(node.port)) for node in cluster.nodes]
        hidden = cls(cluster, announced, proxies)
        blocking_until(hidden.known, "the nodes to hear of the announced ports")
        return hidden

    def known(self) -> bool:
        """Whether every node names the announced ports."""
        return all(
            {primary[1] for _, _, primary in node.ask("CLUSTER", "SLOTS")} == set(self.announced)
            for node in self.cluster.nodes
        )

    def begin(self, slot: int, source: int, target: int) -> None:
        """Let a slot be on its way: the source answers with ASK for what it does not have."""
        self.cluster.nodes[target].ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.cluster.nodes[source].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])

    def end(self, slot: int, source: int, target: int) -> None:
        """Let it arrive: the source answers with MOVED."""
        for node in (target, source, 3 - source - target):
            self.cluster.nodes[node].ask("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])


@pytest.fixture(scope="module")
def hidden() -> Iterator[Hidden]:
    with ExitStack() as stack:
        yield Hidden.start(stack)


async def test_a_cluster_behind_other_addresses(hidden: Hidden) -> None:
    async with Client.from_url(hidden.url, address_map=hidden.map) as client:
        assert isinstance(client, ClusterClient)
        keys = [f"k{i}" for i in range(50)]
        assert await client.mset({key: key for key in keys})
        assert await client.mget(keys) == keys
        assert await client.pipeline(False).dbsize().get("k1").execute() == [50, "k1"]
        assert {node.name for node in client.get_primaries()} == set(hidden.map.values())
        assert all(proxy.connections for proxy in hidden.proxies)
        await client.flushall()


async def test_without_the_map_nobody_is_reached(hidden: Hidden) -> None:
    """It shows that the test's nodes are hidden indeed."""
    options: dict[str, Any] = {"retry": Retry(attempts=0), "timeouts": Timeouts(connect=0.5, command=0.5)}
    async with Client.from_url(hidden.url, **options) as client:
        with pytest.raises(errors.ConnectionError):
            await client.mget([f"k{i}" for i in range(50)])


async def test_redirections_are_translated(hidden: Hidden) -> None:
    """ASK and MOVED name announced addresses, too. The map is a function here."""
    asked: set[Address] = set()

    def reached(address: Address) -> Address:
        asked.add(address)
        return HOST, hidden.proxies[hidden.announced.index(address[1])].port

    async with Client.from_url(hidden.url, address_map=reached) as client:
        assert isinstance(client, ClusterClient)
        slot = client.keyslot("{m}")
        await client.initialize()
        owner = client.get_node_from_key("{m}")
        source = [proxy.port for proxy in hidden.proxies].index(owner.port)
        target = (source + 1) % 3
        hidden.begin(slot, source, target)
        assert await client.set("{m}", "there")
        assert await client.pipeline(False).get("{m}").get("x").execute() == ["there", None]
        hidden.end(slot, source, target)
        assert await client.get("{m}") == "there"
        assert client.get_node_from_key("{m}").port == hidden.proxies[target].port
        await client.delete("{m}")
        hidden.begin(slot, target, source)
        hidden.end(slot, target, source)
        assert await client.pipeline(False).get("{m}").execute() == [None]
        assert asked == {(HOST, port) for port in hidden.announced}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda address: {}[address], "KeyError"),
        (lambda address: None, "TypeError"),
        (lambda address: ("a host", 1), "ValueError"),
        (lambda address: ("host", "1"), "is no"),
    ],
)
async def test_a_function_that_gives_no_address(hidden: Hidden, answer: Any, why: str) -> None:
    async with Client.from_url(hidden.url, address_map=answer) as client:
        with pytest.raises(errors.ConfigurationError, match=f"address_map does not say where .*{why}"):
            await client.get("a")
        with pytest.raises(errors.ConfigurationError, match="address_map"):
            await client.pipeline(False).get("a").execute()


async def test_sentinels_name_other_addresses(sentinels: LocalSentinels) -> None:
    """The primary and the replicas are reached through proxies, after a failover as well."""
    await asyncio.to_thread(sentinels.wait)
    with ExitStack() as stack:
        proxies = {node.port: stack.enter_context(Proxy(node.port)) for node in sentinels.data}
        table = {f"{HOST}:{port}": f"{HOST}:{proxy.port}" for port, proxy in proxies.items()}
        async with Client.from_url(sentinels.url, address_map=table, read_from="replica") as client:
            assert await client.set("mapped", "v")
            assert await client.wait(2, 5000) == 2
            assert await client.get("mapped") == "v"
            await _through(client, set(table.values()), sentinels)
            first = sentinels.primary()
            assert proxies[first.port].connections >= 1
            await asyncio.to_thread(sentinels.sentinels[0].ask, "SENTINEL", "FAILOVER", sentinels.service)
            await asyncio.to_thread(sentinels.succeed, first)
            assert await client.set("mapped", "again")
            assert proxies[sentinels.primary().port].connections >= 1
            await _through(client, set(table.values()), sentinels)
            await client.delete("mapped")
    await asyncio.to_thread(sentinels.wait)


async def _through(client: Client, reached: set[str], sentinels: LocalSentinels) -> None:
    """All wires but those to sentinels go to the mapped addresses."""
    watching = {node.address for node in sentinels.sentinels}
    addresses = lambda: {wire.address for wire in client._state().topology.wires()} - watching  # noqa: E731
    await until(addresses)
    assert addresses() <= reached


@pytest.mark.parametrize(
    "answer", [lambda address: {}[address], lambda address: "h:1"], ids=["fails", "text"]
)
async def test_a_function_that_fails_for_sentinels(sentinels: LocalSentinels, answer: Any) -> None:
    await asyncio.to_thread(sentinels.wait)
    async with Client.from_url(sentinels.url, address_map=answer, retry=Retry(attempts=0)) as client:
        with pytest.raises(errors.GravitoError, match="address_map does not say where"):
            await client.ping()
