"""A cluster: a table from slot to node, kept true by what the nodes answer.

Each node has its own shared wire, so the commands of a loop turn go out as one write per node. An entry that a
node does not serve travels on: to the node that MOVED or ASK names, or, when its node is lost, through the lobby
until a new map names another. A refresh is single-flight and rate-limited, and asks whoever is known by then,
so the seeds may be gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from gravito import errors
from gravito.atlas import _addresses
from gravito.atlas.config import Settings
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology._node import NEVER, ClusterNode
from gravito.atlas.topology._overall import Leases, Waiting
from gravito.atlas.topology._routing import arguments, asking, slot_of_entry
from gravito.atlas.topology._survey import PATIENCE, Survey
from gravito.atlas.topology._tiers import NodeTiers
from gravito.atlas.topology.slots import SLOTS, Node, SlotMap
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.wire import commands, retry, waits
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Batch, Confirm, Entry
from gravito.atlas.wire.flight import Landing
from gravito.atlas.wire.meter import Hooks, Meter
from gravito.atlas.wire.shelves import Shelves

log = logging.getLogger("gravito.atlas")

_URGENT = 0.1  # seconds between two looks at the cluster while somebody waits for a map
_CALM = 1.0  # seconds otherwise; MOVED has corrected its slot already
_DIRECT_HOPS = 5  # redirections at once; then with backoff, for two nodes may disagree for a while


class Cluster(Standalone):
    """The nodes of one client in one event loop. Stands where `Standalone` stands for one server."""

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.meter = Meter(latency=settings.measure_latency)
        self.hooks = hooks
        self.tier: Any = None  # NodeTiers, made by the first tracked read
        self.map = SlotMap()
        self.nodes: dict[tuple[str, int], ClusterNode] = {}  # all that the map names
        self.lobby = Lobby(settings, self.refresh_soon)
        self.owners: list[ClusterNode | Lobby] = [self.lobby] * SLOTS  # who takes a slot's writes
        self.readers: list[ClusterNode | Lobby] = self.owners  # who takes its reads
        self.shared: Any = Waiting(self)
        self.pool: Any = Leases(self)
        self._reached = _addresses.translator(settings.address_map, settings.name)
        self._survey = Survey(settings, self.lobby, self._new, self._at)
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = -10.0  # loop time of the last refresh
        self._failed = 0  # refreshes in a row that nobody answered
        self._known = asyncio.Event()  # there is a map
        self._tasks: set[asyncio.Task[Any]] = set()  # nodes that are being left
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None  # of the next look at who is silent
        self.on_left: Callable[[set[str]], None] | None = None  # told the names of nodes that left the map
        self.send = self._send

    def __repr__(self) -> str:
        return f"<Cluster {self.settings.address}, {len(self.nodes)} nodes, {len(self.lobby)} wait>"

    # -- sending ---------------------------------------------------------------------------------------------

    def node_of(self, entry: Entry) -> ClusterNode | Lobby:
        """Who serves an entry now, by its own bytes."""
        slot = slot_of_entry(entry)
        return self.owners[slot] if slot is not None else self.default_node()

    def default_node(self) -> ClusterNode | Lobby:
        """A primary for commands without keys: the same one while it is connected."""
        primaries = self.primaries()
        return next((node for node in primaries if node.connected), next(iter(primaries), self.lobby))

    def _send(self, entry: Entry) -> None:
        self._put(self.node_of(entry), entry, arguments(entry) if entry.spec.leased else ())

    def _put(self, node: ClusterNode | Lobby, entry: Entry, args: Sequence[Any]) -> None:
        name = entry.spec.name
        if commands.needs_lease(name, args):
            hold = commands.blocking_timeout(name, args)
            node.send_apart(entry, hold, commands.leaves_clean(name, args))
        else:
            node.send(entry)

    def send_apart(self, entry: Entry, hold: float, clean: bool, patience: float = 0.0) -> None:
        """Send an entry on a leased wire of its node."""
        self.node_of(entry).send_apart(entry, hold, clean, patience)

    # -- what nodes give back --------------------------------------------------------------------------------

    def redirect(self, entry: Entry, error: Exception) -> bool:
        """An error reply: when it says that the entry was not applied here, send it where it will be."""
        if self._closed or isinstance(entry, Batch | Confirm) or entry.retry is NEVER:
            return False
        unserved = waits.is_unserved(error)
        if not unserved and not isinstance(
            error, (errors.AskError, errors.ReadOnlyError, *retry.NOT_APPLIED)
        ):
            return False
        if isinstance(error, errors.MovedError):
            self.moved(error)
        elif unserved or isinstance(error, errors.ClusterDownError | errors.ReadOnlyError):
            self.refresh_soon()
        if isinstance(error, errors.AskError) and entry.attempt <= _DIRECT_HOPS:
            entry.attempt += 1
            self._travel(entry, error)
            return True
        more = (errors.AskError, errors.ReadOnlyError, *((type(error),) if unserved else ()))
        pause = retry.pause_after(entry, error, self.settings, self.loop.time(), more=more)
        if pause is None:
            return False
        entry.since = self.loop.time()
        self.loop.call_later(pause, self._travel, entry, error)
        return True

    def _travel(self, entry: Entry, error: Exception) -> None:
        entry.since = 0.0
        if entry.future.done():
            return
        if type(error) is errors.AskError:
            self.ask(entry, error)
        else:
            self.send(entry)

    def moved(self, error: errors.MovedError) -> ClusterNode:
        """Note what MOVED says, at once for its slot; the rest is looked up soon."""
        slot, place = error.slot_id, self.place_of(error)
        node = self.node_at(place)
        self.map.move(slot, place)
        before, self.owners[slot] = self.owners[slot], node
        self.readers[slot] = node
        if self.tier is not None and before is not node:
            self.tier.left({slot})
        self.refresh_soon()
        return node

    def place_of(self, error: errors.AskError) -> Node:
        """The node that a redirection names; one without a host means the host that is known already."""
        announced = Node(error.host or self._survey.seeds[0].host, error.port)
        try:
            return self._at(announced)
        except errors.ConfigurationError as problem:  # the refresh that follows says so to whoever waits
            log.warning("%s", problem)
            return announced

    def _at(self, announced: Node) -> Node:
        """A node where it is reached. Raises ConfigurationError if the map cannot say it."""
        return Node(*self._reached((announced.host, announced.port)), announced.id)

    def ask(self, entry: Entry, error: errors.AskError) -> None:
        """Send an entry to the node that takes its slot over, with ASKING before it."""
        node = self.node_at(self.place_of(error))

        def settle(reply: Any) -> None:
            if entry.future.done():
                return
            if isinstance(entry, Batch):
                (entry.fail if isinstance(reply, Exception) else entry.future.set_result)(reply)
            elif isinstance(reply, Exception):
                unsent = isinstance(reply, errors.ConnectionError) and not reply.maybe_applied
                if not self.redirect(entry, reply) and not (unsent and self.take_back(entry, reply)):
                    entry.fail(reply)
            else:
                entry.finish(reply)

        args = arguments(entry) if entry.spec.leased else ()  # what blocks must not do so on the shared wire
        self._put(node, asking(entry, self.loop, settle), args)

    def take_back(self, entry: Entry, cause: Exception) -> bool:
        """An entry that its node could not be sent waits for a map that names another."""
        if isinstance(entry.future, Landing):  # a tracked read: those who wait for it go on without it
            entry.fail(cause)
            return True
        policy = entry.retry or self.settings.retry
        if (
            self._closed
            or isinstance(entry, Batch | Confirm)
            or policy.attempts == 0
            or retry.is_final(cause)
        ):
            return False
        now = self.loop.time()
        start = entry.since or now
        entry.deadline = entry.deadline or start + (self.settings.timeouts.command or retry.NO_TIMEOUT)
        if now >= entry.deadline:
            return False
        self.lobby.reason = cause
        self.lobby.send(entry)
        return True

    def track(self, shelves: Shelves) -> None:
        """Keep on these shelves what tracked reads bring, from whatever node."""
        self.tier = NodeTiers(shelves, self)

    # -- the nodes -------------------------------------------------------------------------------------------

    def node_at(self, place: Node) -> ClusterNode:
        """The node of an address; it need not be on the map yet."""
        node = self.nodes.get((place.host, place.port))
        if node is None:
            node = self.nodes[place.host, place.port] = self._new(place)
        return node

    def _new(self, place: Node) -> ClusterNode:
        return ClusterNode(self.settings, self.hooks, self.meter, self, place)

    def primaries(self) -> list[ClusterNode]:
        """The nodes that take writes, by the map."""
        return [self.node_at(place) for place in self.map.primaries]

    def replicas(self) -> list[ClusterNode]:
        """The nodes that copy others, by the map."""
        return [node for node in self.all_nodes() if not node.primary]

    def all_nodes(self) -> list[ClusterNode]:
        """Every node on the map, primaries first."""
        return [self.node_at(place) for place in self.map.nodes]

    async def ready(self) -> None:
        """Wait for the first map.

        Raises a ConnectionError of the node that was asked last, or ConnectTimeoutError.
        """
        if self._known.is_set():
            return
        self.refresh_soon()
        try:
            async with asyncio.timeout(self.settings.timeouts.connect):
                while not self._known.is_set() and self._refreshing is not None:
                    waits = asyncio.ensure_future(self._known.wait())
                    await asyncio.wait({waits, self._refreshing}, return_when=asyncio.FIRST_COMPLETED)
                    waits.cancel()
        except TimeoutError:
            pass
        if not self._known.is_set():
            why = self.lobby.reason or errors.ConnectTimeoutError(f"{self.settings.address} does not answer")
            raise why

    # -- the map ---------------------------------------------------------------------------------------------

    def refresh_soon(self) -> None:
        """Look at the cluster again, unless that is under way."""
        if self._refreshing is None and not self._closed:
            self._refreshing = self.loop.create_task(self._refresh(), name="gravito cluster refresh")

    async def _refresh(self) -> None:
        try:
            gap = _URGENT if len(self.lobby) or not self._known.is_set() else _CALM
            await asyncio.sleep(self._refreshed + gap - self.loop.time())
            found = await self._survey.look(self.nodes)
            self._refreshed = self.loop.time()
            if found is not None:
                self._failed = 0
                self._adopt(found)
                await self._measure()
            else:
                self._failed += 1
        finally:
            self._refreshing = None
        self._after_refresh(found is not None)

    def _after_refresh(self, fresh: bool) -> None:
        if fresh:
            for entry in self.lobby.leave():
                self.send(entry)
        cause = self.lobby.reason
        hopeless = not self._known.is_set() and self._failed > self.settings.retry.attempts
        if cause is not None and not fresh and (hopeless or retry.is_final(cause)):
            self.lobby.fail(cause)
        if len(self.lobby):
            self.refresh_soon()

    def _adopt(self, found: SlotMap) -> None:
        named = {(place.host, place.port) for place in found.nodes}
        for node in [node for node in self._survey.strangers if (node.host, node.port) in named]:
            self._survey.strangers.remove(node)
            self.nodes[node.host, node.port] = node
        self.map = found
        primaries = {self.node_at(place) for place in found.primaries}
        for node in list(self.nodes.values()):
            was, node.primary = node.primary, node in primaries
            if was and not node.primary:
                node.pass_over() if node.silent else node.demote()
            elif node.primary or not node.silent:
                node.shared.passed_over = False
        before = list(self.owners)
        self._fill(self.owners, self._primary)
        if self.tier is not None and before != self.owners:
            pairs = enumerate(zip(before, self.owners, strict=True))
            self.tier.left({slot for slot, (was, now) in pairs if was is not now})
        self._choose_readers()
        gone = [key for key in self.nodes if key not in named]
        for node in [self.nodes.pop(key) for key in gone] + self._survey.strangers:
            self._leave(node)
        if gone and self.on_left is not None:
            self.on_left({_addresses.join(*place) for place in gone})
        self._survey.strangers.clear()
        self._known.set()
        if self._timer is None:
            self._timer = self.loop.call_later(_CALM, self._look_for_silence)
        log.debug("connection '%s': %r", self.settings.name, found)

    def _look_for_silence(self) -> None:
        """A node that hangs ends no connection: the others know sooner than a command's deadline who replaces it."""
        if sum(node.look() for node in self.nodes.values()):
            self.refresh_soon()
        self._timer = self.loop.call_later(_CALM, self._look_for_silence)

    def _fill(self, table: list[ClusterNode | Lobby], choose: Callable[[Any], ClusterNode]) -> None:
        """Lay a map over a table in place: whoever holds the table sees the change."""
        table[:] = self.map.table(choose, self.lobby)

    def _primary(self, shard: Any) -> ClusterNode:
        return self.node_at(shard.primary)

    def _choose_readers(self) -> None:
        if self.settings.read_from == "primary":
            return
        if self.readers is self.owners:
            self.readers = list(self.owners)
        self._fill(self.readers, self._reader)

    def _reader(self, shard: Any) -> ClusterNode:
        replicas = [self.node_at(place) for place in shard.replicas]
        if self.settings.read_from == "replica":
            return random.choice(replicas) if replicas else self.node_at(shard.primary)
        return min([self.node_at(shard.primary), *replicas], key=lambda node: node.rtt)

    async def _measure(self) -> None:
        """Round trips of all nodes, where reads go to the nearest."""
        if self.settings.read_from == "nearest":
            await asyncio.gather(*[node.measure(PATIENCE) for node in self.all_nodes()])
            self._choose_readers()

    def _leave(self, node: ClusterNode) -> None:
        task = self.loop.create_task(node.aclose(), name=f"gravito leave {node.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- as one server has it --------------------------------------------------------------------------------

    async def open(self) -> Wire:
        """A new wire to any primary that takes one, for classic publish and subscribe."""
        await self.ready()
        nodes = self.primaries()
        random.shuffle(nodes)
        failure: Exception | None = None
        for node in sorted(nodes, key=lambda node: not node.connected):
            try:
                return await node.open()
            except errors.ConnectionError as error:
                failure = error
        self.refresh_soon()
        raise failure or errors.ConnectionError(f"{self.settings.address}: no primary is known")

    def everyone(self) -> list[ClusterNode]:
        """All nodes with wires, also those that are on no map."""
        return [*self.nodes.values(), *self._survey.strangers]

    def wires(self) -> list[Wire]:
        """All wires of all nodes."""
        return [wire for node in self.everyone() for wire in node.wires()]

    async def aclose(self) -> None:
        """Finish what is in flight and close every node's wires."""
        if len(self.lobby) and self._refreshing is not None:
            await asyncio.wait({self._refreshing}, timeout=self.settings.timeouts.drain)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
        self.lobby.close()
        await asyncio.gather(*[node.aclose() for node in self.everyone()], *self._tasks)
