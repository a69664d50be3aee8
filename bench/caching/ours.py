"""Gravito's cache, as `Cache()` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from bench.caching.base import TEAM, TTL, VALUE, Get, GetMany, Load, Put
from gravito.atlas.client import Client
from gravito.stasis import Cache, cached


class Contender:
    """On the server, and tiered for the row of the local tier."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        client = Client.from_url(f"redis://{host}:{port}/0")
        stack.push_async_callback(client.aclose)
        self._cache = Cache(connection=client, prefix="bench")
        self._tiered = Cache("tiered", connection=client, prefix="tiered")
        for cache in (self._cache, self._tiered):
            stack.push_async_callback(cache.aclose)
        await self._cache.has("nothing")

    def gets(self) -> Mapping[str, Get]:
        return {"": self._cache.get}

    def puts(self) -> Mapping[str, Put]:
        cache = self._cache

        async def put(key: str, value: Any) -> None:
            await cache.put(key, value, TTL)

        return {"": put}

    def manys(self) -> Mapping[str, GetMany]:
        return {"": self._cache.many}

    def loads(self) -> Mapping[str, Load]:
        cache = self._cache

        async def compute() -> Any:
            return VALUE

        async def remembered(number: int) -> Any:
            return await cache.tags("users", f"team:{TEAM}").remember(f"member:{number}", TTL, compute)

        @cached(TTL, key="user:{number}:{team}", tags=["users", "team:{team}"], cache=cache)
        async def decorated(number: int, team: int) -> Any:
            return VALUE

        return {"remember": remembered, "@cached": lambda number: decorated(number, TEAM)}

    def locals(self) -> Mapping[str, Get]:
        tiered = self._tiered
        return {"": tiered.get}

    async def fill_locals(self, key: str) -> None:
        """What `locals` get."""
        await self._tiered.put(key, VALUE, TTL)
