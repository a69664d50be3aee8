"""What monitoring sees of a cache: Prometheus and OpenTelemetry, and never a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.recorder import Recorder
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, cached
from gravito.stasis.prometheus import CacheCollector
from gravito.stasis.telemetry import instrument, uninstrument

SECRET = "canary-77ab"


@pytest.fixture
async def cache(redis: Client) -> AsyncIterator[Cache]:
    async with Cache(connection=redis) as cache:
        yield cache


async def work(cache: Cache) -> None:
    """Two runs, one hit, one plain read, one flush, one key forgotten."""

    @cached(60, "user:{name}", ["team:{name}"], cache=cache)
    async def load(name: str) -> str:
        return name

    await load(SECRET)
    await load(SECRET)
    await load("other")
    await cache.get(f"plain:{SECRET}")
    await cache.forget(f"plain:{SECRET}")
    await cache.tags(f"team:{SECRET}").flush()


class TestPrometheus:
    async def test_counters_by_template(self, cache: Cache) -> None:
        registry = CollectorRegistry()
        registry.register(CacheCollector(cache))
        await work(cache)
        user = {"cache": "cache", "store": "redis", "template": "user:{name}"}

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        assert value("gravito_cache_requests_total", **user, outcome="hit") == 1
        assert value("gravito_cache_requests_total", **user, outcome="miss") == 2
        assert value("gravito_cache_requests_total", **user, outcome="stale") == 0
        assert value("gravito_cache_factory_runs_total", **user) == 2
        assert value("gravito_cache_factory_seconds_total", **user) is not None
        assert value("gravito_cache_writes_total", **user) == 2
        plain = {**user, "template": "plain"}
        assert value("gravito_cache_requests_total", **plain, outcome="miss") == 1
        assert value("gravito_cache_forgets_total", **plain) == 1
        assert value("gravito_cache_flushes_total", **{**user, "template": "team"}) == 1
        assert value("gravito_cache_breaker_open", cache="cache", store="redis") == 0
        assert SECRET not in generate_latest(registry).decode()

    async def test_labels_are_bounded(self) -> None:
        cache = Cache("memory")
        for number in range(1000):
            await cache.get(f"{number}")
        registry = CollectorRegistry()
        registry.register(CacheCollector(cache))
        lines = generate_latest(registry).decode().splitlines()
        assert 200 < sum(line.startswith("gravito_cache_writes_total{") for line in lines) < 300

    async def test_the_breaker(self) -> None:
        cache = Cache(connection=Client.from_url("redis://127.0.0.1:1"))
        await cache.get("k")
        registry = CollectorRegistry()
        registry.register(CacheCollector(cache, Cache("memory", prefix="other")))
        assert (
            registry.get_sample_value("gravito_cache_breaker_open", {"cache": "cache", "store": "redis"}) == 1
        )
        assert (
            registry.get_sample_value("gravito_cache_breaker_open", {"cache": "other", "store": "memory"})
            == 0
        )

    def test_what_is_no_cache(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="CacheCollector was given a str"):
            CacheCollector("redis")  # type: ignore[arg-type]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


class TestOpenTelemetry:
    async def test_metrics(self, cache: Cache, recorder: Recorder) -> None:
        instrument(cache, recorder.tracers, recorder.meters)
        await work(cache)
        points = recorder.metrics()
        found = {
            (
                point.attributes["gravito.cache.template"],
                point.attributes["gravito.cache.outcome"],
            ): point.value
            for point in points["gravito.cache.requests"]
        }
        assert (found["user:{name}", "hit"], found["user:{name}", "miss"], found["plain", "miss"]) == (
            1,
            2,
            1,
        )
        assert set(points) == {
            f"gravito.cache.{name}"
            for name in ("requests", "writes", "forgets", "flushes", "errors", "factory.runs", "factory.time")
        }
        assert SECRET not in repr(points)

    async def test_spans(self, cache: Cache, recorder: Recorder) -> None:
        instrument(cache, recorder.tracers, recorder.meters)
        with recorder.tracers.get_tracer("test").start_as_current_span("request"):
            await work(cache)
        *computed, request = recorder.exporter.get_finished_spans()
        assert [span.name for span in computed] == ["cache compute"] * 2
        assert all(
            span.parent is not None and span.parent.span_id == request.context.span_id for span in computed
        )
        assert dict(computed[0].attributes or {}) == {
            "gravito.cache.prefix": "cache",
            "gravito.cache.store": "redis",
            "gravito.cache.template": "user:{name}",
        }
        events = [event.name for event in request.events]
        assert events == [f"cache.{kind}" for kind in ("miss", "hit", "miss", "miss", "forget", "flush")]
        assert SECRET not in "".join(span.to_json() for span in (*computed, request))

    async def test_a_span_takes_as_long_as_the_factory(self, cache: Cache, recorder: Recorder) -> None:
        instrument(cache, recorder.tracers, recorder.meters)
        await cache.remember("k", 60, lambda: asyncio.sleep(0.05, 1))
        await until(recorder.exporter.get_finished_spans)
        (span,) = recorder.exporter.get_finished_spans()
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time - span.start_time >= 45_000_000

    async def test_errors_have_their_class(self, recorder: Recorder) -> None:
        cache = Cache(connection=Client.from_url("redis://127.0.0.1:1"))
        instrument(cache, recorder.tracers, recorder.meters)
        with recorder.tracers.get_tracer("test").start_as_current_span("request"):
            await cache.get("k")
        (span,) = recorder.exporter.get_finished_spans()
        errors_ = [event.attributes for event in span.events if event.name == "cache.error"]
        assert errors_[0] is not None
        assert errors_[0]["error.type"] == "gravito.errors.RefusedError"

    async def test_again_and_never_more(self, cache: Cache, recorder: Recorder) -> None:
        instrument(cache, recorder.tracers, recorder.meters)
        instrument(cache, recorder.tracers, recorder.meters)
        await work(cache)
        assert len(recorder.exporter.get_finished_spans()) == 2
        uninstrument(cache)
        recorder.exporter.clear()
        await work(cache)
        assert recorder.exporter.get_finished_spans() == ()
        assert cache._core.events.hit == ()
        with pytest.raises(errors.ConfigurationError, match="instrument was given a str"):
            instrument("redis")  # type: ignore[arg-type]


async def test_decorated_functions_alone_are_reported_too(redis: Client) -> None:
    """Their counters are found by template, which is another way in than by key."""
    cache = Cache(connection=redis)
    cache._core.tallies._interval = 0.01

    @cached(60, "user:{name}", cache=cache)
    async def load(name: str) -> str:
        return name

    await load("a")
    async with asyncio.timeout(10):
        while not await redis.hexists("cache:s", "user:{name}|runs"):  # noqa: ASYNC110  # the report has no event
            await asyncio.sleep(0.01)
    await cache.aclose()
