"""Locks that several processes share: owner tokens, fences, renewal, and waiting that costs next to nothing.

A lock is a key that ends by itself, so a holder that dies gives it up within the ttl. It is mutual exclusion for as
long as one server, or its failover, remembers it: replication is asynchronous, and a lock that was given a moment
before its server died may be given again. What must never happen twice checks `lease.fence` where it is written.
See https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from gravito import errors
from gravito.atlas import Client
from gravito.stasis._lease import Calls, Lease, Terms, lock_ms
from gravito.stasis._line import crowd_of
from gravito.stasis._scripts import finish, keep

__all__ = ["Lease", "Lock"]

_LONGEST: Final = 24 * 3600.0  # seconds of one wait on the server; whoever waits for ever waits again
_LONGEST_NAME: Final = 1024  # bytes


class Lock:
    """A lock by name. Making one sends nothing.

    Example: `async with Lock(client, "jobs:rebuild", ttl=10, renew=True) as lease: ...`

    It is not re-entrant: a task that waits for a lock it holds waits until the lock runs out. Waiters of one process
    stand in line, and its first one blocks on the server, on one leased wire for each lock; a release wakes one of
    them.

    Args:
        client: where it lives. In a cluster all keys of a lock are in one slot.
        name: 1 to 1024 bytes of UTF-8 that do not begin with "}".
        ttl: seconds or a timedelta; the lock ends that long after its last renewal, whatever became of its holder.
        wait: seconds or a timedelta that `acquire` waits for it; 0 tries once, None waits for ever.
        renew: renew it in the background, each third of the ttl, for as long as it is held.
        cancel: cancel the body of `async with` when the lock is lost; it then ends with LockNotOwnedError.
        prefix: begins the keys.

    Raises:
        InvalidKeyError: the name cannot be used.
        InvalidTTLError: not a time that a lock can live.
        ConfigurationError: not a time to wait.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        ttl: float | timedelta = 10.0,
        wait: float | timedelta | None = None,
        *,
        renew: bool = False,
        cancel: bool = False,
        prefix: str = "cache",
    ) -> None:
        self.name = _checked_name(name)
        self._terms = Terms(lock_ms(ttl), renew, cancel)
        self._wait = wait_seconds(wait)
        self._calls = Calls(client, name, prefix)
        self._entered: dict[asyncio.Task[Any] | None, Lease] = {}  # whose body runs now

    def __repr__(self) -> str:
        renewed = ", renewed" if self._terms.renew else ""
        return f"<Lock '{self.name}' for {self._terms.ttl_ms / 1000:g} s{renewed}>"

    async def acquire(
        self, wait: float | timedelta | msgspec.UnsetType | None = msgspec.UNSET
    ) -> Lease | None:
        """Take the lock.

        Args:
            wait: seconds or a timedelta; 0 tries once, None waits for ever. The lock's own if it is not given.

        Returns:
            The lease, or None if somebody else held the lock all the time.

        Raises:
            ConfigurationError: not a time to wait.
            ConnectionError, TimeoutError: the server cannot be asked. Nothing is held then beyond the ttl.
        """
        seconds = self._wait if wait is msgspec.UNSET else wait_seconds(wait)
        waiter = _Waiter(self._calls, self._terms.ttl_ms, seconds)
        try:
            got = await waiter.run()
        except asyncio.CancelledError:
            await finish(waiter.give_up())
            raise
        except errors.GravitoError:
            keep(waiter.give_up())  # not awaited: the server may be away for long
            raise
        return None if got is None else self._lease(waiter.token, got.fence, got.asked, self._terms.ttl_ms)

    async def restore(self, token: str) -> Lease:
        """The lease of a holder elsewhere, by its token: to release or extend what another process has acquired.

        Raises:
            LockNotOwnedError: the lock is not held under this token.
        """
        asked = asyncio.get_running_loop().time()
        fence, left = await self._calls.extend(token, self._terms.ttl_ms if self._terms.renew else 0)
        return self._lease(token, fence, asked, left if left >= 0 else self._terms.ttl_ms)

    async def locked(self) -> bool:
        """Whether somebody holds it. https://redis.io/commands/exists"""
        return bool(await self._calls.client.exists(self._calls.key))

    def _lease(self, token: str, fence: int, asked: float, left_ms: int) -> Lease:
        lease = Lease(self._calls, self._terms, token, fence)
        lease.expect(asked, left_ms)
        if self._terms.renew:
            lease.renew()
        return lease

    async def __aenter__(self) -> Lease:
        lease = await self.acquire()
        if lease is None:
            raise errors.LockTimeoutError(
                f"lock '{self.name}' was held by somebody else for the {self._wait:g} s that this may wait",
                self.name,
            )
        await lease.__aenter__()
        self._entered[asyncio.current_task()] = lease
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._entered.pop(asyncio.current_task()).__aexit__(kind, error, trace)


