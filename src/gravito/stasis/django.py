"""A cache backend for Django: both its faces, each in its own way. Extra `django`.

In `settings.py`::

    CACHES = {
        "default": {
            "BACKEND": "gravito.stasis.django.GravitoCache",
            "LOCATION": "redis://127.0.0.1:6379/0",
        }
    }

The asynchronous methods (`aget`, `aset`, ...) run in the caller's event loop; the others in one thread of the process
for all of them. See https://docs.djangoproject.com/en/5.2/topics/cache/ for what they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

try:
    from django.conf import settings
    from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
except ImportError as missing:
    raise ImportError(
        "gravito.stasis.django needs the package django: pip install 'gravito[django]'", name=missing.name
    ) from missing

from gravito import errors
from gravito.atlas import Client
from gravito.stasis._codec import Codec
from gravito.stasis._failsafe import FailSafe
from gravito.stasis._portal import portal
from gravito.stasis._several import several
from gravito.stasis._ttl import MAX_MS
from gravito.stasis.cache import Cache

__all__ = ["GravitoCache"]

_MISSING: Final = object()
_OPTIONS: Final = (
    "store", "prefix", "serializer", "secret", "compression", "compress_over", "max_bytes", "fail_safe",
)  # fmt: skip
_OF_CODEC: Final = ("serializer", "secret", "compression", "compress_over", "max_bytes")
_DJANGOS_OWN: Final = ("MAX_ENTRIES", "CULL_FREQUENCY")  # the server evicts by its own policy

# Django makes a backend for each thread; they share one cache for each configuration.
_caches: dict[tuple[str, str], Cache] = {}
_making = threading.Lock()


class GravitoCache(BaseCache):  # type: ignore[misc]  # Django has no types
    """Django's cache on Gravito's.

    `get_or_set` with a callable runs it once, however many ask, in whatever processes. `incr` is atomic. `clear` is one
    write, and forgets what is under this backend's `prefix`, whatever KEY_PREFIX it was stored with. Keys are 1 to 1024
    bytes of text without control characters.

    Args:
        server: LOCATION: a URL, a connection's name, or "" for the default connection.
        params: the configuration. OPTIONS may have `store` ("redis", "tiered" or "memory"), `prefix` ("django"),
            `fail_safe` (a dict, as of `FailSafe`), and as of `Codec`: `serializer`, `compression`, `compress_over`,
            `max_bytes`, `secret`. Values are stored as MessagePack. Django's own per-site and per-view caches store
            responses, which takes `"serializer": "pickle"`; it is signed, with SECRET_KEY if there is no `secret`.

    Raises:
        ConfigurationError: an option that is not known, or a value that cannot be used.
    """

    def __init__(self, server: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self._cache = _shared(server or "", dict(params.get("OPTIONS", {})))

    def __repr__(self) -> str:
        return f"<GravitoCache on {self._cache!r}>"

    # -- asynchronous ----------------------------------------------------------------------------------------

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return await self._cache.get(self._name(key, version), default)

    async def aset(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        name, ttl = self._name(key, version), self._ttl(timeout)
        if ttl == 0:
            await self._cache.forget(name)
        else:
            await self._cache.put(name, value, ttl)

    async def aadd(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        name, ttl = self._name(key, version), self._ttl(timeout)
        if ttl == 0:  # what ends at once is stored only in name
            return await self._cache.missing(name)
        return await self._cache.add(name, value, ttl)

    async def atouch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl = self._name(key, version), self._ttl(timeout)
        if ttl == 0:
            return await self._cache.pull(name, _MISSING) is not _MISSING
        return await self._cache.touch(name, ttl)

    async def adelete(self, key: str, version: int | None = None) -> bool:
        return await self._cache.forget(self._name(key, version))

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        names = {self._name(key, version): key for key in several("keys", keys)}
        found = await self._cache.many(names, _MISSING)
        return {names[name]: value for name, value in found.items() if value is not _MISSING}

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """The keys that could not be stored: none, or all if there is no store."""
        ttl = self._ttl(timeout)
        values = {self._name(key, version): value for key, value in data.items()}
        if ttl == 0:
            await self._cache.forget_many(values)
            return []
        return [] if await self._cache.put_many(values, ttl) else list(data)

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        await self._cache.forget_many([self._name(key, version) for key in several("keys", keys)])

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        if callable(default) and self._ttl(timeout) != 0:
            return await self._cache.remember(self._name(key, version), self._ttl(timeout), default)
        return await super().aget_or_set(key, default, timeout, version)

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        return await self._cache.has(self._name(key, version))

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Atomic; the time to live stays.

        Raises:
            ValueError: there is no such key.
            CacheError: its value is no whole number.
        """
        name = self._name(key, version)
        if not await self._cache.has(name):
            raise ValueError(f"Key {key!r} not found")
        return await self._cache.increment(name, delta, self._ttl(DEFAULT_TIMEOUT) or None)

    async def adecr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr(key, -delta, version)

    async def aclear(self) -> None:
        await self._cache.clear()

    # -- synchronous -----------------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return portal.call(lambda: self.aget(key, default, version))

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        portal.call(lambda: self.aset(key, value, timeout, version))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return portal.call(lambda: self.aadd(key, value, timeout, version))

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return portal.call(lambda: self.atouch(key, timeout, version))

    def delete(self, key: str, version: int | None = None) -> bool:
        return portal.call(lambda: self.adelete(key, version))

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        return portal.call(lambda: self.aget_many(keys, version))

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        return portal.call(lambda: self.aset_many(data, timeout, version))

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        portal.call(lambda: self.adelete_many(keys, version))

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        if not callable(default) or self._ttl(timeout) == 0:
            return super().get_or_set(key, default, timeout, version)
        # the callable runs in this thread, where Django's database connections are
        return portal.call_with(default, lambda factory: self.aget_or_set(key, factory, timeout, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return portal.call(lambda: self.ahas_key(key, version))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return portal.call(lambda: self.aincr(key, delta, version))

    def decr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return portal.call(lambda: self.adecr(key, delta, version))

    def clear(self) -> None:
        portal.call(self.aclear)

    # -- steps -----------------------------------------------------------------------------------------------

    def _name(self, key: str, version: int | None) -> str:
        name: str = self.make_and_validate_key(key, version=version)
        return name

    def _ttl(self, timeout: Any) -> float | None:
        """Seconds; None for without end; 0 for what ends at once."""
        seconds: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        if seconds is None:
            return None
        if not isinstance(seconds, int | float):
            raise errors.InvalidTTLError(
                f"timeout {seconds!r} is a {type(seconds).__name__}: give seconds, None for without end, or 0 to forget"
            )
        return min(max(seconds, 0), MAX_MS // 1000)


def _shared(server: str, options: dict[str, Any]) -> Cache:
    """The cache of a configuration; made once for the process."""
    for name in _DJANGOS_OWN:
        options.pop(name, None)
    unknown = options.keys() - set(_OPTIONS)
    if unknown:
        name = min(unknown)
        raise errors.ConfigurationError(
            f"CACHES: there is no option {name!r}; allowed: {', '.join(_OPTIONS)}",
            field=name,
            allowed=_OPTIONS,
        )
    known = server, repr(sorted(options.items(), key=lambda item: item[0]))
    with _making:
        cache = _caches.get(known)
        if cache is None:
            cache = _caches[known] = _made(server, options)
        return cache


def _made(server: str, options: dict[str, Any]) -> Cache:
    of_codec = {name: options[name] for name in _OF_CODEC if name in options}
    if of_codec.get("serializer") == "pickle" and not of_codec.get("secret"):
        of_codec["secret"] = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    connection = Client.from_url(server, name="django") if "://" in server else server or None
    return Cache(
        options.get("store", "redis"),
        connection,
        prefix=options.get("prefix", "django"),
        codec=Codec(**of_codec),
        fail_safe=_fail_safe(options.get("fail_safe", {})),
    )


def _fail_safe(given: Any) -> FailSafe:
    if isinstance(given, FailSafe):
        return given
    make: Callable[..., FailSafe] = FailSafe
    try:
        return make(**given)
    except TypeError as error:
        raise errors.ConfigurationError(
            f"CACHES: fail_safe is {given!r}: {error}", field="fail_safe"
        ) from None
