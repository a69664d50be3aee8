"""Pipelines on a cluster: one write per node, replies in the order of the commands; transactions in one slot.

What a node refused without applying it (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) is sent again where it belongs, in the
order of the commands, so the commands of one key keep their order: a key that has left a node does not come back
to it within a pipeline. Commands of different keys may overtake each other on the way.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gravito import errors
from gravito.atlas._cluster_client import bytes_of, crossing, unsupported
from gravito.atlas.pipeline import _CHUNK_COMMANDS, _READ_ONLY, Pipeline, _withdraw
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology._routing import ASKING
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.wire import commands, keys, retry
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.entry import Batch, Spec

if TYPE_CHECKING:
    from gravito.atlas._cluster_client import ClusterClient

_NOT_HERE = (errors.AskError, errors.TryAgainError, errors.ClusterDownError)
_WRITES = Spec.of("PIPELINE")
_READS = Spec.of("PIPELINE", Route.READ_ONLY)


class _Part(NamedTuple):
    """What one node gets of a pipeline."""

    batch: Batch
    places: list[int]  # of its commands in the pipeline
    asked: list[bool]  # which of them have ASKING before them


class ClusterPipeline(Pipeline):
    """Commands that are collected and sent together. See `Pipeline`."""

    def __init__(self, client: ClusterClient, transaction: bool = True) -> None:
        self._slots: list[int | None] = []  # by position; None for a command without keys
        self._home: tuple[int, Any] | None = None  # a transaction's slot, and the key that chose it
        self._asks: dict[int, errors.AskError] = {}  # by position: where to ask next
        self._ask_all: errors.AskError | None = None  # the same for a transaction
        super().__init__(client, transaction)

    @property
    def _cluster(self) -> Cluster:
        return cast(Cluster, self._client._state().topology)

    # -- collecting ------------------------------------------------------------------------------------------

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        at = len(spec.words)
        if spec.name in keys.SINGLE and len(args) > at and not (self._atomic or self.watching):
            key = args[at]
            slot: int | None = slot_of(key if key.__class__ in (str, bytes) else bytes_of(key))
        else:
            slot = self._slot(spec, args[at:])
        result = super()._send(spec, args, options, text)
        if result is self:
            self._slots.append(slot)
        return result

    def _slot(self, spec: Spec, rest: tuple[Any, ...]) -> int | None:
        name = " ".join(spec.name.upper().split())
        places = keys.slot_positions(name, rest)
        if places is None:
            raise unsupported(
                f"{name} in a pipeline is not possible, for its keys are not known", "send it by itself"
            )
        if spec.leased and commands.needs_lease(name, rest):
            raise unsupported(f"{name} in a pipeline is not possible", "send it by itself")
        if not places:
            request, response = keys.policy(name)
            if request is not None and response != "special" and name != "PING":
                raise unsupported(
                    f"{name} concerns several nodes and cannot stand in a pipeline", "send it by itself"
                )
            return None
        found: dict[int, list[Any]] = {}
        for place in places:
            found.setdefault(slot_of(bytes_of(rest[place])), []).append(rest[place])
        slot, (key, *_) = next(iter(found.items()))
        if len(found) > 1:
            raise crossing(name, found)
        if self._atomic or self.watching:
            if self._home is None:
                self._home = slot, key
            elif self._home[0] != slot:
                raise crossing("a transaction", {self._home[0]: [self._home[1]], slot: [key]})
        return slot

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
        except _NOT_HERE as error:
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
        self._slots, self._home, self._asks, self._ask_all = [], None, {}, None
        await super().reset()

    # -- sending ---------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        limit = self._client._timeout or self._client.settings.timeouts.command or retry.NO_TIMEOUT
        return asyncio.get_running_loop().time() + limit

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
        replies: dict[int, Any] = {}
        left = list(range(len(self._packed)))
        deadline, attempt = self._deadline(), 0
        try:
            while left:
                parts = self._parts(left)
                failure = await self._exchange(parts, replies)
                left = [place for place in left if place not in replies]
                if failure is None:
                    continue
                attempt += 1
                if not isinstance(failure, _NOT_HERE):  # a node was away, and nothing was sent to it
                    self._cluster.refresh_soon()
                try:
                    await self._pause(attempt, deadline, failure)
                except _NOT_HERE:  # a refusal is its command's reply
                    replies.update(dict.fromkeys(left, failure))
                    break
        except errors.GravitoError as error:
            done = [replies[at] for at in range(len(self._packed)) if at in replies]
            error.replies = done  # type: ignore[attr-defined]  # documented on execute
            raise
        return [replies[place] for place in range(len(self._packed))]

    def _parts(self, left: list[int]) -> list[_Part]:
        """The commands that are left, by node, in their order."""
        cluster = self._cluster
        groups: dict[Any, list[int]] = {}
        default = next((slot for slot in self._slots if slot is not None), None)
        for place in left:
            slot = self._slots[place]
            asked = self._asks.get(place)
            if asked is not None:
                node: Any = cluster.node_at(cluster.place_of(asked))
            elif slot is None:
                node = cluster.default_node() if default is None else cluster.owners[default]
            else:
                node = (cluster.readers if self._queued[place].read_only else cluster.owners)[slot]
            groups.setdefault(node, []).append(place)
        parts = []
        for node, places in groups.items():
            if isinstance(node, Lobby):
                raise errors.ClusterDownError(f"no node is known to serve slot {self._slots[places[0]]}")
            for start in range(0, len(places), _CHUNK_COMMANDS):
                part = self._part(places[start : start + _CHUNK_COMMANDS])
                self._client._limit(part.batch)
                parts.append(part)
                node.send(part.batch)
        return parts

    def _part(self, places: list[int]) -> _Part:
        asked = [place in self._asks for place in places]
        packed: list[bytes] = []
        raw = set()
        for place, with_asking in zip(places, asked, strict=True):
            if with_asking:
                packed.append(ASKING)
            if place in self._raw:
                raw.add(len(packed))
            packed.append(self._packed[place])
        spec = _READS if all(map(_READ_ONLY, [self._queued[place] for place in places])) else _WRITES
        return _Part(self._batch(spec, packed, self._text, frozenset(raw)), places, asked)

    async def _exchange(self, parts: list[_Part], replies: dict[int, Any]) -> Exception | None:
        """Wait for the parts' replies. Returns why some commands have to be sent again, None if none has."""
        again: Exception | None = None
        try:
            results = await asyncio.gather(*[part.batch.future for part in parts], return_exceptions=True)
        except asyncio.CancelledError:
            _withdraw([part.batch for part in parts])
            raise
        failure: BaseException | None = None
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, BaseException):
                unsent = isinstance(result, errors.ConnectionError) and not result.maybe_applied
                if unsent and not retry.is_final(cast(Exception, result)):
                    again = again or cast(Exception, result)
                else:
                    failure = failure or result
                continue
            got = iter(result)
            for place, with_asking in zip(part.places, part.asked, strict=True):
                if with_asking:
                    next(got)
                self._asks.pop(place, None)
                reply = next(got)
                if isinstance(reply, _NOT_HERE):
                    again = reply
                    self._note_refusal(place, reply)
                else:
                    replies[place] = reply
        if failure is not None:
            raise failure
        return again

    def _note_refusal(self, place: int, error: errors.GravitoError) -> None:
        if isinstance(error, errors.MovedError):
            self._cluster.moved(error)
        elif isinstance(error, errors.AskError):
            self._asks[place] = error
        elif isinstance(error, errors.ClusterDownError):
            self._cluster.refresh_soon()

    # -- transactions ----------------------------------------------------------------------------------------

    async def _transact(self) -> list[Any]:
        await self._cluster.ready()
        deadline, attempt = self._deadline(), 0
        while True:
            attempt += 1
            self._ask_next, self._ask_all = self._ask_all, None
            try:
                return await super()._transact()
            except _NOT_HERE as error:
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
        slot = next((slot for slot in self._slots if slot is not None), None)
        node: Any = cluster.default_node() if slot is None else cluster.owners[slot]
        if self._ask_next is not None:
            cluster.ask(batch, self._ask_next)
        elif isinstance(node, Lobby):
            raise errors.ClusterDownError(f"no node is known to serve slot {slot}")
        elif self._is_large(batch) or self._client._patience:
            node.send_apart(batch, 0.0, clean=True, patience=self._client._patience)
        else:
            node.send(batch)
