"""Engine control: a real server that can be killed, stopped, restarted and told to refuse."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from gravito.atlas.embedded import Directive, Engine

OBSERVER = "bench-observer"  # the control connection's name in CLIENT LIST


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Control:
    """One server of the bench, on a TCP port that survives restarts.

    Args:
        password: the default user's, None for none.
        directory: keeps data (append-only file, synced always) over restarts; None for data that go.
        directives: further lines of its configuration.
    """

    def __init__(
        self,
        password: str | None,
        directory: Path | None = None,
        directives: Mapping[str, Directive] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self.port = free_port()
        self.password = password
        own: dict[str, Directive] = {"requirepass": password} if password else {}
        if directory is not None:
            own["appendfsync"] = "always"
        self.engine = Engine(
            directory, port=self.port, directives={**own, **(directives or {})}, start_timeout=start_timeout
        )
        self._plain: redis.Redis | None = None

    def __enter__(self) -> Self:
        self.engine.ensure()
        return self

    def __exit__(self, *exc: object) -> None:
        self.resume()
        self.hang_up()
        self.engine.stop()

    @property
    def pid(self) -> int:
        pid = self.engine.pid
        assert pid is not None, "the engine does not run"
        return pid

    def ask(self, *args: Any) -> Any:
        """One command on the control connection. Blocks this thread: for short commands only."""
        return self.plain.execute_command(*args)

    @property
    def plain(self) -> redis.Redis:
        """The control connection: another client than the one under test, and a blocking one."""
        if self._plain is None:
            self._plain = redis.Redis(
                port=self.port, password=self.password, client_name=OBSERVER, socket_timeout=20
            )
        return self._plain

    def hang_up(self) -> None:
        """Close the control connection."""
        if self._plain is not None:
            self._plain.close()
            self._plain = None

    # -- what can be done to it ------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.hang_up()
        os.kill(self.pid, signal.SIGKILL)
        self.engine.wait(5.0)

    def restart(self) -> None:
        """Start it again on the same port and folder. Blocks until it answers."""
        self.engine.ensure()

    def suspend(self) -> None:
        """SIGSTOP: the kernel goes on accepting and acknowledging, the server says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.engine.running:
            os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stopped while the block runs."""
        self.suspend()
        try:
            yield
        finally:
            self.resume()

    def pause(self, seconds: float, mode: str = "ALL") -> None:
        """CLIENT PAUSE; mode WRITE lets reads through, and `unpause` too."""
        self.ask("CLIENT", "PAUSE", int(seconds * 1000), mode)

    def unpause(self) -> None:
        """CLIENT UNPAUSE."""
        self.ask("CLIENT", "UNPAUSE")

    def set(self, name: str, value: Any) -> None:
        """CONFIG SET."""
        self.ask("CONFIG", "SET", name, value)

    def kill_clients(self, kind: str = "normal") -> int:
        """CLIENT KILL of all clients of a kind but the control's own."""
        return int(self.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))

    # -- what it tells ---------------------------------------------------------------------------------------

    def clients(self) -> list[dict[str, str]]:
        """CLIENT LIST without the control connection."""
        return [client for client in self.plain.client_list() if client["name"] != OBSERVER]

    def stat(self, name: str) -> int:
        """One number of INFO."""
        return int(self.plain.info("everything")[name])

    def gone(self, within: float = 2.0) -> int:
        """How many clients are left when all ought to have left: asked until none is, or until time is up."""
        deadline = time.monotonic() + within
        while (left := len(self.clients())) and time.monotonic() < deadline:
            time.sleep(0.01)  # the server notices a closed socket in its own time
        return left
