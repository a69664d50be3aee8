"""The limit of this way: the barest asyncio protocol with hiredis and one future per command.

It has no reconnect, no deadline, no cancellation and no error replies: nothing that a client needs. What a client
costs above it is the client's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import hiredis

from bench.contenders.base import Receive
from bench.feed import Feed

_pack: Callable[[tuple[str, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub takes one word


class Client(asyncio.Protocol):
    """One wire: an idle one writes at once, a busy one writes once per turn of the loop."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = host, port
        self._waiting: deque[asyncio.Future[Any]] = deque()  # in the order of the commands sent
        self._outbox: list[bytes] = []  # commands for the flush that is scheduled
        self._scheduled = False
        self._reader = hiredis.Reader(encoding="utf-8", notEnoughData=Ellipsis)
        transport, _ = await self._loop.create_connection(lambda: self, host, port)
        self._write = transport.write
        stack.callback(transport.close)

    def get(self, key: str) -> asyncio.Future[Any]:
        return self._send(_pack(("GET", key)))

    def set(self, key: str, value: str) -> asyncio.Future[Any]:
        return self._send(_pack(("SET", key, value)))

    async def pipeline_get(self, keys: Sequence[str]) -> list[Any]:
        replies: list[Any] = []
        last = self._loop.create_future()
        collect = _Collect(replies, len(keys), last)
        self._waiting.extend([collect] * len(keys))  # type: ignore[list-item]  # only set_result is asked of it
        self._write(b"".join([_pack(("GET", key)) for key in keys]))
        await last
        return replies

    def receivers(self) -> Mapping[str, Receive]:
        return {"protocol": self._by_protocol}

    async def _by_protocol(self, channel: str, feed: Feed) -> None:
        transport, subscriber = await self._loop.create_connection(lambda: _Subscriber(feed), *self._address)
        transport.write(_pack(("SUBSCRIBE", channel)))
        await subscriber.subscribed.wait()
        feed.open()
        await feed.finished
        transport.close()

    def _send(self, packed: bytes) -> asyncio.Future[Any]:
        reply = self._loop.create_future()
        idle = not self._waiting
        self._waiting.append(reply)
        if idle:
            self._write(packed)
            return reply
        self._outbox.append(packed)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return reply

    def _flush(self) -> None:
        self._scheduled = False
        self._write(b"".join(self._outbox))
        self._outbox.clear()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        take, settle = reader.gets, self._waiting.popleft
        while (value := take()) is not Ellipsis:
            settle().set_result(value)


class _Collect:
    """Stands for the futures of a pipeline: gathers the replies and settles one future at the end."""

    def __init__(self, replies: list[Any], expected: int, last: asyncio.Future[None]) -> None:
        self._replies = replies
        self._expected = expected
        self._last = last

    def set_result(self, value: Any) -> None:
        self._replies.append(value)
        if len(self._replies) == self._expected:
            self._last.set_result(None)


class _Subscriber(asyncio.Protocol):
    """Reads one confirmation and then messages of one channel."""

    def __init__(self, feed: Feed) -> None:
        self.subscribed = asyncio.Event()
        self._feed = feed
        self._reader = hiredis.Reader(encoding="utf-8", notEnoughData=Ellipsis)

    def data_received(self, data: bytes) -> None:
        reader, arrived = self._reader, self._feed.arrived
        reader.feed(data)
        while (message := reader.gets()) is not Ellipsis:
            if message[0] == "message":
                arrived(message[2])
            else:
                self.subscribed.set()
