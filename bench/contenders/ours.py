"""Gravito: one shared wire for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from bench.contenders.base import Command, Receive
from bench.feed import Feed
from gravito.atlas.client import Client as Gravito


class Client:
    """Our client as `Client.from_url` makes it."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._client = Gravito.from_url(f"redis://{host}:{port}/0")
        stack.push_async_callback(self._client.aclose)
        await self._client.ping()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        return list(await pipe.execute())

    def receivers(self) -> Mapping[str, Receive]:
        return {"callback": self._by_callback}

    async def _by_callback(self, channel: str, feed: Feed) -> None:
        subscription = await self._client.subscribe(channel, feed.arrived)
        feed.open()
        await feed.finished
        await subscription.unsubscribe()


class Cluster(Client):
    """Our client of a cluster: one wire per node."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._client = Gravito.from_url(f"redis+cluster://{host}:{port}")
        stack.push_async_callback(self._client.aclose)
        await self._client.ping()
        self.get = self._client.get
        self.set = self._client.set

    async def pipeline_mixed(self, commands: Sequence[Command]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for key, value in commands:
            if value is None:
                pipe.get(key)
            else:
                pipe.set(key, value)
        return list(await pipe.execute())
