"""The jobs of the rows about the queue. Every run writes a line to a file, so that what happened is known whoever died."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from gravito.horizon import job
from gravito.horizon.context import current_job

# of the environment
RUNS = "FAULTS_RUNS"  # the file
SETTINGS = "FAULTS_SETTINGS"  # of the connection, as JSON; no other user sees the password there
LEASE = "FAULTS_LEASE"
HOLD = "FAULTS_HOLD"  # a file without which a worker claims nothing yet
SKEW = "FAULTS_SKEW"  # seconds by which a worker's clock is wrong


class Run(NamedTuple):
    """A line: a run began (`b`) or came to its end (`e`)."""

    what: str
    number: int
    attempt: int
    pid: int
    at: float  # monotonic seconds, the same for all processes of a machine


def told(what: str, number: int, attempt: int = 1) -> None:
    """Write a line. Lines this short are written whole, also by several processes at once."""
    line = f"{what} {number} {attempt} {os.getpid()} {time.monotonic()}\n"
    file = os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Runs:
    """What the file says."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        parts = [line.split() for line in lines]
        self.all = [Run(part[0], int(part[1]), int(part[2]), int(part[3]), float(part[4])) for part in parts]

    def began(self, since: float = 0.0) -> Counter[int]:
        """How often each job began."""
        return Counter(run.number for run in self.all if run.what == "b" and run.at >= since)

    def ended(self) -> Counter[int]:
        """How often each job came to its end."""
        return Counter(run.number for run in self.all if run.what == "e")

    def attempts(self) -> int:
        """The highest attempt."""
        return max((run.attempt for run in self.all), default=0)


@job(name="faults.sleep", queue="faults", results=False)
async def sleep(number: int, seconds: float = 0.0) -> None:
    """Take some time."""
    told("b", number, current_job().attempt)
    if seconds:
        await asyncio.sleep(seconds)
    told("e", number, current_job().attempt)


@job(name="faults.thread", queue="faults", results=False)
def thread(number: int, seconds: float) -> None:
    """Take some time in a thread."""
    told("b", number)
    time.sleep(seconds)
    told("e", number)


@job(name="faults.process", queue="faults", results=False, cpu=True)
def process(number: int, seconds: float) -> None:
    """Take some time in a process."""
    told("b", number)
    time.sleep(seconds)
    told("e", number)


@job(name="faults.stubborn", queue="faults", results=False, timeout=0.5, retries=0)
async def stubborn(number: int) -> None:
    """Run until it is stopped."""
    told("b", number)
    try:
        await asyncio.sleep(3600)
    finally:
        told("e", number)


@job(name="faults.spin", queue="faults", results=False, cpu=True, timeout=3.0, retries=0)
def spin(number: int) -> None:
    """Run in a process until that is killed."""
    told("b", number)
    time.sleep(3600)


@job(name="faults.held", queue="faults", results=False, timeout=0.5, retries=0)
def held(number: int, seconds: float) -> None:
    """Outlive its time in a thread."""
    told("b", number)
    time.sleep(seconds)
    told("e", number)


@job(name="faults.die", queue="faults", results=False)
async def die(number: int) -> None:
    """Take the worker's process along."""
    told("b", number)
    os.kill(os.getpid(), signal.SIGKILL)


@job(name="faults.odd", queue="faults", retries=0)
async def odd(number: int) -> object:
    """Return what cannot be encoded."""
    told("b", number)
    return object()


@job(name="faults.one", queue="faults", results=False, unique=lambda number, producer: number)
async def one(number: int, producer: int) -> None:
    """One of it at a time."""
    told("b", number)


@job(name="faults.tenant", queue="faults", results=False, fair_by=lambda tenant, number: tenant)
async def tenant(tenant: str, number: int) -> None:
    """One of many of its tenant."""
    told(tenant, number)
    await asyncio.sleep(0.001)
