"""A reply that is kept: a future that is done from the start, so that awaiting it costs next to nothing."""

from __future__ import annotations

import asyncio
from sys import getsizeof
from typing import Any

_OVERHEAD = 500  # bytes: an entry's own objects and its places in the tables, measured
_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})


class Done(asyncio.Future[Any]):
    """An awaitable of a value that is there. Any number of tasks may await it, at the same time, too.

    It has a coroutine's methods for `asyncio.create_task`, as an Entry has.
    """

    __slots__ = ()

    def __init__(self, value: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.set_result(value)

    def send(self, value: Any) -> Any:
        """Coroutine protocol: the first step is the last one."""
        raise StopIteration(self.result())

    def throw(self, *error: Any) -> Any:
        """Coroutine protocol: the task was cancelled before its first step."""
        raise error[0]

    def close(self) -> None:
        """Coroutine protocol: nobody will await this; nothing is lost."""


class Keeper:
    """Vouches for what came by one wire."""

    confirmed = 0.0  # monotonic time until which the server's last word holds
    count = 0  # entries kept of its own


class Kept(Done):
    """A reply with what is needed to drop it in time."""

    __slots__ = ("hits", "ident", "keeper", "key", "made", "plain", "seen", "size", "text", "until", "value")

    def __init__(
        self,
        value: Any,
        until: float,
        key: bytes,
        text: bool,
        ident: str | bytes,
        keeper: Keeper,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(value, loop)
        self.value = value
        self.keeper = keeper
        self.until = until  # monotonic time; inf for a key without a time to live
        self.key = key  # as the server announces it
        self.text = text  # decoded, or bytes
        self.ident = ident  # its place: a name for GET, else the command as it is sent
        self.plain = value.__class__ in _SCALARS  # cannot be changed by those who get it
        self.hits = 0
        self.seen = 0  # hits when the clock last came by
        self.size = 0  # bytes, estimated
        self.made: Any = None  # what a reader has made of the value, see `Shelves.attach`


def fresh(value: Any) -> Any:
    """The value for one caller: containers are copied, so that nobody changes what others get."""
    if value.__class__ in _SCALARS:
        return value
    if isinstance(value, list):
        return [fresh(each) for each in value]
    if isinstance(value, dict):
        return {key: fresh(each) for key, each in value.items()}
    if isinstance(value, set):
        return set(value)
    return value


def weigh(value: Any) -> int:
    """Bytes that a kept value takes, its entry included; an estimate."""
    return _OVERHEAD + _size(value)


def _size(value: Any) -> int:
    size = getsizeof(value)
    if isinstance(value, (list, set, tuple)):
        return size + sum(map(_size, value))
    if isinstance(value, dict):
        return size + sum(_size(key) + _size(each) for key, each in value.items())
    return size
