"""Alerts: when a rule speaks up, who is told, and how often."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import ConfigurationError, HorizonError
from gravito.horizon import Horizon, Worker, WorkerOptions, _watch
from gravito.horizon._watch import AlertWatch, read_alerts
from gravito.horizon.alerts import Email, Failures, Memory, Message, Slack, Waiting, Webhook, Workers
from gravito.horizon.repository import Repository

FIRING = Message(alert="a <b>", state="firing", text="it's & bad", since=5)


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


class Ear:
    """A channel that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.broken = False

    async def send(self, message: Message) -> None:
        """Keep it."""
        if self.broken:
            raise HorizonError("nobody is there")
        self.heard.append((message.state, message.text))


class Switch:
    """A rule that says what it is told to."""

    def __init__(self) -> None:
        self.text: str | None = None

    async def check(self, repository: Repository) -> str | None:
        """Say it."""
        return self.text


# -- rules -----------------------------------------------------------------------------------------------------


async def test_waiting_jobs_are_seen(horizon: Horizon) -> None:
    @horizon.job
    async def nothing() -> None: ...

    repository = Repository(horizon)
    assert await Waiting(0.05).check(repository) is None
    await nothing.push()
    await asyncio.sleep(0.1)
    assert "queue default: 1 jobs are ready" in str(await Waiting(0.05).check(repository))
    assert await Waiting(0.05, queue="other").check(repository) is None
    assert await Waiting(60).check(repository) is None
    await repository.pause("default")
    assert await Waiting(0.05).check(repository) is None


