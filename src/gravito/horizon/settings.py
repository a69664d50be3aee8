"""How a Horizon keeps its queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gravito.errors import ConfigurationError
from gravito.horizon._broker import Retention
from gravito.horizon._keys import check_queue
from gravito.horizon.options import Concurrency, Rate

__all__ = ["HorizonSettings", "QueueLimits"]


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on all jobs of a queue together; they count beside those of the jobs themselves.

    Args:
        rate: `Rate`, without `by`.
        concurrency: `Concurrency`, without `by`: jobs that run at the same time, over all workers.
    """

    rate: Rate | None = None
    concurrency: Concurrency | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "concurrency"):
            limit, kind = getattr(self, name), Rate if name == "rate" else Concurrency
            good = limit is None or (isinstance(limit, kind) and limit.by is None)
            _check(name, limit, good, f"{kind.__name__}(...) without `by`, which belongs to a job")


class HorizonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a Horizon keeps its queues.

    Args:
        prefix: what all keys begin with.
        lease: seconds for which a claimed job is a worker's own without a renewal. A worker that dies is noticed so
            much later.
        keep: how many ended and dead jobs of a queue are kept, and for how long.
        allow_eviction: use a server that may evict jobs when its memory is full.
        limits: by queue. They travel with each job, so a change is for jobs that are pushed from then on.
        max_bytes: of a job's encoded arguments, of its result, and of its tags, metadata and context together.
        patience: seconds for which a push is repeated while the server is away.

    Raises:
        ConfigurationError: names the field and what is allowed.
    """

    prefix: str = "horizon"
    lease: float = 10.0
    keep: Retention = Retention()
    allow_eviction: bool = False
    limits: Mapping[str, QueueLimits] = {}
    max_bytes: int = 1024 * 1024
    patience: float = 30.0

    def __post_init__(self) -> None:
        good = isinstance(self.prefix, str) and self.prefix and not set(self.prefix) & set("{} ")
        _check("prefix", self.prefix, bool(good), "a text without braces and spaces")
        _check("lease", self.lease, _between(self.lease, 1, 3600), "seconds from 1 to 3600")
        _check("keep", self.keep, isinstance(self.keep, Retention), "Retention(...)")
        _check("allow_eviction", self.allow_eviction, isinstance(self.allow_eviction, bool), "True or False")
        _check("limits", self.limits, _are_limits(self.limits), "a dict of QueueLimits(...) by queue")
        good = isinstance(self.max_bytes, int) and _between(self.max_bytes, 1, 100 * 1024 * 1024)
        _check("max_bytes", self.max_bytes, good, "bytes, up to 100 MiB")
        _check("patience", self.patience, _between(self.patience, 0, 3600), "seconds from 0 to 3600")


def _between(value: Any, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _are_limits(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    for queue in value:
        check_queue(queue)
    return all(isinstance(limits, QueueLimits) for limits in value.values())


def _check(name: str, value: Any, good: bool, allowed: str) -> None:
    if not good:
        message = f"{name} is {value!r}; allowed: {allowed}"
        raise ConfigurationError(message, field=name, value=value, allowed=allowed)
