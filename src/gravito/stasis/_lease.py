"""A lease: a lock that is held, its renewal, and the news that it is lost."""

from __future__ import annotations

import asyncio
import logging
import weakref
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self

import msgspec

from gravito import errors
from gravito.atlas import Client
from gravito.stasis._scripts import finish, source
from gravito.stasis._ttl import ttl_ms

__all__ = ["Calls", "Lease", "Terms", "lock_ms"]

log = logging.getLogger("gravito.stasis")

# How long a fence outlives its lock, ms. It follows the server's clock, so this matters only if that is set back.
_FENCE_MS: Final = 7 * 24 * 3600 * 1000


def lock_ms(ttl: Any) -> int:
    """A lock's ttl in milliseconds.

    Raises:
        InvalidTTLError: as `ttl_ms`, and for None and a datetime: a lock ends without its holder, and is renewed
            for as long again.
    """
    if ttl is None or not isinstance(ttl, int | float | timedelta):
        raise errors.InvalidTTLError(f"ttl {ttl!r} of a lock: give seconds or a timedelta, more than 0")
    ms = ttl_ms(ttl)
    assert ms is not None
    return ms


class Terms(msgspec.Struct, frozen=True):
    """How a lock is held."""

    ttl_ms: int
    renew: bool
    cancel: bool


class Calls:
    """The scripts of one lock, on its keys. All of them are in one slot, by the name as their hash tag."""

    def __init__(self, client: Client, name: str, prefix: str) -> None:
        self.name = name
        self.key = f"{prefix}:l:{{{name}}}"
        self.wake = f"{self.key}:w"
        self._fence = f"{self.key}:f"
        self._queue = f"{self.key}:q"
        self.client = client
        # A question under the same token may be asked again, so that a lost reply is no lost lock. Not the release:
        # asked again, it would say that nobody holds the lock.
        again = client.with_options(retry=msgspec.structs.replace(client.settings.retry, writes=True))
        self._acquire = again.script(source("lock_acquire.lua"), "lock_acquire.lua")
        self._extend = again.script(source("lock_extend.lua"), "lock_extend.lua")
        self._release = client.script(source("lock_release.lua"), "lock_release.lua")

    async def acquire(self, token: str, ttl_ms: int, wait_ms: int) -> list[int]:
        """[1, fence] or [0, ms that the holder has left]."""
        keys = (self.key, self._fence, self._queue, self.wake)
        reply: list[int] = await self._acquire(keys, (token, ttl_ms, wait_ms, _FENCE_MS))
        return reply

    async def release(self, token: str) -> int:
        """1, or 0 if nobody holds it, or -1 if somebody else does. Also ends the waiting of this token."""
        reply: int = await self._release((self.key, self._queue, self.wake), (token,))
        return reply

    async def extend(self, token: str, ttl_ms: int) -> tuple[int, int]:
        """(fence, ms left), after a new TTL if `ttl_ms` is not 0.

        Raises:
            LockNotOwnedError: it is not held under this token.
        """
        reply = await self._extend((self.key,), (token, ttl_ms))
        if reply[0] != 1:
            self.refuse("renewed" if ttl_ms else "restored", reply[0])
        return reply[1], reply[2]

    def refuse(self, what: str, answer: int) -> NoReturn:
        """Raise for an answer that says who holds it."""
        who = (
            "nobody holds it: it ran out or was released" if answer == 0 else "somebody else holds it by now"
        )
        raise errors.LockNotOwnedError(
            f"lock '{self.name}' cannot be {what} under this token: {who}", self.name
        )


