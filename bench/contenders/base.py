"""What the benchmark asks of a contender."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from bench.feed import Feed

Command = tuple[str, str | None]  # a key, and the value that is set; None where it is read
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


class ClusterContender(Contender, Protocol):
    """A connected client of a cluster."""

    async def pipeline_mixed(self, commands: Sequence[Command]) -> list[Any]:
        """A GET or a SET of each key in one pipeline without a transaction, on whichever nodes the keys are."""
