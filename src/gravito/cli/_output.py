"""How commands print: text and tables for people, JSON for programs. Whatever a value holds, it does not steer the
terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import typer

if TYPE_CHECKING:  # rich takes longer than most commands do
    from rich.console import Console
    from rich.table import Table

__all__ = ["clean", "complain", "console", "echo_json", "say", "show", "table"]

_PIPE = 200  # columns where no terminal says how many it has


def echo_json(value: Any) -> None:
    """Print anything as JSON: structs as objects, of other types what `str` says."""
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    typer.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())


def say(as_json: bool, text: str, **facts: Any) -> None:
    """Print what a command has done.

    Args:
        as_json: whether a program reads it.
        text: for people.
        **facts: the same for programs.
    """
    if as_json:
        echo_json(facts)
    else:
        typer.echo(clean(text))


def complain(message: object) -> None:
    """Print an error, for whoever called."""
    typer.echo("\n".join(clean(line) for line in f"Error: {message}".splitlines()), err=True)


def console() -> Console:
    """Where people read: as wide as the terminal; a pipe gets lines of up to 200 columns."""
    from rich.console import Console  # noqa: PLC0415  # as above

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE)


def show(renderable: Any) -> None:
    """Print a table or a text for people."""
    console().print(renderable)


def table(*columns: str, rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> Table:
    """A plain table; cells are shown as they are, whatever they hold."""
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        # as Text: square brackets in a job's name are no markup, and control characters do not reach the terminal
        made.add_row(*[Text(clean(cell)) for cell in row])
    return made


def clean(cell: Any) -> str:
    """Anything as text that does not steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in str(cell))
