"""Questions of one loop turn, asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

__all__ = ["Together"]

_MOST: Final = 200  # in a call
T = TypeVar("T")


class Together(Generic[T]):
    """Collects the questions of a loop turn for one call.

    Args:
        ask: given distinct questions, answers in their order.
    """

    def __init__(self, ask: Callable[[list[str]], Awaitable[list[T]]]) -> None:
        self._ask = ask
        self._open: dict[str, asyncio.Future[T]] = {}  # asked in this turn
        self._tasks: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected

    def ask(self, question: str) -> Awaitable[T]:
        """The answer to one question. It is not cancelled with its caller, since others may wait for it."""
        loop = asyncio.get_running_loop()
        if not self._open:
            loop.call_soon(self._flush)
        future = self._open.get(question)
        if future is None:
            future = self._open[question] = loop.create_future()
        return asyncio.shield(future)

    def _flush(self) -> None:
        every, self._open = list(self._open.items()), {}
        for start in range(0, len(every), _MOST):
            task = asyncio.get_running_loop().create_task(self._call(every[start : start + _MOST]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, part: list[tuple[str, asyncio.Future[T]]]) -> None:
        try:
            answers = await self._ask([question for question, _ in part])
        except BaseException as error:
            for _, future in part:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
                    if not future.cancelled():
                        future.exception()  # whoever asked may be gone
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(part, answers, strict=True):
            if not future.done():
                future.set_result(answer)
