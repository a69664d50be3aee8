"""The client of a cluster: each command goes to the node of its keys, or to those that its policy names."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

from gravito import errors
from gravito.atlas import _cluster_scan, _fanout
from gravito.atlas._state import no_loop
from gravito.atlas.client import Client
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.wire import commands, keys
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.credentials import current_credentials
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.resp import check_size, encode, pack

if TYPE_CHECKING:
    from redis.asyncio.client import Monitor

    from gravito.atlas._cluster_pipeline import ClusterPipeline
    from gravito.atlas._session import Session
    from gravito.atlas.pubsub import Hub

_SLOT_IS_GIVEN = frozenset({"CLUSTER COUNTKEYSINSLOT", "CLUSTER GETKEYSINSLOT"})
_NODES_BY_WORD: dict[str, Callable[[Cluster], list[Any]]] = {
    "primaries": Cluster.primaries,
    "replicas": Cluster.replicas,
    "all": Cluster.all_nodes,
    "random": lambda cluster: [cluster.default_node()],
    "default-node": lambda cluster: [cluster.default_node()],
}


def unsupported(what: str, instead: str) -> errors.ConfigurationError:
    """The error for what a cluster cannot do, or this client cannot do on one."""
    return errors.ConfigurationError(
        f"{what} on a cluster; {instead}", field="driver", value="cluster", allowed=("redis", "sentinel")
    )


def bytes_of(key: Any) -> bytes:
    """A key as it goes on the wire."""
    if isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytearray, memoryview)):
        return bytes(key)
    return str(key).encode() if isinstance(key, int) else repr(key).encode()


def crossing(name: str, found: dict[int, list[Any]]) -> errors.CrossSlotError:
    """The refusal of a command whose keys are in several slots; names them."""
    shown = ", ".join(
        f"{bytes_of(key).decode('utf-8', 'backslashreplace')} (slot {slot})"
        for slot, some in found.items()
        for key in some[:3]
    )
    error = errors.CrossSlotError(
        f"{name}: its keys are in {len(found)} slots, and one command is served by one: {shown}. Give the keys a "
        "common {tag}. Nothing was sent"
    )
    error.about(command=name)
    return error


class ClusterClient(Client):
    """A connection to a cluster. What a `Client` has, and the nodes: `get_primaries`, `target_nodes=`.

    MGET, MSET, DEL, UNLINK, EXISTS and TOUCH over several slots are split by slot and their replies joined; such a
    call is not atomic. Every other command over several slots is refused before anything is sent.
    """

    @property
    def _cluster(self) -> Cluster:
        return cast(Cluster, self._state().topology)

    # -- sending ---------------------------------------------------------------------------------------------

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        try:
            packed = pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = encode(args)
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise no_loop(spec.name) from None
        cluster = cast(Cluster, (self._states.get(loop) or self._states.open(loop, self)).topology)
        at = len(spec.words)
        if len(args) <= at or spec.name not in keys.SINGLE or len(packed) > self._lease_over:
            check_size(packed, args)
            return self._send_widely(
                cluster, Entry(Future(loop=loop), packed, spec, options, text), args[at:]
            )
        key = args[at]
        slot = slot_of(key if key.__class__ in (str, bytes) else bytes_of(key))
        entry = Entry(Future(loop=loop), packed, spec, options, text)
        (cluster.readers if spec.read_only else cluster.owners)[slot].send(entry)
        return entry

    def _send_widely(self, cluster: Cluster, entry: Entry, rest: tuple[Any, ...]) -> Entry:
        """Commands with any number of keys, or none."""
        name = " ".join(entry.spec.name.upper().split())
        places = keys.slot_positions(name, rest)
        if places is None:
            return _fanout.start(entry, self._ask_for_keys(cluster, entry, rest))
        found: dict[int, list[int]] = {}
        for place in places:
            found.setdefault(slot_of(bytes_of(rest[place])), []).append(place)
        if len(found) > 1:
            if name not in _fanout.SPLIT:
                raise crossing(name, {slot: [rest[at] for at in some] for slot, some in found.items()})
            _fanout.split(cluster, entry, rest, found)
        elif found:
            self._send_to(
                cluster.readers if entry.spec.read_only else cluster.owners, next(iter(found)), entry, rest
            )
        elif name in _SLOT_IS_GIVEN and rest:
            self._send_to(cluster.owners, int(rest[0]), entry, rest)
        else:
            self._send_keyless(cluster, name, entry, rest)
        return entry

    def _send_to(self, table: list[Any], slot: int, entry: Entry, rest: tuple[Any, ...]) -> None:
        self._send_on(table[slot], entry, rest)

    def _send_on(self, node: Any, entry: Entry, rest: tuple[Any, ...]) -> None:
        name = entry.spec.name
        if len(entry.packed) > self._lease_over or (entry.spec.leased and commands.needs_lease(name, rest)):
            hold = commands.blocking_timeout(name, rest)
            node.send_apart(entry, hold, commands.leaves_clean(name, rest))
        else:
            node.send(entry)

    def _send_keyless(self, cluster: Cluster, name: str, entry: Entry, rest: tuple[Any, ...]) -> None:
        request, response = keys.policy(name)
        if name == "SCAN":
            _fanout.start(entry, _cluster_scan.begin(cluster, entry, rest), converted=True)
            return
        if name in _fanout.PRIMARIES:
            request = "all_shards"
        if request in ("all_shards", "all_nodes") and response != "special":

            def send(node: Any, part: Entry) -> None:
                self._send_on(node, part, rest)

            nodes = cluster.primaries if request == "all_shards" else cluster.all_nodes
            _fanout.start(entry, _fanout.everywhere(cluster, entry, nodes, response, send))
        elif name == "RANDOMKEY":
            _fanout.start(entry, _fanout.first_key(cluster, entry))
        else:
            self._send_on(cluster.default_node(), entry, rest)

    async def _ask_for_keys(self, cluster: Cluster, entry: Entry, rest: tuple[Any, ...]) -> Any:
        """A command that the tables lack: the server says which of its arguments are keys."""
        await cluster.ready()
        node = cluster.default_node()
        assert isinstance(node, ClusterNode)
        try:
            found = await node.ask("COMMAND", "GETKEYS", *entry.spec.words, *rest, text=False)
        except errors.ResponseError as error:
            if "no key" not in str(error):
                raise
            found = []
        by_slot: dict[int, list[Any]] = {}
        for key in found:
            by_slot.setdefault(slot_of(key), []).append(key)
        if len(by_slot) > 1:
            raise crossing(entry.spec.name, by_slot)
        child = _fanout.child(entry)
        self._send_on(cluster.owners[next(iter(by_slot))] if by_slot else node, child, rest)
        return await child

    def _send_with_options(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        if self._patience and self._is_of_one_slot(spec, args[len(spec.words) :]):
            return super()._send_with_options(spec, args, options, text)
        entry: Entry = ClusterClient._send(self, spec, args, options, text)
        self._limit(entry)
        return entry

    def _is_of_one_slot(self, spec: Spec, rest: tuple[Any, ...]) -> bool:
        places = keys.slot_positions(spec.name, rest)
        return places is not None and len({slot_of(bytes_of(rest[place])) for place in places}) == 1

    # -- named nodes -----------------------------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; `target_nodes` names the nodes: one, several, or one of redis-py's words.

        With several the reply is a dictionary from a node's name to its reply.
        """
        target = options.pop("target_nodes", None)
        if target is None:
            return super().execute_command(*args, **options)
        spec = self._specs[args[0]]
        text = options.pop("NEVER_DECODE", None) is None and self._text
        options.pop("keys", None)
        rest = args[1:]
        if self._specs.prefix is not None:
            rest = self._specs.prefix.rest(spec.name, rest)
        entry = Entry(
            get_running_loop().create_future(), encode((*spec.words, *rest)), spec, options or None, text
        )
        self._limit(entry)
        return _fanout.start(entry, self._send_to_targets(entry, target, rest), converted=True)

    async def _send_to_targets(self, entry: Entry, target: Any, rest: tuple[Any, ...]) -> Any:
        await self._cluster.ready()
        nodes = self._targets(target)
        children = [_fanout.child(entry, convert=True) for _ in nodes]
        for node, child in zip(nodes, children, strict=True):
            self._send_on(node, child, rest)
        replies = await _fanout.all_of(children)
        single = isinstance(target, ClusterNode) or target in ("random", "default-node")
        return (
            replies[0] if single else {node.name: reply for node, reply in zip(nodes, replies, strict=True)}
        )

    def _targets(self, target: Any) -> list[Any]:
        if isinstance(target, str):
            if target not in _NODES_BY_WORD:
                allowed = ", ".join(_NODES_BY_WORD)
                raise errors.DataError(f"target_nodes is {target!r}; allowed: nodes, or one of {allowed}")
            return _NODES_BY_WORD[target](self._cluster)
        if isinstance(target, ClusterNode):
            return [target]
        return list(target.values() if isinstance(target, dict) else target)

    def get_nodes(self) -> list[ClusterNode]:
        """The nodes on the last map; none before the first command. `await client.initialize()` fetches it."""
        return self._cluster.all_nodes()

    def get_primaries(self) -> list[ClusterNode]:
        """The nodes that take writes."""
        return self._cluster.primaries()

    def get_replicas(self) -> list[ClusterNode]:
        """The nodes that copy others."""
        return self._cluster.replicas()

    def get_random_node(self) -> ClusterNode:
        """A node for commands without keys."""
        return cast(ClusterNode, self._cluster.default_node())

    def get_default_node(self) -> ClusterNode:
        """A node for commands without keys."""
        return cast(ClusterNode, self._cluster.default_node())

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        """The node of an address, or None."""
        name = node_name or f"{host}:{port}"
        return next((node for node in self.get_nodes() if node.name == name), None)

    def get_node_from_key(self, key: Any, replica: bool = False) -> Any:
        """The node that serves a key."""
        cluster = self._cluster
        return (cluster.readers if replica else cluster.owners)[self.keyslot(key)]

    def keyslot(self, key: Any) -> int:
        """The slot of a key, key_prefix included."""
        prefix = self._specs.prefix
        return slot_of(bytes_of(key if prefix is None else prefix.key(key)))

    async def initialize(self) -> Any:
        """Fetch the map, so that the nodes can be named."""
        await self._cluster.ready()
        return self

    # -- what goes over all nodes ----------------------------------------------------------------------------

    def scan_iter(  # type: ignore[override]  # redis-py's sync and async mixins overlap
        self, match: Any = None, count: int | None = None, _type: str | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Every key of the cluster, node by node; with `target_nodes`, of these nodes."""
        target = options.pop("target_nodes", None) or "primaries"
        arguments = {"match": match, "count": count, "_type": _type, **options}
        return _cluster_scan.every_key(self, super().scan, target, arguments)

    async def scan(
        self,
        cursor: Any = 0,
        match: Any = None,
        count: int | None = None,
        _type: str | None = None,
        **options: Any,
    ) -> Any:
        """Some keys of every primary. https://redis.io/commands/scan

        Args:
            cursor: 0 to begin; the cursors of the last call to go on, and nodes that are through are not asked again.
                With `target_nodes`, that node's number.
            match: as in redis-py.
            count: as in redis-py, for each node.
            _type: as in redis-py.

        Returns:
            (cursors by node name, keys), and it was all when every cursor is 0; with a node as `target_nodes` its
            (cursor, keys).

        Raises:
            DataError: a cursor other than 0 that names no node.
        """
        if isinstance(cursor, dict):
            await self._cluster.ready()
            arguments = {"match": match, "count": count, "_type": _type, **options}
            return await _cluster_scan.go_on(self, super().scan, cursor, arguments)
        return await super().scan(cursor, match, count, _type, **options)

    async def mget_nonatomic(self, keys: Any, *args: Any) -> Any:
        """redis-py's name for an MGET over several slots, which `mget` does as well."""
        return await self.mget(keys, *args)

    async def mset_nonatomic(self, mapping: Any) -> Any:
        """redis-py's name for an MSET over several slots, which `mset` does as well."""
        return await self.mset(mapping)

    async def reauthenticate(self) -> None:
        """Ask for the credentials again and send AUTH on every node's shared wire; idle leased wires are closed.

        Raises:
            AuthenticationError: a node refused them; its wire goes on with those it has.
        """
        credentials = await current_credentials(self.settings)
        nodes = [node for node in self._cluster.everyone() if node.connected]
        if credentials.password is not None:
            args = ("AUTH", credentials.username or "default", credentials.password)
            await _fanout.all_of([node.ask(*args) for node in nodes])
        self._cluster.pool.drop_idle()

    # -- pipelines, messages ---------------------------------------------------------------------------------

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> ClusterPipeline:
        """Commands that are sent together: a transaction in one slot, or, without, one write per node."""
        from gravito.atlas._cluster_pipeline import ClusterPipeline  # noqa: PLC0415  # it imports this module

        return ClusterPipeline(self, transaction)

    def _hub(self) -> Hub:
        state = self._state()
        if state.hub is None:
            from gravito.atlas._cluster_pubsub import ClusterHub  # noqa: PLC0415  # only who subscribes pays for it

            state.hub = ClusterHub(self.settings, self._cluster)
        return state.hub

    def client(self, target_node: ClusterNode | None = None, *, key: Any = None) -> Session:
        """A session: commands on one leased wire of one node.

        Args:
            target_node: the node, as `get_node_from_key` and its kin return it.
            key: without a node, a key: the session is on the node that serves it. Without either, any primary.

        Raises:
            DataError: `target_node` is no node, or both are given.
        """
        from gravito.atlas._cluster_session import ClusterSession  # noqa: PLC0415  # it imports this module

        if target_node is not None and key is not None:
            raise errors.DataError("client(): target_node and key both name a node; give one of them")
        slot = None if key is None else self.keyslot(key)
        return ClusterSession(self, _checked("client()", target_node), slot)

    def monitor(self, target_node: ClusterNode | None = None) -> Monitor:
        """redis-py's Monitor of one node, a primary if none is named. https://redis.io/commands/monitor

        Raises:
            DataError: `target_node` is no node.
        """
        from redis.asyncio.client import Monitor  # noqa: PLC0415  # only who asks for it

        from gravito.atlas._compat import PoolAdapter  # noqa: PLC0415  # it imports a client

        node = _checked("monitor()", target_node)

        async def acquire() -> Wire:
            return await self._cluster.pool.acquire(node=node)  # type: ignore[no-any-return]  # see Cluster.pool

        return Monitor(PoolAdapter(self, acquire))  # type: ignore[arg-type]  # the adapter has what it uses


def _checked(what: str, node: Any) -> ClusterNode | None:
    if node is None or isinstance(node, ClusterNode):
        return node
    raise errors.DataError(
        f"{what}: target_node is of type {type(node).__name__}; allowed: a node, as get_node_from_key() returns it"
    )
