"""What redis-py's client has beside its commands: for its own classes, and for code that was written for it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self, cast

from redis.asyncio.lock import Lock

from gravito.atlas._base import BaseClient

if TYPE_CHECKING:
    from redis.asyncio.client import Monitor, PubSub

    from gravito.atlas._compat import PoolAdapter
    from gravito.atlas.client import Client


class _Lock(Lock):
    """redis-py's lock. It keeps its scripts on its class, where clients of redis-py itself would find ours."""

    lua_release = None
    lua_extend = None
    lua_reacquire = None


class RedisPySurface(BaseClient):
    """redis-py's names for what a `Client` does; a client is one, and nothing else is."""

    @property
    def connection_pool(self) -> PoolAdapter:
        """What redis-py's own classes expect of a pool, on leased wires."""
        from gravito.atlas._compat import PoolAdapter  # noqa: PLC0415  # it imports this module

        return PoolAdapter(cast("Client", self))

    def get_encoder(self) -> Any:
        """redis-py's encoder with this client's decoding."""
        return self.connection_pool.get_encoder()

    def get_connection_kwargs(self) -> dict[str, Any]:
        """The settings that redis-py's classes ask for; no secrets."""
        return self.connection_pool.connection_kwargs

    def lock(self, name: Any, timeout: float | None = None, **options: Any) -> Lock:
        """redis-py's lock on key `name`; `timeout` is its life in seconds."""
        options_ = dict(options)
        lock_class = options_.pop("lock_class", None) or _Lock
        made: Lock = lock_class(cast(Any, self), name, timeout=timeout, **options_)
        return made

    def pubsub(self, **options: Any) -> PubSub:
        """redis-py's PubSub, on a leased wire. `subscribe` does the same with less to do by hand."""
        from redis.asyncio.client import PubSub  # noqa: PLC0415  # only who asks for it

        return PubSub(self.connection_pool, **options)  # type: ignore[arg-type]  # the adapter has what it uses

    def monitor(self) -> Monitor:
        """redis-py's Monitor, on a leased wire. https://redis.io/commands/monitor"""
        from redis.asyncio.client import Monitor  # noqa: PLC0415  # only who asks for it

        return Monitor(self.connection_pool)  # type: ignore[arg-type]  # the adapter has what it uses

    async def initialize(self) -> Self:
        """redis-py's name for getting ready; there is nothing to do."""
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.initialize().__await__()
