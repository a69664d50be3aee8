"""What an entry's own bytes say of where it goes, and what a batch needs behind ASKING. Pure but for futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gravito import errors
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.wire import keys, resp
from gravito.atlas.wire.entry import Batch, Entry

ASKING = resp.pack(("ASKING",))


def arguments(entry: Entry) -> list[Any]:
    """The arguments of a packed command behind its words. Only entries that travel on are read again."""
    return resp.unpack(entry.packed)[len(entry.spec.words) :]


def slot_of_entry(entry: Entry) -> int | None:
    """The slot of a packed command by its first key; None for one without keys."""
    args = arguments(entry)
    places = keys.slot_positions(entry.spec.name, args)
    return slot_of(args[places[0]]) if places else None


def asking(entry: Entry, loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None]) -> Batch:
    """The entry as one with ASKING before it, so that nothing can come between.

    Args:
        settle: given the entry's own reply, the list of its replies for a batch, or the error that ended it.
    """
    batch = isinstance(entry, Batch)
    raw = frozenset(at + 1 for at in entry.bytes_only) if isinstance(entry, Batch) else frozenset[int]()
    text = entry.decode if isinstance(entry, Batch) else entry.text
    both = Batch(
        loop.create_future(),
        ASKING + entry.packed,
        entry.spec,
        None,
        text,
        need=entry.need + 1,
        attempt=entry.attempt,
        retry=entry.retry,
        bytes_only=raw,
        decode=text,
    )

    def answered(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            settle(errors.LoopError("the connection was closed"))
        elif (error := future.exception()) is not None:
            settle(error)
        else:
            settle(future.result()[1:] if batch else future.result()[1])

    both.future.add_done_callback(answered)
    entry.future.add_done_callback(lambda _: both.future.cancel())
    return both
