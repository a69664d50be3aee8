"""cashews: its redis backend with a pool that waits, its memory backend, and its client-side cache."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from cashews import Cache

from bench.caching.base import TASKS, TEAM, TTL, VALUE, Get, GetMany, Load, Put

PATIENCE = 60  # seconds that a task may wait for a connection, and a connection for its reply


class Contender:
    """Pickles, as by default."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        pool = {
            "max_connections": TASKS,
            "socket_timeout": PATIENCE,
            "wait_for_connection_timeout": PATIENCE,
            "suppress": False,  # an error is an error, not a miss
        }
        self._cache = Cache("server")
        self._cache.setup(f"redis://{host}:{port}/0", **pool)
        self._near = Cache("client side")
        self._near.setup(f"redis://{host}:{port}/0", client_side=True, **pool)
        self._memory = Cache("memory")
        self._memory.setup("mem://")
        self._apart = Cache("memory, pickled")
        self._apart.setup("mem://", pickle_type="default")
        for cache in (self._cache, self._near, self._memory, self._apart):
            await cache.init()
            stack.push_async_callback(cache.close)

    def gets(self) -> Mapping[str, Get]:
        return {"": self._cache.get}

    def puts(self) -> Mapping[str, Put]:
        cache = self._cache

        async def put(key: str, value: Any) -> None:
            await cache.set(key, value, expire=TTL)

        return {"": put}

    def manys(self) -> Mapping[str, GetMany]:
        cache = self._cache

        async def many(keys: Any) -> Any:
            return await cache.get_many(*keys)

        return {"": many}

    def loads(self) -> Mapping[str, Load]:
        @self._cache(ttl=TTL, key="user:{number}:{team}", tags=["users", "team:{team}"])
        async def decorated(number: int, team: int) -> Any:
            return VALUE

        return {"decorator": lambda number: decorated(number, TEAM)}

    def locals(self) -> Mapping[str, Get]:
        return {
            "memory": self._memory.get,  # the very object, for all who ask
            "memory, pickled": self._apart.get,  # each gets one of their own, as of the others
            "client side": self._near.get,
        }

    async def fill_locals(self, key: str) -> None:
        """What `locals` get."""
        for cache in (self._memory, self._apart, self._near):
            await cache.set(key, VALUE, expire=TTL)
