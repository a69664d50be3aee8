"""redis-py's asyncio client, with a pool of 50 that waits for a free connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import redis.asyncio

from bench.contenders.base import Command, Receive
from bench.feed import Feed

POOL = 50  # connections
CLUSTER_CONNECTIONS = 500  # of each node, as many as the largest row has tasks
PATIENCE = 60  # seconds that a task may wait for a connection


class Client:
    """Text replies; redis-py parses with hiredis by itself where that is installed."""

    _client: Any

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        pool = redis.asyncio.BlockingConnectionPool(
            host=host, port=port, max_connections=POOL, timeout=PATIENCE, decode_responses=True
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        stack.push_async_callback(self._client.aclose)
        await self._client.ping()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            return list(await pipe.execute())

    def receivers(self) -> Mapping[str, Receive]:
        return {"listen": self._by_listening, "handler": self._by_handler}

    async def _by_listening(self, channel: str, feed: Feed) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            async for message in pubsub.listen():
                if message["type"] == "subscribe":
                    feed.open()
                    continue
                feed.arrived(message["data"])
                if feed.finished.done():
                    return

    async def _by_handler(self, channel: str, feed: Feed) -> None:
        def handler(message: dict[str, Any]) -> None:
            feed.arrived(message["data"])

        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(**{channel: handler})
            await pubsub.get_message(timeout=PATIENCE)  # the confirmation
            feed.open()
            while not feed.finished.done():
                await pubsub.get_message(timeout=PATIENCE)


class Cluster(Client):
    """Its client of a cluster, which raises where a connection is not free: one for each task is allowed."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._client = redis.asyncio.RedisCluster(
            host=host,
            port=port,
            max_connections=CLUSTER_CONNECTIONS,
            socket_timeout=PATIENCE,
            decode_responses=True,
        )
        stack.push_async_callback(self._client.aclose)
        await self._client.initialize()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_mixed(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key, value in commands:
                if value is None:
                    pipe.get(key)
                else:
                    pipe.set(key, value)
            return list(await pipe.execute())
