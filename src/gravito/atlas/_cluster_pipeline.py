"""Pipelines on a cluster: one write per node, replies in the order of the commands; transactions in one slot.

What a node refused without applying it (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) is sent again where it belongs, in the
order of the commands, so the commands of one key keep their order: a key that has left a node does not come back
to it within a pipeline. Commands of different keys may overtake each other on the way.

Without a transaction a command of several slots (MGET, MSET, DEL, ...) or of several nodes (DBSIZE, FLUSHALL, ...)
goes out in parts, each in the place of its command, and its replies are joined. A blocking command takes its node's
part of the pipeline to a leased wire.
"""

from __future__ import annotations

import asyncio
import random
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, cast

from gravito import errors
from gravito.atlas import _fanout
from gravito.atlas._batches import BATCH, CHUNK_COMMANDS, READS, withdraw
from gravito.atlas._cluster_client import _SLOT_IS_GIVEN, bytes_of, crossing, unsupported
from gravito.atlas._cluster_parts import NOT_HERE, Cargo, Part, Spread, Where, over_nodes, over_slots
from gravito.atlas.pipeline import Pipeline
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.topology.slots import SLOTS, slot_of
from gravito.atlas.wire import commands, keys, retry
from gravito.atlas.wire.entry import Batch, Spec
from gravito.atlas.wire.resp import MAX_ARGUMENT, check_size, encode, pack

if TYPE_CHECKING:
    from gravito.atlas._cluster_client import ClusterClient

_SINGLE_AT = keys.SINGLE_AT


