"""The local tier across a failover."""

from __future__ import annotations

import asyncio

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.atlas._local_sentinels import LocalSentinels


async def test_a_failover_takes_all_with_it(sentinels: LocalSentinels) -> None:
    await asyncio.to_thread(sentinels.wait)
    async with Client.from_url(sentinels.url) as client:
        tracked = client.tracked()
        await client.set("k", "before")
        assert await tracked.get("k") == "before"
        assert tracked.stats().entries == 1
        old, wire = sentinels.primary(), client._state().topology.shared.wire
        await asyncio.to_thread(sentinels.sentinels[0].ask, "SENTINEL", "FAILOVER", sentinels.service)
        await asyncio.to_thread(sentinels.succeed, old)
        await asyncio.to_thread(sentinels.primary().ask, "SET", "k", "after")
        await until(lambda: client._state().topology.shared.wire is not wire)
        assert tracked.stats().entries == 0
        assert await tracked.get("k") == await tracked.get("k") == "after"
        assert tracked.stats().hits == 1
        await client.flushall()
    await asyncio.to_thread(sentinels.rejoin, old)


async def test_reads_from_replicas_are_not_tracked(sentinels: LocalSentinels) -> None:
    async with Client.from_url(sentinels.url, read_from="replica") as client:
        with pytest.raises(errors.ConfigurationError, match="read_from"):
            client.tracked()
