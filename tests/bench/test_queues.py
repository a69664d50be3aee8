"""The benchmark of job queues: its arithmetic, what it says of a program that fails, and a small run of our own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from bench.contenders import OURS
from bench.engine import Running, running
from bench.queues import rows, session
from bench.queues.contenders import NAMES, PEERS, Queue, environment, find
from bench.queues.rows import MEASURES, QUEUE_ROWS, Measure
from bench.queues.session import Session
from bench.work import Address
from redis import Redis

ADDRESS = ("127.0.0.1", 1)
FAST, SLOW = Queue("fast", ("fast",), 100), Queue("slow", ("slow",), 100)


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    with running() as engine:
        yield engine


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Sequence[float]]], None]:
    """Put one measure of two rows, `a` and `b`, in the place of all."""

    def put(sample: Callable[..., Sequence[float]]) -> None:
        measure = Measure({"a": ("first", "jobs/s"), "b": ("second", "MB")}, sample)
        monkeypatch.setattr(rows, "MEASURES", (measure,))

    return put


async def measured(
    names: Sequence[str], queues: Sequence[Queue], address: Address, repeat: int, share: float = 1.0
) -> tuple[list[Any], list[str]]:
    """The rows, and what was told of the progress."""
    told: list[str] = []

    def step(title: str, total: int) -> Callable[[str], None]:
        told.append(f"{title}: {total}")
        return told.append

    return await rows.run(names, queues, address, repeat, share, step), told


class TestRows:
    async def test_a_sample_gives_the_figures_of_several_rows(self, only: Any) -> None:
        given = {"fast": iter([(3.0, 30.0), (1.0, 10.0), (2.0, 20.0)]), "slow": iter([(9.0, 90.0)] * 3)}
        only(lambda queue, address, share: next(given[queue.name]))
        found, told = await measured(["a", "b"], [FAST, SLOW], ADDRESS, 3)
        assert [(row.name, row.title, row.unit) for row in found] == [
            ("a", "first", "jobs/s"),
            ("b", "second", "MB"),
        ]
        spread = found[0].figures["fast"]
        assert (spread.low, spread.median, spread.high) == (1.0, 2.0, 3.0)
        assert found[1].figures["fast"].median == 20.0
        assert found[1].figures["slow"].median == 90.0
        assert told == ["first: 6", *["fast", "slow"] * 3]

    async def test_only_the_rows_that_are_asked_for(self, only: Any) -> None:
        only(lambda queue, address, share: (1.0, 2.0))
        found, _ = await measured(["b"], [FAST], ADDRESS, 1)
        assert [(row.name, row.figures["fast"].median) for row in found] == [("b", 2.0)]
        assert await measured([], [FAST], ADDRESS, 1) == ([], [])

    async def test_one_that_fails_is_left_out_named_and_not_asked_again(self, only: Any) -> None:
        asked: list[str] = []

        def sample(queue: Queue, address: Address, share: float) -> Sequence[float]:
            asked.append(queue.name)
            if queue is SLOW and asked.count("slow") == 2:
                raise RuntimeError("its worker is gone")
            return 1.0, 2.0

        only(sample)
        found, _ = await measured(["a", "b"], [SLOW, FAST], ADDRESS, 3)
        assert asked.count("slow") == 2
        assert [set(row.figures) for row in found] == [{"fast"}, {"fast"}]
        assert [row.failures for row in found] == [{"slow": "its worker is gone"}] * 2

    def test_queues_that_would_take_minutes_get_fewer_jobs(self) -> None:
        assert rows._of(Queue("rq", (), 200), 2_000) == 100
        assert rows._of(FAST, 2_000) == 2_000

    def test_one_job_at_a_time_is_not_measured_asleep(self) -> None:
        (measure,) = [each for each in MEASURES if "horizon-sleep" in each.rows]
        with pytest.raises(RuntimeError, match="one job at a time"):
            measure.sample(Queue("rq", (), 200), ADDRESS, 1.0)

    def test_names_are_there_once(self) -> None:
        assert len(set(QUEUE_ROWS)) == len(QUEUE_ROWS) == sum(len(measure.rows) for measure in MEASURES)


class Scripted(Session):
    """A session whose program and server answer from a script."""

    def __init__(self, **answers: Any) -> None:
        self.queue = FAST
        self.answers = answers
        self.asked: list[tuple[str, int, str]] = []

    def clear(self) -> None:
        self.asked.clear()

    def ask(self, role: str, count: int, kind: str) -> Any:
        self.asked.append((role, count, kind))
        return self.answers.get(role)

    def working(self) -> AbstractContextManager[int]:
        return nullcontext(os.getpid())

    def monitored(self) -> AbstractContextManager[list[bytes]]:
        return nullcontext(self.answers["lines"])

    def done(self) -> int:
        return int(self.answers["first"])

    def until(self, count: int, pause: float = 0.002) -> float:
        """As if each job took a tenth of a second from the moment 100 on."""
        return 100 + count / 10

    def began(self, number: int) -> float:
        return 100.5


class TestArithmetic:
    def test_a_rate_is_that_between_the_first_jobs_and_the_last(self) -> None:
        run = Scripted(first=6)
        # 51 with the one before the clock; 6 were done when the first was seen, 5 s before the end
        assert session.drain(run, 50).rate == pytest.approx(45 / 5)
        assert run.asked == [("pushmany", 50, "noop")]

    def test_commands_in_scripts_are_executed_and_not_sent(self) -> None:
        line = b'+1700000000.0 [0 127.0.0.1:1] "EVALSHA"\r\n'
        inner = b'+1700000000.0 [0 lua] "SET"\r\n'
        run = Scripted(lines=[b"+OK\r\n" + line + inner[:9], inner[9:] + inner + line])
        sent, executed = session.commands(run, 3)
        assert (sent, executed) == (2 / 4, 4 / 4)

    def test_pushes_by_their_own_clock(self) -> None:
        run = Scripted(pushmany={"seconds": 0.5}, pushone={"seconds": 4})
        assert session.push_many(run, 100) == 200
        assert session.push_one(run, 100) == 25

    def test_sleeps_from_the_first_begin_to_the_last_end(self) -> None:
        assert session.sleeps(Scripted(), 99) == pytest.approx(110 - 100.5)

    def test_memory_of_a_process_and_its_children(self) -> None:
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=PIPE) as child:
            assert child.pid in session._children(os.getpid())
            both = session.resident(os.getpid())
            assert both > session.resident(child.pid) > 0
            assert child.stdin is not None
            child.stdin.close()

    def test_a_process_that_is_gone_has_none(self) -> None:
        assert session.resident(2**22 + 1) == 0


class TestPrograms:
    def test_who_is_not_here_is_left_out_with_a_reason(self, tmp_path: Path) -> None:
        queues, left_out = find(python="/nowhere/python", arq="/nowhere/arq", modules=tmp_path)
        assert [queue.name for queue in queues] == [OURS]
        assert set(left_out) == set(NAMES) - {OURS}
        assert all(why.startswith("left out: ") for why in left_out.values())

    def test_each_has_a_program(self) -> None:
        programs = {path.stem for path in PEERS.glob("with_*.py")}
        assert programs | {"with_bullmq"} == {f"with_{name}" for name in NAMES}

    def test_they_find_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
        told = environment("h", 7, tmp_path, results=True, sleeps=False)
        assert told["PYTHONPATH"] == f"{PEERS}{os.pathsep}/elsewhere"
        assert (told["BENCH_HOST"], told["BENCH_PORT"]) == ("h", "7")
        assert (told["BENCH_RESULTS"], told["BENCH_SLEEPS"]) == ("1", "0")

    def test_the_last_line_of_a_complaint(self, engine: Running) -> None:
        broken = Queue("broken", (sys.executable, "-c", "import sys; sys.exit('first\\nwhat is wrong')"), 1)
        with (
            closing(Session(broken, engine.host, engine.port)) as run,
            pytest.raises(RuntimeError, match=r"^what is wrong$"),
        ):
            run.ask("pushmany", 1, "noop")


def test_a_small_run_of_our_own(engine: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(rows, "COUNTED", 300)
    ours = Queue(OURS, (sys.executable, str(PEERS / "with_gravito.py")), 300)
    names = ["horizon-drain", "horizon-memory", "horizon-sent", "horizon-executed"]
    found, told = asyncio.run(measured(names, [ours], (engine.host, engine.port), 1))
    assert [row.name for row in found] == names
    assert [row.failures for row in found] == [{}] * 4
    figures = {row.name: row.figures[OURS].median for row in found}
    assert all(figure > 0 for figure in figures.values()), figures
    assert figures["horizon-sent"] < figures["horizon-executed"], "what scripts do is told apart"
    assert told.count(OURS) == 2
    assert list(tmp_path.iterdir()) == []
    with Redis(engine.host, engine.port) as server:
        assert server.dbsize() == 0
