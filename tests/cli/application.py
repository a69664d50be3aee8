"""An application in a folder of its own, and the terminal's processes on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

APPLICATION = """
import logging, os, time
from pathlib import Path
from gravito.horizon import Horizon, job

horizon = Horizon()
here = Path(__file__).parent

@job(retries=0)
def note(text: str = "") -> None:
    with (here / "notes").open("a") as file:
        file.write(f"{os.getpid()} {text}\\n")

@job
def slow(text: str) -> None:
    note(f"begin {text}")
    time.sleep(1.0)
    note(f"end {text}")

@job(retries=0, tags=["broken"])
def fail(text: str) -> None:
    raise LookupError(f"no [bold]{text}\x1b[31m")

@job(retries=0)
def tell(text: str) -> None:
    try:
        fail.function(text)
    except LookupError:
        logging.getLogger("app").exception("it says %s", text)
    raise LookupError(text)

horizon.schedule("often", note.make("fired")).every_second()
horizon.schedule("yearly", note).yearly().description("once in a while")
horizon.schedule("odd[/]name", note).yearly().description("[bold]swept\x1b[31m " + "more and " * 12 + "more")
"""
PUSH = """
import asyncio, sys
from app import fail, horizon, note, slow, tell

async def main():
    for text in sys.argv[2:]:
        await {"note": note, "slow": slow, "fail": fail, "tell": tell}[sys.argv[1]].push(text)
    await horizon.aclose()
    await horizon.client.aclose()

asyncio.run(main())
"""


class Application:
    """An application's folder, and processes on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        # the folder's engine serves all its processes, and ends with the last one
        self.environ = {**os.environ, "REDIS_URL": f"embedded://{folder / 'data'}", "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[str]] = []
        (folder / "app.py").write_text(APPLICATION)
        (folder / "push.py").write_text(PUSH)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """`gravito` in the background."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gravito.cli", *args],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *args: str, status: int = 0) -> str:
        """`gravito` to its end."""
        process = self.start(*args)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        return output

    def push(self, job: str, *texts: str) -> None:
        """Queue a job for each text."""
        subprocess.run(
            [sys.executable, "push.py", job, *texts],
            cwd=self.folder,
            env=self.environ,
            check=True,
            timeout=60,
        )

    def lines(self) -> list[str]:
        """What the jobs have noted, with the process ids before."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def texts(self) -> list[str]:
        """The same without them."""
        return [line.partition(" ")[2] for line in self.lines()]

    def wait(self, condition: Callable[[], object]) -> None:
        """Until it holds."""
        end = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < end, self.lines()
            time.sleep(0.05)

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout is not None:
                process.stdout.close()


def stop(process: subprocess.Popen[str]) -> str:
    """SIGTERM, and what it said to the end."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    return output
