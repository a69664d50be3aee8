"""Live pages: one sampler asks the repository about once a second, and all open pages hear what has changed.

However many pages are open, the server is asked once; when nobody watches, it is not asked at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gravito.errors import GravitoError

__all__ = ["EVENTS", "Live", "LiveResponse", "Sampler", "Values"]

log = logging.getLogger("gravito.horizon")

EVENTS: Final = "text/event-stream"
EVERY: Final = 1.0  # seconds between two samples
_SHARE: Final = 10.0  # times as long as a sample took
_SLOWEST: Final = 10.0  # seconds
_KINDS: Final = 2  # kinds of pages that are sampled at full pace; if there are more, all are less often
_RAREST: Final = 60.0  # seconds
# Seconds that one answer lasts; the browser then asks anew. So a login that ended is seen, and a server that wants to
# end waits no longer than this for its open pages.
LIFE: Final = 30.0
MOST: Final = 2000  # open pages of one process
KEPT: Final = 50  # samplers that nobody watches, of pages that were open before

Values = Mapping[str, str]  # by the key that an element of the page has in `data-key`
Source = Callable[[], Awaitable[Values]]

_encode = msgspec.json.Encoder().encode


class Sampler:
    """Samples one source while anybody watches it.

    Args:
        source: gives the values as they are now.
        every: seconds between two samples.
        crowd: how much less often it samples, for others are watched, too.
    """

    def __init__(self, source: Source, every: float = EVERY, crowd: Callable[[], float] = lambda: 1) -> None:
        self._source = source
        self._every = every
        self._crowd = crowd
        self._values: dict[str, str] = {}  # of the latest sample
        self._whole = b""  # the event that says all of them
        self._event = b""  # the event that says what has changed by it
        self._serial = 0  # counts samples
        self._next: asyncio.Future[None] | None = None  # settled by the next sample
        self._task: asyncio.Task[None] | None = None  # while somebody watches
        self.watchers = 0

    def __repr__(self) -> str:
        return f"<Sampler {self._serial}, {self.watchers} watchers>"

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Events for one page: everything first, then what changes; whoever is slow gets everything again."""
        self.watchers += 1
        try:
            self._begin()
            seen = 0
            if self._serial == 0 or self._task is None:
                await self._sampled()
            else:  # what was sampled less than a second ago does for a start
                seen = self._serial
                yield self._whole
            while True:
                if self._serial == seen:
                    await self._sampled()
                    continue
                behind, seen = self._serial - seen, self._serial
                yield self._event if behind == 1 and seen > 1 else self._whole
        finally:
            self.watchers -= 1
            if not self.watchers and self._task is not None:
                self._task.cancel()
                self._task = None
                self._serial = 0  # by the time of the next watcher it is old

    def _begin(self) -> None:
        if self._task is None:
            self._next = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run())

    async def _sampled(self) -> None:
        assert self._next is not None
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._take(await self._source())
            except GravitoError as error:
                self._tell_away(str(error))
            except Exception:
                log.exception("the console's live figures")
                self._tell_away("the figures cannot be read; the console's log says why")
            # What takes long is asked for less often: a server that has much to do is not asked for more.
            pause = max(
                min(_SLOWEST, _SHARE * (loop.time() - began)), min(_RAREST, self._every * self._crowd())
            )
            await asyncio.sleep(max(self._every, pause))

    def _take(self, values: Values) -> None:
        changed = {key: value for key, value in values.items() if self._values.get(key) != value}
        gone = [key for key in self._values if key not in values]
        self._values = dict(values)
        self._publish(_event("all", self._values), _event("some", {**changed, **dict.fromkeys(gone, "")}))

    def _tell_away(self, why: str) -> None:
        event = _event("away", {"why": why})
        self._values = {}
        self._publish(event, event)

    def _publish(self, whole: bytes, event: bytes) -> None:
        # If all was unknown before, what has changed is everything: a page that lost touch is put right.
        self._whole, self._event = whole, event
        self._serial += 1
        done, self._next = self._next, asyncio.get_running_loop().create_future()
        if done is not None and not done.done():
            done.set_result(None)


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(data))


class Live:
    """The samplers of a console, by what they sample. They belong to the event loop that asks.

    Args:
        every: seconds between two samples.
        life: seconds that one answer lasts.
    """

    def __init__(self, every: float = EVERY, life: float = LIFE) -> None:
        self._every = every
        self._life = life
        self._samplers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Sampler]] = WeakKeyDictionary()
        self._ending = False
        self._open: set[asyncio.Task[Any]] = set()  # answers under way

    def __repr__(self) -> str:
        return f"<Live, {self.watchers} watchers>"

    @property
    def watchers(self) -> int:
        """Pages that are open."""
        return sum(sampler.watchers for some in self._samplers.values() for sampler in some.values())

    def response(self, key: str, source: Source, pace: float = 1.0) -> LiveResponse | None:
        """An answer that goes on; None if there are too many.

        Args:
            key: what is sampled: one sampler serves all who ask for the same.
            source: how.
            pace: how much longer than others it waits between two samples.
        """
        if self._ending or self.watchers >= MOST:
            return None
        samplers = self._samplers.setdefault(asyncio.get_running_loop(), {})
        sampler = samplers.get(key)
        if sampler is None:
            self._forget(samplers)
            kind = key.partition("?")[0]
            sampler = samplers[key] = Sampler(source, self._every * pace, lambda: _crowd(samplers, kind))
        return LiveResponse(sampler, self._life, self._open)

    def open(self) -> None:
        """Answer, also after a `close`: an application may begin anew."""
        self._ending = False

    def close(self) -> None:
        """End all answers now: the program wants to end."""
        self._ending = True
        for task in self._open:
            task.cancel()

    @staticmethod
    def _forget(samplers: dict[str, Sampler]) -> None:
        idle = [key for key, sampler in samplers.items() if not sampler.watchers]
        for key in idle[: max(0, len(idle) - KEPT)]:
            del samplers[key]


def _crowd(samplers: Mapping[str, Sampler], kind: str) -> float:
    """All samplers of a kind together sample as often as one would alone, and all kinds as often as a few would."""
    watched = [key.partition("?")[0] for key, sampler in samplers.items() if sampler.watchers]
    return watched.count(kind) * max(1.0, len(set(watched)) / _KINDS)


class LiveResponse(StreamingResponse):
    """Server-sent events of one sampler. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self, sampler: Sampler, life: float, register: set[asyncio.Task[Any]]) -> None:
        self._events = sampler.watch()
        self._life = life
        self._register = register
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(self._lines(), media_type=EVENTS, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until the page is closed, or the time is over."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()  # a page that was closed leaves it where it waited

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + self._life
        yield b"retry: 1000\n\n"
        while (left := end - loop.time()) > 0:
            step = asyncio.ensure_future(anext(self._events))
            self._register.add(step)
            try:
                done, _ = await asyncio.wait([step], timeout=left)
                if not done or step.cancelled():
                    return
                yield step.result()
            finally:
                self._register.discard(step)
                if not step.done():
                    step.cancel()
                    await asyncio.wait([step])
