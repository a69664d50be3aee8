"""The interactive shell of `gravito redis`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from gravito.atlas import Client
from gravito.cli._commands import Command, read_commands
from gravito.cli._words import is_secret, split
from gravito.errors import ConfigurationError, ConnectionError, GravitoError

try:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory
except ImportError as error:
    raise ConfigurationError(
        "the shell needs prompt_toolkit: pip install 'gravito[shell]'. One command works without: "
        "gravito redis GET key",
        field="shell",
    ) from error

__all__ = ["Shell"]

_LISTENS = {"SUBSCRIBE": "subscribe", "PSUBSCRIBE": "psubscribe", "SSUBSCRIBE": "ssubscribe"}


class Shell:
    """Reads commands and shows replies until its end is asked for.

    Args:
        client: with replies as the wire has them.
        show: makes text of a reply.
    """

    def __init__(self, client: Client, show: Callable[[Any], str]) -> None:
        self._client = client
        self._show = show
        self._commands: dict[str, Command] = {}
        self._last_failed = False

    async def run(self) -> bool:
        """Until Ctrl-D, or `quit`; whether the last command failed."""
        self._commands = await read_commands(self._client)
        prompt: PromptSession[str] = PromptSession(
            history=History(history_file()),
            completer=Names(self._commands),
            auto_suggest=AutoSuggestFromHistory(),
            bottom_toolbar=lambda: self._hint(prompt.default_buffer.text),
            complete_while_typing=False,
        )
        typer.echo(f"{self._client.settings.address}: `help` explains, Ctrl-D leaves.")
        session = self._client.client()
        try:
            while True:
                with suppress(KeyboardInterrupt):
                    try:
                        line = await prompt.prompt_async(f"{self._client.settings.name}> ")
                    except EOFError:
                        return self._last_failed
                    if line.strip().lower() in ("quit", "exit"):
                        return self._last_failed
                    session = await self.answer(line, session)
        finally:
            await session.aclose()

    async def answer(self, line: str, session: Any) -> Any:
        """Run one line; the session for the next one, a new one if the connection is gone."""
        self._last_failed = True
        try:
            words = split(line)
            if words:
                await self._run(words, session)
            self._last_failed = False
        except ValueError as error:
            typer.echo(f"(not sent) {error}")
        except GravitoError as error:
            typer.echo(self._show(error))
            if isinstance(error, ConnectionError):
                typer.echo(
                    "SELECT, WATCH and MULTI are lost with the connection; the next command makes a new one."
                )
                await session.aclose()
                return self._client.client()
        return session

    async def _run(self, words: list[str | bytes], session: Any) -> None:
        name = str(words[0]).upper()
        if name == "HELP":
            typer.echo(self._help(" ".join(str(word) for word in words[1:]).upper()))
        elif name in _LISTENS and len(words) > 1:
            await self._listen(getattr(self._client, _LISTENS[name]), words[1:])
        elif name == "MONITOR":
            await self._monitor()
        else:
            typer.echo(self._show(await session.execute(*words)))

    async def _listen(self, subscribe: Any, channels: list[str | bytes]) -> None:
        async with until_interrupt() as interrupted, await subscribe(*channels) as subscription:
            typer.echo("Listening; Ctrl-C ends it.")
            async for message in before(interrupted, subscription):
                typer.echo(f"{message.channel}: {self._show(message.data)}")

    async def _monitor(self) -> None:
        async with until_interrupt() as interrupted, self._client.monitor() as monitor:
            typer.echo("Watching; Ctrl-C ends it.")
            async for seen in before(interrupted, monitor.listen()):
                typer.echo(f"{seen['client_address']}:{seen['client_port']} [{seen['db']}] {seen['command']}")

    def _help(self, about: str) -> str:
        if not about:
            return (
                "help COMMAND explains a command. Tab completes names, the arrow keys go through the history.\n"
                'Words with spaces stand in quotes; within "..." escapes as \\n and \\xff mean bytes.'
            )
        found = [command.help() for name, command in self._commands.items() if name.startswith(about)]
        exact = self._commands.get(about)
        if exact is not None and " " not in about and len(found) > 12:
            found = [exact.help()]
        return "\n".join(found[:12]) or f"The server knows no command {about}."

    def _hint(self, text: str) -> str:
        command = command_of(self._commands, text)
        return "" if command is None else f"{command.name} {command.syntax}  {command.summary}"


class Names(Completer):
    """Completes the names of commands and of their subcommands."""

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What the text before the cursor may become."""
        typed = document.text_before_cursor.lstrip().upper()
        for name, command in self._commands.items():
            if name.startswith(typed) and (" " not in name or " " in typed):
                yield Completion(name, start_position=-len(typed), display_meta=command.summary)


class History(FileHistory):
    """Lines on disk, for this user alone, without those that may hold a password."""

    def store_string(self, string: str) -> None:
        """Keep a line."""
        if not is_secret(string):
            super().store_string(string)


def history_file() -> str:
    """Where the history is kept; the folder and the file are made for this user alone."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(base) / "gravito"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "redis-history"
    path.touch(mode=0o600, exist_ok=True)
    return str(path)


def command_of(commands: dict[str, Command], text: str) -> Command | None:
    """The command that a line begins with."""
    words = text.upper().split()
    return commands.get(" ".join(words[:2])) or commands.get(words[0]) if words else None


@asynccontextmanager
async def until_interrupt() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C sets, in place of what it does otherwise."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, event.set)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def before(interrupted: asyncio.Event, items: Any) -> AsyncIterator[Any]:
    """The items of an iterator until the event is set."""
    iterator, stop = aiter(items), asyncio.ensure_future(interrupted.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(iterator))
            await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        stop.cancel()
