"""The embedded engine's child process: its configuration, its watchdog, and the signs of life.

The child of this process is a small shell script, the watchdog, and the server is the watchdog's child. The
watchdog's standard input is a pipe, the lifeline, whose other end only this process holds: however this process
ends, the kernel closes it, and the watchdog ends the server and removes what it left. PR_SET_PDEATHSIG would
follow the thread that started the server, not the process, and exists on Linux alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gravito.atlas._engine_binary import INSTALL_HINT
from gravito.errors import EngineError

__all__ = [
    "Child",
    "Directive",
    "answers",
    "close",
    "cut_short",
    "failure",
    "guarded",
    "listens",
    "log_tail",
    "render",
    "spawn",
    "wait_ready",
]

Directive = (
    str | int | Sequence[str | int]
)  # the value or the values of one line of the server's configuration
Opened = TypeVar("Opened", bound=int | tuple[int, int])

CONFIG, SOCKET, PIDFILE, LOG = "engine.conf", "engine.sock", "engine.pid", "engine.log"
LOG_LIMIT = 1 << 20  # bytes; a kept folder's log that is larger is begun anew at the next start
STOP_WITHIN = 2.0  # seconds the watchdog gets to end a server before this process does it by force
SECRETS = frozenset({"requirepass", "masterauth", "primaryauth", "user", "tls-key-file-pass"})

# Arguments: $1 binary, $2 runtime folder, $3 signal that ends the server, $4 "all" to remove the whole folder,
# $5 a further argument of the server, or nothing.
# Standard input is the lifeline; standard output the lock (or /dev/null), kept open by the server so that a
# folder is locked for exactly as long as a server may write to it; standard error the log.
# Two processes guard: the main shell waits for the server's end, the subshell for the lifeline's. The main shell
# cleans up, while it still holds the lock: a later owner's socket has the same name. The subshell does it only
# when somebody killed the main shell.
# The traps come after the server's start because it would inherit them.
WATCHDOG = r"""
PATH=/usr/bin:/bin:/usr/sbin:/sbin
umask 077
exec 3<&0 4>&1 1>&2
clean() {
    if [ "$3" = all ]; then rm -rf "$2"; else rm -f "$2/engine.sock" "$2/engine.conf" "$2/engine.pid"; fi
}
"$1" "$2/engine.conf" ${5:+"$5"} </dev/null 3<&- &
server=$!
trap '' TERM INT HUP
(
    read -r _
    kill -"$3" "$server" 2>/dev/null
    n=0
    while [ "$n" -lt 14 ] && kill -0 "$server" 2>/dev/null; do sleep 0.05; n=$((n + 1)); done
    kill -KILL "$server" 2>/dev/null
    kill -0 $$ 2>/dev/null || clean "$1" "$2" "$4"
) <&3 3<&- 4>&- &
guard=$!
wait "$server"
status=$?
kill -KILL "$guard" 2>/dev/null
clean "$1" "$2" "$4"
exit "$status"
"""


@dataclass(eq=False)
class Child:
    """A watchdog and its server, started by this process."""

    process: subprocess.Popen[bytes]  # the watchdog; ends as soon as its server does
    lifeline: int  # write end of the watchdog's standard input; -1 once closed
    runtime: Path  # folder of socket, configuration and pid file
    temporary: bool  # the runtime folder goes with the server
    log: int  # the log, readable even when the folder has gone; -1 once closed
    log_start: int  # bytes that the log had before

    @property
    def socket(self) -> str:
        """Path of the server's Unix socket."""
        return str(self.runtime / SOCKET)

    def alive(self) -> bool:
        """Whether the watchdog, and so the server, has not ended."""
        return self.process.poll() is None

    def forget_log(self) -> None:
        """Close the log, which only a failing start needs."""
        if self.log >= 0:
            os.close(self.log)
            self.log = -1

    def let_go(self) -> None:
        """Close the lifeline: the watchdog ends the server. Does not wait."""
        lifeline, self.lifeline = self.lifeline, -1
        _children.discard(self)
        if lifeline >= 0:
            close(lifeline)

    def end(self) -> None:
        """End the server and wait until it, its socket and a private folder are gone."""
        self.let_go()
        self.forget_log()
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._force()
        # A watchdog that was killed itself leaves its server behind, in the process group that it led.
        if self.process.returncode < 0 or listens(self.socket):
            self._force()
        if self.temporary:
            shutil.rmtree(self.runtime, ignore_errors=True)

    def _force(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


# Descriptors that a forked child must not keep: a lifeline would keep a server alive after its owner's death, a
# lock would keep a folder locked. (Programs that are executed don't get them: they are close-on-exec.) The lock
# stands between opening one and noting it, so that no fork comes in between; it is never held while a process is
# started, because that may run the fork hooks.
_guarded: set[int] = set()
_fork_lock = threading.Lock()
_children: set[Child] = set()  # whose lifeline is open


def guarded(opener: Callable[[], Opened]) -> Opened:
    """Open one descriptor, or several, that no forked child shall inherit; `close` closes it."""
    with _fork_lock:
        opened = opener()
        _guarded.update([opened] if isinstance(opened, int) else opened)
    return opened


def close(descriptor: int) -> None:
    """Close a descriptor that `guarded` opened."""
    with _fork_lock:
        _guarded.discard(descriptor)
        os.close(descriptor)


def _after_fork_in_child() -> None:
    for descriptor in _guarded:
        os.close(descriptor)
    _guarded.clear()
    for child in _children:
        child.lifeline = -1
        child.process.returncode = 0  # it is the parent's to wait for; no warning about it here
    _children.clear()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_after_fork_in_child
    )


