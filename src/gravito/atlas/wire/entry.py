"""What travels: an entry is one command with its future; a batch is a pipeline's commands with one future.

The caller keeps the future, the entry moves: to a wire, back to the waiting line, to another wire after a
reconnect. Nobody awaits in between, so the plain path has no wrapper and pays nothing for the rare one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec

from gravito.atlas.config import Retry
from gravito.atlas.wire import commands

EMPTY_RESPONSE = "EMPTY_RESPONSE"  # redis-py's option: what to answer instead of an error
NEVER_DECODE = "NEVER_DECODE"  # redis-py's option: bytes, whatever the connection says


_REPEATABLE = commands.Route.READ_ONLY | commands.Route.NEUTRAL
_NO_FLAGS = commands.Route(0)


class Spec(msgspec.Struct, frozen=True, eq=False):
    """What is known of a command before it is called; one per command name and client."""

    name: str  # as redis-py passes it: "GET", "CONFIG GET"
    words: tuple[str, ...]  # as it goes on the wire
    convert: Callable[..., Any] | None  # the reply's converter
    flags: commands.Route
    leased: bool = False  # it may need a wire of its own; its arguments decide
    read_only: bool = False  # sending it twice cannot change anything

    @classmethod
    def of(cls, name: str, flags: commands.Route = _NO_FLAGS, **fields: Any) -> Spec:
        """A spec with what follows from the flags."""
        return cls(
            name,
            tuple(name.split()),
            fields.pop("convert", None),
            flags,
            read_only=bool(flags & _REPEATABLE),
            **fields,
        )


class Entry(msgspec.Struct, eq=False):
    """One command on its way. Await it for the reply.

    The garbage collector has to track entries: an error's traceback holds its caller's frame, whose variables hold
    the entry, whose future holds the error.

    It also has a coroutine's methods, so that `asyncio.create_task(redis.get("k"))`, which redis-py's users
    write, takes it. (It is no future as well: asyncio.wait refuses what is both.)
    """

    future: asyncio.Future[Any]  # the caller's; settled exactly once
    packed: bytes  # the command as it goes on the wire
    spec: Spec
    options: dict[str, Any] | None  # for the converter
    text: bool  # decode the reply's strings as UTF-8
    need: int = 1  # how many replies belong to it: more than one for a batch
    attempt: int = 1  # which try this is
    since: float = 0.0  # loop time from which it waits for room or for a wire; 0 while it does not
    # Loop time until which a refused command is tried again; 0 before the first refusal.
    deadline: float = 0.0
    ends: float = (
        0.0  # loop time: until when a blocking command goes on elsewhere; 0 while it was sent nowhere else
    )
    retry: Retry | None = None  # this call's own policy; None: the connection's
    doubt: bool = False  # a write that is sent again: an earlier try may have been applied
    steps: Iterator[Any] | None = None  # the future's iterator while a task drives this as a coroutine

    def __await__(self) -> Generator[Any, None, Any]:
        return self.future.__await__()

    def send(self, value: Any) -> Any:
        """Coroutine protocol: go on to the next step."""
        if self.steps is None:
            self.steps = self.future.__await__()
        return next(self.steps)

    def throw(self, *error: Any) -> Any:
        """Coroutine protocol: an exception (a cancellation) arrives at the await."""
        self.future.cancel()  # a task that is cancelled before its first step has not asked it to
        if self.steps is None:
            self.steps = self.future.__await__()
        return self.steps.throw(*error)  # type: ignore[attr-defined]  # a future's iterator is a generator in all but name

    def close(self) -> None:
        """Coroutine protocol: nobody will await this."""
        self.future.cancel()

    def finish(self, reply: Any) -> None:
        """Settle the caller's future with the converted reply, or with the reply's error."""
        future = self.future
        if future.done():
            return
        if isinstance(reply, Exception):
            if self.options is not None and EMPTY_RESPONSE in self.options:
                future.set_result(self.options[EMPTY_RESPONSE])
                return
            note(reply, self)
            future.set_exception(reply)
            return
        try:
            future.set_result(convert(self.spec, reply, self.options))
        except Exception as error:  # a converter that cannot read the reply fails its own caller only
            future.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Settle the caller's future with an error, unless it is settled."""
        if not self.future.done():
            note(error, self)
            self.future.set_exception(error)


class Batch(Entry, eq=False):
    """The commands of one pipeline, or of a part of it: one write, one future, replies in order, unconverted."""

    replies: list[Any] = msgspec.field(default_factory=list)  # those that came
    bytes_only: frozenset[int] = frozenset()  # positions that must not be decoded (DUMP)
    decode: bool = True  # decode the others; `text` is for the reply that comes next

    def aim(self) -> None:
        """Let the next reply be read as its position wants."""
        self.text = self.decode and len(self.replies) not in self.bytes_only


def anew(entry: Entry) -> Entry:
    """The entry as it was before it was sent; a batch starts its replies over."""
    entry.since = 0.0
    if isinstance(entry, Batch):
        entry.replies = []
        entry.aim()
    return entry


class Confirm(Entry, eq=False):
    """A SUBSCRIBE or its kin: answered by `need` pushes, or by one error."""


def convert(spec: Spec, reply: Any, options: dict[str, Any] | None) -> Any:
    """The reply as redis-py shapes it."""
    converter = spec.convert
    if converter is None:
        return reply
    if not options:
        return converter(reply)
    return converter(reply, **{key: value for key, value in options.items() if key != EMPTY_RESPONSE})


def note(error: Exception, entry: Entry) -> None:
    """Write on the error which command and which try it belongs to."""
    about = getattr(error, "about", None)
    if about is not None:
        about(command=entry.spec.name, attempt=entry.attempt, maybe_applied=entry.doubt or None)
