"""Publish and subscribe: one wire for all subscriptions of a client in a loop.

A subscription that lost its connection subscribes again by itself and says so with a gap event, because what was
published meanwhile is gone: Redis keeps no messages for absent subscribers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.subscription import Kind, Subscription, as_bytes
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire import resp, retry
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Confirm, Entry, Spec
from gravito.atlas.wire.failures import lost_reply
from gravito.atlas.wire.meter import Event

log = logging.getLogger("gravito.atlas")

_CHUNK = 1000  # channels of one SUBSCRIBE


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
        self._channels = self._tables["subscribe"]  # the one that most messages go by
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
        keys = [
            as_bytes(name) for name in ([*names, last] if callback is None else names) if name is not None
        ]
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
        kind = push[0]
        if kind == b"message":
            for subscription in self._channels.get(push[1], ()):
                subscription._deliver(push[2], push[1], None)
        elif kind == b"smessage":
            for subscription in self._tables["ssubscribe"].get(push[1], ()):
                subscription._deliver(push[2], push[1], None)
        elif kind == b"pmessage":
            _, pattern, channel, data = push
            for subscription in self._tables["psubscribe"].get(pattern, ()):
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
