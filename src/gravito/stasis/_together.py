"""Reads and writes of one event loop that go out together: one command, or one write, for all who ask in a turn.

Who asks alone is not kept waiting for company: the first goes out at once, and while its reply, or any other, is on
its way, what is asked for is collected until the end of the turn. It is sent after everybody has asked, so nobody is
given what was invalidated before.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gravito import errors

if TYPE_CHECKING:
    from gravito.stasis._failsafe import Guard
    from gravito.stasis._plan import Plan
    from gravito.stasis._redis import RedisStore
    from gravito.stasis.store import Store

__all__ = ["Reads", "Writes"]

Replies: TypeAlias = Sequence[bytes | None]
Answer: TypeAlias = "Future[tuple[bytes | None, Replies]]"
Question: TypeAlias = "tuple[str, Plan, Answer]"
Item: TypeAlias = tuple[str, bytes, int | None]  # as of `Store.write`
Order: TypeAlias = "tuple[Item, Plan, Future[Replies]]"

_MOST_KEYS: Final = 256  # entries of one command
_MOST_BYTES: Final = 256 * 1024  # of one reply, as far as the last one tells


class Reads:
    """The reads of one loop.

    Args:
        store: is asked.
        guard: watches over that.
        loop: the one that is running.
        join: whether one command for many keys is as good as many commands: not where it has to be taken apart.
    """

    def __init__(self, store: Store, guard: Guard, loop: AbstractEventLoop, *, join: bool) -> None:
        self.loop = loop
        self._read = store.read
        self._guard = guard
        self._join = join
        self._asked: list[Question] = []  # in this turn
        self._flying = 0  # joined reads that are on their way
        self._lone: Future[Any] | None = None  # the last read that went out by itself
        self._most = _MOST_KEYS  # entries of the next command

    def ask(self, entry: str, keys: Sequence[str], plan: Plan) -> Awaitable[tuple[bytes | None, Replies]]:
        """The value at an entry's key, and the present versions of a plan.

        Args:
            entry: the entry's key.
            keys: the same with the plan's.
            plan: what the entry is expected to depend on.
        """
        lone = self._lone
        if not self._join or not (self._asked or self._flying or (lone is not None and not lone.done())):
            waiting = self._guard.within(self._read(keys))
            self._lone = getattr(waiting, "future", None)
            return _Alone(waiting)
        future: Answer = Future(loop=self.loop)
        self._asked.append((entry, plan, future))
        if len(self._asked) == 1:
            self.loop.call_soon(self._go)
        return future

    def _go(self) -> None:
        asked, self._asked = self._asked, []
        for at in range(0, len(asked), self._most):
            some = [each for each in asked[at : at + self._most] if not each[2].done()]
            if some:
                self._send(some)

    def _send(self, asked: list[Question]) -> None:
        plans = dict.fromkeys([plan for _, plan, _ in asked])
        keys = dict.fromkeys([entry for entry, _, _ in asked])
        for plan in plans:
            keys.update(dict.fromkeys(plan.keys))
        names = list(keys)
        try:
            waiting = self._guard.within(self._read(names))
            future: Future[Any] = getattr(waiting, "future", None) or asyncio.ensure_future(waiting)
        except Exception as error:
            _fail(asked, error)
            return
        self._flying += 1
        future.add_done_callback(partial(self._landed, asked, plans, names))

    def _landed(
        self, asked: list[Question], plans: dict[Plan, None], names: list[str], done: Future[Any]
    ) -> None:
        self._flying -= 1
        if done.cancelled():
            for _, _, future in asked:
                future.cancel()
            return
        error = done.exception()
        if error is not None:
            # what the server says of one key is no matter of the others
            if isinstance(error, errors.ResponseError) and len(asked) > 1:
                for each in asked:
                    self._send([each])
            else:
                _fail(asked, error)
            return
        replies: list[bytes | None] = done.result()
        self._most = _fitting(replies)
        found = dict(zip(names, replies, strict=True))
        behind = {plan: [found[key] for key in plan.keys] for plan in plans}
        for entry, plan, future in asked:
            if not future.done():
                future.set_result((found[entry], behind[plan]))


class _Alone:
    """An awaitable of the answer to one question."""

    __slots__ = ("_waiting",)

    def __init__(self, waiting: Awaitable[list[bytes | None]]) -> None:
        self._waiting = waiting

    def __await__(self) -> Generator[Any, None, tuple[bytes | None, Replies]]:
        raw, *behind = yield from self._waiting.__await__()
        return raw, behind


class Writes:
    """The writes of one loop.

    Args:
        store: is written to.
        guard: watches over that.
        loop: the one that is running.
    """

    def __init__(self, store: RedisStore, guard: Guard, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self._write = store.write_and_read
        self._guard = guard
        self._ordered: list[Order] = []  # in this turn
        self._flying = 0  # on their way

    def put(self, item: Item, plan: Plan) -> Future[Replies]:
        """Write an item; then the versions of a plan that were present behind that."""
        future: Future[Replies] = Future(loop=self.loop)
        self._ordered.append((item, plan, future))
        if len(self._ordered) == 1:
            if self._flying:
                self.loop.call_soon(self._go)
            else:
                self._go()
        return future

    def _go(self) -> None:
        ordered, self._ordered = self._ordered, []
        some: list[Order] = []
        size = 0
        for each in ordered:
            if not each[2].done():
                some.append(each)
                size += len(each[0][1])
                if size >= _MOST_BYTES:
                    self._send(some)
                    some, size = [], 0
        if some:
            self._send(some)

    def _send(self, ordered: list[Order]) -> None:
        plans = dict.fromkeys([plan for _, plan, _ in ordered])
        keys = list(dict.fromkeys([key for plan in plans for key in plan.keys]))
        try:
            waiting = self._guard.within(self._write([item for item, _, _ in ordered], keys))
            future: Future[Any] = getattr(waiting, "future", None) or asyncio.ensure_future(waiting)
        except Exception as error:
            _fail(ordered, error)
            return
        self._flying += 1
        future.add_done_callback(partial(self._landed, ordered, plans, keys))

    def _landed(
        self, ordered: list[Order], plans: dict[Plan, None], keys: list[str], done: Future[Any]
    ) -> None:
        self._flying -= 1
        if done.cancelled():
            for _, _, future in ordered:
                future.cancel()
            return
        error = done.exception()
        if error is not None:
            _fail(ordered, error)
            return
        *written, versions = done.result()
        if isinstance(versions, Exception):
            _fail(ordered, versions)
            return
        found = dict(zip(keys, versions, strict=True))
        behind = {plan: [found[key] for key in plan.keys] for plan in plans}
        for (_, plan, future), reply in zip(ordered, written, strict=True):
            if not future.done():
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(behind[plan])


def _fitting(replies: Replies) -> int:
    """How many entries like these make a reply of a size that holds nobody up."""
    size = sum(map(len, filter(None, replies)))
    return max(1, min(_MOST_KEYS, _MOST_BYTES * len(replies) // (size + 1)))


def _fail(asked: list[Any], error: BaseException) -> None:
    for _, _, future in asked:
        if not future.done():
            future.set_exception(error)
