"""How long an import takes, in a fresh interpreter each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {"gravito": "gravito.atlas", "redis-py": "redis.asyncio"}  # contender -> what its users import
PROGRAM = "import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"


def milliseconds(module: str) -> float:
    """Import a module in a fresh interpreter; the interpreter's own start is not counted.

    Raises:
        RuntimeError: the import failed; carries the last line of the complaint.
    """
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no complaint").splitlines()[-1])
    return float(done.stdout) * 1000
