"""What all views of one cache share: store, codec, guard, flights, counters, and what the last reads taught."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from gravito import errors
from gravito.stasis._annotations import check_type
from gravito.stasis._blob import COUNTER, Blob
from gravito.stasis._codec import Codec
from gravito.stasis._events import Events, Kind
from gravito.stasis._failsafe import FailSafe, Guard
from gravito.stasis._memory import MemoryStore
from gravito.stasis._near import Near
from gravito.stasis._null import NullStore
from gravito.stasis._plan import Plan
from gravito.stasis._reads import Scope, silence
from gravito.stasis._redis import RedisStore
from gravito.stasis._serializers import as_type
from gravito.stasis._stats import Counts, Tallies
from gravito.stasis._tiered import TieredStore
from gravito.stasis._together import Reads, Writes
from gravito.stasis._ttl import TTL
from gravito.stasis.store import Store

if TYPE_CHECKING:
    from gravito.stasis._flight import Flight

__all__ = ["Core"]

_MOST_REMEMBERED: Final = 20_000  # keys whose tags, and tags whose versions, are kept in mind


Rounds: TypeAlias = "dict[tuple[str, ...], Round]"  # reads that are about to go out, by their keys


class Core:
    """See above; its methods are for the other modules of this room."""

    def __init__(
        self,
        store: Store,
        name: str,
        codec: Codec,
        fail_safe: FailSafe,
        *,
        scope: Scope,
        ttl: TTL,
        lease_ms: int,
        retry_ms: int,
    ) -> None:
        self.store = store
        self.name = name  # of the store, for events
        self.codec = codec
        self.scope = scope  # the outermost one
        self.ttl = ttl  # where a call names none
        self.lease_ms = lease_ms  # after which a claim that is not renewed ends
        self.retry_ms = retry_ms  # between two tries of a factory that failed while a stale value serves
        self.local = isinstance(store, MemoryStore | NullStore)  # nothing is sent, nothing can be away
        self.tiered = isinstance(store, TieredStore)  # reads may be answered by copies
        # gives the values at some keys, or None if that would take a command
        self.at_hand: Callable[[Iterable[str]], list[bytes | None] | None] | None = getattr(
            store, "at_hand", None
        )
        client = getattr(store, "client", None)
        self.near = (
            Near(store.tracked, codec) if isinstance(store, TieredStore) else None
        )  # values in this process
        starting = partial(_is_to_start, client)
        self.guard = Guard(None if self.local else fail_safe, self._ask, name, starting=starting)
        self.events = Events(name)
        self.spread = (
            client is not None and client.settings.driver == "cluster"
        )  # keys are on several servers
        self.joins = isinstance(store, RedisStore) and not self.tiered and not self.spread
        self.tallies = Tallies()
        self.started = 0  # factories begun; tells who began to read before one of them
        self.plans_of: dict[str, Plan] = {}  # entry -> the plan of the tags last seen on it
        self._plans: dict[tuple[str, tuple[str, ...]], Plan] = {}  # by scope and tags
        self.versions: dict[
            str, bytes
        ] = {}  # key of a root or tag -> version last seen; a guess, always checked
        self._flights: WeakKeyDictionary[AbstractEventLoop, dict[str, Flight]] = WeakKeyDictionary()
        self._reads: WeakKeyDictionary[AbstractEventLoop, Reads] = WeakKeyDictionary()
        self._reads_here: Reads | None = None  # the last of them, as below
        self._writes: WeakKeyDictionary[AbstractEventLoop, Writes] = WeakKeyDictionary()
        self._writes_here: Writes | None = None  # likewise
        self._rounds: WeakKeyDictionary[AbstractEventLoop, Rounds] = WeakKeyDictionary()
        # the last of them: a look-up by weak key costs more than all the rest
        self._here: tuple[AbstractEventLoop | None, Rounds] = (None, {})
        if client is not None:
            self.tallies.tell(lambda added: _report(client, f"{scope.prefix}:s", added))

    def _ask(self) -> Awaitable[Any]:
        return self.store.read(self.scope.roots)

    def flights(self) -> dict[str, Flight]:
        """The factory runs of this event loop, by entry."""
        loop = get_running_loop()
        self.tallies.check()
        flights = self._flights.get(loop)
        if flights is None:
            flights = self._flights[loop] = {}
        return flights

    def reads(self) -> Reads:
        """The reads of this event loop."""
        loop, reads = get_running_loop(), self._reads_here
        if reads is None or reads.loop is not loop:
            reads = self._reads.get(loop)
            if reads is None:
                reads = self._reads[loop] = Reads(self.store, self.guard, loop, join=self.joins)
            self._reads_here = reads
        return reads

    def writes(self) -> Writes:
        """The writes of this event loop; only where they join."""
        loop, writes = get_running_loop(), self._writes_here
        if writes is None or writes.loop is not loop:
            writes = self._writes.get(loop)
            if writes is None:
                assert isinstance(self.store, RedisStore)
                writes = self._writes[loop] = Writes(self.store, self.guard, loop)
            self._writes_here = writes
        return writes

    # -- what is known ---------------------------------------------------------------------------------------

    def remember_tags(self, entry: str, scope: Scope, tags: Iterable[str]) -> None:
        """Keep in mind which tags to read with an entry."""
        names = tuple(tags)
        if not names:
            self.plans_of.pop(entry, None)
            return
        if len(self.plans_of) >= _MOST_REMEMBERED:
            self.plans_of.pop(next(iter(self.plans_of)), None)
        known = scope.prefix, names
        plan = self._plans.get(known)
        if plan is None:
            if len(self._plans) >= _MOST_REMEMBERED:
                self._plans.clear()
            plan = self._plans[known] = Plan(scope, names)
        self.plans_of[entry] = plan

    def note(self, keys: Iterable[str], versions: Iterable[bytes | None]) -> None:
        """Keep present versions in mind."""
        known = self.versions
        for key, version in zip(keys, versions, strict=True):
            if version is None:
                known.pop(key, None)
                continue
            if len(known) >= _MOST_REMEMBERED:
                known.pop(next(iter(known)), None)
            known[key] = version

    def guess(self, keys: Iterable[str]) -> bytes | None:
        """The versions last seen, joined; None if one is not known."""
        known = self.versions
        try:
            return b"".join([known[key] for key in keys])
        except KeyError:
            return None

    def versions_soon(self, keys: tuple[str, ...]) -> Round:
        """The present versions, read once for all who ask in this turn of the loop, after all of them have asked."""
        loop = get_running_loop()
        here, rounds = self._here
        if loop is not here:
            rounds = self._rounds.setdefault(loop, {})
            self._here = loop, rounds
        found = rounds.get(keys)
        if found is None:
            found = rounds[keys] = Round()
            loop.call_soon(self._read_versions, rounds, keys, found)
        return found

    def _read_versions(self, rounds: Rounds, keys: tuple[str, ...], found: Round) -> None:
        rounds.pop(keys, None)
        found.start(self.guard.within(self.store.read(keys)))

    async def pin(self, keys: tuple[str, ...], ttl_ms: int | None) -> list[bytes]:
        """See `Store.pin`."""
        versions: list[bytes] = await self.guard.within(self.store.pin(keys, ttl_ms))
        self.note(keys, versions)
        return versions

    # -- what is told ----------------------------------------------------------------------------------------

    # `template` is what a decorator or a call names; None: the key's own group

    def counts(self, key: str, template: str | None = None) -> Counts:
        """The counters of a key."""
        return self.tallies.of(key) if template is None else self.tallies.named(template)

    def tell(self, kind: Kind, key: str, template: str | None = None, **about: Any) -> None:
        """Tell of something that happened to a key. The caller has looked whether anybody listens."""
        self.events.tell(kind, key, template or self.tallies.group(key), **about)

    def wrote(self, key: str, template: str | None = None, **about: Any) -> None:
        """Count a write and tell of it."""
        self.counts(key, template).writes += 1
        if self.events.write:
            self.tell("write", key, template, **about)

    def lost(self, error: Exception, key: str, template: str | None = None, *, quiet: bool = False) -> None:
        """Note that the store failed. Raises the error again unless the cache goes on without the store.

        Args:
            error: the store's.
            key: the one that it was about.
            template: what the key is counted with.
            quiet: the caller has something better to raise.
        """
        goes_on = self.guard.bears(error)
        self.count_error(key, error, template)
        if not goes_on and not quiet:
            raise error

    def count_error(self, key: str, error: BaseException, template: str | None = None) -> None:
        """Count an error and tell of it."""
        self.counts(key, template).errors += 1
        if self.events.error:
            self.tell("error", key, template, error=error)

    def unreadable(self, entry: str, error: Exception | None = None, template: str | None = None) -> None:
        """Tell of what was stored and cannot be read back; for the caller it is a miss."""
        key = entry.partition(":k:")[2]
        if error is None:
            error = errors.UnreadableValueError(f"{key!r}: what is stored there is no entry of a cache")
        self.count_error(key, error, template)

    async def decode(self, blob: Blob, entry: str, type: Any) -> Any:
        """The value in a blob.

        Raises:
            UnreadableValueError: it has none that can be read.
        """
        if blob.kind != COUNTER:
            return await self.codec.decode_apart(blob.body, entry, type)
        try:
            number = int(blob.body)
            return number if type is None else as_type(number, type)
        except Exception as error:  # the bytes may be anybody's, and so is what their type raises
            check_type(type)
            raise errors.UnreadableValueError(
                f"{entry!r} cannot be read: it is a counter, and {error}"
            ) from error

    async def encode(self, value: Any, entry: str, type: Any) -> bytes:
        """See `Codec.encode`."""
        if self.codec.compresses:
            return await self.codec.encode_apart(value, entry, type)
        return self.codec.encode(value, entry, type)

    async def aclose(self) -> None:
        """Report the last statistics and let go of what the store holds."""
        self.tallies.close()
        if not self.guard.open:
            await self.tallies.flush()
        await self.store.close()


class Round:
    """One read that any number of writers wait for."""

    def __init__(self) -> None:
        self._started: Future[None] | None = None  # for those who ask before it has gone out
        self._future: Future[Any] | None = None

    def start(self, waiting: Awaitable[Any]) -> None:
        """The read is on its way."""
        self._future = getattr(waiting, "future", None) or asyncio.ensure_future(waiting)
        self._future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    def now(self) -> list[bytes | None] | None:
        """The present versions if the reply is here, as it is for most writers: theirs came in front of it."""
        future = self._future
        return future.result() if future is not None and future.done() else None

    async def result(self) -> list[bytes | None]:
        """The present versions."""
        if self._future is None:  # this writer's reply came before the read went out
            if self._started is None:
                self._started = get_running_loop().create_future()
            await asyncio.shield(self._started)
            assert self._future is not None
        if self._future.done():
            found: list[bytes | None] = self._future.result()
            return found
        return await asyncio.shield(self._future)


def _is_to_start(client: Any) -> bool:
    """Whether a client's engine is one of this process that has not been started yet."""
    if client is None or client.settings.driver != "embedded":
        return False
    from gravito.atlas.embedded import engine_for  # noqa: PLC0415  # only who uses the engine pays for it

    return engine_for(client.settings.directory).path is None


async def _report(client: Any, key: str, added: Mapping[str, int]) -> None:
    """https://redis.io/commands/hincrby"""
    pipeline = client.pipeline(transaction=False)
    for field, more in added.items():
        pipeline.hincrby(key, field, more)
    await pipeline.execute()


async def both(first: Awaitable[Any], second: Awaitable[Any]) -> tuple[Any, Any]:
    """Await two that were sent together; if the first fails, the second's error is no news."""
    try:
        one = await first
    except BaseException:
        silence(second)
        raise
    return one, await second