def render(directives: Mapping[str, Directive]) -> str:
    """The text of a configuration file: one directive a line, every value quoted.

    Raises:
        EngineError: a directive's name is not one.
    """
    lines = []
    for name, value in directives.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise EngineError(
                f"{name!r} is not the name of a server directive: lower-case letters, digits and '-'."
            )
        values = [value] if isinstance(value, str | int) else list(value)
        lines.append(" ".join([name, *(_quoted(str(each)) for each in values)]))
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    # The server reads double quotes with C-like escapes. Bytes that are not plain ASCII go as \xHH.
    return '"' + "".join(_escaped(byte) for byte in os.fsencode(value)) + '"'


def _escaped(byte: int) -> str:
    char = chr(byte)
    if char in '"\\':
        return "\\" + char
    return char if 32 <= byte < 127 else f"\\x{byte:02x}"


def spawn(
    binary: Path,
    runtime: Path,
    directives: Mapping[str, Directive],
    *,
    temporary: bool,
    kill: bool,
    lock: int | None,
    log: Path,
    mode: str = "",
) -> Child:
    """Start a server under a watchdog. Does not wait until it answers: see `answers`.

    Args:
        binary: the server.
        runtime: an existing folder (mode 0700) for the configuration, the socket and the pid file.
        directives: the server's configuration.
        temporary: the whole runtime folder is removed at the end, not only what the server put there.
        kill: at the end the server is killed, rather than asked and given a moment to write its data.
        lock: a locked file descriptor that the server shall keep open, or None.
        log: the file that gets the server's output.
        mode: "--sentinel", or nothing for a server of data.
    """
    _write_config(runtime / CONFIG, render(directives))
    output = _open_log(log)
    read_end, lifeline = guarded(os.pipe)
    try:
        log_start = os.fstat(output).st_size
        process = subprocess.Popen(
            [
                *("/bin/sh", "-c", WATCHDOG, "gravito-engine", str(binary), str(runtime)),
                *("KILL" if kill else "TERM", "all" if temporary else "files", mode),
            ],
            stdin=read_end,
            stdout=subprocess.DEVNULL if lock is None else lock,
            stderr=output,
            cwd="/",  # the application's folder stays free to be moved or unmounted
            env=_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the application's; the engine ends after it
        )
    except BaseException:
        close(lifeline)
        os.close(output)
        raise
    finally:
        close(read_end)
    child = Child(process, lifeline, runtime, temporary, output, log_start)
    _children.add(child)
    return child


