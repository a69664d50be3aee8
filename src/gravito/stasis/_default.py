"""The cache that is meant where none is named."""

from __future__ import annotations

from gravito.errors import ConfigurationError
from gravito.stasis.cache import Cache

__all__ = ["default_cache", "set_default_cache"]

_default: Cache | None = None  # one per process, since everybody who names none means the same


def default_cache() -> Cache:
    """The cache that decorators and integrations use when they are given none.

    The one of `set_default_cache`; without it a `Cache()`, on the default connection, made when it is first asked for.
    """
    global _default
    if _default is None:
        _default = Cache()  # costs no I/O: if two threads make one, they are the same cache by their prefix
    return _default


def set_default_cache(cache: Cache | None) -> None:
    """Let `default_cache` be this one, from now on; None for a new `Cache()`.

    Args:
        cache: with the store, prefix and settings that the application wants.

    Raises:
        ConfigurationError: something else than a cache.
    """
    global _default
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigurationError(
            f"the default cache is of type {type(cache).__name__}; allowed: a Cache, or None", field="cache"
        )
    _default = cache
