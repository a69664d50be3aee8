"""Processes of a topology on this machine, for development and for tests: what clusters and sentinels share.

Every process is an engine under its own watchdog, so nothing is left behind however this process ends. Nothing here
is asynchronous; starting blocks for a few seconds.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import redis

from gravito.atlas.embedded import Directive, Engine
from gravito.errors import EngineError

__all__ = [
    "BUS_OFFSET",
    "FORMED_WITHIN",
    "LEAN",
    "Node",
    "Topology",
    "each",
    "fields",
    "free_ports",
    "pairs",
    "secrets",
    "until",
]

BUS_OFFSET = 10_000  # of the port on which a cluster's nodes talk to each other
# Both ports of a node lie below what kernels hand out to outgoing connections: they must still be free when the node
# comes back.
_PORTS = range(20_000, 22_700)
FORMED_WITHIN = 30.0  # seconds for nodes to agree; two are the server's own minimum

# Small and quick to start: no data worth keeping, and a memory's worth of buffers for replicas.
LEAN: dict[str, Directive] = {
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
    "repl-diskless-load": "on-empty-db",
    "repl-backlog-size": "1mb",
    "repl-ping-replica-period": 1,
    "io-threads": 1,
}


class Node:
    """One process of a topology, on a port that it keeps when it is started again.

    Args:
        engine: what runs it.
        password: the default user's, or None.
    """

    def __init__(self, engine: Engine, password: str | None = None) -> None:
        self.engine = engine
        self._password = password
        self._plain: redis.Redis | None = None  # blocking, on the Unix socket, made at the first question

    def __repr__(self) -> str:
        return f"<Node {self.address} {self.engine!r}>"

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self.engine.host

    @property
    def port(self) -> int:
        """Its TCP port."""
        return self.engine.port

    @property
    def address(self) -> str:
        """Host and port, as `127.0.0.1:7000`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process lives, suspended or not."""
        return self.engine.running

    def start(self) -> None:
        """Start the process, with nothing in it. Blocking."""
        self.engine.ensure()

    def stop(self) -> None:
        """End the process and remove what it left."""
        self.hang_up()
        self.engine.stop()

    def kill(self) -> None:
        """SIGKILL; `start` starts it anew on the same port, empty. Returns when it has gone."""
        self._signal(signal.SIGKILL)
        self.stop()

    def suspend(self) -> None:
        """SIGSTOP: its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.engine.pid
        if pid is None:
            raise EngineError(f"the node {self.address} does not run")
        os.kill(pid, number)

    def ask(self, *args: Any) -> Any:
        """One command, blocking. Returns the reply as RESP2 has it, decoded. Raises redis-py's errors."""
        if self._plain is None:
            self._plain = redis.Redis(
                unix_socket_path=self.engine.ensure(),
                password=self._password,
                decode_responses=True,
                protocol=2,
                socket_timeout=10,
            )
            self._plain.response_callbacks.clear()
        return self._plain.execute_command(*args)  # type: ignore[no-untyped-call]  # redis-py gives it no types

    def hang_up(self) -> None:
        """Close the connection that `ask` opened."""
        plain, self._plain = self._plain, None
        if plain is not None:
            with suppress(redis.RedisError, OSError):
                plain.close()


class Topology:
    """Nodes that are started together and ended together."""

    nodes: list[Node]

    def start(self) -> None:
        """Start every process and put them together. Blocking.

        Raises:
            EngineError: a process did not start, a port was taken, or they did not agree in time.
        """
        try:
            each(Node.start, self.nodes)
            self._form()
        except (redis.RedisError, OSError) as error:
            self.stop()
            raise EngineError(f"The nodes cannot be put together: {error}.") from error
        except BaseException:
            self.stop()
            raise

    def _form(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End every process; nothing is left. May be called at any time."""
        each(Node.stop, self.nodes)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    """So many TCP ports of 127.0.0.1 that nobody listens on now, nor on those of their buses.

    Raises:
        EngineError: there are not so many.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_PORTS, len(_PORTS)):
            probe, bus = held.enter_context(socket.socket()), held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + BUS_OFFSET))
                found.append(port)
            if len(found) == count:
                return found
    raise EngineError(f"no {count} free TCP ports between {_PORTS.start} and {_PORTS.stop - 1}")


def secrets(password: str | None) -> dict[str, Directive]:
    """What makes a server ask for a password, and give it to its primary."""
    return {"requirepass": password, "masterauth": password} if password else {}


def each(action: Callable[[Node], None], nodes: Iterable[Node]) -> None:
    """Do something to all nodes at once: starting and ending is waiting for processes."""
    nodes = list(nodes)
    with ThreadPoolExecutor(len(nodes)) as threads:
        outcomes = [threads.submit(action, node) for node in nodes]
    for outcome in outcomes:
        outcome.result()


def until(condition: Callable[[], bool], what: str, timeout: float = FORMED_WITHIN) -> None:
    """Wait for what servers do not announce. Raises EngineError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise EngineError(f"waited {timeout:g} seconds in vain for {what}")
        time.sleep(0.02)


def fields(text: str) -> dict[str, str]:
    """A reply of lines `name:value`, as CLUSTER INFO gives it."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """A reply of names and values in turn, as SENTINEL MASTER gives it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
