"""Fills `reference/terminal.md` with every command of `gravito`, read from the program itself at each build."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer
import typer.main

from gravito.cli import app

PAGE = "reference/terminal.md"
MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls this for each page."""
    if page.file.src_uri != PAGE:
        return markdown
    return markdown.replace(MARK, "\n".join(described("gravito", typer.main.get_command(app))))


def described(path: str, command: Any) -> Iterator[str]:
    """A command and those below it, as Markdown."""
    yield f"\n{'##' if path.count(' ') < 2 else '###'} {path}\n"
    yield from helped(inspect.cleandoc(command.help or ""))
    yield from usage(path, command)
    context = typer.Context(command)
    for name in sorted(getattr(command, "commands", {})):
        yield from described(f"{path} {name}", command.resolve_command(context, [name])[1])


def helped(text: str) -> Iterator[str]:
    """The help, its example as code."""
    for paragraph in text.replace("\f", "").replace("\b\n", "").split("\n\n"):
        if paragraph.startswith("Example"):
            lines = paragraph.partition(":")[2].strip().splitlines()
            yield "\n".join(["```console", *(f"$ {line.strip()}" for line in lines if line.strip()), "```\n"])
        else:
            yield paragraph + "\n"


def usage(path: str, command: Any) -> Iterator[str]:
    """Its arguments and options, as a table."""
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    rows = [row(each) for each in shown]
    words = [word(each) for each in command.params if each.param_type_name == "argument"]
    words += ["COMMAND"] if hasattr(command, "commands") else []
    yield f"```text\n{' '.join([path, *words, '[OPTIONS]'])}\n```\n"
    if rows:
        yield "| | |\n| --- | --- |\n" + "\n".join(rows) + "\n"


def word(argument: Any) -> str:
    """An argument as usage shows it."""
    shown = str(argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return shown if argument.required else f"[{shown}]"


def row(param: Any) -> str:
    """One argument or option."""
    names = [word(param)] if param.param_type_name == "argument" else [*param.opts, *param.secondary_opts]
    text = " ".join((getattr(param, "help", None) or "").split()).replace("|", "\\|")
    default = param.default
    if default not in (None, False, (), [], "") and not callable(default):
        text += f" Default: `{default}`."
    return f"| {', '.join(f'`{name}`' for name in names)} | {text} |"