class _Got(NamedTuple):
    """What a waiter has got."""

    fence: int
    asked: float  # when, by the loop's clock


class _Waiter:
    """One caller's way to a lock."""

    def __init__(self, calls: Calls, ttl_ms: int, seconds: float) -> None:
        self.token = secrets.token_hex(16)
        self._calls = calls
        self._ttl_ms = ttl_ms
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + seconds
        self._patient = seconds > 0
        self._crowd = crowd_of(calls.client)
        self._asking: asyncio.Task[list[int]] | None = None  # the last question

    async def run(self) -> _Got | None:
        if not self._patient:
            return (await self._ask(0.0))[0]
        deadline = None if self._deadline == math.inf else self._deadline
        try:
            async with self._crowd.turn(self._calls.key, deadline):
                while True:
                    remaining = self._deadline - self._loop.time()
                    got, left_ms = await self._ask(remaining)
                    if got is not None or remaining <= 0:
                        return got
                    await self._sleep(left_ms)
        except TimeoutError:  # others of this process were before us all the time
            return None

    async def _ask(self, remaining: float) -> tuple[_Got | None, int]:
        """The lease, or the ms that its holder has left. With no time remaining, the server forgets the caller."""
        asked = self._loop.time()
        wait_ms = math.ceil(1000 * min(max(remaining, 0.0), _LONGEST))
        self._asking = keep(self._calls.acquire(self.token, self._ttl_ms, wait_ms))
        taken, number = await asyncio.shield(self._asking)
        return (_Got(number, asked), 0) if taken else (None, number)

    async def _sleep(self, left_ms: int) -> None:
        """Until a release calls this waiter, the holder's time has passed, or the caller's patience has."""
        remaining = self._deadline - self._loop.time()
        pause = max(min(left_ms / 1000 + 0.001, remaining, _LONGEST), 0.001)
        # Other users of the leased wires are left half of them. Beyond that, looking now and then must do.
        if self._crowd.blocked >= max(self._calls.client.settings.limits.leased_wires // 2, 1):
            await asyncio.sleep(min(pause, random.uniform(0.2, 0.3)))
            return
        self._crowd.blocked += 1
        try:
            await self._calls.client.blpop([self._calls.wake], timeout=pause)
        except (errors.ConnectionError, errors.TimeoutError):  # the next question tells, if it is for good
            await asyncio.sleep(min(pause, random.uniform(0.05, 0.15)))
        except errors.ResponseError as error:
            if not str(error).startswith(
                "UNBLOCKED"
            ):  # the server has become a replica, or an operator's doing
                raise
        finally:
            self._crowd.blocked -= 1

    async def give_up(self) -> None:
        """Leave nothing behind: neither a place in the queue nor a lock that an unheard reply has given."""
        if self._asking is None:
            return
        try:
            await asyncio.wait([self._asking])
            await self._calls.release(self.token)
        except errors.GravitoError:
            pass  # what is left ends by itself


def wait_seconds(wait: Any) -> float:
    """Seconds to wait, `math.inf` for None.

    Raises:
        ConfigurationError: not a number or timedelta, or below 0.
    """
    if wait is None:
        return math.inf
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        allowed = "seconds or a timedelta from 0, or None to wait for ever"
        raise errors.ConfigurationError(
            f"wait is {wait!r}; allowed: {allowed}", field="wait", value=wait, allowed=allowed
        )
    return float(seconds)


def _checked_name(name: Any) -> str:
    try:
        size = len(name.encode()) if isinstance(name, str) else 0
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _LONGEST_NAME or name[0] == "}":  # "{}...}" would be no hash tag
        allowed = f"1 to {_LONGEST_NAME} bytes of UTF-8 that do not begin with '}}'"
        raise errors.InvalidKeyError(f"a lock cannot be named {name!r:.80}: give {allowed}")
    return str(name)
