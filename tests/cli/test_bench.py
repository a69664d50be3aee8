"""`gravito bench` and the arithmetic under it. No figure is asserted: only that there are figures, and no leftovers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
import typer
from redis import Redis
from typer.testing import CliRunner

from gravito.atlas.embedded import Engine
from gravito.cli.bench import bench
from gravito.cli.measure import Race, Timing, gets, pipelines, sets, spread_of

app = typer.Typer()
app.command()(bench)
SHORT = ["--seconds", "0.01", "--repeat", "1"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    engine.ensure()
    yield engine
    engine.stop()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)
    return result.exit_code, result.output


class TestCommand:
    def test_measures_every_row_and_leaves_no_key(self, engine: Engine) -> None:
        with Redis(unix_socket_path=engine.path) as client:
            client.set("mine", "stays")
            code, output = run(f"unix://{engine.path}", *SHORT)
            assert code == 0, output
            assert client.keys() == [b"mine"]
        for title in (
            "GET, 1 task",
            "GET, 50 tasks",
            "GET, 500 tasks",
            "SET, 500 tasks",
            "pipeline of 100 GETs",
        ):
            assert title in output
        assert "not measured" not in output

    def test_measures_the_embedded_engine_by_default(self) -> None:
        code, output = run(*SHORT)
        assert code == 0, output
        assert "embedded://" in output

    def test_says_where_nobody_listens(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        code, output = run(f"redis://:hidden@127.0.0.1:{port}/0", *SHORT)
        assert code == 1
        assert f"127.0.0.1:{port}" in output
        assert "hidden" not in output

    def test_refuses_a_malformed_address(self) -> None:
        code, output = run("http://127.0.0.1", *SHORT)
        assert code == 1
        assert "Error:" in output


class TestWorks:
    @pytest.mark.parametrize(("asked", "done"), [(10, 9), (3, 3), (1, 3)])
    async def test_tasks_share_the_operations(self, asked: int, done: int) -> None:
        calls: list[str] = []

        async def get(key: str) -> str:
            calls.append(key)
            return "value"

        timing = await gets(get, ["a", "b", "c"], "value")(asked)
        assert timing.count == len(calls) == done
        assert {key: calls.count(key) for key in calls} == dict.fromkeys("abc", done // 3)

    async def test_a_wrong_answer_is_not_measured(self) -> None:
        async def get(key: str) -> str:
            return "another"

        with pytest.raises(AssertionError, match="another"):
            await gets(get, ["a"], "value")(1)

    async def test_every_task_writes_its_own_key(self) -> None:
        written: dict[str, str] = {}

        async def set_(key: str, value: str) -> None:
            written[key] = value

        await sets(set_, ["a", "b"], "value")(2)
        assert written == {"a": "value", "b": "value"}

    async def test_a_pipeline_counts_its_commands(self) -> None:
        async def pipeline(keys: list[str]) -> list[str]:
            return ["value"] * len(keys)

        timing = await pipelines(pipeline, ["a", "b"], "value")(7)  # type: ignore[arg-type]  # a list is what it gets
        assert timing.count == 6


class TestRace:
    async def test_contenders_run_in_turn(self) -> None:
        order: list[str] = []

        def contender(name: str):
            async def work(count: int) -> Timing:
                order.append(name)
                return Timing(count, 10.0)

            return work

        race = Race({"a": contender("a"), "b": contender("b")}, seconds=1, repeat=2)
        figures = await race.run()
        # the first turn of each begins with its trial run
        assert order == ["a", "a", "b", "b", "a", "b"]
        assert set(figures) == {"a", "b"}

    async def test_one_that_fails_is_left_out_and_named(self) -> None:
        async def fails(count: int) -> Timing:
            raise ConnectionError("gone")

        async def works(count: int) -> Timing:
            return Timing(count, 10.0)

        race = Race({"bad": fails, "good": works}, seconds=1, repeat=2)
        figures = await race.run()
        assert set(figures) == {"good"}
        assert "gone" in race.failures["bad"]

    async def test_progress_is_told_after_every_sample(self) -> None:
        async def work(count: int) -> Timing:
            await asyncio.sleep(0)
            return Timing(count, 10.0)

        told: list[str] = []
        await Race({"a": work, "b": work}, seconds=1, repeat=2).run(told.append)
        assert told == ["a", "b", "a", "b"]


class TestSpread:
    def test_summarises(self) -> None:
        spread = spread_of([3.0, 1.0, 2.0])
        assert (spread.median, spread.low, spread.high) == (2.0, 1.0, 3.0)

    def test_needs_a_sample(self) -> None:
        with pytest.raises(ValueError, match="no samples"):
            spread_of([])
