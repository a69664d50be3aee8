"""The shared wire: all ordinary commands of a loop travel on it, and it comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import retry
from gravito.atlas.wire.circuit import Circuit
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, anew
from gravito.atlas.wire.failures import lost_reply
from gravito.atlas.wire.meter import Event, Hooks, Kind, Meter

log = logging.getLogger("gravito.atlas")

Opener = Callable[[bool], Awaitable[Wire]]  # told whether it must be a new wire
Route = Callable[[Callable[[Entry], None]], None]

_MOST_RETIRED = 8  # wires that finish a large reply, beside the one that is shared


class SharedWire:
    """Keeps one wire open while there is work. Entries that come while there is none wait, first in, first out."""

    def __init__(
        self,
        settings: Settings,
        opener: Opener,
        route: Route,
        meter: Meter,
        hooks: Hooks,
        circuit: Circuit,
    ) -> None:
        self.wire: Wire | None = None  # the open wire; None while there is none
        self.on_spare: Callable[[Wire], None] | None = None  # takes a wire that has finished a large reply
        # Refusals that mean: this is the wrong server by now.
        self.elsewhere: tuple[type[Exception], ...] = ()
        self.on_elsewhere: Callable[[], None] | None = None  # told of one
        self._meter = meter
        self._hooks = hooks
        self._circuit = circuit
        self._fresh = False  # the next wire must be a new one: idle ones are as doubtful as the last one was
        self._answered = 0  # what the wire had answered when it came: its handshake
        self._stillborn = 0  # wires in a row that ended without answering anything more
        self._retired: set[Wire] = set()  # wires busy with a large reply, until they are done
        self._settings = settings
        self._about = {"connection": settings.name, "address": settings.address}  # for structured logs
        self._opener = opener
        # Told which function takes entries now, so that the plain path has no step between.
        self._route = route
        self._loop = asyncio.get_running_loop()
        self._parked: deque[Entry] = deque()  # entries that wait for a wire
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # deadline of the oldest parked entry
        self._opened = False  # a wire was open once
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()  # large replies under way

    def __repr__(self) -> str:
        return f"<SharedWire {self.wire!r}, parked {len(self._parked)}>"

    @property
    def waiting(self) -> int:
        """Entries that wait for a wire, or on it for room."""
        return len(self._parked) + (self.wire.unsent if self.wire is not None else 0)

    @property
    def connecting(self) -> bool:
        """True while there is no wire and one is being opened."""
        return self._connecting is not None

    def wires(self) -> list[Wire]:
        """The open wire, and those that finish a large reply."""
        return [wire for wire in (self.wire, *self._retired) if wire is not None]

    def send(self, entry: Entry) -> None:
        """Send an entry now, or as soon as there is a wire."""
        if self.wire is not None:
            self.wire.send(entry)
        else:
            self._park(entry)

    async def aclose(self, drain: float) -> None:
        """Finish what is in flight within `drain` seconds, then end the wire. Later entries fail."""
        try:
            # What waits for the first wire is in flight, too.
            if self._connecting is not None and self._parked:
                await asyncio.wait({self._connecting}, timeout=drain)
            await asyncio.gather(*[wire.drain(drain) for wire in self.wires()])
        finally:
            self._closed = True
            closed = errors.LoopError(f"connection '{self._settings.name}' was closed")
            if self._connecting is not None:
                self._connecting.cancel()
            for wire in (self.wire, *self._retired):
                if wire is not None:
                    wire.close(closed)
            for task in self._tasks:
                task.cancel()
            self._fail_parked(closed)

    # -- without a wire --------------------------------------------------------------------------------------

    def _park(self, entry: Entry) -> None:
        if self._closed:
            entry.fail(errors.LoopError(f"connection '{self._settings.name}' is closed"))
            return
        if self._connecting is None and (refusal := self._circuit.refusal()) is not None:
            entry.fail(refusal)
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
            if self._stillborn > 1:  # a peer that greets and hangs up is not asked again at once
                await asyncio.sleep(retry.delay(policy, self._stillborn - 1, random.random))
            while True:
                try:
                    wire = await self._opener(self._fresh)
                    break
                except Exception as error:
                    last = attempt > policy.attempts or retry.is_final(error)
                    if last or self._circuit.refusal() is not None:
                        self._fail_parked(error)
                        return
                    log.debug(
                        "connection '%s', try %d failed: %s",
                        self._settings.name,
                        attempt,
                        error,
                        extra=self._about,
                    )
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
        wire.on_refusal = partial(self._on_refusal, wire)
        wire.on_heavy = self._retire
        self.wire = wire
        self._answered = wire.answered
        self._route(wire.send)
        self._fresh = False
        self._tell("connect")
        if self._opened:
            log.info("connection '%s' to %s is back", self._settings.name, wire.address, extra=self._about)
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
            self._fresh = True
            self._stillborn = self._stillborn + 1 if wire.answered == self._answered else 0
            self._route(self._park)
            if not self._closed:
                log.warning("connection '%s' lost: %s", self._settings.name, error, extra=self._about)
                self._tell("disconnect", reason=str(error))
        self._retired.discard(wire)
        for entry in sent:
            if not self._closed and retry.may_resend(entry, self._settings):
                entry.attempt += 1
                entry.doubt = entry.doubt or not entry.spec.read_only
                self._again(entry, error)
                self.send(anew(entry))
            else:
                entry.fail(lost_reply(entry, error))
        for entry in unsent:
            if self._closed or self._stillborn > self._settings.retry.attempts or self._is_late(entry):
                entry.fail(lost_reply(entry, error, written=False))
            else:
                self.send(entry)

    def _is_late(self, entry: Entry) -> bool:
        """Whether an entry was on wires that ended, without being written, for as long as a command may take."""
        now = self._loop.time()
        entry.deadline = entry.deadline or now + (self._settings.timeouts.command or retry.NO_TIMEOUT)
        return now >= entry.deadline

    def _on_refusal(self, wire: Wire, entry: Entry, error: Exception) -> bool:
        """An error reply: when the server did not apply the command, try again until its deadline."""
        if self._closed:
            return False
        if retry.is_stranger(error) and entry.attempt == 1:
            # The server no longer knows who this is: a new wire asks for the credentials anew. Not applied.
            entry.attempt += 1
            entry.since = self._loop.time()
            self._again(entry, error)
            self._loop.call_soon(self._renew, wire, entry)
            return True
        pause = retry.pause_after(entry, error, self._settings, self._loop.time(), more=self.elsewhere)
        if pause is None:
            return False
        entry.since = self._loop.time()
        self._again(entry, error)
        if isinstance(error, self.elsewhere):
            self._loop.call_soon(self._leave, wire)
        self._loop.call_later(pause, self._send_again, entry)
        return True

    def _leave(self, wire: Wire) -> None:
        """The wire leads to a server that is no longer the one; what is in flight on it is answered first."""
        if self.wire is wire:
            self._fresh = True
            self._retire(wire, spare=False)
            if self.on_elsewhere is not None:
                self.on_elsewhere()

    def _again(self, entry: Entry, error: Exception) -> None:
        self._meter.retries += 1
        self._tell("retry", reason=str(error), command=entry.spec.name, attempt=entry.attempt)

    def _tell(self, kind: Kind, **about: Any) -> None:
        event = Event(kind=kind, connection=self._settings.name, address=self._settings.address, **about)
        self._hooks.tell(event)

    def _renew(self, wire: Wire, entry: Entry) -> None:
        """Replace a wire that the server no longer lets in; what is in flight on it is answered first."""
        if self.wire is wire:
            self._fresh = True
            self._retire(wire, spare=False)
        self._send_again(entry)

    def _retire(self, wire: Wire, spare: bool = True) -> None:
        """Let a wire finish what it has, and send what comes from now on by another.

        So a large reply holds up those that were written behind it, and nobody else.
        """
        if self.wire is not wire or self._closed:
            return
        if spare and len(self._retired) >= min(_MOST_RETIRED, self._settings.limits.leased_wires):
            wire.on_heavy = self._retire  # so many at a time: the next large reply may find a place
            return
        self.wire = None
        self._route(self._park)
        self._retired.add(wire)
        task = self._loop.create_task(self._finish(wire, spare), name="gravito large reply")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, wire: Wire, spare: bool) -> None:
        while wire.ended is None and (wire.in_flight or wire.unsent):
            await wire.drain(60.0)
        self._retired.discard(wire)
        if spare and self.on_spare is not None and not self._closed:
            self.on_spare(wire)
        else:
            wire.close()

    def _send_again(self, entry: Entry) -> None:
        entry.since = 0.0
        if not entry.future.done():  # its caller may have gone away meanwhile
            self.send(entry)
