"""Programs of the examples as real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Until it holds; what another process does sets no event here."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Program:
    """A process whose output is collected.

    Args:
        command: behind the interpreter.
        folder: its working directory.
        url: of the server, as REDIS_URL; None says nothing about it.
    """

    def __init__(self, command: list[str], folder: Path, url: str | None = None) -> None:
        self.output = ""
        path = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        environment.pop("REDIS_URL", None)
        if url is not None:
            environment["REDIS_URL"] = url
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Program {self.process.args!r}>"

    def shows(self, text: str, timeout: float = 60.0) -> None:
        """Wait until it has written this."""
        end = time.monotonic() + timeout
        while text not in self.output:
            if self.process.poll() is not None:
                self._reader.join()
            over = self.process.poll() is not None or time.monotonic() > end
            assert text in self.output or not over, f"{self} never showed {text!r}:\n{self.output}"
            time.sleep(0.02)

    def types(self, line: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """End it as Ctrl-C would, and give what it wrote."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.output

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line


GRAVITO = ["-c", "from gravito.cli import app; app(prog_name='gravito')"]


@contextmanager
def served(program: Program, address: str) -> Iterator[httpx.Client]:
    """A client of an HTTP server that has just been started."""
    with httpx.Client(base_url=address, timeout=30) as client:

        def answers() -> bool:
            assert program.process.poll() is None, program.output
            try:
                return client.get("/").status_code < 500
            except httpx.TransportError:
                return False

        wait(answers)
        yield client
