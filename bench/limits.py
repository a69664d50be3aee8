"""The server's own benchmark, where it is installed: what one connection can get out of the engine from C."""

from __future__ import annotations

import asyncio
import csv
import shutil
import subprocess
from collections.abc import Mapping

from bench.work import KEYS, VALUE, Address
from gravito.cli.measure import Timing, Work

NAME = "redis-benchmark"
PROGRAMS = ("redis-benchmark", "valkey-benchmark")
COMMANDS: Mapping[str, tuple[str, ...]] = {  # row -> the same command on the same key
    "get50": ("GET", KEYS[0]),
    "get500": ("GET", KEYS[0]),
    "set500": ("SET", KEYS[0], VALUE),
    "pipeline100": ("GET", KEYS[0]),
}
NOTE = (
    "redis-benchmark -c 1 -P 100: one connection, 100 commands per write, requests per second as it prints them;"
    " it counts replies without making values of them"
)


def find() -> str | None:
    """Return the program's path, or None where it is not installed."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def works(row: str, program: str, address: Address) -> dict[str, Work]:
    """The limit's work for a row; empty where it has none to compare."""
    command = COMMANDS.get(row)
    if command is None:
        return {}
    host, port = address
    fixed = [program, "-h", host, "-p", str(port), "-c", "1", "-P", "100", "--csv"]

    async def work(count: int) -> Timing:
        printed = await asyncio.to_thread(_run, [*fixed, "-n", str(count), *command])
        return Timing(count, count / _requests_per_second(printed))

    return {NAME: work}


def _run(command: list[str]) -> str:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        printed, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(complaint.strip() or f"{command[0]} ended with code {process.returncode}")
    return printed


def _requests_per_second(printed: str) -> float:
    rows = [row for row in csv.reader(printed.splitlines()) if row]
    column = rows[0].index("rps") if "rps" in rows[0] else 1
    return float(rows[-1][column])
