"""`gravito cache`: statistics of all processes, forgetting, flushing and clearing."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gravito.atlas import Client
from gravito.atlas.embedded import Engine
from gravito.atlas.manager import ConnectionManager
from gravito.cli import _server, app
from gravito.stasis import Cache
from gravito.testing import empty

PASSWORD = "s3cr3t-of-the-test"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(autouse=True)
def url(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_server, "DB", ConnectionManager())
    path = engine.ensure()
    empty(path)
    monkeypatch.setenv("REDIS_URL", f"unix://{path}")
    return f"unix://{path}"


def run(*arguments: str, input: str | None = None) -> Result:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["cache", *arguments], input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def in_terminal(command: list[str], columns: int) -> str:
    """What a command prints to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdout=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 65536):
            shown += more
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def with_cache(url: str, work: Callable[[Cache], Awaitable[Any]], **options: Any) -> Any:
    """What an application does to a cache, in a process of its own as it were."""

    async def main() -> Any:
        async with Client.from_url(url) as client, Cache(connection=client, **options) as cache:
            return await work(cache)

    return asyncio.run(main())


async def fill(cache: Cache) -> None:
    await cache.remember("user:1", 60, lambda: 1)
    await cache.get("user:1")
    await cache.tags("team:7").put("user:2", 2)
    await cache.namespace("reports").put("a", 1)


