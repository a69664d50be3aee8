"""What the demonstrations have in common."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The temporary folder of the program, which must be empty again afterwards."""
    folder = Path("/tmp") / f"gd-{os.getpid()}-{tmp_path.name[-8:]}"  # short: a socket's path has a limit
    folder.mkdir()
    yield folder
    left = list(folder.iterdir())
    for path in left:
        subprocess.run(["rm", "-rf", str(path)], check=True)
    folder.rmdir()
    assert left == []
