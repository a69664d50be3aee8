"""A client on a scripted peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gravito.atlas.client import Client
from gravito.testing import ScriptedPeer


@pytest.fixture
async def scripted() -> AsyncIterator[Callable[..., Awaitable[tuple[ScriptedPeer, Client]]]]:
    """Make peers and clients; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            script: Callable[[list[bytes]], Any] | Iterable[Any] = (),
            *,
            pieces: int | None = None,
            **options: Any,
        ) -> tuple[ScriptedPeer, Client]:
            peer = await stack.enter_async_context(ScriptedPeer(script, pieces=pieces))
            options = {"health_check": 0, **options}
            options["timeouts"] = {"drain": 0, **options.get("timeouts", {})}
            client = await stack.enter_async_context(Client.from_url(peer.url, **options))
            return peer, client

        yield make
