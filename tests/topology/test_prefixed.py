"""`key_prefix` on other topologies, and slots as the server has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels
from gravito.atlas.topology.slots import slot_of

PREFIX = "app:"


@pytest.fixture
async def plain(cluster: LocalCluster) -> AsyncIterator[Client]:
    """Sees what is really there."""
    async with Client.from_url(cluster.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def prefixed(cluster: LocalCluster, plain: Client) -> AsyncIterator[Client]:
    async with Client.from_url(cluster.url, key_prefix=PREFIX) as client:
        yield client


async def names(plain: Client) -> list[str]:
    return sorted(await plain.keys("*"))


async def test_commands_over_many_slots(plain: Client, prefixed: Client) -> None:
    pairs = {f"k{number}": str(number) for number in range(50)}
    assert await prefixed.mset(pairs) is True
    assert await names(plain) == sorted(PREFIX + key for key in pairs)
    assert await prefixed.mget(list(pairs)) == list(pairs.values())
    assert await prefixed.get("k7") == "7"
    assert sorted(await prefixed.keys("k*")) == sorted(pairs)
    assert sorted([key async for key in prefixed.scan_iter("k*")]) == sorted(pairs)
    assert await prefixed.randomkey() in pairs
    assert await prefixed.delete(*pairs) == 50
    assert await names(plain) == []


async def test_pipelines_scripts_and_transactions(plain: Client, prefixed: Client) -> None:
    assert await prefixed.pipeline(False).set("a", 1).set("b", 2).mget("a").exec() == [True, True, ["1"]]
    pipe = (
        prefixed.pipeline(False)
        .mset({"k1": 1, "k2": 2, "k3": 3})
        .mget("k3", "k1")
        .keys("k*")
        .delete("k1", "k2")
    )
    *split, keys, deleted = await pipe.execute()
    assert (split, sorted(keys), deleted) == ([True, ["3", "1"]], ["k1", "k2", "k3"], 2)
    assert await prefixed.unlink("k3") == 1
    script = prefixed.script("return redis.call('incr', KEYS[1])")
    assert await script(keys=["a"]) == 2
    assert await prefixed.pipeline(True).incr("{t}n").rpush("{t}l", "x").exec() == [1, 1]
    assert await prefixed.blpop("{t}l", timeout=1) in (["{t}l", "x"], ("{t}l", "x"))
    assert await names(plain) == ["app:a", "app:b", "app:{t}n"]


async def test_a_prefix_with_a_tag_keeps_all_keys_together(cluster: LocalCluster, plain: Client) -> None:
    async with Client.from_url(cluster.url, key_prefix="{app}:") as client:
        await client.mset({"a": 1, "b": 2})
        assert await client.rename("a", "c") is True
        assert await client.sunionstore("d", ["e", "f"]) == 0
    assert await names(plain) == ["{app}:b", "{app}:c"]


async def test_keys_of_two_slots_are_named_in_the_refusal(prefixed: Client) -> None:
    with pytest.raises(errors.CrossSlotError, match="app:a"):
        await prefixed.rename("a", "b")


async def test_sentinels(sentinels: LocalSentinels) -> None:
    async with (
        Client.from_url(sentinels.url) as plain,
        Client.from_url(sentinels.url, key_prefix=PREFIX) as prefixed,
    ):
        await plain.flushall()
        await prefixed.set("k", "v")
        assert await prefixed.keys() == ["k"]
        assert await plain.keys() == ["app:k"]
        await plain.flushall()


async def test_slots_are_the_servers(plain: Any) -> None:
    keys = [
        "",
        "foo",
        "{foo}x",
        "x{}y",
        "{}",
        "a{b",
        "a}b{c}d",
        "ключ{größe}",
        *(f"k:{n}" for n in range(100)),
    ]
    for key in keys:
        assert await plain.execute("CLUSTER", "KEYSLOT", key) == slot_of(key), key
