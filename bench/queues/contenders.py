"""The queues that are compared, and how their programs are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import OURS

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
NODE = Path(__file__).parent / "node"
# `make bench` makes these: peers have an environment of their own, and arq, which wants an older redis-py, another one
PEER = ROOT / ".venv-queues" / "bin" / "python"
ARQ = ROOT / ".venv-arq" / "bin" / "python"
BULLMQ = "bullmq"


@dataclass(frozen=True)
class Queue:
    """One of them."""

    name: str
    line: tuple[str, ...]  # the program without its role
    noops: int  # jobs that take it a second or two


# how many no-op jobs it is given
_NOOPS = {
    OURS: 60_000,
    "saq": 4_000,
    "arq": 3_000,
    "taskiq": 4_000,
    "streaq": 3_000,
    "dramatiq": 4_000,
    "huey": 12_000,
    "celery": 2_000,
    "rq": 200,
    BULLMQ: 20_000,
}
NAMES = tuple(_NOOPS)


def find(
    python: str = str(PEER), arq: str = str(ARQ), modules: Path = NODE / "node_modules"
) -> tuple[list[Queue], dict[str, str]]:
    """The queues that can be run, and why others cannot.

    Args:
        python: an interpreter that has the peers; ours runs by the present one.
        arq: one that has arq.
        modules: a folder with bullmq and ioredis.
    """
    queues: list[Queue] = []
    left_out: dict[str, str] = {}
    for name, noops in _NOOPS.items():
        if name == BULLMQ:
            node = shutil.which("node")
            if node is None or not (modules / "bullmq").is_dir():
                left_out[name] = "left out: it needs node and npm"
                continue
            queues.append(Queue(name, (node, str(_beside(modules))), noops))
            continue
        # not resolved: an environment's interpreter is a link, and its place tells which one it is
        interpreter = str(Path({OURS: sys.executable, "arq": arq}.get(name, python)).absolute())
        program = PEERS / f"with_{name}.py"
        if why := _unusable(interpreter, name):
            left_out[name] = f"left out: {why}"
        else:
            queues.append(Queue(name, (interpreter, str(program)), noops))
    return queues, left_out


def _beside(modules: Path) -> Path:
    """The program where node finds its packages: it looks from the file's folder upwards."""
    program = NODE / "with_bullmq.mjs"
    if modules.parent == NODE:
        return program
    copy = modules.parent / program.name
    copy.write_bytes(program.read_bytes())
    return copy


def _unusable(interpreter: str, name: str) -> str | None:
    module = "gravito.horizon" if name == OURS else name
    try:
        done = subprocess.run(
            [interpreter, "-c", f"import {module}"], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError as error:
        return f"{interpreter}: {error.strerror}"
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def environment(host: str, port: int, tally: Path, *, results: bool, sleeps: bool) -> dict[str, str]:
    """What the programs are told."""
    return {
        **os.environ,
        "BENCH_HOST": host,
        "BENCH_PORT": str(port),
        "BENCH_TALLY": str(tally),
        "BENCH_RESULTS": "1" if results else "0",
        "BENCH_SLEEPS": "1" if sleeps else "0",
        # programs that start others by name find themselves
        "PYTHONPATH": os.pathsep.join([str(PEERS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