class Lease:
    """A lock that is held.

    Leaving `async with lease` releases it. A renewed lease lives as long as it is referred to: one that is dropped
    without a release is renewed no more and runs out.

    Attributes:
        name: the lock's.
        token: what names this holder; whoever knows it may release the lock (`Lock.restore`).
        fence: a number that is greater than that of every earlier lease of this lock. A store that remembers the
            greatest one it saw can refuse a holder that lost its lock and does not know it yet.
        ttl: seconds that the lock outlives its last renewal.
        lost: an `asyncio.Event`, set when the lock is lost: it ran out, could not be renewed in time, or somebody
            took it away. Time is counted from before the question, so it is set before somebody else gets the lock.
    """

    def __init__(self, calls: Calls, terms: Terms, token: str, fence: int) -> None:
        self.name = calls.name
        self.token = token
        self.fence = fence
        self.ttl = terms.ttl_ms / 1000
        self.lost = asyncio.Event()
        self._calls = calls
        self._terms = terms
        self._state: Literal["held", "released", "lost"] = "held"
        self._why = ""  # it was lost
        self._end: asyncio.TimerHandle | None = None  # when it is lost unless it is renewed
        self._renewal: asyncio.Task[None] | None = None
        self._body: asyncio.Task[Any] | None = (
            None  # runs `async with`, and is cancelled with the loss if asked for
        )
        self._cancels = 0  # what others had asked of the body when it began
        self._cut = False  # the body was cancelled by us

    def __repr__(self) -> str:
        return f"<Lease '{self.name}' fence {self.fence}, {self._state}>"

    @property
    def held(self) -> bool:
        """Whether the lock is surely still held, for all that this process knows. Sends nothing."""
        return self._state == "held"

    async def extend(self, ttl: float | timedelta | None = None) -> None:
        """Give the lock a new ttl from now on; renewals use it too.

        Args:
            ttl: seconds or a timedelta; the lease's own if None.

        Raises:
            LockNotOwnedError: it is lost, or was released.
            InvalidTTLError: not a time that a lock can live.
        """
        ms = lock_ms(self.ttl if ttl is None else ttl)
        self._check()
        await self._push(ms)
        self.ttl = ms / 1000
        if self._terms.renew:
            self.renew()

    async def release(self) -> None:
        """End the lock; whoever waits longest is told. Cancelling the caller does not stop it.

        Raises:
            LockNotOwnedError: it was not held any more, so what it guarded may have run beside somebody else's.
        """
        if self._state == "released":
            raise errors.LockNotOwnedError(
                f"lock '{self.name}' was released already under this token", self.name
            )
        self._stop()
        answer = await finish(self._calls.release(self.token))
        if answer != 1:
            self._lose("it was gone when it was to be released")
            self._calls.refuse("released", answer)
        self._state = "released"

    # -- what keeps it, and what tells of its loss -----------------------------------------------------------

    def expect(self, asked: float, ms: int) -> None:
        """It is held for `ms` from `asked`, by the loop's clock."""
        if self._end is not None:
            self._end.cancel()
        loop = asyncio.get_running_loop()
        self._end = loop.call_at(asked + ms / 1000, _ran_out, weakref.ref(self))

    def renew(self) -> None:
        """Renew from now on, each third of the ttl."""
        if self._renewal is not None:
            self._renewal.cancel()
        work = _renew(weakref.ref(self))
        self._renewal = asyncio.get_running_loop().create_task(
            work, name=f"gravito renews lock '{self.name}'"
        )

    async def _push(self, ms: int) -> None:
        asked = asyncio.get_running_loop().time()
        try:
            await self._calls.extend(self.token, ms)
        except errors.LockNotOwnedError as error:
            self._lose(str(error))
            raise
        self._check()  # meanwhile
        self.expect(asked, ms)

    def _check(self) -> None:
        if self._state != "held":
            why = self._why or "it was released already"
            raise errors.LockNotOwnedError(f"lock '{self.name}' is not held any more: {why}", self.name)

    def _lose(self, why: str) -> None:
        if self._state != "held":
            return
        self._state, self._why = "lost", why
        self._stop()
        log.warning("lock '%s' is lost: %s", self.name, why)
        self.lost.set()
        if self._body is not None and self._terms.cancel:
            self._cut = True
            self._body.cancel(f"lock '{self.name}' is lost")

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._renewal is not None and self._renewal is not asyncio.current_task():
            self._renewal.cancel()

    # -- async with ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._check()
        self._body = asyncio.current_task()
        self._cancels = self._body.cancelling() if self._body is not None else 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        ours = False  # the cancellation that ends the body
        if self._cut and body is not None:
            ours = body.uncancel() <= self._cancels and kind is asyncio.CancelledError
        try:
            if self._state != "released":
                await self.release()
        except errors.GravitoError as failure:
            if error is None or ours:
                raise
            log.warning("lock '%s' was not released after an error: %s", self.name, failure)
        if ours:  # the server had it for a moment longer than we were sure of
            raise errors.LockNotOwnedError(f"lock '{self.name}' was lost: {self._why}", self.name) from error


def _ran_out(ref: weakref.ref[Lease]) -> None:
    lease = ref()
    if lease is not None:
        renewed = ", for it could not be renewed" if lease._terms.renew else ""
        lease._lose(f"its ttl of {lease.ttl:g} s passed{renewed}")


async def _renew(ref: weakref.ref[Lease]) -> None:
    """Renew until the lease is over, or nobody refers to it."""
    share = 3
    while (lease := ref()) is not None and lease.held:
        pause = lease.ttl / share
        del lease  # not kept while asleep
        await asyncio.sleep(pause)
        if (lease := ref()) is None or not lease.held:
            return
        try:
            await lease._push(round(lease.ttl * 1000))
            share = 3
        except errors.LockNotOwnedError:
            return
        except errors.GravitoError as failure:  # there is time left to try again
            log.warning("lock '%s' was not renewed: %s", lease.name, failure)
            share = 10
