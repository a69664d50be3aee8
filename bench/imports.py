"""How long an import takes, in a fresh interpreter each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
STATEMENTS = {  # contender -> what its users write
    # the names, not the package alone: a package that imports lazily would otherwise look free
    "gravito": "from gravito.atlas import DB, Client, Redis",
    "redis-py": "import redis.asyncio",
}
PROGRAM = "import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"


def milliseconds(statement: str) -> float:
    """Import in a fresh interpreter; the interpreter's own start is not counted.

    Raises:
        RuntimeError: the import failed; carries the last line of the complaint.
    """
    command = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    # with the bytecode that an installed package has, also where it was never written
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no complaint").splitlines()[-1])
    return float(done.stdout) * 1000
