"""The queues as live pages see them: however many there are, a look asks for a few, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon.repository import QueueRow, Repository

__all__ = ["Rotation"]

AT_ONCE: Final = 8  # queues that one look asks for
_OLD: Final = 30.0  # seconds after which nothing of what was read before is shown


class Rotation:
    """Remembers what it has read, and reads on with the queues that were read longest ago.

    Args:
        repository: what is read.
        at_once: queues that one look asks for.
        clock: seconds.
    """

    def __init__(
        self, repository: Repository, at_once: int = AT_ONCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._repository = repository
        self._at_once = at_once
        self._clock = clock
        self._rows: dict[str, tuple[float, QueueRow]] = {}  # by name: when it was read

    def __repr__(self) -> str:
        return f"<Rotation of {len(self._rows)} queues>"

    def forget(self) -> None:
        """Have the next look ask for all."""
        self._rows = {}

    async def look(self, workers: Sequence[WorkerRecord]) -> list[QueueRow]:
        """All queues, by name; the first look, and one after a while, asks for all of them."""
        names, now = await self._repository.names(), self._clock()
        known = {name: row for name, row in self._rows.items() if now - row[0] < _OLD}
        unknown = [name for name in names if name not in known]
        turn = sorted((name for name in names if name in known), key=lambda name: known[name][0])
        wanted = unknown + turn[: max(0, self._at_once - len(unknown))]
        rows = await asyncio.gather(*[self._repository.queue(name, workers) for name in wanted])
        known.update((row.name, (now, row)) for row in rows)
        self._rows = {name: known[name] for name in names}
        return [known[name][1] for name in names]
