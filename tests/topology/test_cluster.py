"""The cluster client against a cluster of real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Client, Retry, Settings, Timeouts
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels
from gravito.atlas._nodes import Node, free_ports
from gravito.atlas.embedded import Engine


def other_than(cluster: LocalCluster, owner: Node) -> Node:
    return next(node for node in cluster.nodes if node is not owner)


async def in_thread(work: Any, *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)


class Moving:
    """A slot on its way from one node to another, its keys not yet moved."""

    def __init__(self, cluster: LocalCluster, slot: int) -> None:
        self.cluster, self.slot = cluster, slot
        self.source = cluster.owner_of(slot)
        self.target = other_than(cluster, self.source)

    async def __aenter__(self) -> Moving:
        await in_thread(self._begin)
        return self

    def _begin(self) -> None:
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.cluster.node_id(self.source))
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.cluster.node_id(self.target))

    async def __aexit__(self, *exc: object) -> None:
        await in_thread(self._end)

    def _end(self) -> None:
        self.cluster.migrate(self.slot, self.target)
        self.cluster.wait()
        self.cluster.migrate(self.slot, self.source)
        self.cluster.wait()


class TestSettings:
    def test_a_url(self) -> None:
        settings = Settings.from_url("rediss+cluster://u:secret@h1,h2:7000,[::1]?read_from=replica")
        assert settings.driver == "cluster"
        assert settings.nodes == ("h1:6379", "h2:7000", "[::1]:6379")
        assert settings.tls is not None
        assert settings.read_from == "replica"
        assert settings.url == "rediss+cluster://u:***@h1:6379,h2:7000,[::1]:6379"
        assert settings.address == "cluster:h1:6379,h2:7000,[::1]:6379"
        assert "secret" not in repr(settings)

    def test_a_mapping(self) -> None:
        assert Settings.from_mapping("c", {"driver": "cluster", "host": "h", "port": 7000}).nodes == (
            "h:7000",
        )
        assert Settings.from_mapping("c", {"driver": "cluster", "nodes": ["a", "b:1"]}).nodes == (
            "a:6379",
            "b:1",
        )

    @pytest.mark.parametrize(
        "url",
        ["redis+cluster://", "redis+cluster://h/1", "redis+cluster://h?db=1", "redis://h?read_from=nearest"],
    )
    def test_what_cannot_be(self, url: str) -> None:
        with pytest.raises(errors.ConfigurationError):
            Settings.from_url(url)


@pytest.mark.parametrize("protocol", [None, 2, 3])
async def test_credentials_and_protocols(protocol: int | None, guarded: LocalCluster) -> None:
    async with Client.from_url(guarded.url, password="sesame", protocol=protocol) as client:
        assert await client.mset({"a": 1, "b": 2})
        assert await client.mget("a", "b") == ["1", "2"]
        async with await client.ssubscribe("news") as news:
            await client.spublish("news", "x")
            assert await news.get(5) is not None
    words = iter(["sesame", "sesame", "sesame", "sesame", "wrong"])
    async with Client.from_url(guarded.url, credential_provider=lambda: next(words)) as client:
        await client.dbsize()  # connects to all three
        await client.reauthenticate()
        with pytest.raises(errors.AuthenticationError):
            await client.reauthenticate()
        assert await client.get("a") == "1"
    client = Client.from_url(guarded.url, password="wrong", protocol=protocol)
    with pytest.raises(errors.AuthenticationError):
        await client.get("a")
    await client.aclose()


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalCluster]:
    """Three primaries with a password."""
    with LocalCluster(3, password="sesame") as nodes:
        yield nodes


class TestRouting:
    async def test_a_client_of_a_cluster_s_settings_is_a_cluster_s(self, cluster: LocalCluster) -> None:
        assert type(Client.from_url(cluster.url)) is ClusterClient
        assert type(Client.from_url("redis://h")) is Client

    async def test_replies_match_commands(self, redis: ClusterClient) -> None:
        assert all(await asyncio.gather(*[redis.set(f"k{i}", i) for i in range(1000)]))
        assert await asyncio.gather(*[redis.get(f"k{i}") for i in range(1000)]) == [
            str(i) for i in range(1000)
        ]
        assert redis.stats().connections == 3

    async def test_the_commands_of_a_turn_are_one_write_per_node(
        self, redis: ClusterClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await redis.dbsize()
        wires = [node.shared.wire for node in redis.get_primaries()]
        writes = []
        for wire in wires:
            assert wire is not None
            wire._lone = False  # as under load
            write = wire._write_out
            monkeypatch.setattr(
                wire, "_write_out", lambda data, write=write: (writes.append(data), write(data))
            )
        await asyncio.gather(*[redis.get(f"k{i}") for i in range(300)])
        assert len(writes) == 3

    async def test_one_seed_is_enough_and_need_not_live_on(self, cluster: LocalCluster) -> None:
        seed = cluster.nodes[2]
        async with Client.from_url(f"redis+cluster://127.0.0.1:1,{seed.address}") as client:
            await client.set("a", 1)
            state = client._state().topology
            state._survey.seeds = []  # type: ignore[attr-defined]  # as if they were gone for good
            state._refreshed = -10.0  # type: ignore[attr-defined]  # at once
            state.refresh_soon()  # type: ignore[attr-defined]  # it is a cluster
            await state._refreshing  # type: ignore[attr-defined]  # it is a cluster
            assert state._failed == 0  # type: ignore[attr-defined]  # it is a cluster
            assert await client.get("a") == "1"

    async def test_nobody_there(self) -> None:
        client = Client.from_url("redis+cluster://127.0.0.1:1,127.0.0.1:2")
        with pytest.raises(errors.RefusedError):
            await client.get("a")
        await client.aclose()

    async def test_a_seed_that_knows_of_no_other_node_is_passed_over(self, cluster: LocalCluster) -> None:
        with Engine(port=free_ports(1)[0], directives={"cluster-enabled": "yes"}) as lonely:
            await asyncio.to_thread(lonely.ensure)
            seed = f"127.0.0.1:{lonely.port}"
            async with Client.from_url(f"redis+cluster://{seed},{cluster.nodes[0].address}") as client:
                assert await client.set("a", 1)
                assert len(client.get_primaries()) == 3  # type: ignore[attr-defined]  # it is a cluster
            client = Client.from_url(f"redis+cluster://{seed}", timeouts={"command": 0.5})
            with pytest.raises(errors.ClusterDownError, match="knows of no node"):
                await client.get("a")
            await client.aclose()

    async def test_a_single_server_is_no_cluster(self, sentinels: LocalSentinels) -> None:
        client = Client.from_url(f"redis+cluster://{sentinels.primary().address}")
        with pytest.raises(errors.ConfigurationError, match="A single server is redis://"):
            await client.get("a")
        await client.aclose()

    async def test_keys_of_any_kind(self, redis: ClusterClient) -> None:
        for key in (b"\xff", 7, 1.5, "gr\u00fc\u00df", bytearray(b"x"), "{tag}a"):
            assert await redis.set(key, "v")
            assert await redis.get(key) == "v"

    async def test_a_value_that_takes_a_leased_wire(self, redis: ClusterClient) -> None:
        big = "x" * (2 * 1024 * 1024)
        assert await redis.set("big", big)
        assert await redis.get("big") == big

    async def test_blocking_commands(self, redis: ClusterClient) -> None:
        waiting = asyncio.ensure_future(redis.blpop("list", 5))
        await redis.rpush("list", "x")
        assert await waiting == ("list", "x")

    async def test_a_command_that_no_table_knows(self, redis: ClusterClient) -> None:
        with pytest.raises(errors.ResponseError):
            await redis.execute("NO.SUCH.COMMAND", "k")


class TestSeveralKeys:
    async def test_split_and_joined_in_order(self, redis: ClusterClient) -> None:
        keys = [f"k{i}" for i in range(50)]
        assert await redis.mset({key: key for key in keys})
        assert await redis.mget(*keys, "absent", keys[0]) == [*keys, None, keys[0]]
        assert await redis.exists(*keys, "absent") == 50
        assert await redis.touch(*keys) == 50
        assert await redis.delete(*keys[:25]) == 25
        assert await redis.unlink(*keys) == 25

    async def test_other_commands_over_slots_are_refused_unsent(self, redis: ClusterClient) -> None:
        before = redis.stats().commands
        with pytest.raises(
            errors.CrossSlotError, match=r"RENAME: .*a \(slot 15495\), b \(slot 3300\).*Nothing was sent"
        ):
            await redis.rename("a", "b")
        with pytest.raises(errors.CrossSlotError):
            await redis.eval("return 1", 2, "a", "b")
        assert redis.stats().commands == before

    async def test_same_slot_as_it_is(self, redis: ClusterClient) -> None:
        await redis.set("{t}a", 1)
        assert await redis.rename("{t}a", "{t}b")
        assert await redis.mget("{t}a", "{t}b") == [None, "1"]


class TestWithoutKeys:
    async def test_all_primaries_by_policy(self, redis: ClusterClient) -> None:
        await redis.mset({f"k{i}": i for i in range(30)})
        assert await redis.dbsize() == 30
        assert sorted(await redis.keys("*")) == sorted(f"k{i}" for i in range(30))
        assert {key async for key in redis.scan_iter(match="k*", count=5)} == {f"k{i}" for i in range(30)}
        assert await redis.randomkey() is not None
        digest = await redis.script_load("return 1")
        assert await redis.script_exists(digest, "0" * 40) == [True, False]
        assert await redis.config_set("slowlog-max-len", 129) is True
        assert await redis.ping() is True
        await redis.flushall()
        assert await redis.dbsize() == 0
        assert await redis.randomkey() is None

    async def test_one_node(self, redis: ClusterClient) -> None:
        assert "redis_version" in await redis.info()
        assert await redis.echo("x") == "x"

    async def test_named_nodes(self, redis: ClusterClient) -> None:
        nodes = redis.get_primaries()
        assert len(nodes) == 3
        assert await redis.dbsize(target_nodes=nodes[0]) == 0
        assert await redis.dbsize(target_nodes="primaries") == {node.name: 0 for node in nodes}
        assert await redis.ping(target_nodes=nodes[:2]) == {node.name: True for node in nodes[:2]}
        with pytest.raises(errors.DataError, match="allowed: nodes, or one of primaries"):
            await redis.ping(target_nodes="some")

    async def test_the_nodes(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        assert {node.port for node in redis.get_nodes()} == {node.port for node in cluster.nodes}
        assert redis.get_replicas() == []
        assert redis.get_node_from_key("a").port == cluster.owner_of(15495).port
        assert redis.get_node(node_name=cluster.nodes[0].address).port == cluster.nodes[0].port


class TestPipelines:
    async def test_split_by_node_replies_in_order(self, redis: ClusterClient) -> None:
        pipe = redis.pipeline(transaction=False)
        for i in range(200):
            pipe.set(f"k{i}", i).get(f"k{i}")
        replies = await pipe.execute()
        assert replies == [each for i in range(200) for each in (True, str(i))]

    async def test_a_command_s_error_is_its_own(self, redis: ClusterClient) -> None:
        await redis.set("text", "x")
        replies = await redis.pipeline(transaction=False).get("a").incr("text").get("text").execute(False)
        assert replies[0] is None
        assert isinstance(replies[1], errors.ResponseError)
        assert replies[2] == "x"
        with pytest.raises(errors.ResponseError, match="Command # 2"):
            await redis.pipeline(transaction=False).get("a").incr("text").execute()

    async def test_transactions_are_in_one_slot(self, redis: ClusterClient) -> None:
        assert await redis.pipeline().set("{t}a", 1).incr("{t}a").get("{t}a").exec() == [True, 2, "2"]
        with pytest.raises(errors.CrossSlotError, match="a transaction"):
            redis.pipeline().set("a", 1).set("b", 1)

    async def test_watching(self, redis: ClusterClient) -> None:
        async def add(pipe: Any) -> None:
            value = int(await pipe.get("n") or 0)
            pipe.multi()
            pipe.set("n", value + 1)

        with pytest.raises(errors.CrossSlotError, match="WATCH"):
            await redis.pipeline().watch("a", "b")
        await asyncio.gather(*[redis.transaction(add, "n") for _ in range(5)])
        assert await redis.get("n") == "5"

    async def test_commands_over_several_slots_are_split_in_their_place(self, redis: ClusterClient) -> None:
        keys = [f"k{i}" for i in range(30)]
        assert len({redis.keyslot(key) for key in keys}) > 20
        pipe = redis.pipeline(transaction=False)
        pipe.mset({key: key for key in keys}).mget(keys).set("k0", "new").mget("k2", "k0", "none", "k0")
        pipe.exists("k1", "k2", "none").touch("k1", "k3").delete("k0", "k1", "none").unlink("k2", "k3")
        pipe.get("k0").mget("k0", "k1", "k2", "k3", "k4").set("k0", "again").mget("k0", "k4")
        assert await pipe.execute() == [
            True, keys, True, ["k2", "new", None, "new"], 2, 2, 2, 2,
            None, [None, None, None, None, "k4"], True, ["again", "k4"],
        ]  # fmt: skip

    async def test_a_split_command_keeps_its_own_bytes(self, redis: ClusterClient) -> None:
        await redis.mset({"a": b"\xff", "b": "text"})
        pipe = redis.pipeline(transaction=False).get("b")
        pipe.execute_command("MGET", "a", "b", NEVER_DECODE=True)
        assert await pipe.mget("b", "none").execute() == ["text", [b"\xff", b"text"], ["text", None]]

    async def test_an_error_of_one_slot_is_the_whole_command_s(self, redis: ClusterClient) -> None:
        """And it says that other slots were changed."""
        await redis.mset({f"k{i}": i for i in range(9)})
        async with Client.from_url(redis.settings.url, username="few", password="few") as few:
            for node in redis.get_primaries():
                await node.ask(
                    "ACL", "SETUSER", "few", "on", ">few", "+@all", "~k0", "~k1", "~k2", "~k3", "~k4"
                )
            pipe = few.pipeline(transaction=False).get("k1").delete("k0", "k8", "k2").get("k1")
            first, error, last = await pipe.execute(raise_on_error=False)
            assert (first, last) == ("1", "1")
            assert isinstance(error, errors.NoPermissionError)
            assert error.maybe_applied
            pipe = few.pipeline(transaction=False).get("k1").delete("k3", "k8")
            with pytest.raises(errors.NoPermissionError, match=r"Command # 2 \(DEL\)"):
                await pipe.execute()
        await redis.acl_deluser("few")
        assert await redis.mget("k0", "k2", "k3", "k8") == [None, None, None, "8"]

    async def test_commands_of_several_nodes_stand_in_one(self, redis: ClusterClient) -> None:
        await redis.mset({f"k{i}": i for i in range(30)})
        pipe = redis.pipeline(transaction=False)
        pipe.dbsize().delete("k0").dbsize().keys("k1*").script_load("return 1").ping().randomkey()
        pipe.config_set("slowlog-max-len", 77).flushall().dbsize().randomkey()
        before, gone, after, keys, sha, pong, some, done, flushed, none, nothing = await pipe.execute()
        assert (before, gone, after, none, nothing) == (30, 1, 29, 0, None)
        assert sorted(keys) == ["k1", *(f"k1{i}" for i in range(10))]
        assert (pong, done, flushed) == (True, True, True)
        assert some in {f"k{i}" for i in range(30)}
        assert await redis.script_exists(sha) == [True]
        for node in redis.get_primaries():
            assert (await node.ask("CONFIG", "GET", "slowlog-max-len"))["slowlog-max-len"] == "77"

    async def test_blocking_commands_take_a_leased_wire(self, redis: ClusterClient) -> None:
        """Others are served while a pipeline waits; the rest of it waits in its turn."""
        pipe = redis.pipeline(transaction=False).set("{l}a", 1).blpop("{l}list", 20).get("{l}a").get("other")
        waiting = asyncio.ensure_future(pipe.execute())
        while await redis.get("{l}a") is None:
            assert not waiting.done()
        assert not waiting.done()
        await redis.rpush("{l}list", "x")
        assert await waiting == [True, ("{l}list", "x"), "1", None]
        pipe = (
            redis.pipeline(transaction=False).blpop("nothing", 0.01).xread({"stream": "$"}, block=10).get("n")
        )
        assert (await pipe.execute())[::2] == [None, None]
        assert await redis.pipeline().lpush("{l}list", 1, 2).blpop("{l}list", 1).exec() == [
            2,
            ("{l}list", "2"),
        ]

    async def test_a_blocking_command_waits_longer_than_a_deadline(self, cluster: LocalCluster) -> None:
        async with Client.from_url(cluster.url, timeouts=Timeouts(command=0.3)) as client:
            waiting = asyncio.ensure_future(client.pipeline(False).blpop("late", 20).get("n").execute())
            await asyncio.wait({waiting}, timeout=1.0)
            assert not waiting.done()
            await client.rpush("late", "x")
            assert await waiting == [("late", "x"), None]

    async def test_what_cannot_stand_in_one(self, redis: ClusterClient) -> None:
        """Refused at its own line; the pipeline is as it was before."""
        pipe = redis.pipeline(transaction=False).set("a", 1)
        for queue, why in (
            (pipe.scan, "use scan_iter"),
            (lambda: pipe.execute_command("CLIENT", "REPLY", "OFF"), "changes one node's connection"),
            (lambda: pipe.execute_command("NO.SUCH", "x"), "its keys are not known"),
        ):
            with pytest.raises(errors.ConfigurationError, match=why):
                queue()
        for queue in (lambda: pipe.sunion("a", "b"), lambda: pipe.msetnx({"a": 1, "b": 2})):
            with pytest.raises(errors.CrossSlotError):
                queue()
        with pytest.raises(errors.DataError):
            pipe.mget("a", None)
        assert await pipe.get("a").execute() == [True, "1"]
        for queue in (lambda pipe: pipe.dbsize(), lambda pipe: pipe.flushall()):
            with pytest.raises(errors.ConfigurationError, match="in a transaction"):
                queue(redis.pipeline())
        with pytest.raises(errors.CrossSlotError):
            redis.pipeline().mget("a", "b")

    async def test_scripts(self, redis: ClusterClient) -> None:
        await redis.script_flush()
        script = redis.script("return redis.call('incr', KEYS[1])")
        assert await script(keys=["a"]) == 1
        assert await script(keys=["b"]) == 1
        await redis.script_flush()
        pipe = redis.pipeline(transaction=False)
        await script(keys=["a"], client=pipe)
        await script(keys=["b"], client=pipe)
        assert await pipe.execute() == [2, 2]


class TestOptions:
    async def test_bytes_and_views(self, redis: ClusterClient) -> None:
        raw = redis.with_options(decode_responses=False, timeout=2.0, retry=Retry(attempts=1))
        await raw.mset({"a": 1, "b": 2})
        assert await raw.mget("a", "b") == [b"1", b"2"]
        assert await raw.get("a") == b"1"
        patient = redis.with_options(timeout=9.0)
        assert await patient.mget("a", "b") == ["1", "2"]
        assert await patient.get("a") == "1"
        assert await patient.dbsize() == 2
        assert await patient.dbsize(target_nodes="default-node") <= 2

    async def test_locks_and_redis_py_s_own_subscriptions(self, redis: ClusterClient) -> None:
        async with redis.lock("mine", timeout=5):
            assert await redis.exists("mine") == 1
        async with redis.pubsub() as messages:
            await messages.subscribe("news")
            assert (await messages.get_message(timeout=5))["type"] == "subscribe"

    async def test_closing_ends_what_waits(self) -> None:
        client = Client.from_url(
            "redis+cluster://127.0.0.1:1", timeouts=Timeouts(drain=0.05), retry=Retry(attempts=99)
        )
        waiting = [asyncio.ensure_future(client.get("a")), asyncio.ensure_future(client.dbsize())]
        await asyncio.sleep(0)
        await client.aclose()
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, errors.GravitoError)

    async def test_key_prefix(self, cluster: LocalCluster, redis: ClusterClient) -> None:
        async with Client.from_url(cluster.url, key_prefix="app:") as client:
            assert await client.mset({"a": 1, "b": 2})
            assert await client.mget("a", "b") == ["1", "2"]
            assert sorted(await client.keys("*")) == ["a", "b"]
            assert await client.pipeline(False).get("a").get("b").exec() == ["1", "2"]
            assert await redis.get("app:a") == "1"

    async def test_messages(self, redis: ClusterClient) -> None:
        async with await redis.subscribe("news") as news:
            await redis.publish("news", "hello")
            message = await news.get(5)
            assert message is not None
            assert message.data == "hello"


class TestMoving:
    async def test_ask(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        await redis.set("{m}there", 1)
        async with Moving(cluster, redis.keyslot("{m}")):
            assert await redis.set("{m}new", "v")
            assert await asyncio.gather(*[redis.get("{m}new") for _ in range(20)]) == ["v"] * 20
            assert await redis.get("{m}there") == "1"
            assert await redis.pipeline(False).get("{m}new").get("{m}there").get("other").exec() == [
                "v",
                "1",
                None,
            ]
            assert await redis.pipeline().incr("{m}count").exec() == [1]
            assert await redis.pipeline().incr("{m}count").get("{m}count").exec() == [2, "2"]
            await redis.rpush("{m}list", "x")
            assert await redis.blpop("{m}list", 1) == ("{m}list", "x")
            pop = asyncio.ensure_future(redis.blpop("{m}later", 20))
            assert await redis.get("{m}new") == "v"  # by then the pop waits, on a wire of its own
            assert await redis.rpush("{m}later", "y") == 1
            assert await pop == ("{m}later", "y")
            pipe = redis.pipeline(False).mset({"{m}s": 1, "q": 2}).mget("{m}s", "q").delete("{m}s", "q")
            assert await pipe.exec() == [True, ["1", "2"], 2]
        assert await redis.get("{m}new") == "v"

    async def test_moved(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        slot = redis.keyslot("{m}")
        await redis.set("{m}a", 1)
        source = await in_thread(cluster.owner_of, slot)
        target = other_than(cluster, source)
        await in_thread(cluster.migrate, slot, target)
        # what MOVED says must do: there is no new map for a while
        redis._cluster._refreshed = asyncio.get_running_loop().time() + 60
        retries = redis.stats().retries
        try:
            assert await redis.get("{m}a") == "1"
            assert redis.get_node_from_key("{m}a").port == target.port
            assert redis.stats().retries == retries + 1
            assert await redis.get("{m}a") == "1"
            assert redis.stats().retries == retries + 1
        finally:
            await in_thread(cluster.wait)
            await in_thread(cluster.migrate, slot, source)
            await in_thread(cluster.wait)
        assert await redis.pipeline(False).get("{m}a").get("x").exec() == ["1", None]
        assert await redis.pipeline().get("{m}a").exec() == ["1"]

    async def test_slots_move_one_by_one_under_load(
        self, redis: ClusterClient, cluster: LocalCluster
    ) -> None:
        """No error reaches a caller, no write is lost or applied twice, and replies match their commands."""
        tags = ["{a}", "{b}", "{c}", "{d}", "{e}"]
        counts = dict.fromkeys((f"{tag}{i}" for tag in tags for i in range(8)), 0)
        over = False

        async def count(key: str) -> None:
            while not over:
                counts[key] += 1
                assert await redis.incr(key) == counts[key]
                assert await redis.get(key) == str(counts[key])

        async def pipe(tag: str) -> None:
            turn = 0
            while not over:
                turn += 1
                queue = redis.pipeline(transaction=False)
                for i in range(10):
                    queue.set(f"{tag}p{i}", f"{turn}:{i}").get(f"{tag}p{i}")
                assert await queue.execute() == [each for i in range(10) for each in (True, f"{turn}:{i}")]
                assert await redis.pipeline().set(f"{tag}t", turn).get(f"{tag}t").exec() == [True, str(turn)]

        async with asyncio.TaskGroup() as group:
            for key in counts:
                group.create_task(count(key))
            for tag in tags:
                group.create_task(pipe(tag))
            try:
                for tag in tags:
                    slot = redis.keyslot(tag)
                    source = await in_thread(cluster.owner_of, slot)
                    for target in (other_than(cluster, source), source):
                        await in_thread(cluster.migrate, slot, target)
                        await in_thread(cluster.wait)
            finally:
                over = True
        assert await redis.mget(*counts) == [str(value) for value in counts.values()]


class TestShardedChannels:
    async def test_messages(self, redis: ClusterClient) -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with (
            await redis.ssubscribe("{n}a", "{n}b") as news,
            await redis.ssubscribe("other", heard.put_nowait),
        ):
            await redis.spublish("{n}b", "hello")
            await redis.spublish("other", "there")
            message = await news.get(5)
            assert message is not None
            assert (message.channel, message.data) == ("{n}b", "hello")
            assert await asyncio.wait_for(heard.get(), 5) == "there"
        with pytest.raises(errors.CrossSlotError, match="2 slots"):
            await redis.ssubscribe("a", "b")

    async def test_they_follow_their_slot(self, redis: ClusterClient, cluster: LocalCluster) -> None:
        slot = redis.keyslot("{m}")
        source = await in_thread(cluster.owner_of, slot)
        async with await redis.ssubscribe("{m}news") as news:
            for target in (other_than(cluster, source), source):
                await in_thread(cluster.migrate, slot, target)
                gap = await news.get(10)
                assert gap is not None
                assert gap.type == "gap"
                await redis.spublish("{m}news", target.address)
                message = await news.get(5)
                assert message is not None
                assert message.data == target.address
                await in_thread(cluster.wait)
        async with await redis.ssubscribe("{m}news") as news:
            assert await redis.spublish("{m}news", "x") == 1


class TestLosses:
    async def test_a_primary_is_killed(self, cluster_with_replicas: LocalCluster) -> None:
        """Reads go on after the replica has taken over, without an error; the time until then is bounded."""
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url, timeouts=Timeouts(command=20.0)) as client:
            keys = [f"k{i}" for i in range(60)]
            await client.mset({key: key for key in keys})
            lost = cluster.primaries()[0]
            await client.wait(1, 1000)
            lost.kill()
            try:
                assert await asyncio.gather(*[client.get(key) for key in keys]) == keys
                assert await client.mget(*keys) == keys
                assert await client.pipeline(False).get(keys[0]).get(keys[1]).get(keys[2]).exec() == keys[:3]
                assert client.get_node(node_name=lost.address) is None
            finally:
                await in_thread(cluster.wait)
                await in_thread(cluster.rejoin, lost)

    async def test_a_primary_hangs(self, cluster_with_replicas: LocalCluster) -> None:
        """Its connection stays open and says nothing: reads move to the replica that took over, and none fails."""
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url) as client:
            keys = [f"k{i}" for i in range(60)]
            await client.mset({key: key for key in keys})
            await client.wait(1, 1000)
            lost = (await in_thread(cluster.primaries))[0]
            lost.suspend()
            try:
                assert await asyncio.gather(*[client.get(key) for key in keys]) == keys
                assert await asyncio.gather(*[client.set(key, key) for key in keys]) == [True] * 60
            finally:
                lost.resume()
                await in_thread(cluster.wait)
            assert await client.mget(*keys) == keys

    async def test_reads_from_replicas(self, cluster_with_replicas: LocalCluster) -> None:
        for policy in ("replica", "nearest"):
            async with Client.from_url(cluster_with_replicas.url, read_from=policy) as client:
                await client.set("k", "v")
                await client.wait(1, 1000)
                assert await client.get("k") == "v"
                assert client.stats().retries == 0
                node = client.get_node_from_key("k", replica=True)  # type: ignore[attr-defined]  # a cluster's
                assert policy == "nearest" or node.server_type == "replica"

    async def test_writes_while_a_primary_is_killed(self, cluster_with_replicas: LocalCluster) -> None:
        """Every future is settled; a caller hears of nothing but writes whose reply was lost."""
        cluster = cluster_with_replicas
        async with Client.from_url(cluster.url, timeouts=Timeouts(command=20.0)) as client:
            keys = [f"w{i}" for i in range(30)]
            await client.delete(*keys)
            acknowledged = dict.fromkeys(keys, 0)
            unsure = dict.fromkeys(keys, 0)
            certain: list[Exception] = []  # of commands that could have been sent again
            longest = 0.0
            over = False

            async def count(key: str) -> None:
                nonlocal longest, certain
                while not over:
                    start = asyncio.get_running_loop().time()
                    try:
                        await client.incr(key)
                        acknowledged[key] += 1
                    except errors.ConnectionError as error:
                        unsure[key] += error.maybe_applied
                        certain += [] if error.maybe_applied else [error]
                    longest = max(longest, asyncio.get_running_loop().time() - start)

            tasks = [asyncio.ensure_future(count(key)) for key in keys]
            await asyncio.sleep(0.2)
            lost = (await in_thread(cluster.primaries))[0]
            before = dict(acknowledged)
            lost.kill()
            try:
                while any(acknowledged[key] == before[key] for key in keys):
                    assert not any(task.done() for task in tasks)
                    await asyncio.sleep(0.05)
                over = True
                await asyncio.gather(*tasks)
            finally:
                over = True
                await in_thread(cluster.wait)
                await in_thread(cluster.rejoin, lost)
            assert 0 < sum(unsure.values()) <= len(keys)  # one for each caller that was in flight
            assert certain == []
            assert longest < 15
            print(f"time to recovery: {longest:.2f} s")
            for key in keys:
                assert int(await client.get(key) or 0) <= acknowledged[key] + unsure[key]
