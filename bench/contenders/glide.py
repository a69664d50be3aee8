"""valkey-glide, the client with a Rust core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import glide

from bench.contenders.base import Command, Receive

REQUEST_TIMEOUT = 10_000  # milliseconds; the default of 250 would end a run on a busy machine


class Client:
    """It answers bytes only, so the text that all others answer is decoded here."""

    _client: Any

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        config = glide.GlideClientConfiguration(
            [glide.NodeAddress(host, port)],
            request_timeout=REQUEST_TIMEOUT,
            inflight_requests_limit=1_000_000,
        )
        self._client = await glide.GlideClient.create(config)
        stack.push_async_callback(self._client.close)
        self.set = self._client.set

    async def get(self, key: str) -> str | None:
        reply = await self._client.get(key)
        return None if reply is None else reply.decode()

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        batch = glide.Batch(is_atomic=False)
        for key in keys:
            batch.get(key)
        replies = await self._client.exec(batch, raise_on_error=True)
        return [reply.decode() for reply in replies or ()]

    def receivers(self) -> Mapping[str, Receive]:
        return {}


class Cluster(Client):
    """Its client of a cluster; the core splits a batch over the nodes."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        config = glide.GlideClusterClientConfiguration(
            [glide.NodeAddress(host, port)],
            request_timeout=REQUEST_TIMEOUT,
            inflight_requests_limit=1_000_000,
        )
        self._client = await glide.GlideClusterClient.create(config)
        stack.push_async_callback(self._client.close)
        self.set = self._client.set

    async def pipeline_mixed(self, commands: Sequence[Command]) -> list[Any]:
        batch = glide.ClusterBatch(is_atomic=False)
        for key, value in commands:
            if value is None:
                batch.get(key)
            else:
                batch.set(key, value)
        replies = await self._client.exec(batch, raise_on_error=True)
        return [reply.decode() if isinstance(reply, bytes) else reply for reply in replies or ()]