def cut_short(child: Child) -> bool:
    """Whether the server said at its start that it left out the torn end of its append-only file."""
    size = os.fstat(child.log).st_size
    return b"aof-load-truncated" in os.pread(child.log, size - child.log_start, child.log_start)


def _write_config(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _open_log(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(descriptor).st_size > LOG_LIMIT:
        os.ftruncate(descriptor, 0)
    return descriptor


def _environment() -> dict[str, str]:
    # The application's environment often holds secrets that a server has no use for.
    wanted = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def listens(path: str | None) -> bool:
    """Whether a server listens on the Unix socket. Costs some ten microseconds and does not wait."""
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # the queue of new connections is full: there is a server, and it is busy
        except OSError:
            return False
        return True


def answers(path: str, timeout: float, password: str | None = None) -> bytes:
    """The first line of the server's reply to PING, or b"" when nobody answers within `timeout` seconds.

    Without its password a server refuses PING in the same words, whether it has read its data or not.
    """
    asked = b"PING\r\n"
    if password:
        secret = os.fsencode(password)
        asked = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n%s" % (len(secret), secret, asked)
    wanted = 2 if password else 1
    reply = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(max(timeout, 0.001))
        try:
            probe.connect(path)
            probe.sendall(asked)
            while reply.count(b"\r\n") < wanted:
                piece = probe.recv(4096)
                if not piece:
                    return b""
                reply += piece
        except OSError:
            return b""
    return reply.split(b"\r\n")[wanted - 1]


def wait_ready(child: Child, timeout: float, password: str | None = None) -> bytes:
    """Wait until the child's server answers PING with anything but LOADING.

    Returns:
        Its answer: b"" when it ended or did not answer within `timeout` seconds, b"-LOADING ..." when it was
        still reading its data by then.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    last = b""
    while True:
        alive = (
            child.alive()
        )  # asked first: a server that ended after a good answer is the next call's matter
        reply = answers(child.socket, min(1.0, timeout), password)
        if reply and not reply.startswith(b"-LOADING"):
            return reply
        last = reply or last  # while it reads its data the server answers only now and then
        if not alive:
            return b""
        if time.monotonic() >= deadline:
            return last
        time.sleep(pause)  # the server announces its readiness nowhere but on the socket
        pause = min(pause * 1.5, 0.02)


def failure(child: Child, binary: Path, log: str, timeout: float) -> EngineError:
    """The error for a server that did not come up, with what it last said."""
    status = child.process.poll()
    said = f" It said:\n{log}" if log else ""
    if status in (126, 127) or status == 128 + signal.SIGILL:
        return EngineError(
            f"The engine's binary {binary} cannot be run on this machine. {INSTALL_HINT}{said}"
        )
    if status is None:
        return EngineError(f"The engine {binary} did not answer within {timeout:g} seconds.{said}")
    return EngineError(f"The engine {binary} ended at its start with status {status}.{said}")


def log_tail(child: Child, directives: Mapping[str, Directive]) -> str:
    """The last lines of the child's log, without the secrets among its directives."""
    size = os.fstat(child.log).st_size
    start = max(child.log_start, size - 2000)
    text = os.pread(child.log, size - start, start).decode("utf-8", "replace")
    # The server quotes the line of its configuration that it did not understand.
    for name in SECRETS & directives.keys():
        value = directives[name]
        for secret in [value] if isinstance(value, str | int) else value:
            text = text.replace(str(secret), "***")
        text = re.sub(rf"(?m)^(.*\b{name}\b).*$", r"\1 ***", text)
    return "\n".join(text.strip().splitlines()[-6:])
