"""OpenTelemetry: spans and metrics of a client, by the conventions for database clients. Extra `otel`.

A client that is not instrumented pays nothing: what is instrumented gets methods of its own. Neither keys nor
arguments nor credentials go into spans or metrics.

See https://opentelemetry.io/docs/specs/semconv/db/redis/ and
https://opentelemetry.io/docs/specs/semconv/db/database-metrics/
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as missing:
    raise ImportError(
        "gravito.atlas.telemetry needs the package opentelemetry-api: pip install 'gravito[otel]'",
        name=missing.name,
    ) from missing

from gravito import __version__, errors
from gravito.atlas.client import Client
from gravito.atlas.wire import commands

if TYPE_CHECKING:
    from gravito.atlas._session import Session
    from gravito.atlas.config import Settings
    from gravito.atlas.pipeline import Pipeline
    from gravito.atlas.wire.entry import Spec

__all__ = ["instrument", "uninstrument"]

_SCHEMA = "https://opentelemetry.io/schemas/1.33.0"
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # seconds; the conventions' own
# Names of two words beside those in the table of commands; whatever else a caller writes behind a name may be a key.
_TWO_WORDS = frozenset(
    f"{container} {word}"
    for container, words in {
        "ACL": "DELUSER LOAD LOG SAVE SETUSER",
        "CLIENT": "KILL PAUSE UNBLOCK",
        "CLUSTER": "ADDSLOTS ADDSLOTSRANGE BUMPEPOCH CANCELSLOTMIGRATIONS DELSLOTS DELSLOTSRANGE FAILOVER FLUSHSLOT "
        "FLUSHSLOTS FORGET MEET MIGRATESLOTS REPLICATE RESET SAVECONFIG SET-CONFIG-EPOCH",
        "COMMANDLOG": "RESET",
        "CONFIG": "RESETSTAT REWRITE SET",
        "FUNCTION": "DELETE FLUSH LOAD RESTORE",
        "LATENCY": "RESET",
        "MEMORY": "PURGE",
        "MODULE": "LOAD LOADEX UNLOAD",
        "SCRIPT": "FLUSH LOAD",
        "SLOWLOG": "RESET",
        "XGROUP": "CREATE CREATECONSUMER DELCONSUMER DESTROY SETID",
    }.items()
    for word in words.split()
) | frozenset(name for name in commands.TABLE if " " in name)


def instrument(
    client: Client,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Let a client tell what it does: a span and a duration for each command, pipeline and transaction.

    Views that are made of it from now on (`with_options`) tell, too; so do its pipelines and sessions.
    Instrumenting it again replaces the providers.

    Args:
        client: a client, as `DB.connection("redis")`; not the facade `Redis`, which stands for several.
        tracer_provider: OpenTelemetry's global one if None.
        meter_provider: OpenTelemetry's global one if None.

    Raises:
        ConfigurationError: something else than a client.
    """
    _check(client)
    uninstrument(client)
    tracer = trace.get_tracer("gravito.atlas", __version__, tracer_provider, schema_url=_SCHEMA)
    gauges = _gauges_of(meter_provider)
    _Observer(client.settings, tracer, gauges.durations).attach(client)
    gauges.clients.add(client._root or client)


def uninstrument(client: Client) -> None:
    """Undo `instrument`; views of the client that exist already go on telling."""
    client._observe = None
    client._bind()
    for gauges in list(_gauges.values()):
        gauges.clients.discard(client)


def _check(client: Any) -> None:
    if not isinstance(client, Client):
        allowed = "a Client, as DB.connection()"
        message = f"instrument was given a {type(client).__name__}; allowed: {allowed}"
        raise errors.ConfigurationError(message, field="client", allowed=allowed)


