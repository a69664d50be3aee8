"""The names of everything that a queue has on the server. They are made here and nowhere else.

All keys of a queue have the hash tag `{queue}`, so they live in one slot, and every script is given all of them in one
order: that of `PARTS`, which `scripts/common.lua` repeats with the meaning of each.
"""

from __future__ import annotations

import re
from typing import Final

from gravito import errors

__all__ = ["PARTS", "Keys", "check_id", "check_queue"]

PARTS: Final = (
    *("jobs", "ready:0", "ready:1", "ready:2", "ready:3", "delayed", "leases", "active", "tries", "results"),
    *(
        "done",
        "dead",
        "notes",
        "fair",
        "vt",
        "routes",
        "limits",
        "parked",
        "spots",
        "unique",
        "cancels",
        "gone",
    ),
    *("waiting", "wake", "steps", "producers", "outbox", "conf", "totals", "claims", "causes"),
)

_QUEUE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Keys:
    """Names of one queue's keys and channels.

    Args:
        queue: the queue's name.
        prefix: what all keys begin with.
        outer: the connection's own `key_prefix`; it is put before keys by the client, but not before channels.
    """

    def __init__(self, queue: str, prefix: str = "horizon", outer: str | None = None) -> None:
        self.queue = check_queue(queue)
        self.base = f"{prefix}:{{{queue}}}:"
        self.channels = f"{outer or ''}{self.base}"  # what channels begin with
        self.all = tuple(self.base + part for part in PARTS)  # KEYS of every script
        self.wake = self.base + "wake"
        self.results = self.base + "results"
        self.known = f"{prefix}:queues"  # the names of all queues
        self.events = self.channels + "ev"
        self.control = self.channels + "ctl"

    def __repr__(self) -> str:
        return f"<Keys {self.base}>"

    def part(self, name: str) -> str:
        """A key by the name of its part."""
        return self.base + name

    def minute(self, minute: int) -> str:
        """The counters of one minute since the epoch, by the server's clock."""
        return f"{self.base}m:{minute}"

    @property
    def counts(self) -> tuple[str, str, str]:
        """What was counted up to the last closed minute: sums by job, records of minutes, and of hours."""
        return self.part("sums"), self.part("minutes"), self.part("hours")

    def answers(self, client: str) -> str:
        """The channel on which a client hears of finished jobs that it waits for."""
        return f"{self.channels}r:{client}"


def check_queue(name: object) -> str:
    """The queue's name, if it is one.

    Raises:
        ConfigurationError: with what is allowed.
    """
    if isinstance(name, str) and _QUEUE.fullmatch(name):
        return name
    allowed = "1 to 100 of the characters A-Z a-z 0-9 _ . : -"
    raise errors.ConfigurationError(
        f"{name!r} is no name for a queue; allowed: {allowed}", field="queue", value=name, allowed=allowed
    )


def check_id(job_id: object) -> str:
    """The job's id, if it is one.

    Raises:
        PayloadError: with what is allowed.
    """
    if isinstance(job_id, str) and _QUEUE.fullmatch(job_id):
        return job_id
    raise errors.PayloadError(f"{job_id!r} is no id for a job; allowed: 1 to 100 of A-Z a-z 0-9 _ . : -")
