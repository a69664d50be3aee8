"""Both clients of the same server, made and closed alike."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio

from gravito.atlas.client import Client


@contextlib.asynccontextmanager
async def redis_py(path: str, **options: Any) -> AsyncIterator[Any]:
    """The client whose replies are the measure."""
    async with redis.asyncio.Redis(unix_socket_path=path, **options) as client:
        yield client


@contextlib.asynccontextmanager
async def atlas(path: str, **options: Any) -> AsyncIterator[Any]:
    """Ours."""
    async with Client.from_url(f"unix://{path}", **options) as client:
        yield client
