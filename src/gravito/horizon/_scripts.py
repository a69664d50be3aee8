"""Calls of the queue's scripts, repeated until the server has answered."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.atlas.client import Client
from gravito.horizon._keys import Keys

__all__ = ["Caller", "Source"]

_FOLDER: Final = Path(__file__).parent / "scripts"
_BASE: Final = 0.02  # seconds; the first pause before a repetition
_CAP: Final = 0.5  # no pause is longer, so that a queue goes on soon after its server returned
_encode = msgspec.msgpack.Encoder().encode

# What may pass by itself. A script is safe to repeat, so a lost answer is no reason to give up either.
_PASSING: Final = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.BusyError,
    errors.TryAgainError,
    errors.ClusterDownError,
    errors.MovedError,
    errors.AskError,
)
_FINAL: Final = (errors.AuthenticationError, errors.TLSError, errors.ProtocolError)


class Source:
    """A script: its file behind the common part.

    Args:
        name: of the file, without its ending.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        common = (_FOLDER / "common.lua").read_text("utf-8")
        self.text = common + (_FOLDER / f"{name}.lua").read_text("utf-8")
        # the server's own name for a script
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Source {self.name}>"


@cache
def source(name: str) -> Source:
    """A script by name; read once."""
    return Source(name)


class Caller:
    """Runs scripts on the keys of one queue.

    Args:
        client: the connection.
        keys: the queue's.
        patience: seconds for which a call is repeated while the server is away.
    """

    def __init__(self, client: Client, keys: Keys, patience: float) -> None:
        self._client = client.with_options(decode_responses=False)
        self._keys = keys
        self._patience = patience

    async def run(
        self, name: str, args: Any, *more: str, blobs: Sequence[bytes] = (), patience: float | None = None
    ) -> Any:
        """Call a script, again and again while the server is away.

        Args:
            name: the script's.
            args: packed as ARGV[1].
            *more: keys behind those that all scripts have.
            blobs: bytes, as ARGV from 3 on.
            patience: seconds, in place of the queue's.

        Raises:
            GravitoError: what the server said, or why it could not be reached in time.
        """
        script = source(name)
        keys = self._keys.all + more
        tail = (len(keys), *keys, _encode(args), self._keys.channels, *blobs)
        call: tuple[Any, ...] = ("EVALSHA", script.sha, *tail)
        loop = asyncio.get_running_loop()
        end = loop.time() + (self._patience if patience is None else patience)
        attempt = 0
        while True:
            try:
                return await self._client.execute_command(*call)
            except errors.NoScriptError:
                call = ("EVAL", script.text, *tail)  # it makes the script known as well
            except errors.ResponseError as error:
                if not isinstance(error, _PASSING) or loop.time() >= end:
                    _name(error, name)
                    raise
                call = ("EVALSHA", script.sha, *tail)
                attempt += 1
            except _PASSING as error:
                if isinstance(error, _FINAL) or loop.time() >= end:
                    raise
                call = ("EVALSHA", script.sha, *tail)
                attempt += 1
            if attempt:
                pause = min(_CAP, _BASE * 2.0 ** min(attempt - 1, 10)) * (0.5 + random.random() / 2)
                await asyncio.sleep(min(pause, max(end - loop.time(), 0.0)))


def _name(error: errors.ResponseError, name: str) -> None:
    """Put the script's name on an error of which the server names the line."""
    if error.line is not None and error.script is None:
        error.script = f"{name}.lua"
        error.args = (f"{name}.lua (behind common.lua), line {error.line}: {error}", *error.args[1:])
