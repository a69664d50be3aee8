"""What monitoring shows of a cache: the counters of its templates, under names that all of it shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gravito import errors
from gravito.stasis._stats import Counts
from gravito.stasis.cache import Cache

__all__ = ["MEASURES", "Measure", "check_cache", "counted"]


class Measure(NamedTuple):
    """A counter; its name in dots, as OpenTelemetry's are."""

    name: str
    unit: str
    about: str


REQUESTS: Final = Measure("gravito.cache.requests", "{request}", "Reads of the cache, by what they found.")
RUN_TIME: Final = Measure("gravito.cache.factory.time", "s", "Time that factories took together.")
_PLAIN: Final = {
    "writes": Measure("gravito.cache.writes", "{write}", "Values written."),
    "forgets": Measure("gravito.cache.forgets", "{key}", "Keys forgotten."),
    "flushes": Measure("gravito.cache.flushes", "{flush}", "Tags flushed, and caches cleared."),
    "errors": Measure("gravito.cache.errors", "{error}", "Errors of the store, of values and of factories."),
    "runs": Measure("gravito.cache.factory.runs", "{run}", "Runs of factories."),
}
MEASURES: Final = (REQUESTS, *_PLAIN.values(), RUN_TIME)


def counted(counts: Counts) -> Iterator[tuple[Measure, dict[str, str], float]]:
    """What one template has counted: measures with their further labels."""
    yield REQUESTS, {"outcome": "hit"}, counts.hits - counts.stales
    yield REQUESTS, {"outcome": "stale"}, counts.stales
    yield REQUESTS, {"outcome": "miss"}, counts.misses
    for field, measure in _PLAIN.items():
        yield measure, {}, getattr(counts, field)
    yield RUN_TIME, {}, counts.run_ms / 1000


def check_cache(cache: object, who: str) -> Cache:
    """The cache itself.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(cache, Cache):
        raise errors.ConfigurationError(
            f"{who} was given a {type(cache).__name__}; allowed: a Cache", field="cache"
        )
    return cache
