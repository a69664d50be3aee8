"""How a worker works, and how its runs ended. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from gravito.errors import ConfigurationError

__all__ = ["Tally", "WorkerOptions"]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works.

    Args:
        queues: names, the first one goes first.
        concurrency: jobs that run at the same time.
        grace: seconds that running jobs get when the worker is told to stop; then they are cancelled and go back to
            their queue, and the attempt is not charged.
        burst: end when nothing is ready or running; what is delayed, retries too, stays for later. For tests and cron.
        max_jobs: end after so many jobs, to be replaced by a fresh process; None: never.
        max_memory: MiB of resident memory after which it ends likewise; None: never.
        stall: seconds for which a job may block the event loop before it is named in the log.
        stall_patience: seconds for which leases are kept in such a stall.
    """

    queues: tuple[str, ...] = ("default",)
    concurrency: int = 100
    grace: float = 30.0
    burst: bool = False
    max_jobs: int | None = None
    max_memory: int | None = None
    stall: float = 1.0
    stall_patience: float = 60.0

    def __post_init__(self) -> None:
        if not self.queues or not isinstance(self.queues, (tuple, list)):
            raise _wrong("queues", self.queues, "one name or more")
        for name, least in (("concurrency", 1), ("grace", 0), ("max_jobs", 1), ("max_memory", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise _wrong(name, value, f"{least} or more")


@dataclass(slots=True)
class Tally:
    """How the runs of a worker ended."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    released: int = 0
    cancelled: int = 0
    refused: int = 0  # completions that came after the lease was gone

    @property
    def runs(self) -> int:
        """All of them."""
        return self.done + self.retried + self.dead + self.released + self.cancelled


def _wrong(field: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"worker: {field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed
    )
