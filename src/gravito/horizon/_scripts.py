"""Calls of the queue's scripts, repeated until the server has answered."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.wire.resp import error_from
from gravito.horizon._keys import Keys

__all__ = ["PASSING", "Caller", "Source"]

_FOLDER: Final = Path(__file__).parent / "scripts"
_BASE: Final = 0.02  # seconds; the first pause before a repetition
_CAP: Final = 0.5  # no pause is longer, so that a queue goes on soon after its server returned
_encode = msgspec.msgpack.Encoder().encode

# What may pass by itself. A script is safe to repeat, so a lost answer is no reason to give up either.
PASSING: Final = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.BusyError,
    errors.TryAgainError,
    errors.ClusterDownError,
    errors.MovedError,
    errors.AskError,
)
_INNER: Final = re.compile(r"-([A-Z]{3,}) (.*)", re.DOTALL)
_LISTED: Final = 60.0  # seconds for which a queue is taken to be on the list of queues
_ENLIST: Final = ("push", "step")  # scripts that make a queue
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
        guarded: name of the queue that must not be on a server that evicts keys; None for any server.
    """

    def __init__(self, client: Client, keys: Keys, patience: float, guarded: str | None = None) -> None:
        self._client = client.with_options(decode_responses=False)
        self._keys = keys
        self._patience = patience
        self._guarded = guarded
        self._listed_until = 0.0  # monotonic seconds; then the queue is put on the list of queues again
        self._opened = False  # the server has told its time, and that it keeps jobs
        # Server's ms less our monotonic ones; this machine's before the server's first answer.
        self._offset = (time.time() - time.monotonic()) * 1000

    def now_ms(self) -> int:
        """The server's clock as its last answer told it; this machine's before the first."""
        return int(self._offset + time.monotonic() * 1000)

    async def ready(self) -> None:
        """Learn the server's time, and that it will not evict jobs; once.

        Raises:
            ConfigurationError: it may.
        """
        if self._opened:
            return
        now, policy, limit = await self._send("open", (), (), (), self._patience)
        if self._guarded is not None and policy.startswith(b"allkeys") and limit != b"0":
            raise errors.ConfigurationError(
                f"queue {self._guarded}: the server evicts keys when its memory is full (maxmemory-policy "
                f"{policy.decode()}), so jobs could vanish. Set maxmemory-policy to noeviction, or pass allow_eviction=True",
                field="maxmemory-policy",
                value=policy.decode(),
                allowed="noeviction, or a volatile- policy",
            )
        self._opened = True
        self._told(now)

    def _told(self, now: int) -> None:
        self._offset = now - time.monotonic() * 1000

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
        if not self._opened:
            await self.ready()
        if name in _ENLIST and time.monotonic() >= self._listed_until:
            await self._enlist()
        reply = await self._send(name, args, more, blobs, self._patience if patience is None else patience)
        self._told(reply[0])
        return reply

    def begin(self, name: str, args: Any) -> Coroutine[Any, Any, Any]:
        """As `run`, but the call is on its way when this returns, not only when that is awaited."""
        if not self._opened or (name in _ENLIST and time.monotonic() >= self._listed_until):
            return self.run(name, args)
        call = self._call(name, args, (), ())
        return self._finish(name, call, self._client.execute_command(*call))

    async def _finish(self, name: str, call: tuple[Any, ...], first: Awaitable[Any]) -> Any:
        reply = await self._repeat(name, call, self._patience, first)
        self._told(reply[0])
        return reply

    async def run_on_wake(self, name: str, args: Any, *more: str, timeout: float) -> Any:
        """Block on the queue's wake token, and call a script right behind it on the same wire.

        The call lies at the server while nothing happens, and is carried out in the moment in which the token comes; or
        when the time is over.

        Args:
            name, args, *more: as in `run`.
            timeout: seconds to wait for the token.
        """
        if name in _ENLIST and time.monotonic() >= self._listed_until:
            await self._enlist()
        pipe: Any = self._client.pipeline(transaction=False)  # inside of MULTI nothing blocks
        pipe.blpop([self._keys.wake], timeout)
        pipe.execute_command(*self._call(name, args, more, ()))
        _, reply = await pipe.execute(raise_on_error=False)
        if isinstance(reply, BaseException):  # the server does not know it yet, or is no longer the right one
            return await self.run(name, args, *more)
        self._told(reply[0])
        return reply

    async def _enlist(self) -> None:
        """Put the queue on the list of queues, where somebody may have forgotten it; for readers, so no reason to fail."""
        with suppress(errors.GravitoError):
            await self._client.sadd(self._keys.known, self._keys.queue)
            self._listed_until = time.monotonic() + _LISTED

    async def _send(
        self, name: str, args: Any, more: Sequence[str], blobs: Sequence[bytes], patience: float
    ) -> Any:
        call = self._call(name, args, more, blobs)
        return await self._repeat(name, call, patience, self._client.execute_command(*call))

    def _call(self, name: str, args: Any, more: Sequence[str], blobs: Sequence[bytes]) -> tuple[Any, ...]:
        keys = self._keys.all + tuple(more)
        return ("EVALSHA", source(name).sha, len(keys), *keys, _encode(args), self._keys.channels, *blobs)

    async def _repeat(self, name: str, call: tuple[Any, ...], patience: float, answer: Awaitable[Any]) -> Any:
        """The answer to a call that was sent, or to one of its repetitions."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        attempt = 0
        while True:
            try:
                return await answer
            except errors.NoScriptError:  # EVAL makes the script known as well
                answer = self._client.execute_command("EVAL", source(name).text, *call[2:])
                continue
            except errors.GravitoError as raw:
                error = self._clear(raw, name)
                if not isinstance(error, PASSING) or isinstance(error, _FINAL) or loop.time() >= end:
                    raise error from (raw if error is not raw else raw.__cause__)
            attempt += 1
            pause = min(_CAP, _BASE * 2.0 ** min(attempt - 1, 10)) * (0.5 + random.random() / 2)
            await asyncio.sleep(min(pause, max(end - loop.time(), 0.0)))
            answer = self._client.execute_command(*call)

    def _clear(self, error: errors.GravitoError, name: str) -> errors.GravitoError:
        """The error in its own class, with what to do where there is something."""
        if not isinstance(error, errors.ResponseError):
            return error
        inner = _INNER.search(str(error)) if isinstance(error, errors.ScriptError) else None
        if inner is not None:  # Redis 6.2 has the code of an error in a script behind the line of that
            found = error_from(f"{inner[1]} {inner[2]}")
            if isinstance(found, errors.ResponseError):
                found.line, error = error.line, found
        if isinstance(error, errors.OutOfMemoryError):
            full = errors.OutOfMemoryError(
                f"queue {self._keys.queue}, {name}: the server has reached its maxmemory and took nothing of this call. "
                "Workers go on and make room; raise maxmemory, or keep fewer results"
            )
            full.status_code = "OOM"
            return full
        if error.line is not None and error.script is None:
            error.script = f"{name}.lua"
            error.args = (f"{name}.lua (behind common.lua), line {error.line}: {error}", *error.args[1:])
        return error
