"""The shared wire: all ordinary commands of a loop travel on it, and it comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import retry
from gravito.atlas.wire.connection import Wire, lost_reply
from gravito.atlas.wire.entry import Entry

log = logging.getLogger("gravito.atlas")

Opener = Callable[[], Awaitable[Wire]]


class SharedWire:
    """Keeps one wire open while there is work. Entries that come while there is none wait, first in, first out."""

    def __init__(
        self, settings: Settings, opener: Opener, route: Callable[[Callable[[Entry], None]], None]
    ) -> None:
        self.wire: Wire | None = None  # the open wire; None while there is none
        self.reconnects = 0  # how often a wire was opened after the first
        self._settings = settings
        self._opener = opener
        self._route = (
            route  # told which function takes entries now, so that the plain path has no step between
        )
        self._loop = asyncio.get_running_loop()
        self._parked: deque[Entry] = deque()  # entries that wait for a wire
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # deadline of the oldest parked entry
        self._opened = False  # a wire was open once
        self._closed = False

    def __repr__(self) -> str:
        return f"<SharedWire {self.wire!r}, parked {len(self._parked)}>"

    def send(self, entry: Entry) -> None:
        """Send an entry now, or as soon as there is a wire."""
        if self.wire is not None:
            self.wire.send(entry)
        else:
            self._park(entry)

    async def aclose(self, drain: float) -> None:
        """Finish what is in flight within `drain` seconds, then end the wire. Later entries fail."""
        try:
            if self.wire is not None:
                await self.wire.drain(drain)
        finally:
            self._closed = True
            closed = errors.LoopError(f"connection '{self._settings.name}' was closed")
            if self._connecting is not None:
                self._connecting.cancel()
            if self.wire is not None:
                self.wire.close(closed)
            self._fail_parked(closed)

    # -- without a wire --------------------------------------------------------------------------------------

    def _park(self, entry: Entry) -> None:
        if self._closed:
            entry.fail(errors.LoopError(f"connection '{self._settings.name}' is closed"))
            return
        entry.since = self._loop.time()
        self._parked.append(entry)
        self._watch_parked()
        if self._connecting is None:
            self._connecting = self._loop.create_task(
                self._connect(), name=f"gravito connect {self._settings.name}"
            )
            self._connecting.add_done_callback(self._connect_ended)

    async def _connect(self) -> None:
        """Open a wire, with backoff between the tries; if the last try fails, so do those who wait."""
        policy = self._settings.retry
        attempt = 1
        try:
            while True:
                try:
                    wire = await self._opener()
                    break
                except Exception as error:
                    if attempt > policy.attempts or isinstance(error, _FINAL):
                        self._fail_parked(error)
                        return
                    log.debug("connection '%s', try %d failed: %s", self._settings.name, attempt, error)
                    await asyncio.sleep(retry.delay(policy, attempt, random.random))
                    attempt += 1
        finally:
            self._connecting = None
        self._adopt(wire)

    def _connect_ended(self, task: asyncio.Task[None]) -> None:
        """Somebody who cancels all tasks cancelled this one too: nobody else would tell those who wait."""
        if task.cancelled() and not self._closed:
            self._connecting = None
            self._fail_parked(errors.LoopError(f"connecting '{self._settings.name}' was cancelled"))

    def _adopt(self, wire: Wire) -> None:
        wire.on_end = self._on_end
        wire.on_refusal = self._on_refusal
        self.wire = wire
        self._route(wire.send)
        if self._opened:
            self.reconnects += 1
            log.info("connection '%s' to %s is back", self._settings.name, wire.address)
        self._opened = True
        parked, self._parked = self._parked, deque()
        for entry in parked:
            if not entry.future.done():
                entry.since = 0.0
                wire.send(entry)
        if wire.ended is not None:  # it ended between the handshake and here
            self._on_end(wire, wire.ended, [], [])

    def _watch_parked(self) -> None:
        timeout = self._settings.timeouts.command
        if timeout is not None and self._timer is None and self._parked:
            self._timer = self._loop.call_at(self._parked[0].since + timeout, self._expire_parked, timeout)

    def _expire_parked(self, timeout: float) -> None:
        self._timer = None
        now = self._loop.time()
        while self._parked and (self._parked[0].future.done() or self._parked[0].since + timeout <= now):
            self._parked.popleft().fail(
                errors.ConnectTimeoutError(
                    f"connection '{self._settings.name}' ({self._settings.address}) could not be made within "
                    f"{timeout:g} s; the command was not sent. Is the address right, and is the server reachable?"
                ).about(node=self._settings.address)
            )
        self._watch_parked()

    def _fail_parked(self, cause: Exception) -> None:
        parked, self._parked = self._parked, deque()
        for entry in parked:
            entry.fail(lost_reply(entry, cause, written=False))

    # -- what the wire reports -------------------------------------------------------------------------------

    def _on_end(self, wire: Wire, error: Exception, sent: list[Entry], unsent: list[Entry]) -> None:
        """The wire ended: entries that cannot be applied twice travel on, the others fail and say so."""
        if self.wire is wire:
            self.wire = None
            self._route(self._park)
            if not self._closed:
                log.warning("connection '%s' lost: %s", self._settings.name, error)
        for entry in sent:
            if not self._closed and retry.may_resend(entry, self._settings.retry):
                entry.attempt += 1
                self.send(_anew(entry))
            else:
                entry.fail(lost_reply(entry, error))
        for entry in unsent:
            if self._closed:
                entry.fail(lost_reply(entry, error, written=False))
            else:
                self.send(entry)

    def _on_refusal(self, entry: Entry, error: Exception) -> bool:
        """An error reply: when the server did not apply the command, try again until its deadline."""
        pause = None if self._closed else retry.pause_after(entry, error, self._settings, self._loop.time())
        if pause is None:
            return False
        self._loop.call_later(pause, self._send_again, entry)
        return True

    def _send_again(self, entry: Entry) -> None:
        if not entry.future.done():  # its caller may have gone away meanwhile
            self.send(entry)


_FINAL = (
    errors.AuthenticationError,
    errors.ConfigurationError,
    errors.EngineError,
    errors.ProtocolError,
    errors.TLSError,
)


def _anew(entry: Entry) -> Entry:
    """A batch starts its replies over."""
    replies = getattr(entry, "replies", None)
    if replies:
        replies.clear()
    return entry
