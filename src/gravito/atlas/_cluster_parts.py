"""What a cluster's pipeline sends: its commands by node, and those of several slots or nodes taken apart and joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gravito import errors
from gravito.atlas import _fanout
from gravito.atlas.topology._lobby import Lobby
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology._routing import ASKING
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.wire import keys
from gravito.atlas.wire.entry import Batch, Spec

if TYPE_CHECKING:
    from gravito.atlas._cluster_pipeline import ClusterPipeline

NOT_HERE: Final = (errors.AskError, errors.TryAgainError, errors.ClusterDownError)  # MOVED is an ASK, too
MISSING: Final = object()  # in the place of a reply that has not come
Where = int | ClusterNode | None  # a slot, a node, or any node


class Part(NamedTuple):
    """What one node gets of a pipeline."""

    batch: Batch
    places: list[int]  # of its commands among all
    asked: list[bool] | None  # which of them have ASKING before them; None: none


class Spread(NamedTuple):
    """A command that is sent as several."""

    parts: Callable[[Cluster, bytes], list[tuple[bytes, Where]]]  # given the command as it was queued
    join: Callable[[list[Any]], Any]


def over_slots(spec: Spec, rest: tuple[Any, ...], found: dict[int, list[int]]) -> Spread:
    """MGET, MSET, DEL, UNLINK, EXISTS or TOUCH with keys of several slots: a command for each slot."""
    packed = _fanout.by_slot(spec, rest, found)
    return Spread(
        lambda cluster, whole: list(zip(packed, found, strict=True)),
        lambda replies: _fanout.first_error(spec, replies) or _fanout.join_slots(spec, found, replies),
    )


def over_nodes(spec: Spec, name: str) -> Spread | None:
    """A command that the server's policies send to several nodes; None for one that any node answers."""
    request, response = keys.policy(name)
    if name in _fanout.PRIMARIES:
        request = "all_shards"
    if name == "RANDOMKEY":
        request = "all_shards"
    elif request not in ("all_shards", "all_nodes") or response == "special":
        return None

    def parts(cluster: Cluster, whole: bytes) -> list[tuple[bytes, Where]]:
        nodes = cluster.primaries() if request == "all_shards" else cluster.all_nodes()
        return [(whole, node) for node in nodes]

    def join(replies: list[Any]) -> Any:
        if response == "one_succeeded":
            return _fanout.first_good(replies)
        error = _fanout.first_error(spec, replies)
        if error is not None:
            return error
        if name == "RANDOMKEY":
            return next((key for key in replies if key is not None), None)
        return _fanout.join_nodes(response, replies)

    return Spread(parts, join)


