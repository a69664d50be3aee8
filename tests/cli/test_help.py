"""What the program says of itself: help, and what the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from gravito.cli import app


def walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    """A command and all below it, groups included."""
    yield path
    context = typer.Context(command)
    for name in sorted(getattr(command, "commands", {})):
        yield from walk((*path, name), command.resolve_command(context, [name])[1])


COMMANDS = list(walk((), typer.main.get_command(app)))


def test_the_walk_gets_everywhere() -> None:
    assert {(), ("cache",), ("horizon", "schedule"), ("horizon", "schedule", "list")} < set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("gravito", *path)))
def test_every_command_and_group_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    _, found, example = result.output.partition("Example: gravito ")
    assert found
    # the schedules' commands stand in two places
    assert example.startswith(" ".join(path[1:] if path[:2] == ("horizon", "schedule") else path))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("hor", ["horizon"]),
        ("horizon pu", ["purge"]),
        ("horizon jobs app:horizon --state d", ["delayed", "done", "dead"]),
        ("horizon purge app:horizon emails --part p", ["parked"]),
    ],
)
def test_the_shell_completes(typed: str, offered: list[str]) -> None:
    words = ["gravito", *typed.split()]
    done = subprocess.run(
        [sys.executable, "-m", "gravito.cli"],
        env={
            **os.environ,
            "_GRAVITO_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == offered, done.stderr
