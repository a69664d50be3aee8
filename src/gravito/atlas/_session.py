"""A session: commands on one leased wire, one after the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self

from gravito import errors
from gravito.atlas._base import BaseClient
from gravito.atlas.wire import commands, resp
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, Spec

if TYPE_CHECKING:
    from gravito.atlas.client import Client


class Session(BaseClient):
    """Commands that need one connection among them: SELECT, MULTI by hand, WAIT after one's own writes.

    Example: `async with redis.client() as session: await session.select(3)`. The wire is closed at the end,
    since its state may have been changed.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._specs = client._specs
        self._text = client._text
        self._wire: Wire | None = None  # leased at the first command
        self._turn = asyncio.Lock()  # commands of several tasks go one after the other
        if self._specs.prefix is not None:
            self._send = self._specs.prefix.over(self._send)  # type: ignore[method-assign]  # a plain one pays nothing

    def __repr__(self) -> str:
        return f"<Session {'open' if self._wire else 'not open'} on {self._client!r}>"

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        return self._run(spec, args, options, text)

    async def _run(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        packed = resp.encode(args)
        rest = args[len(spec.words) :]
        async with self._turn:
            if self._wire is None:
                self._wire = await self._lease()
            elif self._wire.ended is not None:  # a new wire would silently lack SELECT, WATCH or MULTI
                raise errors.ConnectionLostError(
                    f"the session's connection is gone, and its state with it; make a new session ({self._wire.ended})"
                ).about(command=spec.name, node=self._wire.address)
            hold = commands.blocking_timeout(spec.name, rest)
            command, longest = self._client.settings.timeouts.command, max(hold, self._client._patience)
            self._wire.reset_timeout(None if command is None or longest == math.inf else command + longest)
            entry = Entry(asyncio.get_running_loop().create_future(), packed, spec, options, text)
            self._client._limit(entry)
            self._wire.send(entry)
            try:
                return await entry.future
            except asyncio.CancelledError:
                if hold:  # the server would go on waiting, and what it then gives would be lost
                    self._wire.close()
                raise

    async def _lease(self) -> Wire:
        return await self._client._state().topology.pool.acquire()

    async def initialize(self) -> Self:
        """redis-py's name for getting ready; the wire is leased at the first command."""
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.initialize().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the wire back."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._client._state().topology.pool.release(wire, clean=False)

    @property
    def connection_pool(self) -> Any:
        """The client's."""
        return self._client.connection_pool

    def get_encoder(self) -> Any:
        """The client's encoder."""
        return self._client.get_encoder()
