"""A subscription: what a user holds of channels, as an iterator or with a callback."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from gravito import errors

if TYPE_CHECKING:
    from gravito.atlas.pubsub import Hub

log = logging.getLogger("gravito.atlas")

Callback = Callable[..., Any]
Kind = Literal["subscribe", "psubscribe", "ssubscribe"]


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
            {as_bytes(channel) for channel in channels} & self._channels if channels else set(self._channels)
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
            data = _shown(data)
        callback = self._callback
        if callback is None or self._task is not None:
            if self._text:
                channel = _shown(channel)
                pattern = _shown(pattern) if pattern is not None else None
            self._put(Message(data, channel, pattern))
            return
        try:
            if self._wants_channel:
                result = callback(data, _shown(channel) if self._text else channel)
            else:
                result = callback(data)
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


def as_bytes(channel: Any) -> bytes:
    """A channel's name as it goes on the wire; DataError for what is no name."""
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
