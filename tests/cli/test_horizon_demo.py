"""`gravito horizon demo` run as a program: every job is accounted for, and nothing stays behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from tests.cli.test_demo import RUN, environment

from gravito.atlas import Client
from gravito.cli._horizon_demo import Outcome, _tally, report
from gravito.horizon import Horizon
from gravito.horizon.repository import Repository
from gravito.testing import gravito_engine, gravito_protocol, redis

__all__ = ["gravito_engine", "gravito_protocol", "redis"]


def numbers(output: str) -> dict[str, int]:
    """The tally."""
    lines = output.partition("Every job was looked at")[2].splitlines()[1:]
    found = [re.match(r"  (\w+) +([\d,]+)", line) for line in lines]
    return {one[1]: int(one[2].replace(",", "")) for one in found if one is not None}


def workers_of(folder: Path) -> list[int]:
    """Processes that were started with this temporary folder and still run."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                pass
    return found


def test_no_job_is_lost_though_a_worker_is_killed(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "horizon", "demo", "--jobs", "3000", "--processes", "2"],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(folder), REDIS_URL="redis://127.0.0.1:1"),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "escape codes where no terminal is"
    assert "was killed (-9) in the middle of its jobs" in done.stdout
    tally = numbers(done.stdout)
    assert (tally["pushed"], tally["done"], tally["dead"], tally["lost"]) == (3000, 2940, 60, 0)
    assert tally["retried"] >= 60
    assert tally["returned"] > 0
    assert workers_of(folder) == []


def test_a_terminal_gets_a_live_view(folder: Path) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", RUN, "horizon", "demo", "--jobs", "500", "--processes", "1"],
        stdout=theirs,
        stderr=theirs,
        env=environment(TMPDIR=str(folder), TERM="xterm"),
        start_new_session=True,
    )
    os.close(theirs)
    seen = bytearray()
    try:
        while True:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the program has ended
                break
        assert program.wait(timeout=60) == 0
    finally:
        program.kill()
        os.close(ours)
    text = seen.decode()
    assert "\x1b[" in text
    for part in ("pushed", "ended", "running", "500/500", "1 worker processes", "Every job was looked at"):
        assert part in text


def test_control_c_ends_it_and_its_workers(folder: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", RUN, "horizon", "demo", "--jobs", "50000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(folder), PYTHONUNBUFFERED="1"),
        start_new_session=True,
    )
    try:
        assert program.stdout is not None
        for line in program.stdout:
            if " ended, " in line:  # the workers run
                break
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 130
    assert output.endswith("Stopped.\n")
    assert errors == ""
    assert workers_of(folder) == []


async def test_a_job_that_is_gone_counts_as_lost(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job
        async def work() -> None: ...

        handles = await horizon.push_many(work.make() for _ in range(3))
        await horizon.work()
        await redis.hdel("horizon:{default}:results", handles[1].id)
        outcome = await _tally(horizon, Repository(horizon), [("default", handle.id) for handle in handles])
    assert (outcome.pushed, outcome.done, outcome.lost) == (3, 2, 1)
    screen = StringIO()
    assert report(outcome, Console(file=screen), 1.0) == 1
    assert re.search(r"lost +1", screen.getvalue())
    assert (
        report(Outcome(pushed=3, done=3, retried=0, dead=0, returned=0, lost=0), Console(file=screen), 1.0)
        == 0
    )
