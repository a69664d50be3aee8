"""One sample of one queue: the engine is emptied, jobs are queued, a worker runs them, the tally tells when."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.queues.contenders import PEERS, Queue, environment

SLOTS = 4096  # as in peers/peer.py
STAMPS = 4096
PATIENCE = 120.0  # seconds for a program


@dataclass(frozen=True)
class Cost:
    """What a job cost while a queue was drained."""

    rate: float  # jobs a second
    memory: float  # MB of the worker and its children


class Session:
    """Samples of one queue on one engine.

    Args:
        queue: which.
        host: the engine's.
        port: its TCP port.
        results: keep what jobs return.
        sleeps: jobs sleep, so threads are many.
    """

    def __init__(
        self, queue: Queue, host: str, port: int, *, results: bool = False, sleeps: bool = False
    ) -> None:
        self.queue = queue
        _anywhere()
        self._address = host, port
        self._server = redis.Redis(host, port)
        self._file = Path(tempfile.mkdtemp(prefix="gravito-queues-")) / "tally"
        self._environment = environment(host, port, self._file, results=results, sleeps=sleeps)

    def close(self) -> None:
        """Remove the files, and leave an empty engine."""
        self._server.flushall()
        self._server.close()
        for file in self._file.parent.iterdir():
            file.unlink()
        self._file.parent.rmdir()

    def clear(self) -> None:
        """An empty engine and an empty tally."""
        self._server.flushall()
        self._server.config_resetstat()
        self._file.write_bytes(bytes((SLOTS + STAMPS) * 8))

    def ask(self, role: str, count: int, kind: str) -> Any:
        """Run the program to its end; what it printed.

        Raises:
            RuntimeError: it failed; with the last line of its complaint.
        """
        line = [*self.queue.line, role, str(count), kind]
        done = subprocess.run(
            line, cwd=PEERS, env=self._environment, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or "no complaint").splitlines()[-1])
        return json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def working(self) -> Iterator[int]:
        """A worker while the block runs; its process id."""
        log = self._file.with_name("log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self.queue.line, "work"], cwd=PEERS, env=self._environment,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield process.pid
            if process.poll() is not None:
                raise RuntimeError((log.read_text().strip() or "it ended").splitlines()[-1])
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def done(self) -> int:
        """Jobs that have run."""
        return sum(struct.unpack_from(f"{SLOTS}q", self._file.read_bytes()))

    def until(self, count: int, pause: float = 0.002) -> float:
        """Wait until so many jobs have run; the moment."""
        end = time.monotonic() + PATIENCE
        while self.done() < count:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.done()} of {count} jobs ran within {PATIENCE:g} s")
            time.sleep(pause)
        return time.monotonic()

    def began(self, number: int) -> float:
        """When a job began."""
        moment: float = struct.unpack_from("d", self._file.read_bytes(), (SLOTS + number) * 8)[0]
        return moment

    def executed(self) -> int:
        """Commands that the server carried out since `clear`, without those of this class."""
        stats = self._server.info("commandstats")
        own = {"cmdstat_info", "cmdstat_flushall", "cmdstat_config|resetstat", "cmdstat_client|list"}
        return sum(each["calls"] for name, each in stats.items() if name not in own)

    @contextmanager
    def monitored(self) -> Iterator[list[bytes]]:
        """What MONITOR says while the block runs. https://redis.io/commands/monitor"""
        heard: list[bytes] = []
        with socket.create_connection(self._address) as line:
            line.sendall(b"MONITOR\r\n")

            def listen() -> None:
                while data := line.recv(1 << 20):
                    heard.append(data)

            thread = threading.Thread(target=listen)
            thread.start()
            try:
                yield heard
            finally:
                line.shutdown(socket.SHUT_RDWR)
                thread.join()


# -- what a sample is ----------------------------------------------------------------------------------------


def drain(session: Session, count: int, kind: str = "noop") -> Cost:
    """Queue jobs, then start a worker: the rate is that between its first and its last one."""
    session.clear()
    session.ask("pushmany", count, kind)
    total = _queued(session.queue, count)
    with session.working() as pid:
        start = session.until(1, 0.0005)
        first = session.done()
        end = session.until(total)
        memory = resident(pid)
    return Cost((total - first) / (end - start), memory)


def commands(session: Session, count: int) -> tuple[float, float]:
    """Commands a job while a queue is drained: those that clients sent, and those that the server carried out, in
    scripts too. They are read with MONITOR, so nothing is timed here."""
    session.clear()
    session.ask("pushmany", count, "noop")
    total = _queued(session.queue, count)
    with session.monitored() as lines, session.working():
        session.until(total)
        time.sleep(0.3)
    text = b"".join(lines)
    executed = text.count(b"\r\n") - 1  # MONITOR's own answer
    return (executed - text.count(b" lua] ")) / total, executed / total


def push_many(session: Session, count: int) -> float:
    """Jobs a second that are queued at once."""
    session.clear()
    return count / float(session.ask("pushmany", count, "noop")["seconds"])


def push_one(session: Session, count: int) -> float:
    """Jobs a second that are queued one by one, from 50 tasks."""
    session.clear()
    return count / float(session.ask("pushone", count, "noop")["seconds"])


def sleeps(session: Session, count: int) -> float:
    """Seconds from the first job's begin to the last one's end."""
    session.clear()
    session.ask("pushmany", count, "sleep")
    with session.working():
        return session.until(_queued(session.queue, count), 0.001) - session.began(0)


def pickup(session: Session, count: int) -> tuple[float, float, float]:
    """p50 and p99 in ms from the push to the begin of a job, by a worker that has nothing else to do; and how many
    commands a second that one costs the server when nothing is pushed at all."""
    session.clear()
    with session.working():
        session.ask("pushone", 1, "noop")
        session.until(2)
        time.sleep(1.0)
        before, start = session.executed(), time.monotonic()
        time.sleep(5.0)
        idle = (session.executed() - before) / (time.monotonic() - start)
        waits = sorted(session.ask("pickup", count, "stamp")["waits"])
    return waits[len(waits) // 2] * 1000, waits[int(len(waits) * 0.99)] * 1000, idle


def _queued(queue: Queue, count: int) -> int:
    return count + 1  # the first push, before the clock


def resident(pid: int) -> float:
    """MB of a process and its children; what they share counts once."""
    total = 0
    for each in [pid, *_children(pid)]:
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1000


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_children(child)]
    return found


def _anywhere() -> None:
    """Let the processes that this thread starts use any core; the measuring one has one of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
