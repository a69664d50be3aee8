"""Counters of a cache for Prometheus. Extra `prometheus`.

::

    from prometheus_client import REGISTRY

    REGISTRY.register(CacheCollector(cache))

They are read when Prometheus asks and cost nothing in between. Labels are `cache` (its prefix), `store`, and `template`:
what `@cached` or `template=` named, else a key's part in front of the first colon; of these there are at most some 250.
No key and no tag is ever shown.
"""

from __future__ import annotations

from collections.abc import Iterable

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        "gravito.stasis.prometheus needs the package prometheus-client: pip install 'gravito[prometheus]'",
        name=missing.name,
    ) from missing

from gravito.stasis._measures import MEASURES, REQUESTS, Measure, check_cache, counted
from gravito.stasis.cache import Cache

__all__ = ["CacheCollector"]

_LABELS = ("cache", "store", "template")


class CacheCollector(Collector):
    """Shows what this process has counted.

    Args:
        *caches: each under a prefix of its own.

    Raises:
        ConfigurationError: something else than a cache.
    """

    def __init__(self, *caches: Cache) -> None:
        self._caches = tuple(check_cache(cache, "CacheCollector") for cache in caches)

    def __repr__(self) -> str:
        return f"<CacheCollector of {', '.join(map(repr, self._caches))}>"

    def describe(self) -> Iterable[Metric]:
        """What there will be; asked when it is registered."""
        yield from self._families().values()
        yield _breaker()

    def collect(self) -> Iterable[Metric]:
        """What there is now."""
        families, breaker = self._families(), _breaker()
        for cache in self._caches:
            stats, prefix = cache.stats(), cache._scope.prefix
            breaker.add_metric([prefix, stats.store], float(stats.breaker_open))
            for template, counts in stats.templates.items():
                for measure, more, value in counted(counts):
                    families[measure].add_metric([prefix, stats.store, template, *more.values()], value)
        yield from families.values()
        yield breaker

    @staticmethod
    def _families() -> dict[Measure, CounterMetricFamily]:
        return {
            measure: CounterMetricFamily(
                _name(measure),
                measure.about,
                labels=[*_LABELS, "outcome"] if measure is REQUESTS else _LABELS,
            )
            for measure in MEASURES
        }


def _name(measure: Measure) -> str:
    """As https://prometheus.io/docs/practices/naming/ has it: `gravito_cache_factory_seconds`, and `_total` behind it."""
    name = measure.name.replace(".", "_")
    return f"{name.removesuffix('_time')}_seconds" if measure.unit == "s" else name


def _breaker() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "gravito_cache_breaker_open", "1 while the store is taken for down.", labels=_LABELS[:2]
    )
