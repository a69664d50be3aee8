"""Spans and metrics by the messaging conventions, without a word of arguments or of errors' texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from tests.recorder import Recorder

from gravito.atlas import Client
from gravito.errors import ConfigurationError, PayloadError
from gravito.horizon import Horizon, Worker, WorkerOptions, current_job, new_key
from gravito.horizon._messages import Envelope
from gravito.horizon.telemetry import instrument, uninstrument

SECRET = "canary-5e1f"


@pytest.fixture
def recorder() -> Any:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
async def horizon(redis: Client, recorder: Recorder) -> AsyncIterator[Horizon]:
    async with Horizon(redis) as made:
        instrument(made, recorder.tracers, recorder.meters)
        yield made


async def burst(horizon: Horizon, *queues: str) -> None:
    await Worker(horizon, WorkerOptions(queues=queues or ("default",), burst=True)).run()


async def test_a_run_belongs_to_the_trace_of_its_push_and_links_to_it(
    horizon: Horizon, recorder: Recorder
) -> None:
    inside: list[int] = []

    @horizon.job(queue="emails")
    async def send(to: str) -> None:
        inside.append(trace.get_current_span().get_span_context().span_id)

    handle = await send.push(SECRET)
    await burst(horizon, "emails")
    (push,), (run,) = recorder.named("push emails"), recorder.named("run emails")
    assert (push.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert run.context is not None
    assert push.context is not None
    assert run.parent is not None
    assert run.context.trace_id == push.context.trace_id
    assert run.parent.span_id == push.context.span_id
    assert [link.context.span_id for link in run.links] == [push.context.span_id]
    assert inside == [run.context.span_id]
    assert dict(push.attributes or {}) == {
        "messaging.system": "gravito",
        "messaging.operation.name": "push",
        "messaging.operation.type": "send",
        "messaging.destination.name": "emails",
        "messaging.message.id": handle.id,
        "gravito.job.name": "send",
    }
    assert (run.attributes or {})["gravito.job.attempt"] == 1
    assert SECRET not in recorder.text()


async def test_jobs_that_travel_with_others_have_a_span_each(horizon: Horizon, recorder: Recorder) -> None:
    @horizon.job
    async def child(number: int) -> None: ...

    @horizon.job(queue="parents")
    def parent() -> None:
        current_job().push(child.make(0))

    await horizon.push_many(child.make(number) for number in range(3))
    await horizon.chain(child.make(1), child.make(2)).push()
    await horizon.batch([child.make(1)]).then(child.make(2)).push()
    assert len(recorder.named("create default")) == 7
    await parent.push()
    await burst(horizon, "parents")
    await burst(horizon)
    (run,) = recorder.named("run parents")
    created = recorder.named("create default")[-1]
    assert created.parent is not None
    assert run.context is not None
    assert created.parent.span_id == run.context.span_id
    assert {len(span.links) for span in recorder.named("run default")} == {1}


async def test_failures_are_named_and_not_quoted(horizon: Horizon, recorder: Recorder) -> None:
    @horizon.job(retries=0)
    async def fails(word: str) -> None:
        raise LookupError(word)

    @horizon.job(queue="later")
    async def later() -> None:
        current_job().release(3600)

    await fails.push(SECRET)
    await later.push()
    await burst(horizon, "default", "later")
    (failed,), (released,) = recorder.named("run default"), recorder.named("run later")
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "LookupError"
    assert released.status.status_code is StatusCode.UNSET
    assert (released.attributes or {})["gravito.job.released"] is True
    assert SECRET not in recorder.text()
    with pytest.raises(PayloadError):
        await horizon.push(object())  # type: ignore[arg-type]
    assert recorder.named("push ")[0].status.status_code is StatusCode.ERROR


async def test_a_job_that_cannot_be_opened_has_a_span_with_the_reason(
    redis: Client, horizon: Horizon, recorder: Recorder
) -> None:
    async with Horizon(redis, keys=[new_key()]) as sealing:
        instrument(sealing, recorder.tracers, recorder.meters)

        async def read(word: str) -> None: ...

        handle = await sealing.job(name="read", queue="sealed")(read).push(SECRET)
        lost = await sealing.job(name="lost", queue="other", encrypt=False)(read).push("x")
    horizon.job(name="read", queue="sealed")(read)
    await horizon.broker("default").push(Envelope("odd", b"no body"))
    await burst(horizon, "default", "sealed", "other")
    (push,), (run,) = recorder.named("push sealed"), recorder.named("run sealed")
    (odd,), (unknown,) = recorder.named("run default"), recorder.named("run other")
    status = await handle.status()
    assert status.state == "dead"
    for span in (run, odd, unknown):
        assert span.status.status_code is StatusCode.ERROR
    assert (run.attributes or {})["messaging.message.id"] == handle.id
    assert (run.attributes or {})["error.type"] == status.error_type
    assert (odd.attributes or {})["error.type"] == "gravito.errors.PayloadError"
    assert push.context is not None
    assert [link.context.span_id for link in run.links] == [push.context.span_id]
    told = (await horizon.handle(lost.id, "other").status()).traceback or ""
    assert "UnknownJobError" in told
    assert "telemetry.py" not in told
    assert SECRET not in recorder.text()


async def test_pushes_and_runs_are_measured(horizon: Horizon, recorder: Recorder) -> None:
    @horizon.job
    async def work() -> None: ...

    await work.push()
    await horizon.push_many(work.make() for _ in range(4))
    await burst(horizon)
    assert sum(point.value for point in recorder.points("messaging.client.sent.messages")) == 5
    (runs,) = recorder.points("messaging.process.duration")
    assert runs.count == 5
    assert runs.attributes["gravito.job.name"] == "work"


async def test_it_can_be_taken_back_and_refuses_what_is_no_horizon(
    horizon: Horizon, recorder: Recorder
) -> None:
    @horizon.job
    async def work() -> None: ...

    instrument(horizon, recorder.tracers, recorder.meters)  # again: still one span each
    await work.push()
    await burst(horizon)
    assert len(recorder.exporter.get_finished_spans()) == 2
    uninstrument(horizon)
    await work.push()
    await burst(horizon)
    assert len(recorder.exporter.get_finished_spans()) == 2
    with pytest.raises(ConfigurationError, match="given a str; allowed: a Horizon"):
        instrument("horizon")  # type: ignore[arg-type]