async def test_failing_jobs_are_seen(horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def sometimes(number: int) -> None:
        if number % 2:
            raise LookupError

    await horizon.push_many(sometimes.make(number) for number in range(20))
    await Worker(horizon, WorkerOptions(burst=True)).run()
    repository = Repository(horizon)
    assert await Failures(0.5).check(repository) == "all jobs: 50% of 20 runs failed in the last hour"
    assert await Failures(0.51).check(repository) is None
    assert await Failures(0.1, least=21).check(repository) is None
    assert await Failures(0.1, job="other").check(repository) is None


async def test_missing_workers_are_seen(horizon: Horizon) -> None:
    repository = Repository(horizon)
    assert await Workers(1).check(repository) == "0 workers run, 1 are wanted"
    worker = Worker(horizon)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while await Workers(1).check(repository) is not None:  # noqa: ASYNC110  # the worker's record has no event
            await asyncio.sleep(0.05)
    assert "on queue other" in str(await Workers(1, queue="other").check(repository))
    worker.stop()
    await task


async def test_full_memory_is_seen(horizon: Horizon, redis: Client) -> None:
    repository = Repository(horizon)
    assert await Memory(0.999).check(repository) is None
    await redis.config_set("maxmemory", "4gb")
    try:
        assert await Memory(0.9).check(repository) is None
        assert "MiB" in str(await Memory(0.00001).check(repository))
    finally:
        await redis.config_set("maxmemory", "0")


# -- the watch -------------------------------------------------------------------------------------------------


async def test_an_alert_is_told_at_its_beginning_and_its_end(horizon: Horizon) -> None:
    rule, ear = Switch(), Ear()
    horizon.alert("a", rule, ear)
    watch = AlertWatch(horizon)
    for text in (None, "bad", "worse", "worse", None, None):
        rule.text = text
        await watch.look()
    assert ear.heard == [("firing", "bad"), ("resolved", "worse")]


async def test_it_is_told_again_while_it_lasts(horizon: Horizon) -> None:
    rule, ear = Switch(), Ear()
    rule.text = "bad"
    horizon.alert("a", rule, ear, repeat=0.05)
    watch = AlertWatch(horizon)
    await watch.look()
    await watch.look()
    await asyncio.sleep(0.1)
    await watch.look()
    assert [state for state, _ in ear.heard][:2] == ["firing", "firing"]
    states = await read_alerts(horizon)
    assert states["a"].text == "bad"


async def test_what_no_channel_took_is_tried_again(horizon: Horizon) -> None:
    rule, ear = Switch(), Ear()
    rule.text, ear.broken = "bad", True
    horizon.alert("a", rule, ear)
    watch = AlertWatch(horizon)
    await watch.look()
    assert (await read_alerts(horizon))["a"].told == 0
    ear.broken = False
    await watch.look()
    assert ear.heard == [("firing", "bad")]


async def test_a_rule_that_fails_does_not_keep_the_others_from_being_asked(horizon: Horizon) -> None:
    class Broken:
        async def check(self, repository: Repository) -> str | None:
            raise ZeroDivisionError

    ear, rule = Ear(), Switch()
    rule.text = "bad"
    horizon.alert("broken", Broken(), ear)
    horizon.alert("works", rule, ear)
    await AlertWatch(horizon).look()
    assert ear.heard == [("firing", "bad")]


async def test_of_many_who_watch_one_tells(horizon: Horizon, redis: Client) -> None:
    rule, ear = Switch(), Ear()
    rule.text = "bad"
    horizon.alert("a", rule, ear)
    tasks = [asyncio.create_task(AlertWatch(horizon, every=0.05).run()) for _ in range(5)]
    await until(lambda: ear.heard)
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ear.heard == [("firing", "bad")]


@pytest.mark.parametrize(("before", "text", "told"), [(None, "bad", "firing"), ("bad", None, "resolved")])
async def test_a_look_that_outlasts_its_turn_is_not_doubled_by_the_next_one(
    horizon: Horizon, before: str | None, text: str | None, told: str
) -> None:
    """A receiver that takes long keeps one process at it when it is the next one's turn."""
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(Ear):
        async def send(self, message: Message) -> None:
            asked.set()
            await answer.wait()
            await super().send(message)

    rule, ear = Switch(), Slow()
    horizon.alert("a", rule, ear)
    if before is not None:
        rule.text = before
        answer.set()
        await AlertWatch(horizon).look()
        asked.clear()
        answer.clear()
    rule.text = text
    heard = len(ear.heard)
    first = asyncio.create_task(AlertWatch(horizon).look())
    await asyncio.wait_for(asked.wait(), 10)
    for _ in range(2):
        await asyncio.wait_for(AlertWatch(horizon).look(), 10)
    answer.set()
    await first
    await AlertWatch(horizon).look()
    assert [state for state, _ in ear.heard[heard:]] == [told]
    assert ("a" in await read_alerts(horizon)) == (text is not None)


async def test_a_look_that_began_before_another_one_told_sees_that(horizon: Horizon) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Thoughtful:
        async def check(self, repository: Repository) -> str | None:
            if not begun.is_set():
                begun.set()
                await go_on.wait()
            return "bad"

    ear = Ear()
    horizon.alert("a", Thoughtful(), ear)
    slow = asyncio.create_task(AlertWatch(horizon).look())
    await asyncio.wait_for(begun.wait(), 10)
    await AlertWatch(horizon).look()
    go_on.set()
    await slow
    assert ear.heard == [("firing", "bad")]


async def test_a_channel_that_never_answers_holds_nothing_up(
    horizon: Horizon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck:
        async def send(self, message: Message) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(_watch, "_PATIENCE", 0.05)
    rule, ear = Switch(), Ear()
    rule.text = "bad"
    horizon.alert("a", rule, Stuck(), ear)
    await AlertWatch(horizon).look()
    assert ear.heard == [("firing", "bad")]
    assert "TimeoutError" in caplog.text


async def test_workers_watch(horizon: Horizon) -> None:
    rule, ear = Switch(), Ear()
    rule.text = "bad"
    horizon.alert("a", rule, ear)
    worker = Worker(horizon)
    task = asyncio.create_task(worker.run())
    await until(lambda: ear.heard)
    worker.stop()
    await task
    assert ear.heard == [("firing", "bad")]


# -- channels --------------------------------------------------------------------------------------------------


class _Receiver(BaseHTTPRequestHandler):
    heard: list[tuple[dict[str, Any], str | None]] = []
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((json.loads(body), self.headers["Authorization"]))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[_Receiver]]]:
    """A web server that takes messages."""
    kind = type("Receiver", (_Receiver,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret-path", kind
        server.shutdown()
        thread.join()


async def test_webhook_and_slack(receiver: tuple[str, type[_Receiver]]) -> None:
    url, kind = receiver
    await Webhook(url, {"Authorization": "Bearer x"}).send(FIRING)
    await Slack(url).send(FIRING)
    assert kind.heard == [
        ({"alert": "a <b>", "state": "firing", "text": "it's & bad", "since": 5}, "Bearer x"),
        ({"text": "a &lt;b&gt;: it's &amp; bad"}, None),
    ]
    kind.status = 500
    with pytest.raises(HorizonError, match="answered 500") as caught:
        await Webhook(url).send(FIRING)
    assert "secret-path" not in str(caught.value) + repr(Webhook(url))


async def test_a_receiver_that_is_not_there() -> None:
    with pytest.raises(HorizonError, match="cannot be reached"):
        await Webhook("http://127.0.0.1:1/secret").send(FIRING)


class _Mail(socketserver.StreamRequestHandler):
    heard: list[str] = []

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        data = False
        for line in self.rfile:
            if data:
                if line == b".\r\n":
                    data = False
                    self.wfile.write(b"250 taken\r\n")
                else:
                    self.heard.append(line.decode().rstrip())
            elif line.upper().startswith(b"DATA"):
                data = True
                self.wfile.write(b"354 go on\r\n")
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 good\r\n")


async def test_email() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _Mail) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        mail = Email(["a@b.c"], "g@b.c", port=server.server_address[1], security="none")
        try:
            await mail.send(Message(alert="a\nBcc: x@y.z", state="resolved", text="fine", since=1))
        finally:
            server.shutdown()
            thread.join()
    assert "Subject: [gravito] a Bcc: x@y.z (over)" in _Mail.heard
    assert not any(line.startswith("Bcc") for line in _Mail.heard)
    assert "fine" in _Mail.heard
    with pytest.raises(HorizonError, match="mail server"):
        await mail.send(FIRING)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda h: Waiting(0), "seconds"),
        (lambda h: Failures(2), "share"),
        (lambda h: Workers(0), "least"),
        (lambda h: Memory(0), "share"),
        (lambda h: Webhook("file:///etc/passwd"), "http"),
        (lambda h: Email("a@b.c", "g@b.c"), "to"),
        (lambda h: Email(["a"], "g@b.c"), "to"),
        (lambda h: Email(["a@b.c"], "g@b.c", security="some"), "security"),
        (lambda h: h.alert("", Waiting(1)), "name"),
        (lambda h: h.alert("a", "rule"), "check"),
        (lambda h: h.alert("a", Waiting(1), "channel"), "send"),
        (lambda h: h.alert("a", Waiting(1), repeat=0), "repeat"),
    ],
)
async def test_what_makes_no_sense_is_refused(horizon: Horizon, wrong: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        wrong(horizon)


async def test_a_name_is_given_once(horizon: Horizon) -> None:
    horizon.alert("a", Waiting(1))
    with pytest.raises(ConfigurationError, match="name of its own"):
        horizon.alert("a", Waiting(2))
