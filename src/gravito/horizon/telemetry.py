"""OpenTelemetry: spans and metrics of jobs, by the conventions for messaging. Extra `otel`.

A Horizon that is not instrumented pays nothing. Neither arguments nor results, metadata or texts of errors go into
spans or metrics.

See https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ and
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Final

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as missing:
    raise ImportError(
        "gravito.horizon.telemetry needs the package opentelemetry-api: pip install 'gravito[otel]'",
        name=missing.name,
    ) from missing

from gravito import __version__
from gravito.errors import ConfigurationError
from gravito.horizon._payload import Travel
from gravito.horizon.call import Call
from gravito.horizon.context import JobContext, Signal
from gravito.horizon.handle import JobHandle
from gravito.horizon.horizon import Horizon
from gravito.horizon.middleware import Proceed

__all__ = ["instrument", "uninstrument"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.33.0"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds; the conventions' own
_TYPES: Final = {"push": "send", "create": "create", "run": "process"}
_pushing: ContextVar[Span | None] = ContextVar("gravito.horizon.telemetry", default=None)  # of `Horizon.push`


def instrument(
    horizon: Horizon,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Let a Horizon tell what it does.

    Spans: "push <queue>" covers a push; jobs that are pushed with others (`push_many`, a batch, a chain, or together
    with a completion) have a "create <queue>" each. "run <queue>" covers each run, in the trace of its push and with a
    link to that. Metrics: `messaging.client.sent.messages`, `messaging.process.duration`. Instrumenting it again replaces
    the providers.

    Args:
        horizon: in the process that pushes, and in the worker.
        tracer_provider: OpenTelemetry's global one if None.
        meter_provider: OpenTelemetry's global one if None.

    Raises:
        ConfigurationError: something else than a Horizon.
    """
    uninstrument(horizon)
    tracer = trace.get_tracer("gravito.horizon", __version__, tracer_provider, schema_url=_SCHEMA)
    meter = metrics.get_meter("gravito.horizon", __version__, meter_provider, schema_url=_SCHEMA)
    _Observer(tracer, meter).attach(horizon)


def uninstrument(horizon: Horizon) -> None:
    """Undo `instrument`; runs that have begun go on telling."""
    _check(horizon)
    vars(horizon).pop("push", None)
    vars(horizon).pop("prepare", None)
    for name in ("around", "died"):
        hooks = getattr(horizon.hooks, name)
        kept = tuple(hook for hook in hooks if not isinstance(getattr(hook, "__self__", None), _Observer))
        setattr(horizon.hooks, name, kept)


def _check(horizon: Any) -> None:
    if not isinstance(horizon, Horizon):
        message = f"instrument was given a {type(horizon).__name__}; allowed: a Horizon"
        raise ConfigurationError(message, field="horizon", allowed="a Horizon")


class _Observer:
    """Makes the spans and measurements of one Horizon."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Number of jobs that were pushed."
        )
        self._runs = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of a job's run.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    def attach(self, horizon: Horizon) -> None:
        """Give a Horizon methods that tell, and be outermost around its jobs."""
        push, prepare = horizon.push, horizon.prepare

        async def telling_push(call: Call[Any]) -> JobHandle[Any]:
            with self._span("push", getattr(call, "queue", "")) as span:
                mark = _pushing.set(span)
                try:
                    return await push(call)
                finally:
                    _pushing.reset(mark)

        def telling_prepare(call: Call[Any], *args: Any, **options: Any) -> tuple[Travel, JobHandle[Any]]:
            span = _pushing.get()
            if span is not None:
                return self._about(span, prepare(call, *args, **options))
            with self._span("create", getattr(call, "queue", "")) as span:
                return self._about(span, prepare(call, *args, **options))

        horizon.push = telling_push  # type: ignore[method-assign]  # the plain one's stays as it is
        horizon.prepare = telling_prepare  # type: ignore[method-assign]
        horizon.hooks.around = (self._around, *horizon.hooks.around)
        horizon.hooks.died = (self._died, *horizon.hooks.died)

    def _about(self, span: Span, prepared: tuple[Travel, JobHandle[Any]]) -> tuple[Travel, JobHandle[Any]]:
        (queue, envelope), handle = prepared
        definition = handle._definition
        name = definition.name if definition is not None else ""
        # hooks may have sent it elsewhere
        span.set_attributes(
            {
                "messaging.message.id": envelope.id,
                "messaging.destination.name": queue,
                "gravito.job.name": name,
            }
        )
        self._sent.add(1, {**_common("push", queue), "gravito.job.name": name})
        return prepared

    async def _died(self, job: JobContext, error: BaseException) -> None:
        """A job that could not be opened has no run that `_around` would see, but it was given to a worker."""
        if job.broken is None or job.observed or not job.started:
            return

        async def fail() -> None:
            raise error

        trace_so_far = error.__traceback__  # what is kept of the failure must not name this place
        with suppress(type(error)):
            await self._around(job, fail)
        error.__traceback__ = trace_so_far

    async def _around(self, job: JobContext, proceed: Proceed) -> Any:
        job.observed = True
        pushed = trace.get_current_span().get_span_context()  # the worker has put it back from the job
        measured = {**_common("run", job.queue), "gravito.job.name": job.name}
        began = perf_counter()
        try:
            with self._span("run", job.queue, [Link(pushed)] if pushed.is_valid else []) as span:
                span.set_attributes({"messaging.message.id": job.id, "gravito.job.name": job.name})
                span.set_attribute("gravito.job.attempt", job.attempt)
                return await proceed()
        except BaseException as error:
            if not isinstance(error, Signal) or error.wish != "release":
                measured["error.type"] = _kind(error)
            raise
        finally:
            self._runs.record(perf_counter() - began, measured)

    @contextmanager
    def _span(self, name: str, queue: str, links: Sequence[Link] = ()) -> Iterator[Span]:
        kind = SpanKind.CONSUMER if name == "run" else SpanKind.PRODUCER
        attributes = {**_common(name, queue), "messaging.operation.type": _TYPES[name]}
        with self._tracer.start_as_current_span(
            f"{name} {queue}",
            kind=kind,
            attributes=attributes,
            links=links,
            record_exception=False,  # its text may quote arguments
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                if isinstance(error, Signal) and error.wish == "release":
                    span.set_attribute("gravito.job.released", True)
                else:
                    span.set_attribute("error.type", _kind(error))
                    span.set_status(Status(StatusCode.ERROR))
                raise


def _common(name: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "gravito",
        "messaging.operation.name": name,
        "messaging.destination.name": queue,
    }


def _kind(error: BaseException) -> str:
    if isinstance(error, Signal):
        return error.wish
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
