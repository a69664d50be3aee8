"""`client.tracked()`: reads that are answered here for as long as the server announces no change.

The view keeps nothing itself: each event loop has a tier (wire/tier.py) on its shared wire, or one for each node of a cluster.
"""

from __future__ import annotations

import copy
from asyncio import get_running_loop
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, cast

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.wire.entry import Entry, Spec, convert
from gravito.atlas.wire.flight import Bounds, Read, Tally
from gravito.atlas.wire.kept import Done, Kept, fresh
from gravito.atlas.wire.meter import Stats
from gravito.atlas.wire.resp import encode, pack
from gravito.atlas.wire.shelves import Shelves
from gravito.atlas.wire.tier import Tier

if TYPE_CHECKING:
    from gravito.atlas._state import LoopState

# Commands that read one key, their first argument, and always say the same of the same value. Not here: times to
# live (they change by themselves), random members, cursors, and what is said of a hash without its fields (HLEN,
# HVALS), which may have times of their own.
_NAMES = """
    BITCOUNT BITFIELD_RO BITPOS EXISTS GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH
    GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HMGET HSTRLEN LINDEX LLEN LPOS LRANGE SCARD SISMEMBER SMEMBERS
    SMISMEMBER STRLEN SUBSTR XLEN XRANGE XREVRANGE ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCORE
"""
KEPT = frozenset(_NAMES.split())
_OF_WHOLE = frozenset({"HGETALL", "HKEYS"})
_OF_FIELDS = frozenset({"HEXISTS", "HGET", "HMGET", "HSTRLEN"})


class TrackedStats(Stats, frozen=True, kw_only=True):
    """A client's counters with those of its local tier, in all loops together."""

    hits: int  # reads answered here
    misses: int  # reads sent to the server, or joined to one that was on its way
    evictions: int  # entries dropped for want of room
    invalidations: int  # entries dropped because the server announced a change
    entries: int  # kept now
    entry_bytes: int  # of these, estimated


class Tiers:
    """What the tiers of one client have in common."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.tally = Tally()

    def of(self, state: LoopState) -> Any:
        """The tier of a loop, made when first asked for; a cluster's has one for each node."""
        topology = state.topology
        if topology.tier is None:
            topology.track(Shelves(self.bounds, self.tally))
        return topology.tier


