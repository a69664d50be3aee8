"""Spans and metrics by the database conventions, without a word of keys, arguments or credentials."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from tests.recorder import Recorder
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client, Redis, Retry
from gravito.atlas.telemetry import _TWO_WORDS, instrument, uninstrument
from gravito.testing import ScriptedPeer

SECRET = "canary-77ab"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def told(redis: Client, recorder: Recorder) -> Client:
    instrument(redis, recorder.tracers, recorder.meters)
    return redis


async def finished() -> None:
    """A reply's caller goes on before those who were told of it."""
    await asyncio.sleep(0)


async def test_a_command_is_a_span(told: Client, recorder: Recorder) -> None:
    await told.set(f"key {SECRET}", SECRET)
    await finished()
    (span,) = recorder.spans()
    assert span.name == "SET"
    assert span.kind is SpanKind.CLIENT
    assert span.attributes == {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": "SET",
        "server.address": told.settings.path,
        "network.transport": "unix",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time > span.start_time


def test_an_address_with_a_port(recorder: Recorder) -> None:
    client = Client.from_url(f"redis://user:{SECRET}@127.0.0.1:1/3", retry=Retry(attempts=0))
    instrument(client, recorder.tracers, recorder.meters)

    async def main() -> None:
        with pytest.raises(errors.RefusedError):
            await client.get("k")
        await finished()

    asyncio.run(main())
    (span,) = recorder.spans()
    assert span.attributes is not None
    assert span.attributes["server.address"] == "127.0.0.1"
    assert span.attributes["server.port"] == 1
    assert span.attributes["db.namespace"] == "3"
    assert span.attributes["network.transport"] == "tcp"
    assert span.attributes["error.type"] == "gravito.errors.RefusedError"
    assert span.status.status_code is StatusCode.ERROR
    assert SECRET not in span.to_json()


async def test_a_span_is_the_child_of_what_goes_on(told: Client, recorder: Recorder) -> None:
    with recorder.tracers.get_tracer("test").start_as_current_span("request"):
        await asyncio.gather(told.get("a"), told.pipeline().get("b").get("c"), told.blpop("d", 0.01))
        await finished()
    *children, request = recorder.spans()
    assert {child.name for child in children} == {"GET", "MULTI GET", "BLPOP"}
    assert request.context is not None
    assert all(child.parent and child.parent.span_id == request.context.span_id for child in children)


async def test_an_error_reply_is_told_by_its_code(told: Client, recorder: Recorder) -> None:
    await told.set("word", SECRET)
    with pytest.raises(errors.WrongTypeError):
        await told.lpush("word", SECRET)
    with pytest.raises(errors.ResponseError):
        await told.execute("NOSUCHCOMMAND", SECRET)
    await finished()
    _, wrong_type, unknown = recorder.spans()
    assert wrong_type.attributes is not None
    assert unknown.attributes is not None
    assert wrong_type.attributes["error.type"] == "WRONGTYPE"
    assert wrong_type.attributes["db.response.status_code"] == "WRONGTYPE"
    assert unknown.attributes["error.type"] == "ERR"
    assert SECRET not in wrong_type.to_json() + unknown.to_json()


async def test_what_is_refused_at_the_call_is_told(told: Client, recorder: Recorder) -> None:
    with pytest.raises(errors.DataError):
        told.set("k", None)
    (span,) = recorder.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "gravito.errors.DataError"


async def test_a_cancelled_call_is_told(told: Client, recorder: Recorder) -> None:
    waiting = asyncio.ensure_future(told.blpop("nothing", 0))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    await finished()
    (span,) = recorder.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


async def test_pipelines_and_transactions(told: Client, recorder: Recorder) -> None:
    await told.pipeline().set("a", 1).get("a").exec()
    await told.pipeline(transaction=False).incr("n").incr("n")
    await told.pipeline(transaction=False).get("a").execute()
    assert await told.pipeline().execute() == []
    shown = [(span.name, (span.attributes or {}).get("db.operation.batch.size")) for span in recorder.spans()]
    assert shown == [("MULTI", 2), ("PIPELINE INCRBY", 2), ("PIPELINE GET", None)]


async def test_a_watching_transaction_and_a_session(told: Client, recorder: Recorder) -> None:
    async def double(pipe: Any) -> None:
        value = int(await pipe.get("n") or 1)
        pipe.multi()
        pipe.set("n", value * 2).get("n")

    assert await told.transaction(double, "n") == [True, "2"]
    assert recorder.names() == ["WATCH", "GET", "MULTI"]
    async with told.client() as session:
        await session.select(1)
    assert recorder.names() == ["SELECT"]


async def test_a_pipeline_s_error(told: Client, recorder: Recorder) -> None:
    with pytest.raises(errors.WrongTypeError):
        await told.pipeline().set("word", SECRET).lpush("word", SECRET).execute()
    (span,) = recorder.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "WRONGTYPE"
    assert SECRET not in span.to_json()


async def test_scripts(told: Client, recorder: Recorder) -> None:
    script = told.script(f"return '{SECRET}'")
    assert await script() == SECRET
    await finished()
    spans = recorder.spans()
    assert [span.name for span in spans] == ["EVALSHA", "SCRIPT LOAD", "EVALSHA"]
    assert not any(SECRET in span.to_json() for span in spans)


async def test_a_name_that_holds_more_than_a_name(told: Client, recorder: Recorder) -> None:
    await told.execute(f"GET {SECRET}")
    await told.execute("CONFIG GET", "maxmemory")
    await told.execute("config", "get", "maxmemory")
    await finished()
    assert recorder.names() == ["GET", "CONFIG GET", "config get"]


async def test_views_tell_too(told: Client, recorder: Recorder) -> None:
    views = [
        told.with_options(decode_responses=False),
        told.with_options(timeout=1),
        told.with_options(timeout=60).with_options(retry=Retry(attempts=0)),
    ]
    for view in views:
        await view.get("k")
        await view.pipeline().get("k").get("k").execute()
        await finished()
        assert recorder.names() == ["GET", "MULTI GET"]
    async with ScriptedPeer() as peer:  # and their options hold
        client = Client.from_url(peer.url, timeouts={"drain": 0}, health_check=0)
        instrument(client, recorder.tracers, recorder.meters)
        view = client.with_options(timeout=0.05)
        for call in (view.get("k"), view.pipeline().get("k").execute()):
            with pytest.raises(errors.TimeoutError, match=r"0\.05"):
                await call
        instrument(view, recorder.tracers, recorder.meters)  # a view by itself
        with pytest.raises(errors.TimeoutError, match=r"0\.05"):
            await view.get("k")
        uninstrument(view)
        with pytest.raises(errors.TimeoutError, match=r"0\.05"):
            await view.get("k")
        await client.aclose()


async def test_durations(told: Client, recorder: Recorder) -> None:
    for _ in range(3):
        await told.get(SECRET)
    with pytest.raises(errors.ResponseError):
        await told.incr("word", SECRET)  # type: ignore[arg-type]
    await told.pipeline().get("a").get("b").execute()
    await finished()
    points = {
        point.attributes["db.operation.name"]: point
        for point in recorder.points("db.client.operation.duration")
    }
    assert set(points) == {"GET", "INCRBY", "MULTI GET"}
    assert points["GET"].count == 3
    assert 0 < points["GET"].sum < 3
    assert points["GET"].explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert points["INCRBY"].attributes["error.type"] == "ERR"
    assert dict(points["GET"].attributes) == {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": "GET",
        "server.address": told.settings.path,
    }
    assert SECRET not in str(points)


async def test_connections(told: Client, recorder: Recorder) -> None:
    other = Client.from_url(told.settings.url, name="other")
    instrument(other, recorder.tracers, recorder.meters)
    await told.ping()
    await told.blpop("nothing", 0.01)
    await until(lambda: told.stats().idle == 1)
    waiting = other.blpop("nothing", 0)
    await other.ping()
    await until(lambda: other.stats().leased == 1)
    counts = {
        (
            point.attributes["db.client.connection.pool.name"].split()[0],
            point.attributes["db.client.connection.state"],
        ): point.value
        for point in recorder.points("db.client.connection.count")
    }
    assert counts == {("redis", "used"): 1, ("redis", "idle"): 1, ("other", "used"): 2, ("other", "idle"): 0}
    assert [point.value for point in recorder.points("db.client.connection.pending_requests")] == [0, 0]
    uninstrument(other)
    assert len(recorder.points("db.client.connection.pending_requests")) == 1
    waiting.close()
    await other.aclose()


async def test_uninstrumented_is_as_before(redis: Client, recorder: Recorder) -> None:
    plain = set(vars(redis))
    instrument(redis, recorder.tracers, recorder.meters)
    instrument(redis, recorder.tracers, recorder.meters)  # replaces the first, so that nothing is told twice
    await redis.get("k")
    await finished()
    assert recorder.names() == ["GET"]
    uninstrument(redis)
    assert set(vars(redis)) == plain
    await redis.get("k")
    await redis.with_options(timeout=1).pipeline().get("k").execute()
    assert recorder.names() == []
    uninstrument(redis)


def test_telemetry_keeps_no_client(recorder: Recorder) -> None:
    client = Client()
    instrument(client, recorder.tracers, recorder.meters)
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert recorder.points("db.client.connection.count") == []


@pytest.mark.parametrize("what", [Redis, None, "redis"])
def test_only_a_client_can_be_instrumented(what: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"a Client, as DB\.connection\(\)"):
        instrument(what)


async def test_without_providers_the_global_ones_are_asked(redis: Client) -> None:
    instrument(redis)
    assert await redis.set("k", "v") is True
    uninstrument(redis)


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import gravito.atlas\n"
        "try:\n    import gravito.atlas.telemetry\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert "pip install 'gravito[otel]'" in done.stdout


async def test_every_name_of_two_words_is_known(redis: Client) -> None:
    try:
        listed = await redis.execute("COMMAND", "LIST")
    except errors.ResponseError:
        pytest.skip("this server has no COMMAND LIST")
    server = {str(name).upper().replace("|", " ") for name in listed}
    two_words = {name for name in server if " " in name} - _TWO_WORDS
    assert two_words == set()
