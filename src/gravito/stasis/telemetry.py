"""OpenTelemetry: metrics and spans of a cache. Extra `otel`.

A cache that is not instrumented pays nothing. Neither keys nor tags go into spans or metrics: what they show is the
template, which `@cached` or `template=` named, else a key's part in front of the first colon; of these there are at most
some 250.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider
except ImportError as missing:
    raise ImportError(
        "gravito.stasis.telemetry needs the package opentelemetry-api: pip install 'gravito[otel]'",
        name=missing.name,
    ) from missing

from gravito import __version__
from gravito.stasis._core import Core
from gravito.stasis._events import KINDS, Event
from gravito.stasis._measures import MEASURES, Measure, check_cache, counted
from gravito.stasis.cache import Cache

__all__ = ["instrument", "uninstrument"]

_TEMPLATE: Final = "gravito.cache.template"
_STORE: Final = "gravito.cache.store"
_PREFIX: Final = "gravito.cache.prefix"

_endings: weakref.WeakKeyDictionary[Core, list[Callable[[], None]]] = weakref.WeakKeyDictionary()


def instrument(
    cache: Cache, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Let a cache tell what it does; its namespaces and views with tags tell, too.

    Metrics are its counters, read at each export. A span "cache compute" covers each run of a factory whose value was
    stored. Everything else is an event on the span that is current where it happens: `cache.hit`, `cache.miss`,
    `cache.stale`, `cache.forget`, `cache.flush`, `cache.error`. Instrumenting it again replaces the providers.

    Args:
        cache: the cache; it must not be a namespace of another one.
        tracer_provider: OpenTelemetry's global one if None.
        meter_provider: OpenTelemetry's global one if None.

    Raises:
        ConfigurationError: something else than a cache.
    """
    core = check_cache(cache, "instrument")._core
    uninstrument(cache)
    tracer = trace.get_tracer("gravito.stasis", __version__, tracer_provider)
    common = {_PREFIX: core.scope.prefix, _STORE: core.name}
    observer = _Observer(tracer, common)
    endings = [cache.on(kind, observer.tell) for kind in KINDS]
    cores = _meters_of(meter_provider).cores
    cores.add(core)
    _endings[core] = [*endings, lambda: cores.discard(core)]


def uninstrument(cache: Cache) -> None:
    """Undo `instrument`."""
    for end in _endings.pop(check_cache(cache, "uninstrument")._core, ()):
        end()


class _Observer:
    """Makes spans, and events on spans, of a cache's events."""

    def __init__(self, tracer: trace.Tracer, common: dict[str, str]) -> None:
        self._tracer = tracer
        self._common = common

    def tell(self, event: Event) -> None:
        attributes: dict[str, Any] = dict(self._common)
        if event.template is not None:
            attributes[_TEMPLATE] = event.template
        if event.error is not None:
            kind = type(event.error)
            attributes["error.type"] = f"{kind.__module__}.{kind.__qualname__}"
        if event.kind == "write" and event.seconds is not None:
            now = time.time_ns()
            began = now - int(event.seconds * 1_000_000_000)
            self._tracer.start_span("cache compute", start_time=began, attributes=attributes).end(now)
            return
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(f"cache.{event.kind}", attributes)


class _Meters:
    """The instruments of one meter provider; each exists once, whatever the number of caches."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.cores: weakref.WeakSet[Core] = weakref.WeakSet()
        meter = metrics.get_meter("gravito.stasis", __version__, provider)
        self._observables = [
            meter.create_observable_counter(
                measure.name, [self._reading(measure)], unit=measure.unit, description=measure.about
            )
            for measure in MEASURES
        ]

    def _reading(self, measure: Measure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            for core in list(self.cores):
                stats = core.tallies.stats(core.name, core.guard.open)
                common = {_PREFIX: core.scope.prefix, _STORE: core.name}
                for template, counts in stats.templates.items():
                    for each, more, value in counted(counts):
                        if each is measure:
                            labels = {f"gravito.cache.{name}": label for name, label in more.items()}
                            yield Observation(value, {**common, _TEMPLATE: template, **labels})

        return read


_meters: dict[MeterProvider | None, _Meters] = {}  # None: OpenTelemetry's global one, which may be set later


def _meters_of(provider: MeterProvider | None) -> _Meters:
    if provider not in _meters:
        _meters[provider] = _Meters(provider)
    return _meters[provider]
