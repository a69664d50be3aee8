"""One command on a leased wire: sent there, then settled, moved elsewhere, or to be tried again."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from gravito.atlas.wire import retry, waits
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry
from gravito.atlas.wire.failures import lost_reply

if TYPE_CHECKING:
    from gravito.atlas.wire.pool import LeasePool


class Errand:
    """What one command does on one wire, until it has no more business there.

    Args:
        pool: whose wire it is.
        wire: leased for this.
        entry: the command.
        hold: seconds for which the command itself may keep the reply back; `math.inf` for ever.
        clean: the wire can be used again afterwards.
        patience: seconds that the caller is ready to wait beyond `timeouts.command`.
    """

    def __init__(
        self, pool: LeasePool, wire: Wire, entry: Entry, hold: float, clean: bool, patience: float
    ) -> None:
        self._pool = pool
        self._wire = wire
        self._entry = entry
        self._hold = hold
        self._patience = patience
        self.clean = clean  # as it turned out, too
        self._begun = pool.loop.time()
        self._again: float | None = None  # seconds after which to try again; None if it is settled
        self._over = asyncio.Event()  # nothing more will come of this wire
        self._asked = False  # the server was asked to let the command go

    def __repr__(self) -> str:
        return f"<Errand {self._entry.spec.name} on {self._wire!r}>"

    async def run(self) -> float | None:
        """Send the command and wait for what comes of it. Returns seconds after which to try again, or None."""
        entry, wire, settings = self._entry, self._wire, self._pool.settings
        if self._hold and entry.ends and waits.shorten(entry, self._begun, entry.ends):
            self._hold = max(entry.ends - self._begun, 0.001)
        entry.future.add_done_callback(lambda _: self._over.set())
        wire.on_end, wire.on_refusal = self._on_end, self._on_refusal
        command, hold = settings.timeouts.command, self._hold
        wire.reset_timeout(
            None if hold == math.inf or command is None else command + max(hold, self._patience)
        )
        entry.since = 0.0
        wire.send(entry)
        await self._over.wait()
        return self._again

    def let_go(self) -> asyncio.Event | None:
        """Be ready for the server's word that it let the command go. Returns the event of that; None if it cannot be."""
        if not self._wire.client_id or not waits.can_go_on(self._entry):
            return None
        if (self._entry.retry or self._pool.settings.retry).attempts == 0:
            return None
        self._asked = True
        return self._over

    def _on_end(self, _: Wire, error: Exception, sent: list[Entry], unsent: list[Entry]) -> None:
        for lost in (*sent, *unsent):
            if lost is not self._entry:  # a health check's ping
                lost.fail(error)
                continue
            # A blocking read is not sent again: its `$` or its timeout would mean something else by now.
            if lost in unsent or (self._hold == 0.0 and retry.may_resend(lost, self._pool.settings)):
                lost.attempt += 1
                lost.doubt = lost.doubt or (lost in sent and not lost.spec.read_only)
                self._try_again(0.0, error)
            else:
                lost.fail(lost_reply(lost, error))

    def _on_refusal(self, refused: Entry, error: Exception) -> bool:
        if refused is not self._entry:
            return False
        pool, now = self._pool, self._pool.loop.time()
        unserved = waits.is_unserved(error, self._asked)
        ends = self._begun + self._hold
        if self._hold and not waits.may_move(refused, error, unserved, self._begun, ends, now):
            return False
        if pool.redirect is not None and pool.redirect(refused, error):
            self._over.set()  # it travels on elsewhere, and this wire is given back
            return True
        if retry.is_stranger(error) and refused.attempt == 1:
            # This wire and its idle kin are no longer let in: a new one asks for the credentials anew.
            pause: float | None = 0.0
            self.clean = False
            refused.attempt += 1
            pool.drop_idle()
        else:
            pause = self._pause_after(error, unserved)
        if pause is None:
            return False
        refused.since = now
        self._try_again(pause, error)
        return True

    def _pause_after(self, error: Exception, unserved: bool) -> float | None:
        pool = self._pool
        away = isinstance(error, pool.elsewhere) or (bool(pool.elsewhere) and unserved)
        self.clean = self.clean and not away
        more = (type(error),) if away else ()
        pause = retry.pause_after(self._entry, error, pool.settings, pool.loop.time(), more=more)
        if pause is not None and away:
            pool.drop_idle()
            if pool.on_elsewhere is not None:
                pool.on_elsewhere()
        return pause

    def _try_again(self, pause: float, error: Exception) -> None:
        self._again = pause
        self._pool.note_retry(self._entry, error)
        self._over.set()
