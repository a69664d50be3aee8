"""Hash slots: which slot a key has, and which nodes serve it. Pure.

A slot map holds one number of two bytes for each of the 16,384 slots (32 KiB, whatever the size of the cluster)
and every shard once, so that a look-up is an index and a thousand nodes cost a thousand small objects.
Follows https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

from array import array
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["SLOTS", "Node", "Shard", "SlotMap", "slot_of"]

SLOTS: Final = 16_384
_NOBODY: Final = 0xFFFF  # a slot without a shard; there cannot be as many shards


def slot_of(key: str | bytes) -> int:
    """The slot of a key: CRC16 (XMODEM) of the key, or of what stands between its first braces if anything does.

    Args:
        key: as it goes on the wire; text is UTF-8.

    Returns:
        0 to 16383, as `CLUSTER KEYSLOT` says. https://redis.io/commands/cluster-keyslot
    """
    if isinstance(key, str):
        key = key.encode()
    if b"{" in key:
        start = key.index(b"{")
        end = key.find(b"}", start + 1)
        if end > start + 1:  # an empty tag does not count
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Node(NamedTuple):
    """One server of a cluster, as it is to be reached."""

    host: str
    port: int
    id: str = ""  # the cluster's own name for it; an address may change, this does not

    @property
    def address(self) -> str:
        """`host:port`, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Shard(NamedTuple):
    """A primary with its replicas."""

    primary: Node
    replicas: tuple[Node, ...] = ()


