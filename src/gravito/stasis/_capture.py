"""One run of an ASGI application, on behalf of all who wait for its response."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from gravito.stasis._http import Kept, Rules
from gravito.stasis._policy import UNSET, Result

__all__ = ["PASS", "Passing", "Run"]

_logger = logging.getLogger("gravito.stasis")

Message = MutableMapping[str, Any]

PASS: Final = None  # the outcome of a run whose response is for nobody but the one who asked
_CONDITIONAL: Final = (b"if-none-match", b"if-modified-since")
_PASS_SECONDS: Final = 10.0
_MOST_PASSING: Final = 10_000
_AHEAD: Final = 8  # messages that the application may be ahead of its client


class Run:
    """A response in the making. It is either kept whole, or passed on to its client message by message.

    The application runs in a task of its own: the response is complete before its background tasks are, and a client
    who leaves does not take it from others.

    Args:
        app: what answers.
        scope: of the request that began it.
        rules: which responses may be kept.
        max_body: bytes of a body that may be kept.
    """

    def __init__(self, app: Any, scope: MutableMapping[str, Any], rules: Rules, max_body: int) -> None:
        self._app = app
        self._scope = scope
        self._rules = rules
        self._max_body = max_body
        self._outcome: Future[Result[Kept | None]] | None = None  # set once it runs
        self._task: asyncio.Task[None] | None = None  # held, for a loop keeps weak references only
        self._left = False  # nobody is there to forward to
        self._captured: list[Message] = []
        self._size = 0  # bytes of the body so far
        self._lifetime: float | None = None  # what the response says; None: it is passed on
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(_AHEAD)  # None: that was all

    @property
    def started(self) -> bool:
        """Whether this run, and no other, was what the cache asked for."""
        return self._outcome is not None

    @property
    def failed(self) -> bool:
        """Whether its response is a server's error, which may pass soon."""
        return bool(self._captured) and int(self._captured[0].get("status", 500)) >= 500

    async def response(self) -> Result[Kept | None]:
        """The factory: a response to keep, or PASS, which is not kept."""
        loop = get_running_loop()
        self._outcome = loop.create_future()
        self._task = loop.create_task(self._run(), name="gravito response")
        self._task.add_done_callback(self._ended)
        return await asyncio.shield(self._outcome)

    async def _run(self) -> None:
        headers = [each for each in self._scope["headers"] if each[0] not in _CONDITIONAL]
        try:
            # without extensions: what is sent by a path or behind the body could not be kept
            scope = {**self._scope, "headers": headers, "extensions": {}}
            await self._app(scope, _receiver(), self._take)
        finally:
            if self._passes() and not self._left:
                await self._queue.put(None)

    def _passes(self) -> bool:
        outcome = self._outcome
        if outcome is None or not outcome.done() or outcome.cancelled() or outcome.exception() is not None:
            return False
        return outcome.result().value is PASS

    def _ended(self, task: asyncio.Task[None]) -> None:
        assert self._outcome is not None
        error = None if task.cancelled() else task.exception()
        if not self._outcome.done():
            self._outcome.set_exception(error or RuntimeError("the application ended without a response"))
            self._outcome.exception()  # who waits gets it; nobody need be there
        elif error is not None and not self._passes():
            _logger.error("an application failed after its response", exc_info=error)

    # -- what the application sends --------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        assert self._outcome is not None
        if self._outcome.done():
            if self._passes():
                await self._queue.put(message)
            return
        self._captured.append(message)
        if message["type"] == "http.response.start":
            self._lifetime = self._rules.lifetime(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._size += len(message.get("body", b""))
        if self._lifetime is None or self._size > self._max_body:
            self._pass()
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._keep()

    def _pass(self) -> None:
        assert self._outcome is not None
        self._outcome.set_result(Result(PASS, store=False))
        if self._left and self._task is not None:
            self._task.cancel()

    def _keep(self) -> None:
        assert self._outcome is not None
        assert self._lifetime is not None
        start, *parts = self._captured
        kept = Kept.of(
            start["status"], list(start.get("headers", ())), b"".join(_body(part) for part in parts)
        )
        self._outcome.set_result(Result(kept, ttl=self._lifetime if self._lifetime > 0 else UNSET))

    # -- who asked -------------------------------------------------------------------------------------------

    async def forward(self, send: Callable[[Message], Awaitable[None]]) -> None:
        """Pass the response on as it comes.

        Raises:
            Exception: the application's.
        """
        for message in self._captured:
            await send(message)
        while (further := await self._queue.get()) is not None:
            await send(further)
        if self._task is not None:
            await self._task

    def leave(self) -> None:
        """The one who asked is gone, or has what they wanted."""
        self._left = True
        if self._task is not None and not self._task.done() and self._passes():
            self._task.cancel()


def _body(message: Message) -> bytes:
    body: bytes = message.get("body", b"")
    return body


def _receiver() -> Callable[[], Awaitable[Message]]:
    """An empty request, of a client that does not go away."""
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await get_running_loop().create_future()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


class Passing:
    """Entries whose responses are not kept: for a while those who ask for them need not wait for each other."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by entry, in the loop's time

    def knows(self, key: str) -> bool:
        """Whether its last response was not kept."""
        until = self._until.get(key)
        if until is None:
            return False
        if until > get_running_loop().time():
            return True
        del self._until[key]
        return False

    def note(self, key: str) -> None:
        """Its response was not kept."""
        if len(self._until) >= _MOST_PASSING:
            self._until.pop(next(iter(self._until)), None)
        self._until[key] = get_running_loop().time() + _PASS_SECONDS
