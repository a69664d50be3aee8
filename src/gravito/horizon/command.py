"""A program as a job: what `schedule(...).command(...)` runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from contextlib import suppress
from typing import Any, Final

from gravito.errors import HorizonError
from gravito.horizon.job import job

__all__ = ["run_command"]

_TAIL: Final = 16 * 1024  # bytes of a program's output that are kept


@job(name="gravito.command", retries=0, timeout=None)
async def run_command(argv: list[str]) -> dict[str, Any]:
    """Run a program to its end, in a process group of its own; no shell.

    Args:
        argv: the program and its arguments.

    Returns:
        `status`, always 0, and `output`: the last 16 KiB of what it wrote, errors included.

    Raises:
        HorizonError: it cannot be started, or ended with another status; with the end of its output.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HorizonError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        output = await _tail(process)
        status = await process.wait()
    finally:  # cancelled, or out of time: what it started ends with it
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    text = output.decode(errors="replace")
    if status != 0:
        raise HorizonError(f"{shlex.join(argv)} ended with status {status}: {text[-2000:].strip()}")
    return {"status": status, "output": text}


async def _tail(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    kept = b""
    while part := await process.stdout.read(_TAIL):
        kept = (kept + part)[-_TAIL:]
    return kept
