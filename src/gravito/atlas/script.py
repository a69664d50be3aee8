"""Lua scripts: sent by digest, loaded where the server lacks them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis.exceptions as redis_errors
from redis.commands.core import AsyncScript

from gravito import errors

if TYPE_CHECKING:
    from gravito.atlas.client import Client


class Script(AsyncScript):
    """A Lua script of a client; call it with `keys` and `args`.

    Example: `release = redis.script("return redis.call('get', KEYS[1])"); await release(keys=["k"])`.

    Args:
        client: where it is sent unless a call names another client or a pipeline.
        source: the script's text, or a path to it.
        name: for error messages.

    Raises:
        ConfigurationError: the file cannot be read.
        ScriptError: at a call, with the script's name and the line that the server names; other errors of
            commands inside the script (OutOfMemoryError, WrongTypeError) keep their class and carry both too.

    See https://redis.io/docs/latest/develop/programmability/eval-intro/
    """

    def __init__(self, client: Client, source: str | bytes | Path, name: str | None = None) -> None:
        if isinstance(source, Path):
            name = name or source.name
            try:
                source = source.read_text(encoding="utf-8")
            except OSError as error:
                raise errors.ConfigurationError(
                    f"the script {name} cannot be read: {error.strerror}",
                    field="source",
                    allowed="a readable file",
                ) from error
        self.registered_client: Any = client
        self.script: str | bytes = source
        text = source.encode() if isinstance(source, str) else source
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()  # the server's own name for a script
        self.name = name or f"script {self.sha[:8]}"

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    def __call__(  # type: ignore[override]  # a plain method, so that a pipeline can take it without an await
        self,
        keys: Sequence[Any] | None = None,
        args: Iterable[Any] | None = None,
        client: Any = None,
    ) -> Awaitable[Any]:
        """Run it.

        Args:
            keys: the keys it touches (KEYS).
            args: its other arguments (ARGV).
            client: another client, or a pipeline, which then queues it.

        Returns:
            An awaitable of the script's result; for a pipeline one that gives the pipeline.
        """
        from gravito.atlas.pipeline import Pipeline  # noqa: PLC0415  # it imports this module's users

        call = ("EVALSHA", self.sha, len(keys or ()), *(keys or ()), *(args or ()))
        if isinstance(client, Pipeline) and not client.immediate:
            client.scripts[len(client)] = self
            return _Queued(client.execute_command(*call))
        return self._run(client or self.registered_client, call)

    async def _run(self, client: Any, call: tuple[Any, ...]) -> Any:
        try:
            try:
                return await client.execute_command(*call)
            except redis_errors.NoScriptError:  # ours is one too
                await self.load(client)
                return await client.execute_command(*call)
        except errors.ResponseError as error:
            self.named(error)
            raise

    async def load(self, client: Any) -> None:
        """Make the script known to the server. https://redis.io/commands/script-load"""
        try:
            await client.script_load(self.script)
        except errors.ResponseError as error:
            self.named(error)
            raise

    def named(self, error: errors.ResponseError) -> errors.ResponseError:
        """The error with this script's name in front, and the line where the server tells it."""
        if error.line is not None and error.script is None:
            error.script = self.name
            error.args = (f"{self.name}, line {error.line}: {error}", *error.args[1:])
        return error


class _Queued:
    """What a script gives that a pipeline has taken: awaiting it sends nothing."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()  # nothing to wait for
        return self._pipeline
