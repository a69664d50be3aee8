"""Pipelines: many commands in one write, their replies in order; and transactions, which are pipelines.

Commands are packed as they are queued, so a bad argument is refused at its own line and nothing was sent.
A pipeline goes out on the shared wire. It takes a leased one when it watches keys, when one of its commands
needs one, or when it is larger than `limits.lease_over` and atomic.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Generator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from gravito import errors
from gravito.atlas._base import BaseClient
from gravito.atlas._batches import BATCH, READS, TRANSACTION, chunks, decoded, withdraw
from gravito.atlas.wire import commands, resp
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import EMPTY_RESPONSE, Batch, Spec, convert

if TYPE_CHECKING:
    from gravito.atlas._specs import Specs
    from gravito.atlas.client import Client
    from gravito.atlas.script import Script

_READ_ONLY = attrgetter("read_only")
_MULTI = resp.pack(("MULTI",))
_EXEC = resp.pack(("EXEC",))


if TYPE_CHECKING:

    class _Commands:
        """To a type checker every command of a pipeline gives the pipeline, which redis-py's signatures cannot say."""

        _specs: Specs
        _text: bool

        def __getattr__(self, name: str) -> Callable[..., Pipeline]: ...

else:
    _Commands = BaseClient


class Pipeline(_Commands):
    """Commands that are collected and sent together. Every command method returns the pipeline itself.

    Send it with `exec()`, `execute()` or by awaiting the chain: `await redis.pipeline().set("a", 1).get("a")`.
    Inside `async with` awaiting does not send, so that code for redis-py that awaits each line works.
    """

    def __init__(self, client: Client, transaction: bool = True) -> None:
        self._client = client
        self._specs = client._specs
        self._text = client._text
        self._atomic = transaction
        self._packed: list[bytes] = []  # one for each command
        self._queued: list[Spec] = []
        self._options: dict[int, dict[str, Any]] = {}  # by position; most commands have none
        self._raw: set[int] = set()  # positions that stay bytes (DUMP)
        self._leased_wire = False  # one of the commands needs a wire of its own
        self._hold = 0.0  # seconds for which its blocking commands may keep the replies back
        self._clean = True  # the wire can be used again afterwards
        self._entered = False  # inside `async with`
        self._wire: Wire | None = None  # leased by `watch`
        self._explicit = False  # `multi()` was called: commands are queued again
        self.watching = False
        self.scripts: dict[int, Script] = {}  # by position; to be known to the server before this is sent
        if self._specs.prefix is not None:
            self._send = self._specs.prefix.over(self._send)  # type: ignore[method-assign]  # a plain one pays nothing

    def __repr__(self) -> str:
        kind = "transaction" if self._atomic else "pipeline"
        return f"<Pipeline {kind} of {len(self)} commands on {self._client!r}>"

    def __len__(self) -> int:
        return len(self._packed)

    def __bool__(self) -> bool:
        return True  # an empty pipeline is still a pipeline

    # -- collecting ------------------------------------------------------------------------------------------

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        try:
            packed = resp.pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = resp.encode(args)
        if len(packed) > resp.MAX_ARGUMENT:
            resp.check_size(packed, args)
        if self.immediate:
            return self._now(spec, packed, options, text)
        if spec.leased:
            self._note_lease(spec, args[len(spec.words) :])
        if text is not self._text:
            self._raw.add(len(self._packed))
        if options:
            self._options[len(self._packed)] = options
        self._packed.append(packed)
        self._queued.append(spec)
        return self

    def _note_lease(self, spec: Spec, rest: tuple[Any, ...]) -> None:
        if not commands.needs_lease(spec.name, rest):
            return
        if commands.blocking_timeout(spec.name, rest) and not self._atomic:  # inside MULTI nothing blocks
            self._leased_wire = True
            self._hold += commands.blocking_timeout(spec.name, rest)
        if not commands.leaves_clean(spec.name, rest):
            self._leased_wire, self._clean = True, False

    def multi(self) -> None:
        """After `watch` and the reads: queue the commands that follow as the transaction."""
        if self._explicit:
            raise errors.WatchError("Cannot issue nested calls to MULTI")
        if self._packed:
            raise errors.WatchError("Commands without an initial WATCH have already been issued")
        self._explicit = True

    @property
    def immediate(self) -> bool:
        """True between `watch` and `multi`, when commands are sent at once."""
        return self.watching and not self._explicit

    # -- watching --------------------------------------------------------------------------------------------

    async def watch(self, *names: Any) -> bool:
        """Watch keys on a leased wire; until `multi()`, commands are sent at once. https://redis.io/commands/watch"""
        if self._explicit:
            raise errors.WatchError("Cannot issue a WATCH after a MULTI")
        if self._wire is None:
            self._wire = await self._client._state().topology.pool.acquire()
        self.watching = True
        if self._specs.prefix is not None:
            names = tuple(self._specs.prefix.keys(names))
        return bool(await self._now(self._specs["WATCH"], resp.encode(("WATCH", *names)), None, self._text))

    async def unwatch(self) -> bool:
        """Forget the watched keys. https://redis.io/commands/unwatch"""
        if not self.watching:
            return True
        done = await self._now(self._specs["UNWATCH"], resp.pack(("UNWATCH",)), None, self._text)
        self.watching = False
        return bool(done)

    async def _now(self, spec: Spec, packed: bytes, options: dict[str, Any] | None, text: bool) -> Any:
        """One command on the watching wire. If that wire is gone, so are its watches."""
        batch = self._batch(spec, [packed], text, frozenset())
        wire = self._wire
        assert wire is not None
        self._client._limit(batch)
        wire.send(batch)
        try:
            (reply,) = await batch.future
        except errors.ConnectionError as error:
            await self.reset()
            raise errors.WatchError(f"the connection was lost while watching keys: {error}") from error
        if isinstance(reply, Exception):
            self._client._state().topology.meter.errors += 1
            raise reply
        return convert(spec, reply, options)

    # -- sending ---------------------------------------------------------------------------------------------

    def exec(self, raise_on_error: bool = True) -> Awaitable[list[Any]]:
        """Send the commands and return their replies in order; the same as `execute`."""
        return self.execute(raise_on_error)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands and return their replies in order.

        Args:
            raise_on_error: raise the first command's error, with its number and name; otherwise each failed
                command's exception stands in its place.

        Raises:
            WatchError: a watched key changed; nothing was applied.
            ResponseError: see `raise_on_error`; the other commands of a plain pipeline were carried out.
            TimeoutError, ConnectionError: `replies` on the error holds those that came before.
        """
        if not self._packed and not self.watching:
            return []
        try:
            await self._load_scripts()
            if self._atomic or self._explicit:
                replies = await self._transact()
            else:
                replies = await self._pipe()
            return self._convert(replies, raise_on_error)
        finally:
            await self.reset()

    async def _pipe(self) -> list[Any]:
        read_only = all(map(_READ_ONLY, self._queued))
        spec = READS if read_only else BATCH
        batches: list[Batch] = []
        for start, end in chunks(self._packed):
            raw = frozenset(at - start for at in self._raw if start <= at < end)
            batches.append(self._batch(spec, self._packed[start:end], self._text, raw))
        self._packed = []  # the batches hold the bytes now
        replies: list[Any] = []
        try:
            await self._deliver(batches)
            for batch in batches:
                replies += await batch.future
                batch.replies = []
        except errors.GravitoError as error:
            partial = [reply for batch in batches for reply in batch.replies]
            withdraw(batches)
            error.replies = [*replies, *partial]  # type: ignore[attr-defined]  # documented on execute
            raise
        except asyncio.CancelledError:  # its first part is cancelled already
            withdraw(batches)
            raise
        return replies

    async def _transact(self) -> list[Any]:
        packed = [_MULTI, *self._packed, _EXEC]
        raw = frozenset({len(packed) - 1}) if self._raw else frozenset[int]()
        batch = self._batch(TRANSACTION, packed, self._text, raw)
        try:
            await self._deliver([batch])
            *queued, result = await batch.future
        except errors.GravitoError as error:
            error.replies = []  # type: ignore[attr-defined]  # EXEC's reply holds them all, or there are none
            raise
        self.watching = False
        if isinstance(result, Exception):
            for position, reply in enumerate(queued[1:]):
                if isinstance(reply, Exception):
                    raise self._annotated(reply, position) from result
            raise result
        if result is None:
            raise errors.WatchError("Watched variable changed.")
        if self._raw:
            return [
                reply if at in self._raw else decoded(reply, self._text) for at, reply in enumerate(result)
            ]
        return list(result)

    def _batch(self, spec: Spec, packed: list[bytes], text: bool, raw: frozenset[int]) -> Batch:
        future = get_running_loop().create_future()
        data = packed[0] if len(packed) == 1 else b"".join(packed)
        batch = Batch(future, data, spec, None, text, need=len(packed), bytes_only=raw, decode=text)
        batch.aim()
        return batch

    async def _deliver(self, batches: list[Batch]) -> None:
        topology = self._client._state().topology
        for batch in batches:
            self._client._limit(batch)
        patience = self._client._patience
        if self._wire is not None:
            for batch in batches:
                self._wire.send(batch)
        elif len(batches) == 1 and not self._leased_wire and (patience or self._is_large(batches[0])):
            topology.send_apart(batches[0], 0.0, clean=True, patience=patience)
        elif self._leased_wire or patience:
            for batch in batches:
                batch.since = get_running_loop().time()  # until it is written
            self._wire = await topology.pool.acquire_for(batches[0])
            if self._wire is None:
                return
            command, hold = self._client.settings.timeouts.command, max(self._hold, patience)
            self._wire.reset_timeout(None if command is None or math.isinf(hold) else command + hold)
            for batch in batches:
                batch.since = 0.0
                self._wire.send(batch)
        else:
            for batch in batches:
                topology.send(batch)

    def _is_large(self, batch: Batch) -> bool:
        return len(batch.packed) > self._client._lease_over

    async def _load_scripts(self) -> None:
        """Scripts are sent by digest: those that the server lacks are loaded first, all in one exchange."""
        scripts = list(set(self.scripts.values()))
        if not scripts:
            return
        known = await self._client.script_exists(*[script.sha for script in scripts])
        for script, there in zip(scripts, known, strict=True):
            if not there:
                await script.load(self._client)

    # -- replies ---------------------------------------------------------------------------------------------

    def _convert(self, replies: list[Any], raise_on_error: bool) -> list[Any]:
        if len(replies) != len(self._queued):
            raise errors.ProtocolError(f"{len(self._queued)} commands were sent, {len(replies)} replies came")
        every = self._options
        for position, (spec, reply) in enumerate(zip(self._queued, replies, strict=True)):
            if isinstance(reply, Exception):
                options = every.get(position)
                if options is not None and EMPTY_RESPONSE in options:
                    replies[position] = options[EMPTY_RESPONSE]
                elif raise_on_error:
                    raise self._annotated(reply, position)
                else:
                    self._note(reply, position)
            elif (converter := spec.convert) is not None:
                options = every.get(position) if every else None
                try:
                    replies[position] = convert(spec, reply, options) if options else converter(reply)
                except Exception as error:  # a reply that its converter cannot read fails in its own place
                    if raise_on_error:
                        raise
                    replies[position] = error
        return replies

    def _note(self, error: Exception, position: int) -> None:
        self._client._state().topology.meter.errors += 1
        if isinstance(error, errors.GravitoError):
            error.about(command=self._queued[position].name, node=self._client.settings.address)
        if isinstance(error, errors.ResponseError) and position in self.scripts:
            self.scripts[position].named(error)

    def _annotated(self, error: Exception, position: int) -> Exception:
        spec = self._queued[position]
        self._note(error, position)
        message = f"Command # {position + 1} ({spec.name}) of pipeline caused error: {error.args[0] if error.args else error}"
        error.args = (message, *error.args[1:])
        return error

    # -- the end ---------------------------------------------------------------------------------------------

    async def reset(self) -> None:
        """Forget the queued commands and give a leased wire back."""
        self._packed, self._queued, self._options, self._raw = [], [], {}, set()
        self._leased_wire, self._hold = False, 0.0
        self.scripts = {}
        self._explicit = False
        watching, self.watching = self.watching, False
        wire, self._wire = self._wire, None
        clean, self._clean = self._clean and not watching, True
        if wire is not None:
            self._client._state().topology.pool.release(wire, clean)  # a wire that still watches is closed

    async def aclose(self) -> None:
        """The same as `reset`."""
        await self.reset()

    async def discard(self) -> None:
        """Forget the queued commands. https://redis.io/commands/discard"""
        await self.reset()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._entered = False
        await self.reset()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        return self if self._entered else await self.execute()

    @property
    def connection_pool(self) -> Any:
        """The client's; redis-py's module commands read their settings from it."""
        return self._client.connection_pool

    def get_encoder(self) -> Any:
        """The client's encoder."""
        return self._client.get_encoder()

    def get_connection_kwargs(self) -> dict[str, Any]:
        """The client's settings as redis-py names them."""
        return self._client.get_connection_kwargs()
