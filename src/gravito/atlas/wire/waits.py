"""Blocking commands that go on waiting at another server than they began at. Pure.

A server that becomes a replica, or loses a slot, lets go whom it kept waiting (UNBLOCKED, MOVED): nothing was given to
them and nothing was taken, so they may wait elsewhere, for what is left of their time.
"""

from __future__ import annotations

import math

from gravito import errors
from gravito.atlas.wire import commands, resp
from gravito.atlas.wire.entry import Batch, Entry

_WAITED = 1.0  # seconds: whoever waited longer was not refused in a row


def is_unserved(error: Exception, asked: bool = False) -> bool:
    """A primary became a replica, or this client itself asked it to let go (`asked`).

    UNBLOCKED has other reasons, too, which are the caller's: CLIENT UNBLOCK, or a stream that was deleted.
    """
    if getattr(error, "status_code", None) != "UNBLOCKED":
        return False
    return "instance state changed" in str(error) or (asked and "CLIENT UNBLOCK" in str(error))


def can_go_on(entry: Entry) -> bool:
    """Whether waiting elsewhere is the same to its caller."""
    return not isinstance(entry, Batch) and shorten(entry, 0.0, math.inf)


def may_move(entry: Entry, error: Exception, unserved: bool, begun: float, ends: float, now: float) -> bool:
    """Note of a blocking command that was refused until when it may wait elsewhere.

    Args:
        entry: the command.
        error: the refusal.
        unserved: it says that the server let the command go.
        begun: loop time at which it was sent.
        ends: loop time at which its own time is over; `math.inf` for never.
        now: loop time.

    Returns:
        False if it was let go and cannot go on: to wait elsewhere would mean something else.
    """
    if isinstance(entry, Batch):
        return True
    if unserved or now - begun > _WAITED:
        entry.deadline = 0.0  # of the tries, which begin now
    if unserved or isinstance(error, errors.AskError):
        entry.ends = entry.ends or ends
        return shorten(entry, now, entry.ends) or not unserved
    return True


def shorten(entry: Entry, now: float, ends: float) -> bool:
    """Let a blocking command ask for no more than is left of its time. False if it cannot be asked again."""
    args = commands.for_the_rest(
        entry.spec.name, resp.unpack(entry.packed)[len(entry.spec.words) :], ends - now
    )
    if args is not None:
        entry.packed = resp.encode((*entry.spec.words, *args))
    return args is not None
