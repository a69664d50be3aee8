"""The local tier on a cluster of real processes: kept by each node's word, and by no other's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from tests.faults.proxy import Proxy
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry, Timeouts
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._nodes import Node
from gravito.atlas.topology._tiers import NodeTiers
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.tracking import Tracked

HEARTBEAT = 0.6  # seconds, in tests of silent nodes


@pytest.fixture
def client(redis: ClusterClient) -> ClusterClient:
    """A client of the three primaries, which are empty; it knows them."""
    return redis


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)


def owner_of(cluster: LocalCluster, key: str) -> Node:
    return cluster.owner_of(slot_of(key))


def other_than(cluster: LocalCluster, owner: Node) -> Node:
    return next(node for node in cluster.primaries() if node is not owner)


async def asked(client: Client, call: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """A call's result, and how many commands it sent."""
    before = client.stats().commands
    result = await call()
    return result, client.stats().commands - before


async def foreign(client: ClusterClient, node: Node, *command: Any) -> None:
    """Somebody else's command, acknowledged; and a round trip of ours to that node, behind which its word has come."""
    await in_thread(node.ask, *command)
    await client.ping(target_nodes=client.get_node(node_name=node.address))


KEYS = [f"k{number}" for number in range(30)]  # of all nodes


class TestHits:
    async def test_they_send_nothing(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        await client.mset({key: key for key in KEYS})
        assert await asyncio.gather(*[tracked.get(key) for key in KEYS]) == KEYS
        assert await asked(client, lambda: asyncio.gather(*[tracked.get(key) for key in KEYS])) == (KEYS, 0)
        stats = tracked.stats()
        assert (stats.hits, stats.misses, stats.entries) == (30, 30, 30)
        assert isinstance(tracked, ClusterClient)
        assert len(tracked.get_primaries()) == 3

    async def test_other_reads(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        await client.rpush("l", "a", "b")
        await client.hset("h", mapping={"f": "1"})
        for call in (
            lambda: tracked.lrange("l", 0, -1),
            lambda: tracked.hgetall("h"),
            lambda: tracked.with_options(decode_responses=False).lindex("l", 0),
        ):
            expected = await call()
            await client.ping(target_nodes="primaries")  # the times of the hash's fields have come
            assert await asked(client, call) == (expected, 0)
        assert await tracked.delete("l", "h") == 2
        assert await tracked.exists("l") == 0

    async def test_mget_asks_each_node_for_what_is_missing(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        await client.mset({key: key for key in KEYS})
        await asyncio.gather(*[tracked.get(key) for key in KEYS[:10]])
        names = [*KEYS, "absent", KEYS[0], KEYS[20]]
        values = [*KEYS, None, KEYS[0], KEYS[20]]
        found, sent = await asked(client, lambda: tracked.mget(names))
        assert found == values
        assert 0 < sent <= 3 * 21  # opt-in, MGET and a time to live, of twenty and the absent one
        assert await asked(client, lambda: tracked.mget(KEYS)) == (KEYS, 0)
        assert await tracked.mget("{t}a", "{t}b") == [None, None]
        await client.mset({"{t}a": 1, "{t}b": 2})
        for sent in (4, 0):
            assert await asked(client, lambda: tracked.mget("{t}a", "{t}b")) == (["1", "2"], sent)

    async def test_a_key_that_is_not_there_is_asked_for_each_time(self, client: ClusterClient) -> None:
        """It could be made on another node, while its slot is on its way there."""
        tracked = client.tracked()
        assert await tracked.mget("none", "neither") == [None, None]
        assert await tracked.get("none") is None
        assert tracked.stats().entries == 0

    async def test_concurrent_misses_share_one_request(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        await client.mset({"k": "v", "{k}other": "w"})
        await tracked.get("{k}other")  # tracking is on
        result, sent = await asked(client, lambda: asyncio.gather(*[tracked.get("k") for _ in range(50)]))
        assert (result, sent) == (["v"] * 50, 3)

    async def test_the_bounds_hold_for_all_nodes_together(self, client: ClusterClient) -> None:
        tracked = client.tracked(max_entries=10)
        await client.mset({key: key for key in KEYS})
        for key in KEYS:
            assert await tracked.get(key) == key
        assert (tracked.stats().entries, tracked.stats().evictions) == (10, 20)

    async def test_a_prefix_goes_along(self, cluster: LocalCluster, client: ClusterClient) -> None:
        async with Client.from_url(cluster.url, key_prefix="p:") as prefixed:
            tracked = prefixed.tracked()
            await prefixed.mset({key: key for key in KEYS})
            assert await tracked.mget(KEYS) == KEYS
            assert await asked(prefixed, lambda: tracked.mget(KEYS)) == (KEYS, 0)
            assert await asked(prefixed, lambda: tracked.get("k1")) == ("k1", 0)
            owner = await in_thread(owner_of, cluster, "p:k1")
            await foreign(prefixed, owner, "SET", "p:k1", "new")
            assert await tracked.get("k1") == "new"

    async def test_the_first_read_of_all(self, cluster: LocalCluster, client: ClusterClient) -> None:
        """Nobody is known yet."""
        await client.set("k", "v")
        async with Client.from_url(cluster.url) as other:
            tracked = other.tracked()
            assert await tracked.get("k") == "v"
            assert await tracked.mget("k", "none") == ["v", None]
            assert await asked(other, lambda: tracked.get("k")) == ("v", 0)


class TestChanges:
    async def test_foreign_writes(self, client: ClusterClient, cluster: LocalCluster) -> None:
        tracked = client.tracked()
        await client.mset(dict.fromkeys(KEYS, 0))
        owners = {key: await in_thread(owner_of, cluster, key) for key in KEYS[:6]}
        for turn in range(1, 40):
            for key, owner in owners.items():
                await foreign(client, owner, "SET", key, turn)
                assert await tracked.get(key) == str(turn)
                assert await tracked.get(key) == str(turn)
        assert tracked.stats().hits >= 6 * 39

    async def test_own_writes_are_read_at_once(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        for number in range(20):
            await tracked.get("k")
            await client.set("k", number)
            assert await tracked.get("k") == str(number)
            await client.pipeline(False).set("k", f"{number}p").set("other", number).exec()
            assert await tracked.get("k") == f"{number}p"
            await client.pipeline().set("k", f"{number}t").exec()
            assert await tracked.get("k") == f"{number}t"
            await client.mset({"k": f"{number}m", "other": 1})
            assert await tracked.mget("k", "other") == [f"{number}m", "1"]

    async def test_a_flush_of_one_node_drops_what_is_its(
        self, client: ClusterClient, cluster: LocalCluster
    ) -> None:
        """The null push: everything of that node goes, and nothing of the others."""
        tracked = client.tracked()
        await client.mset({key: key for key in KEYS})
        await tracked.mget(KEYS)
        flushed = await in_thread(owner_of, cluster, KEYS[0])
        left = [key for key in KEYS if await in_thread(owner_of, cluster, key) is not flushed]
        await foreign(client, flushed, "FLUSHALL")
        assert tracked.stats().entries == len(left)
        assert await asked(client, lambda: tracked.mget(left)) == (left, 0)
        assert await tracked.get(KEYS[0]) is None

    async def test_own_flush(self, client: ClusterClient) -> None:
        tracked = client.tracked()
        await client.mset({key: key for key in KEYS})
        await tracked.mget(KEYS)
        await tracked.flushall()
        assert tracked.stats().entries == 0
        assert await tracked.mget(KEYS) == [None] * 30


class TestLinks:
    async def test_a_killed_connection_takes_its_own_along(
        self, client: ClusterClient, cluster: LocalCluster
    ) -> None:
        tracked = client.tracked()
        await client.mset({key: key for key in KEYS})
        owner = await in_thread(owner_of, cluster, "k1")
        node = client.get_node(node_name=owner.address)
        left = [key for key in KEYS if await in_thread(owner_of, cluster, key) is not owner]
        for number in range(5):
            await tracked.mget(KEYS)
            name = await tracked.client_id(target_nodes=node)
            await in_thread(owner.ask, "CLIENT", "KILL", "ID", name)
            await in_thread(owner.ask, "SET", "k1", number)  # nobody is told of this
            await until(lambda: node.tier.wire is None)
            assert tracked.stats().entries == len(left)
            assert await asked(client, lambda: tracked.mget(left)) == (left, 0)
            assert await tracked.get("k1") == str(number)
            assert await asked(client, lambda: tracked.get("k1")) == (str(number), 0)

    async def test_a_stopped_node_is_believed_for_a_heartbeat(self, cluster: LocalCluster) -> None:
        """What is kept of it is held back then, and that of the others is not."""
        options: dict[str, Any] = {"timeouts": Timeouts(command=10.0), "retry": Retry(attempts=0)}
        async with Client.from_url(cluster.url, **options) as client:
            await client.flushall()
            tracked = client.tracked(heartbeat=HEARTBEAT)
            await client.mset({key: key for key in KEYS})
            await tracked.mget(KEYS)
            stopped = await in_thread(owner_of, cluster, "k1")
            left = [key for key in KEYS if await in_thread(owner_of, cluster, key) is not stopped]
            loop = asyncio.get_running_loop()
            stopped.suspend()
            try:
                start, last = loop.time(), 0.0
                while loop.time() < start + 1.5 * HEARTBEAT:
                    call = tracked.get("k1")
                    if call.future.done() if hasattr(call, "future") else call.done():
                        last = loop.time() - start
                    await asyncio.sleep(0.01)
                assert 0 < last <= HEARTBEAT
                assert await asked(client, lambda: tracked.mget(left)) == (left, 0)
            finally:
                stopped.resume()
            assert await call == "k1"
            await in_thread(cluster.wait)

    async def test_a_link_that_died_unseen(self, cluster: LocalCluster) -> None:
        """Half-open: what one node announces is lost. Nothing of it is given out that is older than the heartbeat."""
        options: dict[str, Any] = {"timeouts": Timeouts(command=0.2), "retry": Retry(attempts=0)}
        with ExitStack() as stack:
            proxies = {node.address: stack.enter_context(Proxy(node.port)) for node in cluster.nodes}
            mapped = {address: f"127.0.0.1:{proxy.port}" for address, proxy in proxies.items()}
            client = Client.from_url(cluster.url, address_map=mapped, **options)
            async with client:
                await client.flushall()
                tracked = client.tracked(heartbeat=HEARTBEAT)
                await client.mset(dict.fromkeys(KEYS, "old"))
                assert await tracked.mget(KEYS) == ["old"] * 30
                owner = await in_thread(owner_of, cluster, "k1")
                proxy, loop = proxies[owner.address], asyncio.get_running_loop()
                proxy.swallow = {"down"}
                await in_thread(owner.ask, "SET", "k1", "new")
                written, last = loop.time(), 0.0
                while loop.time() < written + 3 * HEARTBEAT:
                    with contextlib.suppress(errors.GravitoError):
                        if await tracked.get("k1") == "old":
                            last = loop.time() - written
                    await asyncio.sleep(0.01)
                assert 0 < last <= HEARTBEAT
                proxy.heal()
                proxy.reset()
                async with asyncio.timeout(10):
                    while True:
                        with contextlib.suppress(errors.GravitoError):
                            assert await tracked.get("k1") == "new"
                            break


class TestMoving:
    async def test_a_slot_that_moved(self, client: ClusterClient, cluster: LocalCluster) -> None:
        """Each step of a move, and a write at whoever takes it then: the view never gives an older value."""
        tracked = client.tracked()
        slot = slot_of("{m}")
        source = await in_thread(cluster.owner_of, slot)
        target = await in_thread(other_than, cluster, source)
        await client.mset({"{m}a": 0, "{m}b": 0, "other": "x"})
        assert await tracked.mget("{m}a", "{m}b", "other") == ["0", "0", "x"]
        assert await tracked.get("{m}new") is None
        try:
            source_id, target_id = cluster.node_id(source), cluster.node_id(target)
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            await foreign(client, source, "SET", "{m}a", 1)  # it is there still
            await _asking(target, "SET", "{m}new", "made there")
            assert await tracked.mget("{m}a", "{m}b") == ["1", "0"]
            assert await tracked.get("{m}new") == "made there"
            await _asking(target, "SET", "{m}new", "changed there")
            assert await tracked.get("{m}new") == "changed there"
            assert await tracked.get("{m}new") == "changed there"
            source.ask("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", "{m}a", "{m}b")
            await client.ping(target_nodes="primaries")
            await _asking(target, "SET", "{m}a", 2)
            assert await tracked.get("{m}a") == "2"
            await _asking(target, "SET", "{m}a", 3)
            assert await tracked.get("{m}a") == "3"
            await tracked.set("{m}a", 4)
            assert await tracked.get("{m}a") == "4"
            assert [key for key in _shelves(tracked).keys if key.startswith(b"{m}")] == []
        finally:
            await in_thread(cluster.migrate, slot, target)
            await in_thread(cluster.wait)
        try:
            target.ask("SET", "{m}a", 5)
            assert await tracked.get("{m}a") == "5"  # by MOVED
            assert await tracked.get("{m}a") == "5"
            assert await asked(client, lambda: tracked.mget("{m}a", "other")) == (["5", "x"], 0)
            await foreign(client, target, "SET", "{m}a", 6)
            assert await tracked.get("{m}a") == "6"
        finally:
            await in_thread(cluster.migrate, slot, source)
            await in_thread(cluster.wait)

    async def test_what_is_kept_of_a_slot_goes_with_its_owner(self, client: ClusterClient) -> None:
        """By a new map or by MOVED, whatever the old owner says."""
        tracked = client.tracked()
        await client.mset({"{m}a": 1, "{m}b": 2, "{m}c": 3, "other": 3})
        await tracked.mget("{m}a", "{m}b", "other")
        flying = tracked.get("{m}c")
        state = tracked._cluster
        now = state.owners[slot_of("{m}")]
        place = next(place for place in state.map.primaries if place.address != now.name)
        state.moved(errors.MovedError(f"{slot_of('{m}')} {place.address}"))
        assert set(_shelves(tracked).keys) == {b"other"}
        assert await flying == "3"  # answered by the old owner: for its caller, and not kept
        assert set(_shelves(tracked).keys) == {b"other"}
        assert await tracked.mget("{m}a", "{m}b") == ["1", "2"]  # MOVED back
        await tracked.mget("{m}a", "{m}b")
        assert set(_shelves(tracked).keys) == {b"other", b"{m}a", b"{m}b"}
        state.map.move(slot_of("{m}"), place)
        state._adopt(state.map)
        assert set(_shelves(tracked).keys) == {b"other"}
        assert await tracked.mget("{m}a", "{m}b") == ["1", "2"]

    async def test_no_value_goes_back(self, client: ClusterClient, cluster: LocalCluster) -> None:
        """Counters that only grow while their slots move and connections are cut: nobody sees one shrink, and nobody
        reads what is older than a write that was acknowledged before a round trip began."""
        tracked = client.tracked()
        tags = ["{a}", "{b}", "{c}"]
        names = [f"{tag}{number}" for tag in tags for number in range(4)]
        written = dict.fromkeys(names, 0)  # acknowledged to somebody else
        stop = asyncio.Event()
        stale: list[tuple[str, int, int]] = []

        async with Client.from_url(cluster.url) as other:

            async def write() -> None:
                while not stop.is_set():
                    for name in names:
                        with contextlib.suppress(errors.ConnectionError):
                            written[name] = max(written[name], await other.incr(name))
                    await asyncio.sleep(0.005)

            async def read(name: str) -> None:
                last = 0
                while not stop.is_set():
                    known = written[name]
                    await client.ping(target_nodes="primaries")  # what was announced has come
                    for _ in range(5):
                        value = int(await tracked.get(name) or 0)
                        if value < max(known, last):
                            stale.append((name, value, max(known, last)))
                        last = max(last, value)

            async def cut() -> None:
                while not stop.is_set():
                    await asyncio.sleep(0.2)
                    for node in cluster.nodes:
                        for line in (await in_thread(node.ask, "CLIENT", "LIST")).splitlines():
                            found = dict(part.split("=", 1) for part in line.split(" "))
                            if "t" in found["flags"]:
                                with contextlib.suppress(Exception):  # it went by itself
                                    await in_thread(node.ask, "CLIENT", "KILL", "ID", found["id"])

            tasks = [asyncio.create_task(each) for each in (write(), cut(), *map(read, names))]
            try:
                for tag in tags:
                    slot = slot_of(tag)
                    source = await in_thread(cluster.owner_of, slot)
                    for target in (await in_thread(other_than, cluster, source), source):
                        await in_thread(cluster.migrate, slot, target)
                        await in_thread(cluster.wait)
            finally:
                stop.set()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert outcomes == [None] * len(tasks)
        assert stale == []
        assert tracked.stats().hits > 100


class TestFailovers:
    @pytest.mark.parametrize("how", ["kill", "suspend"])
    async def test_a_lost_primary(self, cluster_with_replicas: LocalCluster, how: str) -> None:
        """Whoever takes over has newer values: they are read as soon as its write was acknowledged and the heartbeat of
        the old one is over."""
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url, timeouts=Timeouts(connect=60.0, command=20.0)) as client:
            assert isinstance(client, ClusterClient)
            tracked = client.tracked(heartbeat=HEARTBEAT)
            await client.mset(dict.fromkeys(KEYS, "old"))
            assert await tracked.mget(KEYS) == ["old"] * 30
            await client.wait(1, 1000)
            lost = (await in_thread(cluster.primaries))[0]
            mine = [key for key in KEYS if cluster.owner_of(slot_of(key)) is lost]
            getattr(lost, how)()
            reads = [tracked.strlen(key) for key in mine]  # nothing of these is kept
            try:
                assert await asyncio.gather(*reads) == [3] * len(mine)
                async with Client.from_url(cluster.url, timeouts=Timeouts(command=20.0)) as other:
                    await asyncio.gather(*[other.set(key, "new") for key in mine])
                # The new owner was elected longer after the loss than the heartbeat is: nothing old is given out.
                assert await tracked.mget(mine) == ["new"] * len(mine)
                assert await asyncio.gather(*[tracked.get(key) for key in mine]) == ["new"] * len(mine)
            finally:
                if how == "suspend":
                    lost.resume()
                    await in_thread(cluster.wait)
                else:
                    await in_thread(cluster.wait)
                    await in_thread(cluster.rejoin, lost)
            assert await tracked.mget(KEYS) == await client.mget(KEYS)

    async def test_a_demoted_primary_does_not_vouch(self, cluster_with_replicas: LocalCluster) -> None:
        """It is alive and answers, and its connection stays: its heartbeat is a read, which it refuses by now."""
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url) as client:
            assert isinstance(client, ClusterClient)
            tracked = client.tracked(heartbeat=HEARTBEAT)
            await client.mset(dict.fromkeys(KEYS, "old"))
            await tracked.mget(KEYS)
            old = (await in_thread(cluster.primaries))[0]
            mine = [key for key in KEYS if cluster.owner_of(slot_of(key)) is old]
            successor = next(node for node in cluster.replicas() if node.ask("ROLE")[2] == old.port)
            successor.ask("CLUSTER", "FAILOVER")
            await until(lambda: cluster.role(successor) == "master")
            await until(lambda: client.get_node(node_name=old.address).server_type == "replica")
            assert not set(map(str.encode, mine)) & set(_shelves(tracked).keys)
            successor.ask("SET", mine[0], "new")
            assert await tracked.get(mine[0]) == "new"
            await in_thread(cluster.wait)


class TestWhereItCannotBe:
    def test_replicas(self, cluster: LocalCluster) -> None:
        client = Client.from_url(f"{cluster.url}?read_from=replica")
        with pytest.raises(errors.ConfigurationError, match="set read_from to 'primary'"):
            client.tracked()

    def test_resp2(self, cluster: LocalCluster) -> None:
        with pytest.raises(errors.ConfigurationError, match="needs RESP3"):
            Client.from_url(cluster.url, protocol=2).tracked()


def _shelves(tracked: Tracked) -> Any:
    tiers = tracked._state().topology.tier
    assert isinstance(tiers, NodeTiers)
    return tiers.shelves


async def _asking(node: Node, *command: Any) -> None:
    """A command at the node that is taking a slot over, as whoever was sent there by ASK does it."""
    async with Client.from_url(f"redis://{node.address}") as plain, plain.client() as session:
        await session.execute("ASKING")
        await session.execute(*command)
