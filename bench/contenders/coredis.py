"""coredis as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import coredis

from bench.contenders.base import Command, Receive


class Client:
    """Text replies, the pool it makes by itself."""

    _client: Any

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._client = await stack.enter_async_context(
            coredis.Redis(host=host, port=port, decode_responses=True)
        )
        await self._client.ping()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            replies = [pipe.get(key) for key in keys]
        return [await reply for reply in replies]

    def receivers(self) -> Mapping[str, Receive]:
        return {}


class Cluster(Client):
    """Its client of a cluster, with the pool it makes by itself."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._client = await stack.enter_async_context(
            coredis.RedisCluster(host=host, port=port, decode_responses=True)
        )
        await self._client.ping()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_mixed(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            replies: list[Any] = [
                pipe.get(key) if value is None else pipe.set(key, value) for key, value in commands
            ]
        return [await reply for reply in replies]