class Cargo:
    """The commands of one pipeline on their way: where each belongs, and what has been answered."""

    def __init__(self, pipe: ClusterPipeline, cluster: Cluster) -> None:
        self._cluster = cluster
        self._batch = pipe._batch
        self._text = pipe._text
        self._packed, self._specs, self._where = pipe._packed, pipe._queued, pipe._where
        self._raw, self._holds = pipe._raw, pipe._holds
        self._count = len(self._packed)  # of the pipeline; what comes behind are parts of commands
        self._spreads: list[tuple[int, Spread, range]] = []
        self._asks: dict[int, errors.AskError] = {}  # by place: where to ask next
        self.left = list(range(self._count))  # places that are not answered, in the order of the commands
        if pipe._spreads:
            self._take_apart(pipe._spreads)
        self._replies: list[Any] = [MISSING] * len(self._packed)
        self._plain = set(map(type, self._where)) == {int}  # every command has a slot of its own
        self._default = next((where for where in self._where if where.__class__ is int), None)

    def _take_apart(self, spreads: dict[int, Spread]) -> None:
        """Parts are sent in the place of their command, so that those of one key keep their order."""
        self._packed, self._specs, self._where = [*self._packed], [*self._specs], [*self._where]
        self._raw, self._holds = {*self._raw}, {**self._holds}
        self.left = []
        for place in range(self._count):
            if place not in spreads:
                self.left.append(place)
                continue
            spec, first = self._specs[place], len(self._packed)
            for packed, where in spreads[place].parts(self._cluster, self._packed[place]):
                self._packed.append(packed)
                self._specs.append(spec)
                self._where.append(where)
            places = range(first, len(self._packed))
            self.left += places
            if place in self._raw:
                self._raw.update(places)
            if place in self._holds:
                self._holds.update(dict.fromkeys(places, self._holds[place]))
            self._spreads.append((place, spreads[place], places))

    def by_node(self) -> dict[ClusterNode | Lobby, list[int]]:
        """The places that are left, by who serves them now."""
        cluster, where, specs = self._cluster, self._where, self._specs
        owners, readers, asks = cluster.owners, cluster.readers, self._asks
        apart = readers is not owners  # reads go elsewhere
        groups: dict[ClusterNode | Lobby, list[int]] = defaultdict(list)
        if self._plain and not apart and not asks and len(self.left) == len(where):
            for place, slot in enumerate(where):
                groups[owners[slot]].append(place)  # type: ignore[index]  # an int, see above
            return groups
        for place in self.left:
            slot = where[place]
            if slot.__class__ is not int or (asks and place in asks):
                groups[self._special(place)].append(place)
            elif apart and specs[place].read_only:
                groups[readers[slot]].append(place)
            else:
                groups[owners[slot]].append(place)
        return groups

    def _special(self, place: int) -> ClusterNode | Lobby:
        cluster, where = self._cluster, self._where[place]
        if place in self._asks:
            return cluster.node_at(cluster.place_of(self._asks[place]))
        if isinstance(where, ClusterNode):
            if cluster.nodes.get((where.host, where.port)) is not where:
                raise errors.ConnectionLostError(f"{where.name} has left the cluster").about(node=where.name)
            return where
        return cluster.default_node() if self._default is None else cluster.owners[self._default]

    def hold(self, places: list[int]) -> float:
        """Seconds for which blocking commands among them may keep the replies back."""
        return sum(self._holds.get(place, 0.0) for place in places) if self._holds else 0.0

    def part(self, places: list[int], reads: Spec, writes: Spec) -> Part:
        """One batch of these commands."""
        packed = self._packed
        asked = [place in self._asks for place in places] if self._asks else None
        if asked is None:
            data = [packed[place] for place in places]
            raw = [at for at, place in enumerate(places) if place in self._raw] if self._raw else ()
        else:
            data, raw = [], []
            for place, with_asking in zip(places, asked, strict=True):
                if with_asking:
                    data.append(ASKING)
                if place in self._raw:
                    raw.append(len(data))
                data.append(packed[place])
        spec = reads
        for place in places:
            if not self._specs[place].read_only:
                spec = writes
                break
        return Part(self._batch(spec, data, self._text, frozenset(raw)), places, asked)

    def take(self, part: Part, replies: list[Any]) -> Exception | None:
        """Note a part's replies. Returns the last refusal that sends commands elsewhere, None if there was none."""
        if part.asked is not None:
            flags = iter(part.asked)
            got = iter(replies)
            replies = [next(got) if not next(flags) else (next(got), next(got))[1] for _ in part.places]
        known, again = self._replies, None
        for place, reply in zip(part.places, replies, strict=True):
            if isinstance(reply, Exception) and isinstance(reply, NOT_HERE):
                again = reply
                self._refused(place, reply)
            else:
                known[place] = reply
        return again

    def _refused(self, place: int, error: Exception) -> None:
        self._asks.pop(place, None)
        if isinstance(error, errors.MovedError):
            self._cluster.moved(error)
        elif isinstance(error, errors.AskError):
            self._asks[place] = error
        elif isinstance(error, errors.ClusterDownError):
            self._cluster.refresh_soon()

    def settle(self) -> None:
        """After a round with refusals: what is left is what has no reply."""
        self.left = [place for place in self.left if self._replies[place] is MISSING]
        self._asks = {place: self._asks[place] for place in self.left if place in self._asks}

    def give_up(self, error: Exception) -> None:
        """A refusal is its command's reply when there is no time left for another try."""
        for place in self.left:
            self._replies[place] = error

    def replies(self) -> list[Any]:
        """The commands' replies, or those that came, in order."""
        replies = self._replies
        for place, spread, places in self._spreads:
            some = [replies[each] for each in places]
            if MISSING not in some:
                replies[place] = spread.join(some)
        if len(replies) > self._count or MISSING in replies:
            return [reply for reply in replies[: self._count] if reply is not MISSING]
        return replies
