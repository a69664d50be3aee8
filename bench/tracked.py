"""The row of the local tier: GETs that need no server, beside those that ask it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from bench.contenders import OURS, Contender
from gravito.atlas import Client
from gravito.cli.measure import Timing, Work

UNTRACKED = "untracked"
REDIS_PY = "redis-py sync cache"  # its client-side cache, which only its blocking client has

Address = tuple[str, int]


def works(contenders: Mapping[str, Contender], address: Address, key: str, value: str) -> dict[str, Work]:
    """One task that asks for one key again and again: of ours with and without a tier, and of redis-py's cache."""
    host, port = address
    if OURS not in contenders:
        return {}

    async def tracked(count: int) -> Timing:
        async with Client.from_url(f"redis://{host}:{port}/0") as client:
            view = client.tracked()
            await view.get(key)
            began = time.perf_counter()
            for _ in range(count):
                reply = await view.get(key)
            timing = Timing(count, time.perf_counter() - began)
            sent = client.stats().commands
        _check(reply, value, sent < 10 + timing.seconds)  # beside the first read: a ping now and then
        return timing

    async def untracked(count: int) -> Timing:
        get = contenders[OURS].get
        began = time.perf_counter()
        for _ in range(count):
            reply = await get(key)
        timing = Timing(count, time.perf_counter() - began)
        _check(reply, value)
        return timing

    async def cached(count: int) -> Timing:
        async with Client.from_url(f"redis://{host}:{port}/0") as asking:
            name = (await asking.execute("HELLO"))["server"]
        # It asks for a "redis" of 7.4 or later by the server's word; what it needs of it, Valkey has as well.
        CacheProxyConnection.MIN_ALLOWED_VERSION = "0.0.0"
        CacheProxyConnection.DEFAULT_SERVER_NAME = name
        client: Any = redis.Redis(
            host=host, port=port, protocol=3, decode_responses=True, cache_config=CacheConfig()
        )
        with client:
            client.get(key)
            began = time.perf_counter()
            for _ in range(count):
                reply = client.get(key)
            timing = Timing(count, time.perf_counter() - began)
        _check(reply, value)
        return timing

    return {OURS: tracked, UNTRACKED: untracked, REDIS_PY: cached}


def _check(reply: Any, value: str, local: bool = True) -> None:
    if reply != value or not local:
        raise AssertionError(f"GET answered {reply!r} instead of {value!r}, or not from here")
