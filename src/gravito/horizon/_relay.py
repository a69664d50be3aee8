"""The outbox: what a completion sends to other queues. It is in the queue's own slot first, so nothing is lost between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.horizon._messages import Envelope
from gravito.horizon._pack import envelopes
from gravito.horizon._scripts import Caller

__all__ = ["Note", "Relay"]

_MOST: Final = 50  # entries at a time
_log = logging.getLogger("gravito.horizon")
_entry = msgspec.msgpack.Decoder(tuple[str, str, msgspec.Raw]).decode
_jobs = msgspec.msgpack.Decoder(list[Envelope]).decode
_bytes = msgspec.msgpack.Decoder(bytes).decode

# Called with a note's serial, which grows within its queue, and its content; perhaps more than once with the same.
Note = Callable[[int, bytes], Awaitable[None]]


class Relay:
    """Carries a queue's outbox on. Several workers may do so at once; an entry takes effect once.

    Args:
        queue: the queue's name.
        caller: on the queue's keys.
        to: makes a caller on another queue's keys.
    """

    def __init__(self, queue: str, caller: Caller, to: Callable[[str], Caller]) -> None:
        self._queue = queue
        self._caller = caller
        self._to = to
        self._task: asyncio.Task[None] | None = None
        self._again = False  # asked for while it carries: what is new may be behind its last look
        self.on_note: Note | None = None

    def start(self) -> None:
        """See to the outbox soon, unless somebody does."""
        if self._task is not None and not self._task.done():
            self._again = True
        else:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def drain(self) -> None:
        """Wait for what is on its way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def carry(self) -> int:
        """Carry on all that is there.

        Returns:
            How many entries arrived.
        """
        arrived = count = 0
        while True:
            _, *entries = await self._caller.run("relay", (arrived, _MOST))
            if not entries:
                return count
            for data in entries:
                serial, _, content = data.partition(b":")
                await self._deliver(int(serial), content)
                arrived, count = int(serial), count + 1

    async def _deliver(self, serial: int, content: bytes) -> None:
        kind, target, raw = _entry(content)
        if kind == "note":
            if self.on_note is None:
                raise errors.HorizonError(f"queue {self._queue}: nobody takes the notes of its outbox")
            await self.on_note(serial, _bytes(raw))
            return
        # The target knows this queue as a producer whose serials are the entries': a repetition is recognised there.
        args: Any = (f"o:{self._queue}", serial, *envelopes(_jobs(raw)))
        await self._to(target).run("push", args)

    async def _run(self) -> None:
        self._again = True
        try:
            while self._again:
                self._again = False
                await self.carry()
        except Exception:  # the entries stay; housekeeping sees that they are there
            _log.warning("queue %s: its outbox could not be carried on", self._queue, exc_info=True)
