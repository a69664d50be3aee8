"""The embedded engine: a real Valkey (or Redis) server as a private child of this process.

It listens on a Unix socket in a folder that only this user may enter, and ends within a second of this process,
however that ends. Without a directory its data are gone with it. With one, the data are kept there (append-only
file), the folder is locked for as long as a server may write to it, and any other process that names the folder
attaches to that server.

    engine = engine_for(None)
    path = engine.ensure()      # blocking; starts it if need be
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gravito.atlas import _engine_folder as folders
from gravito.atlas import _engine_process as process
from gravito.atlas._engine_binary import find_binary
from gravito.atlas._engine_process import Child, Directive
from gravito.errors import EngineError

__all__ = ["Directive", "Engine", "engine_for", "find_binary", "stop_all"]

logger = logging.getLogger("gravito.atlas.embedded")

# Directives that name the files of a kept folder, and what they are unless they are given.
_FILES = {
    "dbfilename": "dump.rdb",
    "appendfilename": "appendonly.aof",
    "appenddirname": "appendonlydir",
}
START_TIMEOUT = 30.0  # seconds; starting takes some 40 ms, reading a large kept folder may take long


class Engine:
    """One embedded server: started, attached to, watched and stopped.

    Thread-safe. After a fork the child attaches to its parent's server for as long as that lives, and never
    stops it.

    Args:
        directory: folder that keeps the data, or None for a private engine whose data go with it.
        directives: further lines of the server's configuration, as `{"maxmemory": "10mb"}`; a sequence gives
            a line with several values. They win over the engine's own.
        port: TCP port to listen on besides the Unix socket; 0 for none.
        host: address to bind the port to.
        binary: the server to run; by default what `find_binary` finds.
        start_timeout: seconds within which the server must answer.
    """

    _mode = ""  # how the binary runs; a sentinel's engine says so here

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        directives: Mapping[str, Directive] | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        binary: str | os.PathLike[str] | None = None,
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        self.directory: Path | None = (
            None if directory is None else _resolved(directory)
        )  # kept data, or None
        self.port = port
        self.host = host
        self._directives = dict(directives or {})
        self._binary = None if binary is None else Path(binary)
        self._timeout = start_timeout
        self._lock = threading.Lock()  # one start or stop at a time
        self._child: Child | None = None  # the server that this process started
        self._path: str | None = None  # the socket in use, our own or another process's; None when stopped
        _engines.add(self)

    @property
    def _password(self) -> str | None:
        """What the default user needs to be answered, by the directives."""
        value = self._directives.get("requirepass")
        return None if value is None else str(value)

    @property
    def path(self) -> str | None:
        """Path of the Unix socket, or None before the first `ensure` and after `stop`."""
        return self._path

    @property
    def owner(self) -> bool:
        """Whether the server is this process's child, rather than another process's."""
        return self._child is not None

    @property
    def running(self) -> bool:
        """Whether a server listens on the socket now."""
        return process.listens(self._path)

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None when it does not run."""
        if self._path is None:
            return None
        try:
            return int(Path(self._path).with_name(process.PIDFILE).read_text())
        except (OSError, ValueError):
            return None

    def ensure(self) -> str:
        """Start the server, or attach to the one that has the folder, unless that is done already.

        Blocking: about 50 ms for a start, microseconds when the server is up.

        Returns:
            The path of its Unix socket.

        Raises:
            EngineError: no binary, a folder that cannot be used, or a server that did not come up; the message
                says what to do.
        """
        with self._lock:
            if self._up():
                assert self._path is not None
                return self._path
            self._mourn()
            self._path = self._start_private() if self.directory is None else self._start_kept(self.directory)
            return self._path

    def stop(self) -> None:
        """Stop the server if this process started it, else only let go of it. May be called at any time."""
        with self._lock:
            child, self._child, self._path = self._child, None, None
            if child is not None:
                child.end()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the server ends, at most `timeout` seconds.

        Returns:
            Its exit status, or None when it still runs or is not this process's own.
        """
        child = self._child
        if child is None:
            return None
        try:
            return child.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def _up(self) -> bool:
        if self._child is not None and not self._child.alive():
            return False
        return process.listens(self._path)

    def _mourn(self) -> None:
        # What was there and is not any more is cleared away, and said if it took data with it.
        if self._path is None:
            return
        if self.directory is None:
            logger.warning("The private engine has ended and its data are lost; starting an empty one.")
        elif not self.directory.exists():
            logger.warning("The folder %s was removed and its data are lost; starting empty.", self.directory)
        else:
            logger.info("The engine of %s has gone; starting it again.", self.directory)
        child, self._child, self._path = self._child, None, None
        if child is not None:
            child.end()

    def _start_private(self) -> str:
        runtime = folders.temporary_folder()
        own: dict[str, Directive] = {"dir": str(runtime), "save": "", "appendonly": "no"}
        return self._start(runtime, own, lock=None, log=runtime / process.LOG)

    def _start_kept(self, directory: Path) -> str:
        control = folders.prepare(directory)
        deadline = time.monotonic() + self._timeout
        while True:
            lock = folders.lock(control / "lock")
            if lock is not None:
                try:
                    return self._own(directory, control, lock)
                finally:
                    process.close(lock)  # the watchdog and the server hold it from here on
            path = self._attach(control, deadline)
            if path is not None:
                return path

    def _own(self, directory: Path, control: Path, lock: int) -> str:
        runtime = control if folders.can_bind(control / process.SOCKET) else folders.temporary_folder()
        record = os.fsencode(runtime / process.SOCKET)
        os.ftruncate(lock, 0)
        os.pwrite(lock, record, 0)
        own: dict[str, Directive] = {
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
        }
        names = [str(self._directives.get(name, usual)) for name, usual in _FILES.items()]
        if self._directives.get("appendonly", "yes") == "yes" and folders.adopt_snapshot(directory, *names):
            logger.info("The engine of %s takes over the snapshot %s.", directory, names[0])
        return self._start(runtime, own, lock=lock, log=control / process.LOG)

    def _start(self, runtime: Path, own: Mapping[str, Directive], *, lock: int | None, log: Path) -> str:
        directives: dict[str, Directive] = {
            "daemonize": "no",
            "port": self.port,
            "bind": self.host,
            "unixsocket": str(runtime / process.SOCKET),
            "unixsocketperm": "700",
            "pidfile": str(runtime / process.PIDFILE),
            "logfile": "",
            **own,
            **self._directives,
        }
        temporary = runtime.name != folders.CONTROL
        try:
            binary = self._binary or find_binary()
            child = process.spawn(
                binary,
                runtime,
                directives,
                temporary=temporary,
                kill=self.directory is None,
                lock=lock,
                log=log,
                mode=self._mode,
            )
        except BaseException as error:
            if temporary:
                shutil.rmtree(runtime, ignore_errors=True)
            if isinstance(error, OSError):
                raise EngineError(f"The engine cannot be started in {runtime}: {error}.") from error
            raise
        self._child, self._path = child, child.socket
        self._await(child, binary, lambda: process.log_tail(child, directives))
        return child.socket

    def _await(self, child: Child, binary: Path, tail: Callable[[], str]) -> None:
        try:
            reply = process.wait_ready(child, self._timeout, self._password)
            if not reply:
                raise process.failure(child, binary, tail(), self._timeout)
            if self.directory is not None and process.cut_short(child):
                logger.warning(
                    "The append-only file in %s was torn at its end: the last command in it was left out. See %s.",
                    self.directory,
                    self.directory / folders.CONTROL / process.LOG,
                )
        except BaseException:
            self._child = self._path = None
            child.end()
            raise
        finally:
            child.forget_log()
        if reply.startswith(b"-LOADING"):
            raise self._loading()  # the server goes on reading, and a later call finds it ready

    def _attach(self, control: Path, deadline: float) -> str | None:
        try:
            path = os.fsdecode((control / "lock").read_bytes())
        except OSError:
            path = ""
        reply = process.answers(path, 1.0, self._password) if path else b""
        if reply and not reply.startswith(b"-LOADING"):
            if self.port:
                raise EngineError(
                    f"{self.directory} is in use by another process's engine, which cannot be given port "
                    f"{self.port}; end that process, or name another folder."
                )
            logger.debug("Attached to the engine on %s.", path)
            return path
        if time.monotonic() >= deadline:
            raise (
                self._loading()
                if reply
                else EngineError(
                    f"{self.directory} is locked by another process whose engine did not answer within "
                    f"{self._timeout:g} seconds; see {control / process.LOG}."
                )
            )
        time.sleep(0.01)  # the owner is starting or ending its server; the lock announces neither
        return None

    def _loading(self) -> EngineError:
        return EngineError(
            f"The engine of {self.directory} was still reading its data after {self._timeout:g} seconds; try again."
        )

    def __enter__(self) -> Self:
        try:
            self.ensure()
        except BaseException:
            self.stop()  # a server that still reads its data was left running
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "private" if self.directory is None else str(self.directory)
        if not self.running:
            return f"<Engine {where}: not running>"
        return f"<Engine {where}: {'owner' if self.owner else 'attached'}, pid {self.pid}, {self._path}>"


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()  # all, for the end of the process and for forks
_shared: dict[Path | None, Engine] = {}  # those of engine_for
_shared_lock = threading.Lock()


def engine_for(directory: str | os.PathLike[str] | None = None) -> Engine:
    """The process's one engine for a directory (None: the private one). Does not start it; thread-safe."""
    key = None if directory is None else _resolved(directory)
    with _shared_lock:
        engine = _shared.get(key)
        if engine is None:
            engine = _shared[key] = Engine(key)
        return engine


def stop_all() -> None:
    """Stop every engine that this process started. Runs by itself at the process's end."""
    engines = list(_engines)
    for engine in engines:
        child = engine._child
        if child is not None:
            child.let_go()  # all at once, so that the waits below overlap
    for engine in engines:
        engine.stop()


atexit.register(stop_all)


def _after_fork_in_child() -> None:
    # The parent's server may be used as long as it lives, but it is not ours; a lock may be held by a thread
    # that does not exist here.
    global _shared_lock
    _shared_lock = threading.Lock()
    for engine in list(_engines):
        engine._lock = threading.Lock()
        engine._child = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _resolved(directory: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(Path(directory).expanduser()))
