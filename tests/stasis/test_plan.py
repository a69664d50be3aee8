"""The quick look at blobs: what it takes for live must be."""

from __future__ import annotations

import pytest
from tests.stasis.workers import PATIENT

from gravito.atlas import Client
from gravito.stasis import Cache


@pytest.mark.parametrize("odd", [b"", b"1234", b"1234567812345678"])
async def test_a_version_that_somebody_else_wrote_ends_what_bears_it(redis: Client, odd: bytes) -> None:
    async with Cache(connection=redis, fail_safe=PATIENT) as cache:
        await cache.tags("t").put("k", 1, 60)
        assert await cache.tags("t").get("k") == 1
        await redis.set("cache:t:t", odd)
        assert await cache.tags("t").get("k") is None
        await cache.put("plain", 1, 60)
        await redis.set("cache:r", odd)
        assert await cache.get("plain") is None
        assert await cache.many(["plain", "k"]) == {"plain": None, "k": None}
