"""The folders of the embedded engine: kept ones, their lock, and the temporary ones."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from gravito.atlas._engine_process import SOCKET, close, guarded
from gravito.errors import EngineError

__all__ = ["CONTROL", "adopt_snapshot", "can_bind", "lock", "prepare", "temporary_folder"]

CONTROL = ".gravito"  # folder in a kept folder: lock, socket, configuration, log
PATH_LIMIT = 103  # bytes of a socket's path; macOS takes 103, Linux 107


def prepare(directory: Path) -> Path:
    """Make the folder, if need be, and the control folder in it, which it returns."""
    control = directory / CONTROL
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        control.mkdir(mode=0o700, exist_ok=True)
        control.chmod(0o700)
    except (FileExistsError, NotADirectoryError) as error:
        raise EngineError(f"The engine's folder {directory} is not a folder: {error}.") from error
    except OSError as error:
        raise EngineError(
            f"The engine's folder {directory} cannot be used: {error}. It must be writable and this user's own."
        ) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise EngineError(f"The engine's folder {directory} is not writable.")
    return control


def lock(path: Path) -> int | None:
    """Lock the file: its descriptor, or None when another server holds it.

    The kernel lets go of the lock when its last holder ends, so a lock is never stale.
    """
    import fcntl  # noqa: PLC0415  # not there on Windows, where find_binary says so

    try:
        descriptor = guarded(
            lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        )
    except OSError as error:
        raise EngineError(f"The engine's lock {path} cannot be opened: {error}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        close(descriptor)
        return None
    except OSError as error:
        close(descriptor)
        raise EngineError(
            f"The file system of {path} has no locks: {error}. Choose a local folder."
        ) from error
    return descriptor


def can_bind(path: Path) -> bool:
    """Whether a socket may be made there: the path is short enough and the file system takes sockets."""
    if len(os.fsencode(path)) > PATH_LIMIT:
        return False
    with suppress(FileNotFoundError):
        path.unlink()  # a stale one: the lock is ours
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


def adopt_snapshot(directory: Path, snapshot: str, log: str, log_folder: str) -> bool:
    """Let a folder that holds a snapshot alone (a `dump.rdb`, by SAVE or copied there) be read at the start.

    A server that keeps an append-only file reads that and nothing else, and would start empty. A copy of the
    snapshot under the log's name is a log that begins with a snapshot: every server since Redis 4 reads it, and
    those with a folder of logs move it there.

    Args:
        directory: the kept folder, locked.
        snapshot: directive `dbfilename`.
        log: directive `appendfilename`.
        log_folder: directive `appenddirname`.

    Returns:
        Whether there was a snapshot to adopt.
    """
    source, target = directory / snapshot, directory / log
    if not source.is_file() or target.exists() or (directory / log_folder).exists():
        return False
    half = target.with_name(f"{log}.half")
    try:
        shutil.copyfile(source, half)
        with half.open("rb") as file:
            os.fsync(file.fileno())
        half.rename(target)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise EngineError(
            f"The snapshot {source} cannot be copied, which is needed once to keep its data: {error}."
        ) from error
    return True


def temporary_folder() -> Path:
    # A long TMPDIR leaves no room for the socket's name.
    for parent in (None, "/tmp"):  # noqa: S108  # mkdtemp makes a new folder that is this user's alone
        try:
            folder = Path(tempfile.mkdtemp(prefix="gravito-", dir=parent))
        except OSError as error:
            raise EngineError(f"No temporary folder for the engine's socket: {error}.") from error
        if len(os.fsencode(folder / SOCKET)) <= PATH_LIMIT:
            return folder
        folder.rmdir()
    raise EngineError("The path of the temporary folder is too long for a socket.")
