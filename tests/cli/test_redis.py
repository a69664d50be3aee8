"""`gravito redis`: one command, lines from a pipe, and the shell."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from gravito.atlas import Client
from gravito.cli._commands import read_commands
from gravito.cli._replies import as_json, plain, pretty
from gravito.cli._shell import History, Names, Shell, command_of, history_file
from gravito.cli._words import is_secret, split
from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]


@pytest.fixture(scope="session")
def gravito_protocol() -> int | None:
    """The shell speaks RESP3 in any case."""
    return None


@pytest.fixture
async def raw(redis: Client) -> AsyncIterator[Client]:
    """As the command makes it: replies as the wire has them."""
    client = Client.from_url(redis.settings.url, protocol=3)
    client.response_callbacks.clear()
    async with client:
        yield client


# -- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  GET   a ", ["GET", "a"]),
        ('SET "a b" c', ["SET", "a b", "c"]),
        ("SET 'it\\'s' \"\"", ["SET", "it's", ""]),
        (r'SET k "\n\t\"\\"', ["SET", "k", '\n\t"\\']),
        (r'SET k "\xff\x00a"', ["SET", "k", b"\xff\x00a"]),
        (r"SET k '\n'", ["SET", "k", r"\n"]),
        ('SET k a"b', ["SET", "k", 'a"b']),
    ],
)
def test_a_line_is_split_as_redis_cli_does(line: str, words: list[Any]) -> None:
    assert split(line) == words


@pytest.mark.parametrize("line", ['GET "a', "GET 'a", 'GET "a"b'])
def test_quotes_that_do_not_match_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="quote"):
        split(line)


@given(st.lists(st.text()))
def test_what_is_quoted_comes_back(words: list[str]) -> None:
    quoted = ('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words)
    try:
        assert split(" ".join(quoted)) == words
    except UnicodeEncodeError:
        assert any("\ud800" <= char <= "\udfff" for word in words for char in word)


@pytest.mark.parametrize(
    "line", ["AUTH x", "auth user x", "  hello 3 AUTH u p", "config  set requirepass x", "ACL SETUSER a"]
)
def test_lines_with_passwords_are_known(line: str) -> None:
    assert is_secret(line)
    assert not is_secret("GET auth")


# -- replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (None, "(nil)"),
        (True, "(true)"),
        (7, "(integer) 7"),
        (1.5, "(double) 1.5"),
        ("a", '"a"'),
        (b"\xff", '"\\\\xff"'),
        ([], "(empty list)"),
        (set(), "(empty set)"),
        ({}, "(empty map)"),
        (["a", ["b", 1]], '1) "a"\n2) 1) "b"\n   2) (integer) 1'),
        ({"b", "a"}, '1~ "a"\n2~ "b"'),
        ({"k": "v", "l": [1]}, '"k" => "v"\n"l" =>\n  1) (integer) 1'),
    ],
)
def test_replies_are_readable(reply: Any, text: str) -> None:
    assert pretty(reply) == text


@given(st.text())
def test_no_value_steers_the_terminal(value: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in pretty([value, {value: value}]))


def test_json_and_plain_forms() -> None:
    reply = {"a": [1, None, b"\xff"], "b": {"x"}}
    assert json.loads(as_json(reply)) == {"a": [1, None, "\\xff"], "b": ["x"]}
    assert plain(["a", 1, None]) == "a\n1\n"


# -- the command -----------------------------------------------------------------------------------------------


def gravito(redis: Client, *args: str, lines: str | None = None) -> subprocess.CompletedProcess[str]:
    """`gravito redis` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "gravito.cli", "redis", *args],
        input=lines,
        stdin=subprocess.DEVNULL if lines is None else None,
        env={**os.environ, "REDIS_URL": redis.settings.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_one_command(redis: Client) -> None:
    await redis.hset("h", mapping={"f": "1"})
    assert gravito(redis, "HGETALL", "h", "--json").stdout == '{\n  "f": "1"\n}\n'
    assert gravito(redis, "GET", "nothing").stdout == ""
    failed = gravito(redis, "NOPE")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "unknown command" in failed.stderr


async def test_lines_share_a_connection(redis: Client) -> None:
    done = gravito(redis, lines="SELECT 3\nMULTI\nINCR n\nEXEC\nWRONG\nGET n\n")
    assert done.stdout.splitlines() == ["OK", "OK", "QUEUED", "1", "1"]
    assert done.returncode == 1


def test_a_password_has_no_place_in_the_arguments(redis: Client) -> None:
    done = gravito(redis, "--url", "redis://:secret@127.0.0.1:1/0", "PING")
    assert done.returncode == 2
    assert "REDIS_URL" in done.stderr
    assert "secret" not in done.stderr


# -- the shell -------------------------------------------------------------------------------------------------


async def typed(client: Client, text: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> bool:
    """A shell in which somebody types."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text(text)
        async with asyncio.timeout(20):
            return await Shell(client, pretty).run()


async def test_commands_are_answered_until_quit(
    raw: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = 'SET k "a\\nb"\rGET k\rNOPE\rGET "open\rhelp GET\rhelp\rSELECT 1\rGET k\rquit\r'
    assert not await typed(raw, lines, monkeypatch, tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ['"OK"', '"a\\nb"']
    assert said[3].startswith("(error) unknown command")
    assert said[4].startswith("(not sent) the quote")
    assert said[5] == "GET key"
    assert said[-1] == "(nil)"


async def test_the_history_is_private_and_knows_no_passwords(
    raw: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await typed(raw, "GET k\rAUTH secret\r\x04", monkeypatch, tmp_path)
    _check_history(Path(history_file()))


def _check_history(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "GET k" in path.read_text()
    assert "secret" not in path.read_text()
    assert list(History(str(path)).load_history_strings()) == ["GET k"]


async def test_a_lost_connection_is_told_and_made_again(
    raw: Client,
    redis: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not await typed(
        raw, "CLIENT KILL TYPE normal SKIPME no\rPING\rPING\rquit\r", monkeypatch, tmp_path
    )
    said = capsys.readouterr().out
    assert "lost with the connection" in said
    assert said.rstrip().endswith('"PONG"')


async def test_names_are_completed_from_the_server(raw: Client) -> None:
    commands = await read_commands(raw)
    names = Names(commands)

    def after(text: str) -> list[str]:
        return [found.text for found in names.get_completions(Document(text), None)]

    assert {"HGET", "HGETALL"} <= set(after("hget"))
    assert "CONFIG GET" in after("config g")
    assert after("nonsense") == []
    found = command_of(commands, "set key")
    assert found is not None
    assert found.syntax.startswith("key value [")


async def test_a_server_without_docs_gives_names(raw: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    execute: Callable[..., Any] = raw.execute

    def old(*words: str) -> Any:
        return execute("COMMAND", "NOSUCH") if words == ("COMMAND", "DOCS") else execute(*words)

    monkeypatch.setattr(raw, "execute", old)
    commands = await read_commands(raw)
    assert commands["GET"].syntax == ""
    assert len(commands) > 200
