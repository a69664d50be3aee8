"""The Sentinel topology on real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Retry, Settings
from gravito.atlas._local_sentinels import LocalSentinels, _SentinelEngine
from gravito.atlas._nodes import Node, free_ports


@pytest.fixture
async def client(sentinels: LocalSentinels) -> AsyncIterator[Client]:
    sentinels.wait()
    async with Client.from_url(sentinels.url) as client:
        yield client
        await client.flushall()


async def in_a_thread(function: Any, *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def test_commands_go_to_the_primary(client: Client, sentinels: LocalSentinels) -> None:
    assert await client.set("k", "v")
    assert await client.get("k") == "v"
    assert await client.pipeline().set("a", 1).get("a").exec() == [True, "1"]
    assert await client.blpop("empty", timeout=0.01) is None
    assert sentinels.primary().ask("GET", "k") == "v"
    assert (await client.role())[0] == "master"


async def test_any_reachable_sentinel_will_do(sentinels: LocalSentinels) -> None:
    nodes = ("127.0.0.1:1", sentinels.sentinels[2].address)
    async with Client(Settings(driver="sentinel", nodes=nodes, service=sentinels.service)) as client:
        assert await client.ping()


async def test_no_sentinel_answers() -> None:
    async with Client.from_url(
        "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster", retry=Retry(attempts=0)
    ) as client:
        with pytest.raises(
            errors.ConnectionError, match=r"no sentinel named a primary of 'mymaster'.*nobody listens"
        ):
            await client.ping()


async def test_the_sentinels_do_not_know_the_service(sentinels: LocalSentinels) -> None:
    url = sentinels.url.replace(sentinels.service, "other")
    async with Client.from_url(url) as client:
        with pytest.raises(errors.ConfigurationError, match="know no service 'other'"):
            await client.ping()


async def test_reads_go_to_a_replica(sentinels: LocalSentinels) -> None:
    sentinels.wait()
    async with Client.from_url(sentinels.url + "?read_from=replica") as client:
        await client.set("read", "here")
        await client.wait(2, 1000)

        def reads() -> int:
            return sum(int(dict(_stat(node))["calls"]) for node in sentinels.replicas())

        before = await in_a_thread(reads)
        for _ in range(20):
            assert await client.get("read") == "here"
        assert await in_a_thread(reads) - before == 20
        assert await client.incr("write") == 1
        await client.flushall()


def _stat(node: Node) -> list[list[str]]:
    """Fields of GET's line in INFO COMMANDSTATS."""
    for line in str(node.ask("INFO", "commandstats")).splitlines():
        if line.startswith("cmdstat_get:"):
            return [part.split("=") for part in line.partition(":")[2].split(",")]
    return [["calls", "0"]]


async def test_the_old_primary_answers_readonly(client: Client, sentinels: LocalSentinels) -> None:
    """A failover by hand: writes that are refused go to the new primary, and none is lost or doubled."""
    done = 0
    stop = False

    async def count() -> None:
        nonlocal done
        while not stop:
            await client.incr("counted")
            done += 1

    task = asyncio.create_task(count())
    await until(lambda: done > 10)
    old = sentinels.primary()
    await in_a_thread(sentinels.sentinels[0].ask, "SENTINEL", "FAILOVER", sentinels.service)
    await in_a_thread(sentinels.succeed, old)
    at = done
    try:
        await until(lambda: done > at + 10 or task.done())
    finally:
        stop = True
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert outcome is None or getattr(outcome, "maybe_applied", False)
    await in_a_thread(sentinels.rejoin, old)


@pytest.mark.parametrize("how", ["kill", "suspend"])
async def test_the_primary_is_lost_under_load(client: Client, sentinels: LocalSentinels, how: str) -> None:
    """Every call ends, and the ledger balances up to what asynchronous replication explains."""
    acknowledged = unsure = refused = 0
    unsettled: set[asyncio.Task[None]] = set()
    stop = False

    async def count() -> None:
        nonlocal acknowledged, unsure, refused
        while not stop:
            try:
                await client.incr("ledger")
                acknowledged += 1
            except errors.GravitoError as error:
                unsure += error.maybe_applied is True
                refused += error.maybe_applied is not True

    tasks = [asyncio.create_task(count()) for _ in range(20)]
    await until(lambda: acknowledged > 500)
    replicas = sentinels.replicas()
    lost = sentinels.primary()
    getattr(lost, how)()
    at, start = acknowledged, asyncio.get_running_loop().time()
    await until(lambda: acknowledged > at + 20, 20)
    took = asyncio.get_running_loop().time() - start
    stop = True
    _, unsettled = await asyncio.wait(tasks, timeout=10)
    assert not unsettled
    counted = int(await client.get("ledger") or 0)
    missing = max(acknowledged - counted, 0)
    print(
        f"{how}: {acknowledged} acknowledged, {unsure} unsure, {refused} refused, {missing} lost, {took:.1f} s"
    )
    assert counted <= acknowledged + unsure
    assert replicas
    await in_a_thread(sentinels.rejoin, lost)


