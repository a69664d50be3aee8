"""The cache for code without an event loop. The same cache: each method waits for its namesake."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from gravito.stasis._computed import Computed
from gravito.stasis._policy import UNSET, Factory, Options, RefreshOptions, Unset
from gravito.stasis._portal import portal
from gravito.stasis._stats import CacheStats
from gravito.stasis._tags import TaggedCache
from gravito.stasis._ttl import TTL
from gravito.stasis.cache import Cache
from gravito.stasis.limiter import Limiter
from gravito.stasis.lock import Lease, Lock

__all__ = ["SyncCache", "SyncLimiter", "SyncTaggedCache"]

P = ParamSpec("P")
T = TypeVar("T")


def _waits(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that waits for an asynchronous one of the same name."""
    name = method.__name__

    def wait(self: Any, /, *args: P.args, **options: P.kwargs) -> T:
        found: T = portal.call(lambda: getattr(self._view, name)(*args, **options))
        return found

    wait.__name__, wait.__doc__ = name, method.__doc__
    return wait


class _Waiting:
    """What a view of a cache can do, waited for."""

    def __init__(self, view: Computed) -> None:
        self._view = view

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._view!r}>"

    get = _waits(Computed.get)
    many = _waits(Computed.many)
    has = _waits(Computed.has)
    missing = _waits(Computed.missing)
    put = _waits(Computed.put)
    forever = _waits(Computed.forever)
    put_many = _waits(Computed.put_many)
    forget = _waits(Computed.forget)
    forget_many = _waits(Computed.forget_many)
    add = _waits(Computed.add)
    pull = _waits(Computed.pull)
    touch = _waits(Computed.touch)
    increment = _waits(Computed.increment)
    decrement = _waits(Computed.decrement)

    def remember(
        self, key: str, ttl: TTL | Unset = UNSET, factory: Factory | None = None, **options: Unpack[Options]
    ) -> Any:
        """As `Cache.remember`. A plain factory runs in this thread; others of the process wait for it."""
        view = self._view
        return portal.call_with(factory, lambda run: view.remember(key, ttl, run, **options))  # type: ignore[arg-type]  # the view refuses what is no factory

    def remember_forever(self, key: str, factory: Factory | None = None, **options: Unpack[Options]) -> Any:
        """As `Cache.remember_forever`; see `remember`."""
        return self.remember(key, None, factory, **options)

    def flexible(
        self,
        key: str,
        fresh: float | timedelta,
        stale: float | timedelta,
        factory: Factory | None = None,
        **options: Unpack[RefreshOptions],
    ) -> Any:
        """As `Cache.flexible`. A plain factory runs in this thread, or in one of asyncio's pool to refresh a value."""
        view = self._view
        return portal.call_with(factory, lambda run: view.flexible(key, fresh, stale, run, **options))  # type: ignore[arg-type]  # as above


class SyncLimiter:
    """`Limiter`, for code without an event loop. `wait` blocks the thread."""

    def __init__(self, limiter: Limiter) -> None:
        self._view = limiter

    def __repr__(self) -> str:
        return f"<SyncLimiter of {self._view!r}>"

    attempt = _waits(Limiter.attempt)
    check = _waits(Limiter.check)
    hit = _waits(Limiter.hit)
    wait = _waits(Limiter.wait)
    reset = _waits(Limiter.reset)


class SyncTaggedCache(_Waiting):
    """`TaggedCache`, for code without an event loop."""

    flush = _waits(TaggedCache.flush)


class SyncCache(_Waiting):
    """`Cache`, for code without an event loop: `cache.sync`.

    All of a process's calls go through one thread with an event loop, and share its connection. Called within an
    event loop they work, and block it meanwhile.
    """

    _view: Cache

    clear = _waits(Cache.clear)

    def tags(self, *tags: str) -> SyncTaggedCache:
        """As `Cache.tags`."""
        return SyncTaggedCache(self._view.tags(*tags))

    def namespace(self, name: str) -> SyncCache:
        """As `Cache.namespace`."""
        return SyncCache(self._view.namespace(name))

    @contextmanager
    def lock(self, name: str, ttl: float | timedelta = 10.0, **options: Any) -> Iterator[Lease]:
        """As `async with Cache.lock(...)`."""
        lock = self._view.lock(name, ttl, **options)
        lease = portal.call(lambda: _entered(lock))
        try:
            yield lease
        except BaseException:
            kind, error, trace = sys.exc_info()
            portal.call(lambda: lease.__aexit__(kind, error, trace))
            raise
        portal.call(lambda: lease.__aexit__(None, None, None))

    def limiter(self, name: str, **options: Any) -> SyncLimiter:
        """As `Cache.limiter`."""
        return SyncLimiter(self._view.limiter(name, **options))

    def warm(
        self, factories: Mapping[str, Factory], ttl: TTL | Unset = UNSET, **options: Any
    ) -> dict[str, BaseException]:
        """As `Cache.warm`; plain factories run one after the other, in the portal's thread."""
        view = self._view
        return portal.call(lambda: view.warm(factories, ttl, **options))

    def stats(self) -> CacheStats:
        """As `Cache.stats`."""
        return self._view.stats()

    def close(self) -> None:
        """As `Cache.aclose`."""
        portal.call(self._view.aclose)


async def _entered(lock: Lock) -> Lease:
    """Enter a lock that another task will leave: each call is a task of its own."""
    lease = await lock.__aenter__()
    lock._entered.pop(asyncio.current_task())
    return lease
