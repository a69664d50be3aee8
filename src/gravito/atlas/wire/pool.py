"""Leased wires: for a command or a block that must have a connection to itself.

Blocking commands, WATCH, SELECT, MONITOR and values over a size travel on these, so that they never delay the
shared wire. The pool is bounded; who waits for a wire is served first in, first out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import retry
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, anew
from gravito.atlas.wire.errand import Errand

log = logging.getLogger("gravito.atlas")

Opener = Callable[[], Awaitable[Wire]]


class LeasePool:
    """Opens, lends and takes back wires; at most `limits.leased_wires` exist at a time."""

    def __init__(
        self,
        settings: Settings,
        opener: Opener,
        note_retry: Callable[[Entry, Exception], None] = lambda entry, error: None,
    ) -> None:
        self.redirect: Callable[[Entry, Exception], bool] | None = None  # a cluster's: takes refused entries
        self.note_retry = note_retry  # told of each command that is sent again
        self.settings = settings
        self._opener = opener
        self.loop = asyncio.get_running_loop()
        self._idle: list[Wire] = []  # clean and open; the last one back is the first one out
        self._lent: set[Wire] = set()
        self._opening = 0  # places taken by wires that are being opened
        self._line: deque[asyncio.Future[None]] = deque()  # who waits for a place
        self._tasks: set[asyncio.Task[None]] = set()  # single commands under way
        self._closed = False
        self._waits: dict[Wire, Errand] = {}  # wires on which a blocking command waits
        self.elsewhere: tuple[
            type[Exception], ...
        ] = ()  # refusals that mean: this is the wrong server by now
        self.on_elsewhere: Callable[[], None] | None = None  # told of one

    def __repr__(self) -> str:
        return f"<LeasePool lent {len(self._lent)}, idle {len(self._idle)}, waiting {len(self._line)}>"

    @property
    def lent(self) -> int:
        """Wires in use."""
        return len(self._lent)

    @property
    def idle(self) -> int:
        """Wires open and free."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Callers that wait for a wire."""
        return len(self._line) + self._opening

    def wires(self) -> list[Wire]:
        """All open wires."""
        return [*self._idle, *self._lent]

    async def acquire(self) -> Wire:
        """A wire for the caller alone, until `release`.

        Raises LeaseTimeoutError after `timeouts.lease` seconds without a free place, or what opening it raises.
        """
        limits, timeouts = self.settings.limits, self.settings.timeouts
        try:
            async with asyncio.timeout(timeouts.lease):
                if self._line or len(self._lent) + self._opening >= limits.leased_wires:
                    await self._wait_in_line()
        except TimeoutError:
            raise errors.LeaseTimeoutError(
                f"connection '{self.settings.name}': none of {limits.leased_wires} leased wires came free within "
                f"{timeouts.lease} s (limits.leased_wires and timeouts.lease set this)"
            ) from None
        return await self._take()

    async def _wait_in_line(self) -> None:
        turn: asyncio.Future[None] = self.loop.create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if (
                turn.done() and not turn.cancelled() and turn.exception() is None
            ):  # the place was given in the same moment: pass it on
                self._opening -= 1
                self._next()
            elif turn in self._line:
                self._line.remove(turn)
            raise
        self._opening -= 1  # held for us since the turn was given

    async def _take(self) -> Wire:
        self._check_open()
        while self._idle:
            wire = self._idle.pop()
            if wire.ended is None:
                self._lent.add(wire)
                return wire
        self._opening += 1
        try:
            wire = await self._open()
        except BaseException:
            self._opening -= 1
            self._next()
            raise
        self._opening -= 1
        self._lent.add(wire)
        try:
            self._check_open()  # once more, for it took a while
        except errors.LoopError:
            self.release(wire, clean=False)
            raise
        return wire

    async def _open(self) -> Wire:
        """A new wire. A failure is tried again with backoff, for as long as one connection may take.

        The command that waits for it was not sent, so this is safe for any.
        """
        policy = self.settings.retry
        deadline = self.loop.time() + self.settings.timeouts.connect
        attempt = 1
        while True:
            try:
                return await self._opener()
            except Exception as error:
                pause = retry.delay(policy, attempt, random.random)
                late = self.loop.time() + pause >= deadline
                if late or self._closed or attempt > policy.attempts or retry.is_final(error):
                    raise
                log.debug("leased wire of '%s', try %d failed: %s", self.settings.name, attempt, error)
            await asyncio.sleep(pause)
            attempt += 1

    def _check_open(self) -> None:
        if self._closed:
            raise errors.LoopError(f"connection '{self.settings.name}' is closed")

    def take_idle(self) -> Wire | None:
        """An idle wire for good, if there is one."""
        while self._idle:
            wire = self._idle.pop()
            if wire.ended is None:
                return wire
        return None

    def drop_idle(self) -> None:
        """Close the wires that are open and free."""
        while (wire := self.take_idle()) is not None:
            wire.close()

    def adopt(self, wire: Wire) -> None:
        """Take in a clean wire that was used elsewhere, as an idle one, if there is room for it."""
        wire.on_end = wire.on_refusal = wire.on_heavy = None
        room = len(self._lent) + self._opening + len(self._idle) < self.settings.limits.leased_wires
        if room and not self._closed and wire.ended is None:
            self._idle.append(wire)
        else:
            wire.close()

    def release(self, wire: Wire, clean: bool) -> None:
        """Give a wire back; one whose state was changed, or that still owes replies, is closed."""
        self._lent.discard(wire)
        wire.on_end = wire.on_push = wire.on_stray = wire.on_refusal = None
        if clean and not self._closed and wire.ended is None and not wire.in_flight and not wire.unsent:
            wire.reset_timeout(self.settings.timeouts.command)
            self._idle.append(wire)
        else:
            wire.close()
        self._next()

    def _next(self) -> None:
        """Give the free place to whoever waits longest."""
        while self._line and len(self._lent) + self._opening < self.settings.limits.leased_wires:
            turn = self._line.popleft()
            if not turn.done():
                self._opening += 1
                turn.set_result(None)

    def run(self, entry: Entry, hold: float, clean: bool, patience: float = 0.0) -> None:
        """Send one command on a wire of its own.

        Args:
            hold: seconds for which the command itself may keep the reply back; `math.inf` for ever.
            clean: the wire can be used again afterwards.
            patience: seconds that the caller is ready to wait beyond `timeouts.command`.
        """
        work = self._run(entry, hold, clean, patience)
        task = self.loop.create_task(work, name=f"gravito lease {entry.spec.name}")
        self._tasks.add(task)
        entry.since = self.loop.time()  # until it is written

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():  # the pool was closed, or somebody cancels all tasks
                unsure = not entry.since and not entry.spec.read_only
                closed = errors.LoopError(f"connection '{self.settings.name}' was closed")
                entry.fail(closed.about(maybe_applied=unsure))

        task.add_done_callback(ended)

    async def _run(self, entry: Entry, hold: float, clean: bool, patience: float) -> None:
        try:
            wire = await self.acquire_for(entry)
            if wire is None:
                return
            pause = await self._carry(wire, entry, hold, clean, patience)
            if pause is None:
                return
            policy = entry.retry or self.settings.retry
            if entry.attempt > max(policy.attempts, 1) + 1 and not entry.deadline:
                raise errors.ConnectionLostError(
                    f"connection '{self.settings.name}' was lost {entry.attempt - 1} times"
                )
            await asyncio.sleep(pause)
            if not entry.future.done():
                self.run(anew(entry), hold, clean, patience)
        except Exception as error:
            entry.fail(error)

    async def _carry(
        self, wire: Wire, entry: Entry, hold: float, clean: bool, patience: float
    ) -> float | None:
        """Send on this wire and give it back. Returns seconds after which to try again, None if it is settled."""
        errand = Errand(self, wire, entry, hold, clean, patience)
        if hold:
            self._waits[wire] = errand
        try:
            return await errand.run()
        finally:
            self._waits.pop(wire, None)
            # A caller that was cancelled leaves the server blocked: closing the wire ends that too.
            self.release(wire, errand.clean)

    def let_go(self, wire: Wire) -> asyncio.Event | None:
        """What waits on this wire can go on elsewhere once its server lets it go (CLIENT UNBLOCK), and will.

        Returns:
            The event of that; None if nothing waits there that can.
        """
        errand = self._waits.get(wire)
        return None if errand is None else errand.let_go()

    async def acquire_for(self, entry: Entry) -> Wire | None:
        """A wire, unless the caller goes away first."""
        task = asyncio.ensure_future(self.acquire())
        entry.future.add_done_callback(lambda _: task.cancel())
        try:
            wire = await task
        except asyncio.CancelledError:
            if entry.future.done():
                return None
            raise
        if entry.future.done():
            self.release(wire, clean=True)
            return None
        return wire

    async def aclose(self) -> None:
        """Close every wire; commands on them fail."""
        self._closed = True
        for wire in (*self._idle, *self._lent):
            wire.close(errors.LoopError(f"connection '{self.settings.name}' was closed"))
        self._idle.clear()
        line, self._line = self._line, deque()
        for turn in line:
            if not turn.done():
                turn.set_exception(errors.LoopError(f"connection '{self.settings.name}' was closed"))
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
