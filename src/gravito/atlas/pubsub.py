"""Publish and subscribe: one wire for all subscriptions of a client, callbacks and iterators on top.

A subscription that lost its connection subscribes again by itself and says so with a gap event, because what was
published meanwhile is gone: Redis keeps no messages for absent subscribers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, Self

import msgspec

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire import resp, retry
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Confirm, Entry, Spec
from gravito.atlas.wire.failures import lost_reply
from gravito.atlas.wire.meter import Event

log = logging.getLogger("gravito.atlas")

Callback = Callable[..., Any]
Kind = Literal["subscribe", "psubscribe", "ssubscribe"]

_CHUNK = 1000  # channels of one SUBSCRIBE
_KIND_OF: dict[bytes, Kind] = {b"message": "subscribe", b"pmessage": "psubscribe", b"smessage": "ssubscribe"}


class Message(msgspec.Struct, frozen=True):
    """What a subscription delivers.

    `type` is "message", or "gap" when messages may have been missed; a gap's `data` is the reason.
    """

    data: Any  # the payload; text if the client decodes and it is UTF-8, else bytes
    channel: Any = None
    pattern: Any = None  # the pattern that matched, for pattern subscriptions
    type: Literal["message", "gap"] = "message"


class Subscription:
    """A handle on channels: iterate over it, or let its callback work; leave `async with` to end it.

    The buffer of an iterator (and of an async callback) holds `limits.push_buffer` messages. When a slow reader
    lets it fill, the oldest message is dropped and the reader gets a gap event before the next message.
    """

    def __init__(self, hub: Hub, kind: Kind, channels: Iterable[bytes], text: bool, size: int) -> None:
        self.kind = kind
        self.dropped = 0  # messages lost to a full buffer so far
        self.gaps = 0  # gap events so far
        self._hub = hub
        self._text = text
        self._channels = set(channels)
        self._size = size
        self._buffer: deque[Message] = deque()
        self._overflow = 0  # messages dropped since the reader was last told
        self._ready = asyncio.Event()  # something is in the buffer, or it is closed
        self._callback: Callback | None = None
        self._wants_channel = False
        self._on_gap: Callable[[str], Any] | None = None
        self._task: asyncio.Task[None] | None = None  # runs an async callback
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._buffer)} buffered"
        return f"<Subscription {self.kind} to {len(self._channels)} channels, {state}>"

    @property
    def channels(self) -> list[Any]:
        """The channels, or patterns, of this handle."""
        return [_shown(channel) if self._text else channel for channel in sorted(self._channels)]

    @property
    def closed(self) -> bool:
        """True after `unsubscribe` of everything or `aclose`."""
        return self._closed

    async def unsubscribe(self, *channels: Any) -> None:
        """Stop listening on these channels, or on all of them."""
        chosen = (
            {_bytes(channel) for channel in channels} & self._channels if channels else set(self._channels)
        )
        self._channels -= chosen
        if not self._channels:
            self._close()
        await self._hub.forget(self, chosen)

    async def aclose(self) -> None:
        """The same as `unsubscribe()`."""
        await self.unsubscribe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.unsubscribe()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._callback is not None:
            raise errors.PubSubError(
                "this subscription has a callback, which takes its messages; iterate another one"
            )
        return await self._take()

    async def get(self, timeout: float | None = None) -> Message | None:
        """The next message, or None after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self.__anext__()
        except (TimeoutError, StopAsyncIteration):
            return None

    async def _take(self) -> Message:
        while True:
            if self._overflow:
                count, self._overflow = self._overflow, 0
                return Message(f"the buffer of {self._size} was full: {count} messages dropped", type="gap")
            if self._buffer:
                return self._buffer.popleft()
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()

    # -- what the hub calls ----------------------------------------------------------------------------------

    def _set_callback(self, callback: Callback) -> None:
        self._callback = callback
        self._wants_channel = _takes_channel(callback)
        call = getattr(callback, "__call__", callback)  # noqa: B004  # an object's own method may be the async one
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call):
            self._task = asyncio.get_running_loop().create_task(self._work(), name=f"gravito {self!r}")

    def _deliver(self, data: Any, channel: Any, pattern: Any) -> None:
        if self._text:
            data, channel = _shown(data), _shown(channel)
        callback = self._callback
        if callback is None or self._task is not None:
            self._put(
                Message(data, channel, _shown(pattern) if self._text and pattern is not None else pattern)
            )
            return
        try:
            result = callback(data, channel) if self._wants_channel else callback(data)
        except Exception as error:
            self._report(error)
            return
        if result is not None and inspect.isawaitable(result):  # a lambda around an async function, say
            self._start(result)

    def _gap(self, reason: str) -> None:
        self.gaps += 1
        if self._on_gap is None and self._callback is None:
            self._put(Message(reason, type="gap"))
        else:
            self._tell_gap(reason)

    def _tell_gap(self, reason: str) -> None:
        if self._on_gap is None:
            log.warning("%r may have missed messages: %s", self, reason, extra=self._hub.about)
            return
        try:
            self._on_gap(reason)
        except Exception as error:
            self._report(error)

    def _put(self, message: Message) -> None:
        if len(self._buffer) >= self._size:
            self._buffer.popleft()
            self._overflow += 1
            self.dropped += 1
            if self._overflow == 1:
                self.gaps += 1
        self._buffer.append(message)
        self._ready.set()

    def _close(self) -> None:
        self._closed = True
        self._ready.set()

    # -- callbacks -------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Run an async callback, message by message, in their order."""
        callback = self._callback
        assert callback is not None
        while True:
            try:
                message = await self._take()
            except StopAsyncIteration:
                return
            if message.type == "gap":
                self._tell_gap(message.data)
                continue
            try:
                await (
                    callback(message.data, message.channel) if self._wants_channel else callback(message.data)
                )
            except Exception as error:
                self._report(error)

    def _start(self, result: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(result)
        self._hub.tasks.add(task)
        task.add_done_callback(self._hub.tasks.discard)
        task.add_done_callback(self._check)

    def _check(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)

    def _report(self, error: BaseException | None) -> None:
        """A callback's error ends nothing: it goes to the log and the subscription goes on."""
        log.error("a callback of %r failed", self, exc_info=error, extra=self._hub.about)


def _shown(value: bytes) -> Any:
    """Text; a payload that is none comes as it is."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


class Hub:
    """All subscriptions of a client in one loop, on one wire of their own."""

    def __init__(self, settings: Settings, topology: Standalone) -> None:
        self.tasks: set[asyncio.Future[Any]] = set()  # callbacks under way, kept from the garbage collector
        self.reconnects = 0
        self.about = {"connection": settings.name, "address": settings.address}  # for events and the log
        self._settings = settings
        self._topology = topology
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._tables: dict[Kind, dict[bytes, list[Subscription]]] = {
            "subscribe": {},
            "psubscribe": {},
            "ssubscribe": {},
        }
        self._turn = asyncio.Lock()  # one change of the server's state at a time
        self._back: asyncio.Task[None] | None = None  # brings a lost wire back
        self._closed = False

    def __repr__(self) -> str:
        count = sum(len(table) for table in self._tables.values())
        return f"<Hub {count} channels on {self._wire!r}>"

    async def subscribe(
        self,
        kind: Kind,
        channels: tuple[Any, ...],
        text: bool,
        *,
        on_gap: Callable[[str], Any] | None = None,
        buffer: int | None = None,
    ) -> Subscription:
        """Listen on channels; returns when the server has confirmed it.

        Args:
            channels: names, the last of which may be a callback: called with the payload, and with the channel
                too if it takes a second positional argument; plain or async.
            on_gap: called with the reason when messages may have been missed.
            buffer: messages kept for a slow reader; `limits.push_buffer` if None.
        """
        *names, last = channels or (None,)
        callback = last if callable(last) else None
        keys = [_bytes(name) for name in ([*names, last] if callback is None else names) if name is not None]
        if not keys:
            raise errors.PubSubError(f"{kind} needs at least one channel, as in {kind}('news', callback)")
        size = buffer or self._settings.limits.push_buffer
        subscription = Subscription(self, kind, keys, text, size)
        subscription._on_gap = on_gap
        async with self._turn:
            if callback is not None:
                subscription._set_callback(callback)
            table = self._tables[kind]
            fresh = [key for key in subscription._channels if key not in table]
            for key in subscription._channels:
                table.setdefault(key, []).append(subscription)
            try:
                if self._wire is None:
                    await self._connect()
                else:
                    await self._tell(self._wire, kind, fresh)
            except BaseException:
                self._remove(subscription, subscription._channels)
                subscription._close()
                raise
        return subscription

    async def forget(self, subscription: Subscription, keys: set[bytes]) -> None:
        """A subscription leaves these channels; the last one to leave tells the server."""
        async with self._turn:
            alone = self._remove(subscription, keys)
            if self._wire is not None and alone:
                try:
                    await self._tell(self._wire, _UNSUBSCRIBE[subscription.kind], alone)
                except errors.GravitoError:  # the wire went away, and with it the server's side of this
                    log.debug("unsubscribe on a lost wire", exc_info=True)

    def _remove(self, subscription: Subscription, keys: Iterable[bytes]) -> list[bytes]:
        table = self._tables[subscription.kind]
        alone = []
        for key in keys:
            others = [other for other in table.get(key, ()) if other is not subscription]
            if others:
                table[key] = others
            elif table.pop(key, None) is not None:
                alone.append(key)
        return alone

    # -- the wire --------------------------------------------------------------------------------------------

    def wires(self) -> list[Wire]:
        """The wire, if it is open."""
        return [self._wire] if self._wire is not None else []

    async def _connect(self) -> None:
        """Open the wire and subscribe everything that the tables hold."""
        if self._closed:
            raise errors.LoopError(f"connection '{self._settings.name}' is closed")
        wire = await self._topology.open()
        wire.decode_pushes = False  # subscriptions differ in it, and a payload may be no text
        wire.pushes_as_arrays = self._settings.protocol == 2  # RESP2
        wire.on_push = self._on_push
        wire.on_end = self._on_end
        try:
            for kind, table in self._tables.items():
                await self._tell(wire, kind, list(table))
            if wire.ended is not None:  # behind the last confirmation, when nobody listened yet
                raise wire.ended
        except BaseException:
            wire.on_end = None
            wire.close()
            raise
        self._wire = wire

    async def _tell(self, wire: Wire, verb: str, keys: list[bytes]) -> None:
        spec = Spec.of(verb.upper(), Route.READ_ONLY)
        confirmations = []
        for start in range(0, len(keys), _CHUNK):
            part = keys[start : start + _CHUNK]
            future = self._loop.create_future()
            packed = resp.encode((spec.name, *part))
            confirmations.append(future)
            wire.send(
                Confirm(future, packed, spec, None, False, need=len(part))
            )  # as bytes: pushes come between
        for confirmed in await asyncio.gather(*confirmations, return_exceptions=True):
            if isinstance(confirmed, BaseException):
                raise confirmed

    def _on_end(self, wire: Wire, error: Exception, sent: list[Entry], unsent: list[Entry]) -> None:
        for entry in (*sent, *unsent):
            entry.fail(lost_reply(entry, error, written=False))
        if wire is self._wire:
            self._wire = None
            if not self._closed and any(self._tables.values()):
                self._back = self._loop.create_task(self._come_back(str(error)), name="gravito resubscribe")

    async def _come_back(self, reason: str) -> None:
        """Connect and subscribe again, for as long as there is anybody to listen; then tell of the gap."""
        attempt = 0
        while not self._closed and any(self._tables.values()):
            attempt += 1
            async with self._turn:
                try:
                    if self._wire is None:
                        await self._connect()
                except errors.GravitoError as error:
                    log.debug("resubscribe, try %d failed: %s", attempt, error, extra=self.about)
                else:
                    self.reconnects += 1
                    log.warning(
                        "subscriptions of connection '%s' are back after: %s",
                        self._settings.name,
                        reason,
                        extra=self.about,
                    )
                    self._topology.meter.gaps += 1
                    self._topology.hooks.tell(
                        Event(
                            kind="gap",
                            connection=self._settings.name,
                            address=self._settings.address,
                            reason=reason,
                        )
                    )
                    for subscription in self._everyone():
                        subscription._gap(reason)
                    return
            pause = retry.delay(self._settings.retry, attempt, random.random)
            await asyncio.sleep(pause + self._settings.retry.base)

    def _everyone(self) -> list[Subscription]:
        seen = {
            id(s): s for table in self._tables.values() for subscribers in table.values() for s in subscribers
        }
        return list(seen.values())

    def _on_push(self, push: list[Any]) -> None:
        kind = _KIND_OF.get(push[0])
        if kind is None:
            return
        if kind == "psubscribe":
            _, key, channel, data = push
            pattern: bytes | None = key
        else:
            _, key, data = push
            channel, pattern = key, None
        for subscription in self._tables[kind].get(key, ()):
            subscription._deliver(data, channel, pattern)

    def disown(self) -> None:
        """In a forked child: the messages are the parent's, and iterating ends at once."""
        self._closed = True
        for subscription in self._everyone():
            subscription._closed = True
            subscription._buffer.clear()

    async def aclose(self) -> None:
        """End all subscriptions and the wire."""
        self._closed = True
        if self._back is not None:
            self._back.cancel()
        for subscription in self._everyone():
            subscription._close()
            if subscription._task is not None and subscription._task is not asyncio.current_task():
                subscription._task.cancel()
        if self._wire is not None:
            self._wire.close()


_UNSUBSCRIBE: dict[Kind, str] = {
    "subscribe": "unsubscribe",
    "psubscribe": "punsubscribe",
    "ssubscribe": "sunsubscribe",
}


def _bytes(channel: Any) -> bytes:
    if isinstance(channel, bytes):
        return channel
    if isinstance(channel, str):
        return channel.encode()
    raise errors.DataError(f"a channel is str or bytes, not {type(channel).__name__}")


def _takes_channel(callback: Callback) -> bool:
    """True if it has a second positional parameter; `*args` does not count, so `print` prints the payload."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters) > 1