async def test_subscriptions_follow_the_primary(client: Client, sentinels: LocalSentinels) -> None:
    async with await client.subscribe("news") as subscription:
        lost = sentinels.primary()
        lost.kill()
        message = await asyncio.wait_for(anext(subscription), 15)
        assert message.type == "gap"
        await client.publish("news", "hello")
        message = await asyncio.wait_for(anext(subscription), 15)
        assert message.data == "hello"
    await in_a_thread(sentinels.rejoin, lost)


async def test_nothing_is_left_after_closing(sentinels: LocalSentinels) -> None:
    client = Client.from_url(sentinels.url)
    await client.ping()
    await until(lambda: client.stats().connections == 1 + len(sentinels.sentinels))
    await client.aclose()
    assert client.stats().connections == 0
    assert [task for task in asyncio.all_tasks() if "gravito" in task.get_name()] == []


async def test_a_local_tier_follows_the_primary(client: Client, sentinels: LocalSentinels) -> None:
    tracked = client.tracked()
    await client.set("kept", "old")
    await client.wait(2, 1000)
    assert await tracked.get("kept") == await tracked.get("kept") == "old"
    lost = sentinels.primary()
    lost.kill()
    await in_a_thread(sentinels.succeed, lost)
    await in_a_thread(sentinels.primary().ask, "SET", "kept", "new")
    assert await tracked.get("kept") == "new"
    await in_a_thread(sentinels.rejoin, lost)


async def test_a_local_tier_needs_the_primary(sentinels: LocalSentinels) -> None:
    async with Client.from_url(sentinels.url, read_from="replica") as client:
        with pytest.raises(errors.ConfigurationError, match="set read_from to 'primary'"):
            client.tracked()


@pytest.mark.parametrize("how", ["alone", "pipeline", "large"])
async def test_a_demoted_primary_is_left(client: Client, sentinels: LocalSentinels, how: str) -> None:
    """Its refusal says that nothing was applied: the write is sent again, once a server says that it is the primary."""
    await client.incr("demoted before")
    await client.append("large before", "x" * 2_000_000)  # leaves an idle leased wire
    primary, other = sentinels.primary(), sentinels.replicas()[0]
    refused = asyncio.Event()
    client.on_retry(lambda event: refused.set())
    primary.ask("REPLICAOF", other.host, other.port)
    try:
        if how == "alone":
            write: Any = asyncio.ensure_future(client.incr("demoted"))
        elif how == "pipeline":
            write = asyncio.ensure_future(client.pipeline().incr("demoted").incr("demoted").exec())
        else:  # on a leased wire
            write = asyncio.ensure_future(client.append("demoted", "x" * 2_000_000))
        await asyncio.wait_for(refused.wait(), 5)
        assert not write.done()
    finally:
        primary.ask("REPLICAOF", "NO", "ONE")
    assert await write == {"alone": 1, "pipeline": [1, 2], "large": 2_000_000}[how]
    await in_a_thread(sentinels.wait)


async def test_a_sentinel_that_wants_a_password() -> None:
    with _SentinelEngine(port=free_ports(1)[0], directives={"requirepass": "of-the-sentinel"}) as engine:
        url = f"redis+sentinel://127.0.0.1:{engine.port}/mymaster"
        async with Client.from_url(url) as client:
            with pytest.raises(
                errors.AuthenticationError, match=r"no sentinel named.*sentinel_password"
            ) as caught:
                await client.ping()
            assert "of-the-sentinel" not in str(caught.value)
        async with Client.from_url(url, sentinel_password="of-the-sentinel") as client:
            with pytest.raises(errors.ConfigurationError, match="know no service"):
                await client.ping()