class TestStats:
    def test_nothing_yet(self) -> None:
        result = run("stats")
        assert result.exit_code == 0
        assert "No process has reported anything under the prefix 'cache' yet." in result.output

    def test_all_processes_together(self, url: str) -> None:
        with_cache(url, fill)
        with_cache(url, fill)
        result = run("stats", "--json")
        assert result.exit_code == 0
        report = json.loads(result.output)
        assert report["prefix"] == "cache"
        user = report["templates"]["user"]
        assert (user["hits"], user["misses"], user["runs"], user["writes"]) == (3, 1, 1, 3)
        assert user["hit_rate"] == 0.75
        assert report["total"]["writes"] == 5
        assert list(report["templates"]) == ["user", "a"]

    def test_as_a_table(self, url: str) -> None:
        async def work(cache: Cache) -> None:
            await cache.get("[bold]x:1")
            await cache.remember("user:1", 60, lambda: 1, template="user:{id}")

        with_cache(url, work)
        result = run("stats")
        assert result.exit_code == 0
        lines = {re.split(r"\s{2,}", line.strip())[0]: line for line in result.output.splitlines()}
        assert "[bold]x" in lines
        assert re.search(r"0\s+1\s+0\.0%", lines["user:{id}"])
        assert re.search(r"0\s+2\s+0\.0%", lines["all"])
        assert "mean run" in lines["template"]

    def test_a_pipe_and_a_narrow_terminal_show_whole_words(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        template = "report:{customer_id}:{year}:{month}"

        async def work(cache: Cache) -> None:
            await cache.remember("report:1", 60, lambda: 1, template=template)
            await cache.forget("user:1")

        with_cache(url, work)
        monkeypatch.setenv("COLUMNS", "80")
        command = [sys.executable, "-m", "gravito.cli", "cache", "stats", "--url", url]
        piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        header, *rows = piped.splitlines()
        columns = ["template", "hits", "misses", "hit rate", "writes", "forgotten", "runs", "mean run"]
        assert re.split(r"\s{2,}| (?!rate|run)", header.strip()) == columns  # nothing stale, nothing flushed
        assert any(row.startswith(template) for row in rows)
        narrow = in_terminal(command, 80)
        assert re.search("hits +misses +hit rate +writes +forgotten +runs +mean run", narrow)
        assert template in re.sub(r"\s{2,}[^\n]*\n", "", narrow)  # folded at most

    def test_a_terminal_that_is_too_narrow_for_all_columns_cuts_none(self, url: str) -> None:
        async def work(cache: Cache) -> None:
            await cache.remember("report:1", 60, lambda: 1)
            await cache.tags("team").flush()
            await cache.forget("user:1")
            await cache._client().set("cache:k:junk", "junk")
            await cache.get("junk")

        with_cache(url, work)
        header, *rows = in_terminal(
            [sys.executable, "-m", "gravito.cli", "cache", "stats", "--url", url], 60
        ).splitlines()
        columns = r"template +hits +misses +hit rate +writes +forgotten +flushes +errors +runs +mean run"
        assert re.fullmatch(columns, header)
        assert [row.split()[0] for row in rows] == ["junk", "report", "team", "user", "all"]

    def test_of_another_prefix(self, url: str) -> None:
        with_cache(url, fill, prefix="web")
        assert json.loads(run("stats", "--json").output)["templates"] == {}
        assert "user" in json.loads(run("stats", "--json", "--prefix", "web").output)["templates"]

    def test_what_is_not_ours_in_the_hash_is_left_out(self, url: str) -> None:
        with_cache(url, lambda cache: cache._client().hset("cache:s", "x|nothing", "1"))
        assert json.loads(run("stats", "--json").output)["templates"] == {}


class TestForget:
    def test_some_keys(self, url: str) -> None:
        with_cache(url, fill)
        result = run("forget", "user:1", "user:9")
        assert (result.exit_code, result.output) == (0, "1 of 2 were there, and are forgotten.\n")
        assert with_cache(url, lambda cache: cache.many(["user:1", "user:2"])) == {
            "user:1": None,
            "user:2": 2,
        }

    def test_from_standard_input(self, url: str) -> None:
        async def work(cache: Cache) -> None:
            await cache.put_many({f"k:{number}": number for number in range(2500)})

        with_cache(url, work)
        lines = "".join(f"k:{number}\n" for number in range(2499))
        result = run("forget", "--stdin", "--json", input=lines)
        assert json.loads(result.output) == {"keys": 2499, "forgotten": 2499}
        assert with_cache(url, lambda cache: cache.many(["k:0", "k:2499"])) == {"k:0": None, "k:2499": 2499}

    def test_in_a_namespace(self, url: str) -> None:
        with_cache(url, fill)
        assert "0 of 1" in run("forget", "a").output
        assert "1 of 1" in run("forget", "a", "--namespace", "reports").output

    def test_none(self) -> None:
        result = run("forget")
        assert result.exit_code == 2
        assert "name a key, or say --stdin" in result.output

    def test_one_that_cannot_be_forgets_nothing(self, url: str) -> None:
        with_cache(url, fill)
        result = run("forget", "user:1", "")
        assert result.exit_code == 2
        assert "Error: the key is empty" in result.output
        assert with_cache(url, lambda cache: cache.get("user:1")) == 1


class TestFlushTags:
    def test_all_that_bear_it(self, url: str) -> None:
        with_cache(url, fill)
        result = run("flush-tags", "team:7", "nothing")
        assert (result.exit_code, result.output) == (0, "Flushed team:7, nothing.\n")
        assert with_cache(url, lambda cache: cache.many(["user:1", "user:2"])) == {
            "user:1": 1,
            "user:2": None,
        }
        assert json.loads(run("flush-tags", "team:7", "--json").output) == {"flushed": ["team:7"]}

    def test_of_a_namespace_only(self, url: str) -> None:
        with_cache(url, fill)
        run("flush-tags", "team:7", "--namespace", "reports")
        assert with_cache(url, lambda cache: cache.get("user:2")) == 2


class TestClear:
    @pytest.mark.parametrize("answer", ["n\n", "\n", ""])
    def test_asks_first(self, url: str, answer: str) -> None:
        with_cache(url, fill)
        result = run("clear", input=answer)
        assert result.exit_code == 1
        assert "Forget everything in the cache 'cache' on" in result.output
        assert with_cache(url, lambda cache: cache.get("user:1")) == 1

    def test_yes(self, url: str) -> None:
        with_cache(url, fill)
        with_cache(url, lambda cache: cache.put("k", 1), prefix="web")
        assert run("clear", input="y\n").exit_code == 0
        assert with_cache(url, lambda cache: cache.get("user:1")) is None
        assert with_cache(url, lambda cache: cache.namespace("reports").get("a")) is None
        assert with_cache(url, lambda cache: cache.get("k"), prefix="web") == 1
        result = run("clear", "--prefix", "web", "--yes")
        assert (result.exit_code, result.output) == (0, "Cleared the cache 'web'.\n")
        assert with_cache(url, lambda cache: cache.get("k"), prefix="web") is None

    def test_a_namespace(self, url: str) -> None:
        with_cache(url, fill)
        result = run("clear", "--namespace", "reports", "--yes", "--json")
        assert json.loads(result.output) == {"cleared": "cache/reports"}
        assert with_cache(url, lambda cache: cache.namespace("reports").get("a")) is None
        assert with_cache(url, lambda cache: cache.get("user:1")) == 1

    def test_json_asks_nothing(self, url: str) -> None:
        with_cache(url, fill)
        result = run("clear", "--json")
        assert result.exit_code == 2
        assert "say --yes, too" in result.output
        assert with_cache(url, lambda cache: cache.get("user:1")) == 1


class TestTroubles:
    @pytest.mark.parametrize(
        "arguments",
        [["stats"], ["forget", "k"], ["flush-tags", "t"], ["clear", "--yes"]],
        ids=lambda each: each[0],
    )
    def test_no_server(self, arguments: list[str]) -> None:
        result = run(*arguments, "--url", "redis://127.0.0.1:1")
        assert result.exit_code == 1
        assert "Error: " in result.output
        assert "127.0.0.1:1" in result.output

    def test_a_password_does_not_belong_into_the_command(self) -> None:
        result = run("stats", "--url", f"redis://:{PASSWORD}@127.0.0.1:1")
        assert result.exit_code == 2
        assert "--url holds a password" in result.output
        assert PASSWORD not in result.output

    def test_a_connection_that_is_not_there(self) -> None:
        result = run("stats", "--connection", "nowhere")
        assert result.exit_code == 2
        assert "nowhere" in result.output

    def test_a_prefix_that_cannot_be(self) -> None:
        result = run("clear", "--yes", "--prefix", "a b")
        assert result.exit_code == 2
        assert "namespace 'a b'" in result.output


class TestHelp:
    @pytest.mark.parametrize("name", ["stats", "forget", "flush-tags", "clear"])
    def test_each_has_an_example(self, name: str) -> None:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"Example: gravito cache {name}" in result.output
        assert "Exit code: 0, or 1" in result.output

    def test_the_group_is_listed_and_not_imported(self) -> None:
        result = CliRunner().invoke(app, ["--help"])
        assert "cache" in result.output
        code = (
            "import sys, gravito.cli; assert not [n for n in sys.modules if n.startswith('gravito.stasis')]"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
