"""The embedded engine on a free loopback TCP port: not every contender speaks to a unix socket."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gravito.atlas.embedded import Engine, find_binary

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Running:
    """The engine of this run."""

    host: str
    port: int
    pid: int
    version: str  # name and number, as the binary tells them


@contextmanager
def running() -> Iterator[Running]:
    """Start a private engine, and end it when the block ends.

    Raises:
        EngineError: it cannot be found or started.
    """
    # a slow subscriber must be measured, not cut off
    directives = {"client-output-buffer-limit": ("pubsub", 0, 0, 0)}
    engine = Engine(directives=directives, port=_free_port(), host=HOST)
    try:
        engine.ensure()
        assert engine.pid is not None
        yield Running(HOST, engine.port, engine.pid, _version())
    finally:
        engine.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _version() -> str:
    binary = str(find_binary())
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    words = dict(word.split("=", 1) for word in told.split() if "=" in word)
    return f"{told.split(' ', 1)[0]} {words.get('v', '?')}"
