"""Standing in line: of a process's tasks that wait for the same lock or limit, only the first asks the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from gravito.atlas import Client

__all__ = ["Crowd", "crowd_of"]


class _Place:
    """One line."""

    def __init__(self) -> None:
        self.users = 0  # who stands in it, the first included
        self.turn = asyncio.Lock()  # serves first in, first out; held by the first


class Crowd:
    """Those that wait, of one connection in one loop."""

    def __init__(self) -> None:
        self.blocked = 0  # leased wires that are kept busy by waiting
        self._places: dict[str, _Place] = {}  # by what is waited for; gone with the last one

    def __repr__(self) -> str:
        return f"<Crowd in {len(self._places)} lines, {self.blocked} blocked>"

    @asynccontextmanager
    async def turn(self, name: str, deadline: float | None) -> AsyncIterator[None]:
        """The block runs as the first in line, and the next one's turn comes after it.

        Args:
            name: what is waited for.
            deadline: by the loop's clock; None waits for ever.

        Raises:
            TimeoutError: the built-in one; the turn did not come in time.
        """
        place = self._places.setdefault(name, _Place())
        place.users += 1
        try:
            async with asyncio.timeout_at(deadline):
                await place.turn.acquire()
            try:
                yield
            finally:
                place.turn.release()
        finally:
            place.users -= 1
            if not place.users:
                del self._places[name]


# Lines are of one loop, and end with it.
_crowds: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, Crowd]] = WeakKeyDictionary()


def crowd_of(client: Client) -> Crowd:
    """The crowd of this client's connection in the running loop; views of one client have one in common."""
    crowds = _crowds.setdefault(asyncio.get_running_loop(), {})
    return crowds.setdefault(id(client.settings), Crowd())
