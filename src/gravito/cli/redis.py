"""`gravito redis`: a shell on a connection, or one command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from gravito.atlas import Client, Settings
from gravito.cli._replies import as_json, plain, pretty
from gravito.cli._server import Connection, Url, settings_of
from gravito.cli._words import split
from gravito.errors import GravitoError

__all__ = ["redis"]


def redis(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="A command and its arguments; without one, a shell, or lines from standard input."
        ),
    ] = None,
    connection: Connection = None,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print replies as JSON.")] = False,
) -> None:
    """A shell on Redis or Valkey, with history, completion and help; or one command and its reply.

    Example: gravito redis HGETALL user:1 --json

    In the shell: `help GET` explains a command, `SUBSCRIBE news` and `MONITOR` listen until Ctrl-C, Ctrl-D leaves.

    Exit code: 0, or 1 if a command failed.
    """
    try:
        settings = settings_of(connection, url)
        failed = asyncio.run(_main(settings, command, json))
    except GravitoError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(1 if failed else 0)


async def _main(settings: Settings, command: list[str] | None, json: bool) -> bool:
    import msgspec  # noqa: PLC0415  # the shape of replies is the wire's here, not redis-py's

    client = Client(msgspec.structs.replace(settings, protocol=3, decode_responses=True))
    client.response_callbacks.clear()
    show = as_json if json else plain
    async with client:
        if command:
            return await _each(client, [[*command]], show if json or not sys.stdout.isatty() else pretty)
        if not sys.stdin.isatty():
            lines = (split(line) for line in sys.stdin if line.strip())
            return await _each(client, lines, show)
        from gravito.cli._shell import Shell  # noqa: PLC0415  # needs the extra

        return await Shell(client, as_json if json else pretty).run()


async def _each(client: Client, commands: Iterable[list[Any]], show: Any) -> bool:
    """Run commands on one connection, so that MULTI, SELECT and the like hold for those that follow."""
    failed = False
    async with client.client() as session:
        for words in commands:
            try:
                shown = show(await session.execute(*words))
            except GravitoError as error:
                failed = True
                typer.echo(f"(error) {error}", err=True)
                continue
            if shown:
                typer.echo(shown)
    return failed
