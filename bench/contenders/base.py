"""What the benchmark asks of a contender."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from bench.feed import Feed

Receive = Callable[[str, Feed], Awaitable[None]]


class Contender(Protocol):
    """A connected client. All answer text, and `get` and `set` are the client's own methods where that is possible."""

    get: Callable[[str], Awaitable[Any]]
    set: Callable[[str, str], Awaitable[Any]]

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        """Connect, and leave the closing to the stack."""

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        """One GET per key in one pipeline without a transaction."""

    def receivers(self) -> Mapping[str, Receive]:
        """The ways to receive messages, by a short name; none where it is not measured.

        Each subscribes to the channel, opens the feed, and returns when the feed is finished.
        """
