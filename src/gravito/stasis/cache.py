"""The cache's public face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from gravito import errors
from gravito.atlas import DB, Client
from gravito.atlas.facade import RedisFacade
from gravito.stasis._codec import Codec
from gravito.stasis._computed import Computed
from gravito.stasis._core import Core
from gravito.stasis._events import Event
from gravito.stasis._failsafe import FailSafe
from gravito.stasis._memory import MemoryStore
from gravito.stasis._names import check_namespace, check_tag
from gravito.stasis._null import NullStore
from gravito.stasis._reads import Scope
from gravito.stasis._redis import RedisStore
from gravito.stasis._stats import CacheStats
from gravito.stasis._tags import TaggedCache
from gravito.stasis._tiered import TieredStore
from gravito.stasis._ttl import TTL, ttl_ms
from gravito.stasis.limiter import Limiter
from gravito.stasis.lock import Lock
from gravito.stasis.store import Store

if TYPE_CHECKING:
    from types import TracebackType

    from gravito.stasis._sync import SyncCache

__all__ = ["Cache"]

STORES: Final[Mapping[str, Callable[[Callable[[], Client]], Store]]] = {
    "redis": lambda client: RedisStore(client()),
    "tiered": lambda client: TieredStore(client()),
    "memory": lambda client: MemoryStore(),
    "null": lambda client: NullStore(),
}

_MOST_VIEWS: Final = 1000


class Cache(Computed):
    """A cache. Making one does no I/O; it takes its connection at the first use.

    Example::

        cache = Cache()
        user = await cache.remember("user:1", ttl=300, factory=load_user)

    Args:
        store: "redis", "tiered" (copies in this process in front of it), "memory" (this process only), "null", or an
            object with the methods of `Store`.
        connection: the name of a connection, a client, or None for the default connection.
        prefix: begins every key on the server. Caches with one prefix are one cache.
        ttl: where a call names none: seconds, a timedelta, or None for without end; a datetime would be one moment for
            all entries to come.
        codec: how values become bytes; a `Codec`, or None for MessagePack.
        fail_safe: what happens without the store.
        lease: seconds after which another process takes over a factory whose process is gone.
        retry: seconds between two tries of a factory that failed, while its last value serves.

    Raises:
        ConfigurationError: there is no such store, or another setting that cannot be used.
        InvalidTTLError: a ttl that cannot be used.
    """

    def __init__(
        self,
        store: str | Store = "redis",
        connection: str | Client | None = None,
        *,
        prefix: str = "cache",
        ttl: float | timedelta | None = None,
        codec: Codec | None = None,
        fail_safe: FailSafe | None = None,
        lease: float = 5.0,
        retry: float = 1.0,
    ) -> None:
        if isinstance(store, str) and store not in STORES:
            raise errors.ConfigurationError(
                f"there is no store {store!r}; allowed: {', '.join(STORES)}, or an object with the methods of Store",
                field="store",
                value=store,
                allowed=list(STORES),
            )
        if not isinstance(store, str | Store):
            raise errors.ConfigurationError(
                f"the store is of type {type(store).__name__}, which lacks methods of gravito.stasis.Store",
                field="store",
            )
        _of_type(
            "connection", connection, (str, Client, RedisFacade), "a connection's name, a Client, or None"
        )
        _of_type("codec", codec, Codec, 'a Codec, like Codec("json"), or None')
        _of_type("fail_safe", fail_safe, FailSafe, "a FailSafe, like FailSafe(timeout=1.0), or None")
        if isinstance(ttl, datetime):
            raise errors.InvalidTTLError(
                "ttl is a datetime, which is one moment for all entries to come; give seconds or a timedelta"
            )
        ttl_ms(ttl)
        self._store = store
        self._connection = connection
        self._ttl: TTL = ttl
        self._codec = codec if codec is not None else Codec()
        self._fail_safe = fail_safe if fail_safe is not None else FailSafe()
        self._lease_ms, self._retry_ms = _ms("lease", lease), _ms("retry", retry)
        self._outer: Cache | None = None  # of a namespace: the cache that has the core
        self._views: dict[tuple[str, ...], TaggedCache] = {}  # made before, by the tags that were named
        self._see(Scope.of(check_namespace(prefix)), ())

    def __getattr__(self, name: str) -> Any:
        """The core, made at the first use, so that the hot path asks nothing."""
        if name != "_core":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._core = self._outer._core if self._outer is not None else self._make_core()
        return self._core

    def _make_core(self) -> Core:
        store, name = self._store, self._store if isinstance(self._store, str) else type(self._store).__name__
        return Core(
            STORES[store](self._client) if isinstance(store, str) else store,
            name,
            self._codec,
            self._fail_safe,
            scope=self._scope,
            ttl=self._ttl,
            lease_ms=self._lease_ms,
            retry_ms=self._retry_ms,
        )

    def __repr__(self) -> str:
        store = self._store if isinstance(self._store, str) else repr(self._store)
        return f"<Cache '{self._scope.prefix}' on {store}>"

    def _client(self) -> Client:
        if isinstance(self._connection, str) or self._connection is None:
            return DB.connection(self._connection)
        return self._connection

    # -- views -----------------------------------------------------------------------------------------------

    def tags(self, *tags: str) -> TaggedCache:
        """This cache with some tags named: what is stored through it bears them.

        Raises:
            InvalidKeyError: a tag that cannot be used, or none.
        """
        try:
            view = self._views.get(tags)
        except TypeError:  # one has no hash; it is refused below
            view = None
        return self._tagged(tags) if view is None else view

    def _tagged(self, tags: tuple[str, ...]) -> TaggedCache:
        if not tags:
            raise errors.InvalidKeyError("tags() names no tag")
        view = self._view(tags)
        if len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        self._views[tags] = view
        return view

    def _view(self, tags: tuple[str, ...], template: str | None = None) -> TaggedCache:
        """A view that names some tags, or none; its keys are counted with the template."""
        view = TaggedCache.__new__(TaggedCache)
        view._core, view._template = self._core, template
        view._see(self._scope, tuple(dict.fromkeys([check_tag(tag) for tag in tags])))
        return view

    def namespace(self, name: str) -> Cache:
        """A part of this cache with keys and tags of its own. Clearing this cache clears it too.

        Raises:
            InvalidKeyError: letters, digits, "_", "." and "-" make a name.
        """
        view = Cache.__new__(Cache)
        view.__dict__.update(self.__dict__)
        view._outer = self._outer or self
        view._views = {}
        view._see(Scope.of(f"{self._scope.prefix}/{check_namespace(name)}", self._scope.roots), ())
        return view

    @property
    def sync(self) -> SyncCache:
        """This cache for code without an event loop: `cache.sync.get("k")`. See `SyncCache`."""
        from gravito.stasis._sync import SyncCache  # noqa: PLC0415  # made of this class

        return SyncCache(self)

    async def clear(self) -> None:
        """Forget everything under this cache's prefix, namespaces included. One write, however much there is.

        Locks and limits stay. The memory is freed as entries reach their time to live, or by eviction.

        Raises:
            ConnectionError, TimeoutError: the store could not be asked; everything may still be there. Always raised.
        """
        core = self._core
        try:
            await core.store.forget((self._scope.roots[-1],))
        except Exception as error:
            core.lost(error, "", quiet=True)
            raise
        core.tallies.of("").flushes += 1
        if core.events.flush:
            core.events.tell("flush")

    # -- locks and limits ------------------------------------------------------------------------------------

    def lock(self, name: str, ttl: float | timedelta = 10.0, **options: Any) -> Lock:
        """A lock on this cache's connection; see `Lock` for the options."""
        return Lock(self._client(), name, ttl, prefix=self._scope.prefix, **options)

    def limiter(self, name: str, **options: Any) -> Limiter:
        """A limiter on this cache's connection; see `Limiter` for the options."""
        return Limiter(self._client(), name, prefix=self._scope.prefix, **options)

    # -- what goes on ----------------------------------------------------------------------------------------

    def on(self, event: str, callback: Callable[[Event], Any] | None = None) -> Any:
        """Call `callback(event)` at each event of a kind. Usable as a decorator: `@cache.on("error")`.

        Args:
            event: hit, miss, write, forget, flush, stale or error.
            callback: plain or async. What it raises is logged.

        Returns:
            A function that ends it; as a decorator the callback itself.

        Raises:
            ConfigurationError: there is no such event.
        """
        events = self._core.events
        if callback is not None:
            return events.add(event, callback)

        def decorate(function: Callable[[Event], Any]) -> Callable[[Event], Any]:
            events.add(event, function)
            return function

        return decorate

    def stats(self) -> CacheStats:
        """What this process has counted, in all and for each template. Costs no command."""
        core = self._core
        return core.tallies.stats(core.name, core.guard.open)

    async def aclose(self) -> None:
        """Finish: report the last statistics and let go of what the store holds. The connection stays its owner's."""
        core: Core | None = self.__dict__.get("_core")
        if core is not None and self._outer is None:
            await core.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _of_type(field: str, value: Any, kind: type | tuple[type, ...], allowed: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise errors.ConfigurationError(
            f"{field} is of type {type(value).__name__}; allowed: {allowed}", field=field, allowed=allowed
        )


def _ms(field: str, seconds: Any) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.01 <= seconds <= 3600:
        allowed = "seconds from 0.01 to 3600"
        raise errors.ConfigurationError(
            f"{field} is {seconds!r}; allowed: {allowed}", field=field, value=seconds, allowed=allowed
        )
    return int(seconds * 1000)