class SlotMap:
    """Which shard serves which slot. Changed only by `move`; a refresh makes a new map.

    Args:
        ranges: (first slot, last slot, shard), as many as there are.

    Raises:
        ValueError: a slot below 0 or above 16383.
    """

    __slots__ = ("_index", "_owners", "_served", "_shards")

    def __init__(self, ranges: Iterable[tuple[int, int, Shard]] = ()) -> None:
        self._owners = array("H", [_NOBODY]) * SLOTS
        self._shards: list[Shard] = []
        self._index: dict[Shard, int] = {}  # each shard once, however many ranges it has
        self._served: list[int] | None = None  # numbers of the shards with slots; None: to be looked up
        for first, last, shard in ranges:
            if not 0 <= first <= last < SLOTS:
                raise ValueError(f"slots {first} to {last}: allowed are 0 to {SLOTS - 1}")
            self._owners[first : last + 1] = array("H", [self._number(shard)]) * (last - first + 1)

    def __repr__(self) -> str:
        return f"<SlotMap {self.covered} slots on {len(self.shards)} shards>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and list(self.ranges()) == list(other.ranges())

    __hash__ = None  # type: ignore[assignment]  # it can change

    def _number(self, shard: Shard) -> int:
        number = self._index.setdefault(shard, len(self._shards))
        if number == len(self._shards):
            self._shards.append(shard)
        return number

    # -- from the server's replies ---------------------------------------------------------------------------

    @classmethod
    def from_slots(
        cls,
        reply: Iterable[Sequence[Any]],
        host: str,
        reached: Callable[[Node], Node] = lambda node: node,
    ) -> SlotMap:
        """A map from the reply of CLUSTER SLOTS, text or bytes.

        Args:
            reply: [first, last, [host, port, id, ...] of the primary, the same of each replica, ...] for each range.
            host: what a node means that leaves its own host out: the host that was asked.
            reached: a node as it is to be reached, given as it announces itself.

        See https://redis.io/commands/cluster-slots
        """
        ranges = []
        seen: dict[Any, Node] = {}  # a node is listed with each of its ranges

        def node_of(entry: Sequence[Any]) -> Node:
            key = tuple(entry[:3])
            node = seen.get(key)
            if node is None or node.id == "":
                node = seen[key] = reached(_listed(entry, host))
            return node

        for first, last, *nodes in reply:
            known = [node_of(node) for node in nodes]
            if known:
                ranges.append((int(first), int(last), Shard(known[0], tuple(known[1:]))))
        return cls(ranges)

    @classmethod
    def from_shards(cls, reply: Iterable[Any], host: str, *, tls: bool = False) -> SlotMap:
        """A map from the reply of CLUSTER SHARDS, text or bytes, RESP2 or RESP3.

        Args:
            reply: for each shard its `slots` and `nodes`. Replicas that are not online are left out.
            host: as for `from_slots`.
            tls: take the nodes' TLS ports.

        See https://redis.io/commands/cluster-shards
        """
        ranges = []
        for raw in reply:
            shard = _fields(raw)
            primary, replicas = None, []
            for entry in map(_fields, shard["nodes"]):
                port = entry.get("tls-port" if tls else "port") or entry.get("port") or entry.get("tls-port")
                name = _text(entry.get("endpoint"))
                name = _text(entry.get("ip")) if name in ("", "?") else name
                node = _node(name, port, entry.get("id", ""), host)
                if _text(entry.get("role")) in ("master", "primary"):
                    primary = node
                elif _text(entry.get("health", "online")) == "online":
                    replicas.append(node)
            if primary is not None:
                places = [int(slot) for slot in shard["slots"]]
                owner = Shard(primary, tuple(replicas))
                ranges += [(low, high, owner) for low, high in zip(places[::2], places[1::2], strict=True)]
        return cls(ranges)

    # -- looking up ------------------------------------------------------------------------------------------

    def shard(self, slot: int) -> Shard | None:
        """The shard that serves a slot; None if nobody does."""
        number = self._owners[slot]
        return None if number == _NOBODY else self._shards[number]

    def primary(self, slot: int) -> Node | None:
        """The node that takes writes for a slot; None if there is none."""
        number = self._owners[slot]
        return None if number == _NOBODY else self._shards[number].primary

    @property
    def shards(self) -> list[Shard]:
        """The shards that serve at least one slot, by their first slot."""
        return [self._shards[number] for number in self._numbers()]

    def _numbers(self) -> list[int]:
        if self._served is None:
            self._served = [number for number in dict.fromkeys(self._owners) if number != _NOBODY]
        return self._served

    @property
    def primaries(self) -> list[Node]:
        """The nodes that take writes."""
        return list(dict.fromkeys(shard.primary for shard in self.shards))

    @property
    def nodes(self) -> list[Node]:
        """Every node that serves a slot, primaries first."""
        replicas = (node for shard in self.shards for node in shard.replicas)
        return list(dict.fromkeys((*self.primaries, *replicas)))

    @property
    def covered(self) -> int:
        """How many slots are served."""
        return SLOTS - self._owners.count(_NOBODY)

    def ranges(self) -> Iterator[tuple[int, int, Shard]]:
        """(first, last, shard) of each run of slots, ascending."""
        first = 0
        for slot in range(1, SLOTS + 1):
            if slot < SLOTS and self._owners[slot] == self._owners[first]:
                continue
            if self._owners[first] != _NOBODY:
                yield first, slot - 1, self._shards[self._owners[first]]
            first = slot

    def table(self, choose: Callable[[Shard], Any], nobody: Any) -> list[Any]:
        """For each slot what `choose` makes of its shard, asked once per shard; `nobody` where there is none."""
        chosen = {number: choose(self._shards[number]) for number in self._numbers()}
        chosen[_NOBODY] = nobody
        return [chosen[number] for number in self._owners]

    # -- changing --------------------------------------------------------------------------------------------

    def move(self, slot: int, primary: Node) -> None:
        """Note what MOVED says: `primary` serves the slot now. Its replicas are kept if it is known."""
        self._served = None
        for shard in self._shards:
            if (shard.primary.host, shard.primary.port) == (primary.host, primary.port):
                self._owners[slot] = self._index[shard]
                return
        self._owners[slot] = self._number(Shard(primary))

    def moved(self, newer: SlotMap) -> dict[int, tuple[Node | None, Node | None]]:
        """What a newer map changes for writers.

        Returns:
            (primary before, primary after) by slot, for slots whose primary differs; None where nobody serves it.
        """
        if self._same_numbers(newer):
            return {}
        before, after = self._by_number(), newer._by_number()
        return {
            slot: (before[old], after[new])
            for slot, (old, new) in enumerate(zip(self._owners, newer._owners, strict=True))
            if before[old] != after[new]
        }

    def _same_numbers(self, other: SlotMap) -> bool:
        return self._owners == other._owners and self._shards == other._shards

    def _by_number(self) -> Mapping[int, Node | None]:
        return {_NOBODY: None, **{at: shard.primary for at, shard in enumerate(self._shards)}}


def _listed(entry: Sequence[Any], host: str) -> Node:
    """A node of CLUSTER SLOTS. "?" stands for a host name that was never set; its address is in the fourth field."""
    name = _text(entry[0])
    if name == "?":
        name = _text(_fields(entry[3]).get("ip")) if len(entry) > 3 else ""
    return _node(name, entry[1], entry[2] if len(entry) > 2 else "", host)


def _node(name: Any, port: Any, identity: Any, host: str) -> Node:
    return Node(_text(name) or host, int(port), _text(identity))


def _fields(raw: Any) -> dict[str, Any]:
    """A mapping, or a flat list of names and values, with text for names."""
    pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
    return {_text(name): value for name, value in pairs}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
