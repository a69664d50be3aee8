"""Entries on Redis or Valkey: one server, sentinels, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from gravito.atlas._bundle import bundle
from gravito.errors import WrongTypeError
from gravito.stasis._awaitables import All, Ready
from gravito.stasis._blob import fits, new_id, overflow
from gravito.stasis._scripts import source
from gravito.stasis.store import KEEP, Keep

if TYPE_CHECKING:
    from gravito.atlas.client import Client
    from gravito.atlas.script import Script

_FEW: Final = 20  # keys up to which commands of their own cost no more than a pipeline
_SPARE: Final = 2  # times the time that a version has to stay: the next entries find that long enough


class RedisStore:
    """A store on the server of a client.

    Args:
        client: from `DB.connection` or `Client.from_url`. It stays its owner's to close.
    """

    def __init__(self, client: Client) -> None:
        self.client = client.with_options(decode_responses=False)
        self._reader: Client = self.client  # what reads go through
        self._in_cluster = client.settings.driver == "cluster"
        self._swap = self._script("swap")
        self._touch = self._script("touch")
        self._increment = self._script("increment")
        self._pin = self._script("pin")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.client!r}>"

    def _script(self, name: str) -> Script:
        file = f"store_{name}.lua"
        return self.client.script(source(file), file)

    def read(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        """See `Store.read`. https://redis.io/commands/mget"""
        if not keys:
            return Ready([])
        if self._in_cluster:
            return self._read_each(keys)  # joining the parts of an MGET takes several times as long
        reading: Awaitable[list[bytes | None]] = self._reader.execute_command("MGET", *keys)
        return reading

    def _read_each(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        """A GET for each key, all in one write; on a cluster one for each node."""
        if len(keys) > _FEW:
            return self._read_many(keys)
        get = self._reader.get
        return All([get(key) for key in keys], none=WrongTypeError)

    async def _read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        replies = await self._many("GET", keys)
        values = [None if isinstance(reply, WrongTypeError) else reply for reply in replies]
        return _checked(values)

    async def _many(self, command: str, keys: Sequence[str]) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.execute_command(command, key)
        return await pipeline.execute(raise_on_error=False)

    def remaining(self, keys: Sequence[str]) -> Awaitable[list[int]]:
        """See `Store.remaining`. https://redis.io/commands/pttl"""
        if len(keys) > _FEW:
            return self._remaining_of_many(keys)
        return All([self.client.execute_command("PTTL", key) for key in keys])

    async def _remaining_of_many(self, keys: Sequence[str]) -> list[int]:
        return _checked(await self._many("PTTL", keys))

    def write(self, items: Sequence[tuple[str, bytes, int | None]]) -> Awaitable[object]:
        """See `Store.write`. https://redis.io/commands/set"""
        if len(items) == 1:
            writing: Awaitable[object] = self.client.execute_command(*_set(*items[0]))
            return writing
        pipeline = self.client.pipeline(transaction=False)
        for item in items:
            pipeline.execute_command(*_set(*item))
        return pipeline.execute()

    def write_and_read(
        self, items: Sequence[tuple[str, bytes, int | None]], keys: Sequence[str]
    ) -> Awaitable[list[Any]]:
        """`write`, and behind that `read`, in one round trip. Not on a cluster.

        Returns:
            An awaitable of what came of each item, an error or not, and of the values, or an error, as the last one.
        """
        return bundle(self.client, [*[_set(*item) for item in items], ("MGET", *keys)])

    async def swap(
        self,
        key: str,
        seen: bytes | None,
        value: bytes | None,
        ttl_ms: int | Literal[Keep.KEEP] | None = None,
    ) -> bool:
        """See `Store.swap`."""
        wanted = b"-" if seen is None else b"=" + seen
        if value is None:
            args: tuple[Any, ...] = (wanted, "del")
        else:
            args = (wanted, "set", value, "keep" if ttl_ms is KEEP else _time(ttl_ms))
        return bool(await self._swap([key], args))

    async def touch(self, key: str, seen: bytes, ttl_ms: int | None) -> bool:
        """See `Store.touch`."""
        return bool(await self._touch([key], (seen, _time(ttl_ms))))

    async def increment(self, key: str, counter: bytes, by: int, ttl_ms: int | None) -> int | None:
        """See `Store.increment`."""
        reply = b"overflow"
        if fits(by):
            reply = await self._increment([key], (counter, by, _time(ttl_ms)))
        if reply == b"overflow":
            raise overflow(key)
        return None if reply is None else int(reply)

    def forget(self, keys: Sequence[str]) -> Awaitable[int]:
        """See `Store.forget`. https://redis.io/commands/unlink"""
        if not keys:
            return Ready(0)
        forgetting: Awaitable[int] = self.client.execute_command("UNLINK", *keys)
        return forgetting

    async def pin(self, keys: Sequence[str], ttl_ms: int | None) -> list[bytes]:
        """See `Store.pin`."""
        if not self._in_cluster or len(keys) == 1:
            return await self._pin_together(keys, ttl_ms)
        pinned = await asyncio.gather(*[self._pin_together([key], ttl_ms) for key in keys])
        return [version for versions in pinned for version in versions]

    async def _pin_together(self, keys: Sequence[str], ttl_ms: int | None) -> list[bytes]:
        if not keys:
            return []
        spared = None if ttl_ms is None else ttl_ms * _SPARE
        args = (_time(ttl_ms), _time(spared), *[new_id() for _ in keys])
        versions: list[bytes] = await self._pin(keys, args)
        return versions

    def close(self) -> Awaitable[object]:
        """Nothing: the client is its owner's."""
        return Ready(None)


def _time(ttl_ms: int | None) -> int | str:
    return "" if ttl_ms is None else ttl_ms


def _checked(replies: list[Any]) -> list[Any]:
    """The replies of a pipeline, none of which is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _set(key: str, value: bytes, ttl_ms: int | None) -> tuple[Any, ...]:
    return ("SET", key, value) if ttl_ms is None else ("SET", key, value, "PX", ttl_ms)