class _Observer:
    """Makes the spans and durations of one client and its views."""

    def __init__(self, settings: Settings, tracer: trace.Tracer, durations: metrics.Histogram) -> None:
        self._tracer = tracer
        self._durations = durations
        self._common = _attributes(settings)  # of every measurement
        self._network = {"network.transport": "tcp" if "server.port" in self._common else "unix"}

    def attach(self, client: Client) -> None:
        """Give a client, or a view, methods that tell."""
        send, pipeline, session = client._send, client.pipeline, client.client

        def telling_send(
            spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
        ) -> Any:
            finish = self._start(_operation(spec.name))
            try:
                entry = send(spec, args, options, text)
            except BaseException as error:
                finish(error)
                raise
            entry.future.add_done_callback(partial(_settled, finish))
            return entry

        def telling_pipeline(*args: Any, **options: Any) -> Pipeline:
            pipe = pipeline(*args, **options)
            self._attach_to_pipeline(pipe)
            return pipe

        def telling_session(*args: Any, **options: Any) -> Session:
            made = session(*args, **options)
            made._run = self._telling(made._run)  # type: ignore[method-assign]  # as above
            return made

        client._send = telling_send  # type: ignore[method-assign]  # the plain client's stays as it is
        client.pipeline = telling_pipeline  # type: ignore[method-assign]
        client.client = telling_session  # type: ignore[method-assign]
        client._observe = self.attach

    def _attach_to_pipeline(self, pipe: Pipeline) -> None:
        execute = pipe.execute

        async def telling_execute(raise_on_error: bool = True) -> list[Any]:
            if not len(pipe) and not pipe.watching:
                return await execute(raise_on_error)
            kind = "MULTI" if pipe._atomic or pipe._explicit else "PIPELINE"
            with self._measure(_batch(kind, pipe._queued), len(pipe)):
                return await execute(raise_on_error)

        pipe.execute = telling_execute  # type: ignore[method-assign]
        pipe._now = self._telling(pipe._now)  # type: ignore[method-assign]

    def _telling(self, run: Callable[..., Any]) -> Callable[..., Any]:
        async def telling(spec: Spec, *args: Any) -> Any:
            with self._measure(_operation(spec.name)):
                return await run(spec, *args)

        return telling

    @contextmanager
    def _measure(self, operation: str, size: int = 0) -> Iterator[None]:
        finish = self._start(operation, size)
        try:
            yield
        except BaseException as error:
            finish(error)
            raise
        finish(None)

    def _start(self, operation: str, size: int = 0) -> Callable[[BaseException | None], None]:
        attributes = {**self._common, "db.operation.name": operation}
        more: dict[str, Any] = {"db.operation.batch.size": size} if size > 1 else {}
        span = self._tracer.start_span(
            operation, kind=SpanKind.CLIENT, attributes={**attributes, **self._network, **more}
        )
        return partial(self._finish, span, attributes, perf_counter())

    def _finish(
        self, span: Span, attributes: dict[str, Any], start: float, error: BaseException | None
    ) -> None:
        took = perf_counter() - start
        if error is not None:
            failure = _failure(error)
            attributes |= failure
            span.set_attributes(failure)
            # without a description: a server's message may quote what it was sent
            span.set_status(Status(StatusCode.ERROR))
        self._durations.record(took, attributes, context=trace.set_span_in_context(span))
        span.end()


def _settled(finish: Callable[[BaseException | None], None], future: asyncio.Future[Any]) -> None:
    if future.cancelled():
        finish(asyncio.CancelledError())
    else:
        finish(future.exception())


def _operation(name: str) -> str:
    words = name.split()
    return name if len(words) == 1 or " ".join(words).upper() in _TWO_WORDS else words[0]


def _batch(kind: str, queued: list[Spec]) -> str:
    names = {spec.name for spec in queued}
    return f"{kind} {_operation(names.pop())}" if len(names) == 1 else kind


def _attributes(settings: Settings) -> dict[str, Any]:
    """What all spans and metrics of a connection say."""
    attributes: dict[str, Any] = {"db.system.name": "redis", "db.namespace": str(settings.db)}
    if settings.driver == "embedded" or settings.path is not None:
        attributes["server.address"] = settings.path or settings.address
    else:
        attributes |= {"server.address": settings.host, "server.port": settings.port}
    return attributes


def _failure(error: BaseException) -> dict[str, Any]:
    """The server's code of an error, or the error's class."""
    code = getattr(error, "status_code", None)
    if isinstance(code, str) and code:
        return {"error.type": code, "db.response.status_code": code}
    kind = type(error)
    return {"error.type": f"{kind.__module__}.{kind.__qualname__}"}


class _Gauges:
    """The instruments of one meter provider; each exists once, whatever the number of clients."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
        meter = metrics.get_meter("gravito.atlas", __version__, provider, schema_url=_SCHEMA)
        self.durations = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._observables = [
            meter.create_observable_up_down_counter(
                "db.client.connection.count",
                callbacks=[self._connections],
                unit="{connection}",
                description="The number of connections that are currently in the state that the attribute names.",
            ),
            meter.create_observable_up_down_counter(
                "db.client.connection.pending_requests",
                callbacks=[self._pending],
                unit="{request}",
                description="The number of requests that wait for a connection, or for room on it.",
            ),
        ]

    def _connections(self, options: CallbackOptions) -> Iterable[Observation]:
        for client in list(self.clients):
            stats, pool = client.stats(), _pool(client)
            yield Observation(stats.connections - stats.idle, {**pool, "db.client.connection.state": "used"})
            yield Observation(stats.idle, {**pool, "db.client.connection.state": "idle"})

    def _pending(self, options: CallbackOptions) -> Iterable[Observation]:
        for client in list(self.clients):
            yield Observation(client.stats().waiting, _pool(client))


def _pool(client: Client) -> dict[str, str]:
    return {"db.client.connection.pool.name": f"{client.settings.name} {client.settings.address}"}


_gauges: dict[MeterProvider | None, _Gauges] = {}  # None: OpenTelemetry's global one, which may be set later


def _gauges_of(provider: MeterProvider | None) -> _Gauges:
    if provider not in _gauges:
        _gauges[provider] = _Gauges(provider)
    return _gauges[provider]
