"""Stores of every kind, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gravito.atlas import Client
from gravito.stasis._redis import RedisStore
from gravito.stasis._tiered import TieredStore

STORES = ["memory", "redis", "tiered", "cluster", "tiered-cluster"]


@asynccontextmanager
async def opened(name: str, url: str, **options: Any) -> AsyncIterator[RedisStore]:
    """A store on the server at `url`, with a client of its own."""
    async with Client.from_url(url, **options) as client:
        yield TieredStore(client) if name.startswith("tiered") else RedisStore(client)


async def info_of_each(redis: Client, section: str) -> list[dict[str, Any]]:
    """What each server says of itself. https://redis.io/commands/info"""
    if redis.settings.driver != "cluster":
        return [await redis.info(section)]
    return list((await redis.execute_command("INFO", section, target_nodes="primaries")).values())


def url_of(client: Client) -> str:
    """Where a client's server is, for another client or another process."""
    settings = client.settings
    if settings.driver == "cluster":
        return "redis+cluster://" + ",".join(settings.nodes)
    return f"unix://{settings.path}"
