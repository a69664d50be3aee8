"""A primary, replicas and sentinels on this machine, for development and for tests.

with LocalSentinels() as sentinels:
    print(sentinels.url)
"""

from __future__ import annotations

from typing import Any

from gravito.atlas._nodes import FORMED_WITHIN, LEAN, Node, Topology, free_ports, pairs, secrets, until
from gravito.atlas.embedded import Directive, Engine

__all__ = ["LocalSentinels"]

SENTINEL_OFFSET = 20_000  # 6379 -> 26379, the usual pair


class _SentinelEngine(Engine):
    """An engine whose binary runs as a sentinel."""

    _mode = "--sentinel"


class LocalSentinels(Topology):
    """A primary, its replicas and the sentinels that watch them.

    Args:
        replicas: copies of the primary.
        sentinels: watchers; a majority of them decides.
        service: the name under which the sentinels know the primary.
        host: the address that all listen on.
        port: of the primary, the replicas behind it, the sentinels 20,000 above; 0 for free ones.
        password: of the default user of primary and replicas.
        sentinel_password: of the default user of the sentinels.
        down_after: seconds after which a primary that is silent counts as lost.

    Raises:
        ValueError: fewer than one sentinel, or a negative number of replicas.
    """

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        service: str = "mymaster",
        host: str = "127.0.0.1",
        port: int = 0,
        password: str | None = None,
        sentinel_password: str | None = None,
        down_after: float = 1.0,
    ) -> None:
        if sentinels < 1 or replicas < 0:
            raise ValueError(f"at least 1 sentinel and 0 replicas are needed, not {sentinels} and {replicas}")
        count = 1 + replicas
        ports = list(range(port, port + count)) if port else free_ports(count + sentinels)
        watching = (
            list(range(port + SENTINEL_OFFSET, port + SENTINEL_OFFSET + sentinels)) if port else ports[count:]
        )
        self.service = service
        self._password = password
        self._down_after = down_after
        data: dict[str, Directive] = {**LEAN, **secrets(password)}
        guard: dict[str, Directive] = {"requirepass": sentinel_password} if sentinel_password else {}
        self.data = [Node(Engine(port=each, host=host, directives=data), password) for each in ports[:count]]
        self.sentinels = [
            Node(_SentinelEngine(port=each, host=host, directives=guard), sentinel_password)
            for each in watching
        ]
        self.nodes = [*self.data, *self.sentinels]

    def __repr__(self) -> str:
        return f"<LocalSentinels {self.service} {', '.join(node.address for node in self.sentinels)}>"

    @property
    def url(self) -> str:
        """`redis+sentinel://` with every sentinel and the service, without a password."""
        return f"redis+sentinel://{','.join(node.address for node in self.sentinels)}/{self.service}/0"

    def primary(self) -> Node:
        """The primary by the word of the first sentinel that runs."""
        asked = next(node for node in self.sentinels if node.running)
        port = int(asked.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])
        return next(node for node in self.data if node.port == port)

    def replicas(self) -> list[Node]:
        """The data nodes that run and are not the primary."""
        primary = self.primary()
        return [node for node in self.data if node is not primary and node.running]

    def succeed(self, node: Node) -> None:
        """Wait until a failover from this node is over for every sentinel. Raises EngineError if it is not.

        One that comes back earlier may be made the primary again, empty.
        """
        until(lambda: node.port not in self._named(), "the sentinels to name another primary")

    def _named(self) -> set[int]:
        """Ports of the primaries by the sentinels' configurations, which a failover under way has not changed yet."""
        states = [pairs(node.ask("SENTINEL", "MASTER", self.service)) for node in self.sentinels]
        return {int(state["port"]) for state in states}

    def rejoin(self, node: Node) -> None:
        """Bring back a data node that was killed (empty) or suspended, as a copy of who took its place. Blocking."""
        self.succeed(node)
        if node.running:
            node.resume()
        else:
            node.start()
        primary = self.primary()
        node.ask("REPLICAOF", primary.host, primary.port)  # the sentinels would do it, some ten seconds later
        self.wait()

    def wait(self, timeout: float = FORMED_WITHIN) -> None:
        """Wait until the sentinels agree on a primary, know all data nodes, and all of these copy it.

        Raises:
            EngineError: they did not within `timeout` seconds.
        """
        until(self._whole, "the sentinels to agree", timeout)

    def _whole(self) -> bool:
        seen = set()
        for sentinel in self.sentinels:
            state = pairs(sentinel.ask("SENTINEL", "MASTER", self.service))
            if state["flags"] != "master" or int(state["num-other-sentinels"]) != len(self.sentinels) - 1:
                return False
            seen.add(int(state["port"]))
            copies = [pairs(each) for each in sentinel.ask("SENTINEL", "REPLICAS", self.service)]
            good = {int(each["port"]) for each in copies if each["flags"] == "slave"}
            if {*good, int(state["port"])} != {node.port for node in self.data}:
                return False
        if len(seen) != 1:
            return False
        primary = self.primary()
        roles = [node.ask("ROLE") for node in self.data if node is not primary]
        return primary.ask("ROLE")[0] == "master" and all(
            role[0] == "slave" and int(role[2]) == primary.port and role[3] == "connected" for role in roles
        )

    def _form(self) -> None:
        primary = self.data[0]
        for node in self.data[1:]:
            node.ask("REPLICAOF", primary.host, primary.port)
        until(
            lambda: all(node.ask("ROLE")[3] == "connected" for node in self.data[1:]),
            "the replicas to connect",
        )
        quorum = len(self.sentinels) // 2 + 1
        for node in self.sentinels:
            node.ask("SENTINEL", "MONITOR", self.service, primary.host, primary.port, quorum)
            options: dict[str, Any] = {
                "down-after-milliseconds": int(self._down_after * 1000),
                "failover-timeout": int(self._down_after * 10_000),
                "parallel-syncs": len(self.data),
            }
            if self._password:
                options["auth-pass"] = self._password
            for name, value in options.items():
                node.ask("SENTINEL", "SET", self.service, name, value)
        self.wait()
