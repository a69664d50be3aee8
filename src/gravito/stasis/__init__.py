"""The cache: what an application has computed, in Redis or Valkey, in this process, or in both."""

from gravito.stasis._codec import Codec
from gravito.stasis._default import default_cache, set_default_cache
from gravito.stasis._events import Event
from gravito.stasis._failsafe import FailSafe, StoreDownError
from gravito.stasis._memory import MemoryStore
from gravito.stasis._null import NullStore
from gravito.stasis._policy import Result
from gravito.stasis._redis import RedisStore
from gravito.stasis._stats import CacheStats, Counts
from gravito.stasis._sync import SyncCache, SyncLimiter, SyncTaggedCache
from gravito.stasis._tags import TaggedCache
from gravito.stasis._tiered import TieredStore
from gravito.stasis.cache import Cache
from gravito.stasis.decorator import CachedFunction, cached
from gravito.stasis.limiter import Decision, Limiter
from gravito.stasis.lock import Lease, Lock
from gravito.stasis.store import KEEP, Store

__all__ = [
    "KEEP",
    "Cache",
    "CacheStats",
    "CachedFunction",
    "Codec",
    "Counts",
    "Decision",
    "Event",
    "FailSafe",
    "Lease",
    "Limiter",
    "Lock",
    "MemoryStore",
    "NullStore",
    "RedisStore",
    "Result",
    "Store",
    "StoreDownError",
    "SyncCache",
    "SyncLimiter",
    "SyncTaggedCache",
    "TaggedCache",
    "TieredStore",
    "cached",
    "default_cache",
    "set_default_cache",
]