class ClusterPipeline(Pipeline):
    """Commands that are collected and sent together. See `Pipeline`."""

    def __init__(self, client: ClusterClient, transaction: bool = True) -> None:
        self._where: list[Where] = []  # by position
        self._spreads: dict[int, Spread] = {}  # by position: commands that are sent in parts
        self._holds: dict[int, float] = {}  # by position: seconds that a command may block
        self._home: tuple[int, Any] | None = None  # a transaction's slot, and the key that chose it
        self._ask_all: errors.AskError | None = None  # where to ask for a transaction next
        super().__init__(client, transaction)

    @property
    def _cluster(self) -> Cluster:
        return cast(Cluster, self._client._state().topology)

    # -- collecting ------------------------------------------------------------------------------------------

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        at = _SINGLE_AT.get(spec.name)
        if at is None or self._atomic or self.watching or len(args) <= at:
            return self._send_widely(spec, args, options, text)
        try:  # most commands; the same as Pipeline does, without a step between
            packed = pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = encode(args)
        if len(packed) > MAX_ARGUMENT:
            check_size(packed, args)
        key = args[at]
        if key.__class__ is str:
            key = key.encode()
        elif key.__class__ is not bytes:
            key = bytes_of(key)
        self._where.append(crc_hqx(key, 0) % SLOTS if b"{" not in key else slot_of(key))
        if text is not self._text:
            self._raw.add(len(self._packed))
        if options:
            self._options[len(self._packed)] = options
        self._packed.append(packed)
        self._queued.append(spec)
        return self

    def _send_widely(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        name = " ".join(spec.name.upper().split())
        rest = args[len(spec.words) :]
        where, spread = self._route(spec, name, rest)
        hold = commands.blocking_timeout(name, rest) if spec.leased else 0.0
        place = len(self._packed)
        result = super()._send(spec, args, options, text)
        if result is self:
            self._where.append(where)
            if spread is not None:
                self._spreads[place] = spread
            if hold:
                self._holds[place] = hold
        return result

    def _route(self, spec: Spec, name: str, rest: tuple[Any, ...]) -> tuple[Where, Spread | None]:
        """Where a command goes. Raises what says that it cannot stand in this pipeline."""
        places = keys.slot_positions(name, rest)
        if places is None:
            raise unsupported(
                f"{name} in a pipeline is not possible, for its keys are not known", "send it by itself"
            )
        if spec.leased and not commands.leaves_clean(name, rest):
            raise unsupported(
                f"{name} in a pipeline is not possible, for it changes one node's connection",
                "send it by itself",
            )
        found: dict[int, list[int]] = {}
        for place in places:
            found.setdefault(slot_of(bytes_of(rest[place])), []).append(place)
        together = self._atomic or self.watching
        if not found:
            return self._route_keyless(spec, name, rest, together)
        if len(found) > 1:
            if name in _fanout.SPLIT and not together:
                return None, over_slots(spec, rest, found)
            raise crossing(name, {slot: [rest[at] for at in some] for slot, some in found.items()})
        slot, (at, *_) = next(iter(found.items()))
        if together:
            self._settle_home(slot, rest[at])
        return slot, None

    def _settle_home(self, slot: int, key: Any) -> None:
        if self._home is None:
            self._home = slot, key
        elif self._home[0] != slot:
            raise crossing("a transaction", {self._home[0]: [self._home[1]], slot: [key]})

    def _route_keyless(
        self, spec: Spec, name: str, rest: tuple[Any, ...], together: bool
    ) -> tuple[Where, Spread | None]:
        if name == "SCAN":
            raise unsupported(
                "SCAN in a pipeline is not possible, for its cursor belongs to one node", "use scan_iter()"
            )
        if name in _SLOT_IS_GIVEN and rest:
            return int(rest[0]) % SLOTS, None
        spread = over_nodes(spec, name)
        if spread is not None and together:
            raise unsupported(
                f"{name} concerns several nodes and cannot stand in a transaction",
                "send it by itself, or in a pipeline with transaction=False",
            )
        return None, spread

    async def watch(self, *names: Any) -> bool:
        """Watch keys of one slot on a leased wire of its node. https://redis.io/commands/watch"""
        prefix = self._specs.prefix
        full = names if prefix is None else tuple(prefix.keys(names))
        found: dict[int, list[Any]] = {} if self._home is None else {self._home[0]: [self._home[1]]}
        for name in full:
            found.setdefault(slot_of(bytes_of(name)), []).append(name)
        if len(found) > 1:
            raise crossing("WATCH", found)
        slot, (key, *_) = next(iter(found.items()))
        self._home = slot, key
        if self._wire is None:
            self._wire = await self._cluster.pool.acquire(slot)
        return await super().watch(*names)

    async def _now(self, spec: Spec, packed: bytes, options: dict[str, Any] | None, text: bool) -> Any:
        try:
            return await super()._now(spec, packed, options, text)
        except NOT_HERE as error:
            await self._leave(error)

    async def _leave(self, error: errors.GravitoError) -> Any:
        """The slot moves while keys are watched: their wire is of no use, as if they had changed."""
        if isinstance(error, errors.MovedError):
            self._cluster.moved(error)
        await asyncio.sleep(self._client.settings.retry.base)
        await self.reset()
        raise errors.WatchError(f"the watched keys moved to another node: {error}") from error

    async def reset(self) -> None:
        """Forget the queued commands and give a leased wire back."""
        self._where, self._spreads, self._holds = [], {}, {}
        self._home = self._ask_all = None
        await super().reset()

    # -- sending ---------------------------------------------------------------------------------------------

    def _deadline(self, hold: float = 0.0) -> float:
        limit = self._client._timeout or self._client.settings.timeouts.command or retry.NO_TIMEOUT
        return asyncio.get_running_loop().time() + limit + hold

    async def _pause(self, attempt: int, deadline: float, error: BaseException) -> None:
        """Wait before the next try. Raises `error` when there is no time left for one."""
        policy = self._client._retry or self._client.settings.retry
        pause = retry.delay(policy, attempt, random.random) if attempt > 1 else 0.0
        late = asyncio.get_running_loop().time() + pause >= deadline
        if late or (policy.attempts == 0 and not isinstance(error, errors.AskError)):
            raise error
        self._cluster.meter.retries += 1
        await asyncio.sleep(pause)

    async def _pipe(self) -> list[Any]:
        await self._cluster.ready()
        cargo = Cargo(self, self._cluster)
        deadline, attempt = self._deadline(sum(self._holds.values())), 0
        try:
            while (failure := await self._exchange(cargo)) is not None:
                cargo.settle()
                attempt += 1
                if not isinstance(failure, NOT_HERE):  # a node was away, and nothing was sent to it
                    self._cluster.refresh_soon()
                try:
                    await self._pause(attempt, deadline, failure)
                except NOT_HERE as error:
                    cargo.give_up(error)
                    break
        except errors.GravitoError as error:
            error.replies = cargo.replies()  # type: ignore[attr-defined]  # documented on execute
            raise
        return cargo.replies()

    async def _exchange(self, cargo: Cargo) -> Exception | None:
        """Send what is left and wait for the replies. Returns why some has to be sent again, None if none has."""
        groups = cargo.by_node()
        again = self._homeless(groups)
        parts = [part for node, places in groups.items() for part in self._send_to(node, places, cargo)]
        failure: Exception | None = None
        try:
            for part in parts:
                try:
                    replies = await part.batch.future
                except Exception as error:
                    unsent = isinstance(error, errors.ConnectionError) and not error.maybe_applied
                    if unsent and not retry.is_final(error):
                        again = again or error
                    else:
                        failure = failure or error
                else:
                    again = cargo.take(part, replies) or again
        except asyncio.CancelledError:
            withdraw([part.batch for part in parts])
            raise
        if failure is not None:
            cargo.settle()
            raise failure
        return again

    def _homeless(self, groups: dict[Any, list[int]]) -> Exception | None:
        """Leave out what nobody serves at the moment: a later map may name somebody."""
        lobby = next((node for node in groups if isinstance(node, Lobby)), None)
        if lobby is None:
            return None
        del groups[lobby]
        self._cluster.refresh_soon()
        return errors.ClusterDownError("no node is known to serve some of the slots")

    def _send_to(self, node: Any, places: list[int], cargo: Cargo) -> list[Part]:
        hold, patience = cargo.hold(places), self._client._patience
        alone = bool(hold or patience)  # on one leased wire, so in one batch
        step = len(places) if alone else CHUNK_COMMANDS
        parts = []
        for start in range(0, len(places), step):
            chosen = places if step >= len(places) else places[start : start + step]
            part = cargo.part(chosen, READS, BATCH)
            self._client._limit(part.batch)
            parts.append(part)
            if alone or (chosen is places and self._is_large(part.batch)):
                node.send_apart(part.batch, hold, clean=True, patience=patience)
            else:
                node.send(part.batch)
        return parts

    # -- transactions ----------------------------------------------------------------------------------------

    async def _transact(self) -> list[Any]:
        await self._cluster.ready()
        deadline, attempt = self._deadline(), 0
        while True:
            attempt += 1
            self._ask_next, self._ask_all = self._ask_all, None
            try:
                return await super()._transact()
            except NOT_HERE as error:
                if self._wire is not None:
                    await self._leave(error)
                if isinstance(error, errors.MovedError):
                    self._cluster.moved(error)
                elif isinstance(error, errors.AskError):
                    self._ask_all = error
                await self._pause(attempt, deadline, error)
            except errors.ConnectionError as error:
                if error.maybe_applied or self._wire is not None or retry.is_final(error):
                    raise
                self._cluster.refresh_soon()
                await self._pause(attempt + 1, deadline, error)

    _ask_next: errors.AskError | None = None  # this try's

    async def _deliver(self, batches: list[Batch]) -> None:
        if self._wire is not None:
            await super()._deliver(batches)
            return
        cluster, (batch,) = self._cluster, batches  # a transaction is one
        self._client._limit(batch)
        slot = next((where for where in self._where if isinstance(where, int)), None)
        node: Any = cluster.default_node() if slot is None else cluster.owners[slot]
        if self._ask_next is not None:
            cluster.ask(batch, self._ask_next)
        elif isinstance(node, Lobby):
            raise errors.ClusterDownError(f"no node is known to serve slot {slot}")
        elif self._is_large(batch) or self._client._patience:
            node.send_apart(batch, 0.0, clean=True, patience=self._client._patience)
        else:
            node.send(batch)