class Tracked(Client):
    """A client whose reads of single keys are kept here; made by `Client.tracked`. Everything else is the client's."""

    _tiers: Tiers
    _here: tuple[Shelves | None, dict[str, Kept]] = (
        None,
        {},
    )  # this loop's shelves and GETs; found at a miss

    if not TYPE_CHECKING:  # redis-py's signature is the one to check against

        def get(self, name: Any) -> Any:
            """Return the value at key `name`, or None: from here if it is kept. https://redis.io/commands/get"""
            shelves, shelf = self._here
            try:
                kept = shelf[name]
                now = monotonic()
                if now < kept.until and now < kept.keeper.confirmed and get_running_loop() is shelves.loop:
                    kept.hits += 1
                    return kept
            except (KeyError, TypeError, RuntimeError):  # not kept; no key; no loop
                pass
            return self._send(self._specs["GET"], ("GET", name), None, self._text)

        def mget(self, keys: Any, *args: Any) -> Any:
            """Return the values at the keys, or None for each that has none: those kept from here, the others by
            one MGET. Unlike the server's, the list is no snapshot. https://redis.io/commands/mget
            """
            names = [*([keys] if isinstance(keys, (str, bytes, bytearray, memoryview)) else keys), *args]
            return self._send(self._specs["MGET"], ("MGET", *names), None, self._text)

    def at_hand(self, names: Iterable[str]) -> list[Any] | None:
        """What `get` would give of some keys, if every one of them is kept here. Nothing is awaited or sent.

        Args:
            names: the keys.

        Returns:
            The values in that order, None for a key without one. None instead of a list if one would have to be asked
            for.
        """
        copies = self.copies(names)
        return None if copies is None else [kept.value for kept in copies]

    def copies(self, names: Iterable[str]) -> list[Kept] | None:
        """As `at_hand`, but what is kept itself: with a place for what a reader makes of the value, see `attach`."""
        shelves, shelf = self._here
        if shelves is None or get_running_loop() is not shelves.loop:
            return None
        now = monotonic()
        copies = []
        try:
            for name in names:
                kept = shelf[name]
                if now >= kept.until or now >= kept.keeper.confirmed:
                    return None
                kept.hits += 1
                copies.append(kept)
        except KeyError:
            return None
        return copies

    def attach(self, kept: Kept, made: Any, size: int) -> bool:
        """See `Shelves.attach`."""
        shelves, _ = self._here
        return shelves is not None and shelves.attach(kept, made, size)

    def kept_for(self, name: str) -> float | None:
        """For how long the value that `get` and `mget` give of a key is kept here still, unless it changes.

        Costs no command.

        Args:
            name: the key.

        Returns:
            Seconds of the key's own time to live on the server, never more than are left of it; inf if it has none.
            None if the value is not kept.
        """
        prefix = self._specs.prefix
        shelves = self._shelves("GET")
        kept = shelves.gets[self._text].get(name if prefix is None else prefix.key(name))
        now = monotonic()
        if kept is None or now >= kept.until or now >= kept.keeper.confirmed:
            return None
        return kept.until - now

    def __repr__(self) -> str:
        return f"<Tracked '{self.settings.name}' {self.settings.address}>"

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        if spec.name == "MGET":
            return self._send_mget(spec, args, options, text)
        if spec.name not in KEPT or len(args) < 2 or (spec.name == "EXISTS" and len(args) > 2):
            return super()._send(spec, args, options, text)
        key = _key(args[1])
        if key is None:
            return super()._send(spec, args, options, text)
        try:
            packed = pack(args)
        except (TypeError, UnicodeEncodeError):  # to be repaired, or refused
            return super()._send(spec, args, options, text)
        if len(packed) > self._lease_over:
            return super()._send(spec, args, options, text)
        shelves = self._shelves(spec.name)
        plain = spec.name == "GET" and args[1].__class__ is str and spec.convert is None
        kept = shelves.gets[text].get(args[1]) if plain else shelves.others[text].get(packed)
        if kept is not None:
            now = monotonic()
            if now < kept.until and now < kept.keeper.confirmed:
                kept.hits += 1
                return _hit(kept, spec, options)
        tier = self._tier(key)
        if tier is None:
            return super()._send(spec, args, options, text)
        fields = args[2:] if spec.name in _OF_FIELDS else ()
        read = Read(packed, (key,), text, args[1] if plain else None, fields, spec.name in _OF_WHOLE)
        return tier.miss(read, self._waiter(packed, spec, options, text))

    def _send_mget(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        names = args[1:]
        if not names or spec.convert is not None or any(name.__class__ is not str for name in names):
            return super()._send(spec, args, options, text)
        shelves = self._shelves(spec.name)
        values, missing = _kept_of(shelves, names, text)
        if not missing:
            return Done(values, shelves.loop)
        entry = self._ask_many(spec, missing, values, names, text)
        return super()._send(spec, args, options, text) if entry is None else entry

    def _ask_many(
        self, spec: Spec, missing: list[str], values: list[Any], names: tuple[Any, ...], text: bool
    ) -> Entry | None:
        """Ask for what an MGET misses, and put it among what is kept. None if it is to be asked without the tier."""
        packed = encode(("MGET", *missing))
        if len(packed) > self._lease_over:
            return None
        tier = self._tier(b"")
        waiter = self._waiter(packed, spec, None, text)
        if len(missing) != len(names):
            asked = frozenset(missing)
            places = [(at, name) for at, name in enumerate(names) if name in asked]
            waiter.spec = _Joined.spec(spec, values, missing, places)
        read = Read(packed, tuple(name.encode() for name in missing), text, many=tuple(missing))
        return cast(Tier, tier).miss(read, waiter)

    def _waiter(self, packed: bytes, spec: Spec, options: dict[str, Any] | None, text: bool) -> Entry:
        return Entry(get_running_loop().create_future(), packed, spec, options, text)

    def _shelves(self, command: str) -> Shelves:
        shelves: Shelves = self._tiers.of(self._state(command)).shelves
        if self._specs.prefix is None:  # else the names that `get` sees are not those that are kept
            self._here = shelves, shelves.gets[self._text]
        return shelves

    def _tier(self, key: bytes) -> Tier | None:
        """The tier of the server that has a key; None if it is not known now."""
        return self._state().topology.tier

    def with_options(self, **options: Any) -> Self:
        """As `Client.with_options`. A view with a timeout or a retry of its own reads from the server."""
        view = super().with_options(**options)
        view._here = (None, {})  # text or bytes may have changed
        return view

    def stats(self) -> TrackedStats:
        """Counters of this client and of its local tier. Costs no command."""
        tiers = [state.topology.tier for state in list(self._states.values())]
        shelves = [tier.shelves for tier in tiers if tier is not None]
        tally = self._tiers.tally
        base = super().stats()
        return TrackedStats(
            **{name: getattr(base, name) for name in Stats.__struct_fields__},
            hits=tally.hits + sum(each.hits for each in shelves),
            misses=tally.misses,
            evictions=tally.evictions,
            invalidations=tally.invalidations,
            entries=sum(map(len, shelves)),
            entry_bytes=sum(each.size for each in shelves),
        )


class _Joined:
    """Puts the values that an MGET still asked for among those that were kept."""

    def __init__(self, values: list[Any], asked: list[str], places: list[tuple[int, str]]) -> None:
        self._values = values
        self._asked = asked
        self._places = places

    @classmethod
    def spec(cls, spec: Spec, values: list[Any], asked: list[str], places: list[tuple[int, str]]) -> Spec:
        return Spec(
            spec.name, spec.words, cls(values, asked, places), spec.flags, spec.leased, spec.read_only
        )

    def __call__(self, reply: list[Any]) -> list[Any]:
        found = dict(zip(self._asked, reply, strict=True))
        for at, name in self._places:
            self._values[at] = found[name]
        return self._values


def track(client: Client, max_entries: int, max_bytes: int, heartbeat: float) -> Tracked:
    """A tracked view of a client; see `Client.tracked`."""
    bounds = Bounds(
        max_entries=int(_positive("max_entries", max_entries)),
        max_bytes=int(_positive("max_bytes", max_bytes)),
        heartbeat=_positive("heartbeat", heartbeat),
    )
    settings = client.settings
    if settings.protocol == 2:
        message = (
            f"connection '{settings.name}': tracked() needs RESP3, for the server announces changes between the "
            "replies; the connection says protocol=2. Leave protocol out or set 3."
        )
        raise errors.ConfigurationError(message, field="protocol", value=2, allowed="3, or None")
    root: Any = client._root or client
    tiers: Tiers | None = root._tiers
    if tiers is None:
        tiers = root._tiers = Tiers(bounds)
        _forget_on_change(root, tiers)
    elif tiers.bounds != bounds:
        message = (
            f"connection '{settings.name}': its local tier was made with other bounds before: {tiers.bounds}"
        )
        raise errors.ConfigurationError(
            message, field="max_entries", allowed="the same bounds for all of a client"
        )
    view: Any = copy.copy(client)
    view.__class__ = _view_of(client)
    view._root, view._tiers, view._here = root, tiers, (None, {})
    view._bind()
    if view._observe is not None:
        view._observe(view)
    tracked: Tracked = view
    return tracked


def _view_of(client: Client) -> type[Tracked]:
    if client.settings.driver != "cluster":
        return Tracked
    from gravito.atlas._cluster_tracking import TrackedCluster  # noqa: PLC0415  # it imports this module

    return TrackedCluster


def _kept_of(shelves: Shelves, names: tuple[Any, ...], text: bool) -> tuple[list[Any], list[str]]:
    """What is kept of an MGET, with None where nothing is, and the names of these, once each."""
    shelf, now = shelves.gets[text], monotonic()
    values: list[Any] = []
    missing: dict[str, None] = {}
    for name in names:
        kept = shelf.get(name)
        if kept is None or now >= kept.until or now >= kept.keeper.confirmed:
            missing[name] = None
            values.append(None)
        else:
            kept.hits += 1
            values.append(kept.value)
    return values, list(missing)


def _forget_on_change(root: Client, tiers: Tiers) -> None:
    """A converter for GET that is set later must be asked for the replies that are kept, too."""
    callbacks = root._specs.callbacks
    changed: Callable[[], None] = callbacks._changed

    def forget() -> None:
        changed()
        for state in list(root._states.values()):
            if state.topology.tier is not None:
                state.topology.tier.clear()

    callbacks._changed = forget


def _positive(field: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return value
    allowed = "a number above 0"
    message = f"tracked: {field} is {value!r}; allowed: {allowed}"
    raise errors.ConfigurationError(message, field=field, value=value, allowed=allowed)


def _key(key: Any) -> bytes | None:
    """The key as the server announces it; None for one that cannot be announced as text."""
    if key.__class__ is str:
        try:
            encoded: bytes = key.encode()
        except UnicodeEncodeError:
            return None
        return encoded
    if isinstance(key, bytes):
        try:
            key.decode()
        except UnicodeDecodeError:
            return None
        return key
    return str(key).encode() if key.__class__ is int else None


def _hit(kept: Kept, spec: Spec, options: dict[str, Any] | None) -> Any:
    if kept.plain and spec.convert is None:
        return kept
    try:
        return Done(convert(spec, fresh(kept.value), options), kept.get_loop())
    except Exception as error:  # a converter that cannot read the reply fails its own caller only
        failed = get_running_loop().create_future()
        failed.set_exception(error)
        return failed
