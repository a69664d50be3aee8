"""What redis-py's own PubSub, Monitor and module pipelines expect of a pool and a connection, on leased wires."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from redis._parsers.encoders import Encoder
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.himport import HImportRegistry

from gravito import errors
from gravito.atlas.wire import commands, resp
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Confirm, Entry, Spec

if TYPE_CHECKING:
    from gravito.atlas.client import Client

_RAW = Spec.of("command")


def new_encoder(text: bool) -> Any:
    """redis-py's encoder."""
    make: Any = Encoder  # it has no types
    return make("utf-8", "strict", text)


class PoolAdapter:
    """A pool for redis-py's classes: a connection of it is a leased wire, of one node if `acquire` says of which."""

    def __init__(self, client: Client, acquire: Callable[[], Awaitable[Wire]] | None = None) -> None:
        self.client = client
        self._acquire = acquire
        settings = client.settings
        self.connection_kwargs: dict[str, Any] = {
            "protocol": settings.protocol,
            "legacy_responses": True,
            "decode_responses": client._text,
            "db": settings.db,
            "host": settings.host,
            "port": settings.port,
        }
        self.himport_registry = HImportRegistry()

    def __repr__(self) -> str:
        return f"<PoolAdapter of {self.client!r}>"

    def get_encoder(self) -> Any:
        """redis-py's encoder."""
        return new_encoder(self.client._text)

    async def get_connection(self, *_: Any, **__: Any) -> ConnectionAdapter:
        """A connection on a newly leased wire."""
        connection = ConnectionAdapter(self.client, self._acquire)
        await connection.connect()
        return connection

    async def release(self, connection: ConnectionAdapter) -> None:
        """Give the wire back."""
        await connection.disconnect()

    async def aclose(self) -> None:
        """The client closes the wires."""


class ConnectionAdapter:
    """A connection for redis-py's classes: what they send goes on one leased wire, what comes stands in line."""

    health_check_interval = 0
    credential_provider = None  # the wire authenticates by itself
    should_reconnect = staticmethod(lambda: False)

    def __init__(self, client: Client, acquire: Callable[[], Awaitable[Wire]] | None = None) -> None:
        self._client = client
        self._acquire = acquire
        self._wire: Wire | None = None
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._callbacks: list[Callable[[ConnectionAdapter], Any]] = []
        settings = client.settings
        self.host, self.port, self.db = settings.host, settings.port, settings.db
        self.encoder = new_encoder(client._text)
        backoff = ExponentialWithJitterBackoff(base=settings.retry.base, cap=settings.retry.cap)
        self.retry: Any = Retry(backoff, settings.retry.attempts)
        self.himport_registry = HImportRegistry()
        self._himport_prepared: dict[str, int] = {}
        self._himport_reconciled_revision = 0

    @property
    def is_connected(self) -> bool:
        """True while the wire lives."""
        return self._wire is not None and self._wire.ended is None

    def register_connect_callback(self, callback: Callable[[ConnectionAdapter], Any]) -> None:
        """Call `callback` after every connect."""
        self._callbacks.append(callback)

    def deregister_connect_callback(self, callback: Callable[[ConnectionAdapter], Any]) -> None:
        """Undo `register_connect_callback`."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    async def connect(self) -> None:
        """Lease a wire unless there is one that lives."""
        if self.is_connected:
            return
        await self.disconnect()
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._inbox = inbox
        self._wire = wire = await (self._acquire or self._client._state().topology.pool.acquire)()
        wire.decode_pushes = self._client._text
        wire.pushes_as_arrays = self._client.settings.protocol == 2  # RESP2
        wire.reset_timeout(None)  # a subscriber may wait for ever; the health check watches the peer
        wire.on_push = wire.on_stray = inbox.put_nowait

        def ended(_: Wire, error: Exception, sent: list[Entry], unsent: list[Entry]) -> None:
            for entry in (*sent, *unsent):
                entry.future.cancel()
            inbox.put_nowait(error)

        wire.on_end = ended
        for callback in list(self._callbacks):
            result = callback(self)
            if isinstance(result, Awaitable):
                await result

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """Give the wire back; its state was changed, so it is closed."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._client._state().topology.pool.release(wire, clean=False)

    async def send_command(self, *args: Any, **_: Any) -> None:
        """Send a command; its reply comes by `read_response`."""
        await self.send_packed_command([self._pack(args)], args)

    def _pack(self, args: Iterable[Any]) -> bytes:
        name, *rest = args
        words = name.split() if isinstance(name, str) else [name]
        prefix = self._client._specs.prefix
        if prefix is not None:
            rest = list(prefix.rest(_name(name), tuple(rest)))
        return resp.encode((*words, *rest))

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Pack each command."""
        return [self._pack(args) for args in commands]

    async def send_packed_command(self, packed: list[bytes], args: tuple[Any, ...] = ("",), **_: Any) -> None:
        """Send packed commands; each has one reply, a subscription as many as it names channels."""
        await self.connect()
        wire = self._wire
        assert wire is not None
        if str(args[0]).upper() == "MONITOR":
            wire.watch_health(0)  # a ping would show among the lines, and its reply as one of them
        for data in packed:
            future = asyncio.get_running_loop().create_future()
            if str(args[0]).upper() in commands.SUBSCRIBES:
                wire.send(Confirm(future, data, _RAW, None, self._client._text, need=max(1, len(args) - 1)))
                future.add_done_callback(self._deliver_failure)
            else:
                wire.send(Entry(future, data, _RAW, None, self._client._text))
                future.add_done_callback(self._deliver)

    def _deliver(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            self._inbox.put_nowait(future.exception() or future.result())

    def _deliver_failure(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._inbox.put_nowait(future.exception())

    async def read_response(
        self, disable_decoding: bool = False, timeout: float | None = None, **_: Any
    ) -> Any:
        """The next reply or push, in the order in which they came; None after `timeout` seconds."""
        limit = self._client.settings.timeouts.command if timeout is None else timeout
        try:
            async with asyncio.timeout(None if limit is None or math.isinf(limit) else limit):
                reply = await self._inbox.get()
        except TimeoutError:
            if timeout is None:
                raise errors.TimeoutError(
                    f"no reply from {self._client.settings.address} within {limit} s"
                ) from None
            return None
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def can_read(self, *_: Any, **__: Any) -> bool:
        """True if something stands in line."""
        return not self._inbox.empty()

    async def check_health(self) -> None:
        """The wire checks itself."""


def _name(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
