"""The examples, each started as its page says and used as a person would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from tests.examples.programs import GRAVITO, ROOT, Program, free_port, served, wait

from gravito.atlas.embedded import Engine
from gravito.testing import empty, gravito_engine

__all__ = ["gravito_engine"]

EXAMPLES = ROOT / "examples"
Start = Callable[..., Program]


@pytest.fixture
def start(gravito_engine: Engine) -> Iterator[Start]:
    """Starts programs in the folder of the examples, all on one empty server, and ends them."""
    path = gravito_engine.ensure()
    empty(path)
    running: list[Program] = []

    def begin(*command: str) -> Program:
        running.append(Program(list(command), EXAMPLES, f"unix://{path}"))
        return running[-1]

    yield begin
    for program in reversed(running):
        program.end()


def test_an_order_is_shipped_by_a_worker_and_the_page_hears_of_it(start: Start) -> None:
    port = free_port()
    web = start("-m", "uvicorn", "shop:app", "--port", str(port), "--timeout-graceful-shutdown", "5")
    worker = start(*GRAVITO, "horizon", "work", "jobs:horizon", "--queues", "default,reports")
    with served(web, f"http://127.0.0.1:{port}") as client:
        worker.shows("Working on")
        with client.stream("GET", "/news") as news:
            lines = news.iter_lines()
            assert next(lines) == "event: ready"
            number = client.post("/orders", json={"item": "tea"}).json()["order"]
            told = (json.loads(line[6:]) for line in lines if line.startswith('data: {"'))
            assert [next(told) for _ in range(3)] == [
                {"order": number, "item": "tea", "state": state} for state in ("picked", "packed", "shipped")
            ]
        wait(lambda: client.get(f"/orders/{number}").json()["state"] == "ok")
        assert client.get("/orders/none").status_code == 404
        assert client.post("/orders", json={"thing": "tea"}).status_code == 422
        assert client.get("/prices/tea").json() == client.get("/prices/tea").json() == {"tea": 4.25}
        assert client.get("/horizon/healthz").json() == {"status": "ok"}
        assert client.get("/horizon/").status_code == 200
    assert re.search(r"Stopped: [12] done", worker.end())  # the schedule may have fired, too


def test_a_schedule_of_the_shop_is_a_job_like_any_other(start: Start) -> None:
    run = start(*GRAVITO, "schedule", "run", "jobs:horizon", "shipped-so-far")
    assert run.process.wait(60) == 0, run.output
    burst = start(*GRAVITO, "horizon", "work", "jobs:horizon", "--queues", "reports", "--burst")
    burst.shows("1 done")


def test_two_people_talk(start: Start) -> None:
    ann = start("chat.py", "ann", "kitchen")
    ann.shows("* ann came in")
    bob = start("chat.py", "bob", "kitchen")
    ann.shows("* bob came in")
    elsewhere = start("chat.py", "eve", "attic")
    elsewhere.shows("* eve came in")
    bob.types("hello")
    ann.shows("bob: hello")
    assert bob.process.stdin is not None
    bob.process.stdin.close()  # Ctrl-D
    ann.shows("* bob left")
    assert bob.process.wait(60) == 0, bob.output
    assert "hello" not in elsewhere.output


def test_the_sixth_call_is_refused(start: Start) -> None:
    port = free_port()
    web = start("-m", "uvicorn", "limited:app", "--port", str(port))
    with served(web, f"http://127.0.0.1:{port}") as client:
        answers = [client.get("/quote", headers={"x-api-key": "ann"}) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        assert client.get("/quote", headers={"x-api-key": "bob"}).status_code == 200
