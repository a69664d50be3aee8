"""What `gravito horizon work` does: this process becomes a worker, or supervises several."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import typer

from gravito.errors import ConfigurationError
from gravito.horizon import Horizon
from gravito.horizon._balance import Load
from gravito.horizon._load import load_of
from gravito.horizon._logs import log_lines
from gravito.horizon.process import Work
from gravito.horizon.supervisor import MISCONFIGURED, Supervisor

__all__ = ["become_worker", "run_supervisor"]

_LOOK = 0.5  # seconds between two looks at the files


def become_worker(work: Work) -> NoReturn:
    """Work in this process, which is from now on a worker and nothing else: see `gravito.horizon.process`."""
    sys.stdout.flush()
    command = work.command()
    os.execv(command[0], command)  # noqa: S606  # the interpreter that runs this


def run_supervisor(horizon: Horizon, work: Work, processes: int, *, balance: bool, reload: bool) -> None:
    """Run several workers until told to stop."""
    log_lines()
    try:
        asyncio.run(_supervise(horizon, work, processes, balance=balance, reload=reload))
    except ConfigurationError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(MISCONFIGURED) from None


async def _supervise(horizon: Horizon, work: Work, processes: int, *, balance: bool, reload: bool) -> None:
    async def loads() -> Mapping[str, Load]:
        return {queue: await load_of(horizon.broker(queue)) for queue in work.queues}

    supervisor = Supervisor(
        lambda queues: msgspec.structs.replace(work, queues=tuple(queues), supervisor=os.getpid()).command(),
        work.queues,
        processes,
        grace=work.grace,
        loads=loads if balance else None,
        until_done=work.burst,
    )
    supervisor.patient = reload
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    typer.echo(f"Supervising {processes} processes on {', '.join(work.queues)}; stop with Ctrl-C.")
    watcher = asyncio.create_task(_watch(supervisor)) if reload else None
    try:
        await supervisor.run()
    finally:
        if watcher is not None:
            watcher.cancel()
        await horizon.aclose()
        await horizon.client.aclose()
    typer.echo("Stopped.")


async def _watch(supervisor: Supervisor) -> None:
    """Replace the workers whenever a Python file below the present folder has changed."""
    before = await asyncio.to_thread(_stamps)
    while True:
        await asyncio.sleep(_LOOK)
        after = await asyncio.to_thread(_stamps)
        if after != before:
            changed = sorted(str(path) for path, _ in after.items() ^ before.items())
            typer.echo(f"{changed[0]} has changed; restarting.")
            before = after
            await supervisor.restart()


def _stamps() -> dict[Path, int]:
    stamps, here = {}, Path.cwd()
    for path in here.rglob("*.py"):
        if not any(part.startswith(".") for part in path.relative_to(here).parts):
            with suppress(OSError):
                stamps[path] = path.stat().st_mtime_ns
    return stamps
