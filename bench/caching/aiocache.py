"""aiocache: its Redis cache with JSON, which is its default, and with pickle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiocache import RedisCache, cached
from aiocache.serializers import JsonSerializer, PickleSerializer
from redis.asyncio import BlockingConnectionPool

from bench.caching.base import TASKS, TTL, VALUE, Get, GetMany, Load, Put

SERIALIZERS = {"JSON": JsonSerializer, "pickle": PickleSerializer}
PATIENCE = 60  # seconds that a task may wait for a connection


class Contender:
    """It has no tags, and nothing local that a server keeps honest."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._caches = {}
        for name, serializer in SERIALIZERS.items():
            cache = RedisCache(
                endpoint=host,
                port=port,
                namespace=name,
                serializer=serializer(),
                timeout=PATIENCE,
                pool_max_size=TASKS,
                connection_pool_class=BlockingConnectionPool,
                connection_pool_kwargs={"timeout": PATIENCE},
            )
            stack.push_async_callback(cache.close)
            await cache.exists("nothing")
            self._caches[name] = cache

    def gets(self) -> Mapping[str, Get]:
        return {name: cache.get for name, cache in self._caches.items()}

    def puts(self) -> Mapping[str, Put]:
        return {name: _putter(cache) for name, cache in self._caches.items()}

    def manys(self) -> Mapping[str, GetMany]:
        return {name: cache.multi_get for name, cache in self._caches.items()}

    def loads(self) -> Mapping[str, Load]:
        return {f"@cached, no tags, {name}": _loader(cache) for name, cache in self._caches.items()}

    def locals(self) -> Mapping[str, Get]:
        return {}


def _putter(cache: Any) -> Put:
    async def put(key: str, value: Any) -> None:
        await cache.set(key, value, ttl=TTL)

    return put


def _loader(cache: Any) -> Load:
    decorate: Any = cached(ttl=TTL, key_builder=lambda function, number: f"load:{number}")

    @decorate
    async def load(number: int) -> Any:
        return VALUE

    decorate.cache = cache  # by itself the decorator makes one of its own
    result: Load = load
    return result
