"""The queues as live pages see them: however many there are, a look asks for a few of them, in turns.

What all open pages together may cost is a share of what the server does anyhow: one that is busy is asked more often, an
idle one about once a second. Queues in which something happens have their turn more often than those that rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gravito.horizon._figures import Figures
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon._periods import Counted
from gravito.horizon._statistics import hour_of
from gravito.horizon.repository import Metrics, QueueRow, Repository

__all__ = ["Rotation"]

SHARE: Final = 0.005  # of the server's commands
COST: Final = 16  # commands that a queue's row takes, at most
_OLD: Final = 60.0  # seconds without a look after which nothing of what was read before is shown
_HOT: Final = 20.0  # rows in which something happened age so many times faster


class Rotation:
    """Remembers what it has read, and goes on with the queues that were read longest ago.

    Args:
        repository: what is read.
        clock: seconds.
    """

    def __init__(self, repository: Repository, clock: Callable[[], float] = time.monotonic) -> None:
        self._repository = repository
        self._clock = clock
        self._looked = 0.0  # when the latest look began
        self._rows: dict[str, tuple[float, QueueRow]] = {}  # by name: when it was read
        self._hot: set[str] = set()  # names of those that were found changed
        # By name: what was counted in the last hour, and the queue's totals when that was read.
        self._counted: dict[str, tuple[Counted, dict[str, int]]] = {}

    def __repr__(self) -> str:
        return f"<Rotation of {len(self._rows)} queues>"

    def forget(self) -> None:
        """Have the next look ask for all."""
        self._rows = {}

    async def look(self, workers: Sequence[WorkerRecord], commands: float = 0.0) -> list[QueueRow]:
        """All queues, by name; the first look, and one after a while, asks for all of them.

        Args:
            workers: all of them.
            commands: that the server executes in a second.
        """
        names, now = await self._repository.names(), self._clock()
        since, self._looked = now - self._looked, now
        known = {} if since > _OLD else {name: self._rows[name] for name in names if name in self._rows}
        unknown = [name for name in names if name not in known]
        most = max(1, int(min(since, 10.0) * commands * SHARE / COST)) - len(unknown)
        turn = sorted(known, key=lambda name: (known[name][0] - now) * (_HOT if name in self._hot else 1.0))
        self._take(known, now, await self._repository.queues(workers, unknown + turn[: max(0, most)]))
        self._rows = {name: known[name] for name in names if name in known}
        return [row for _, row in self._rows.values()]

    def _take(self, known: dict[str, tuple[float, QueueRow]], now: float, rows: Iterable[QueueRow]) -> None:
        for row in rows:
            before = known.get(row.name)
            if before is not None and before[1].sizes != row.sizes:
                self._hot.add(row.name)
            else:
                self._hot.discard(row.name)
            known[row.name] = (now, row)

    async def hour(self) -> tuple[Metrics, dict[str, Figures]]:
        """The last hour of all queues, and the last minute of each; asks for those in which jobs have ended since."""
        names, statistics = list(self._rows), self._repository.statistics
        totals = {name: row.sizes.totals for name, (_, row) in self._rows.items()}
        stale = [
            name for name in names if name not in self._counted or self._counted[name][1] != totals[name]
        ]
        span = await statistics.span("1h")
        found = await statistics.counted(span, stale)
        fresh = {name: (part, totals[name]) for name, part in zip(stale, found, strict=True)}
        self._counted = {name: fresh.get(name) or self._counted[name] for name in names}
        return hour_of(span, {name: part for name, (part, _) in self._counted.items()})
