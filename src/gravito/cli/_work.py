"""What `gravito horizon work` does: one worker in this process, or several under a supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import typer

from gravito.errors import GravitoError
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon._balance import Load
from gravito.horizon._load import load_of
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.supervisor import RECYCLE, RETIRED, Supervisor, worker_command

__all__ = ["Work", "run_supervisor", "run_worker"]

_LOOK = 0.5  # seconds between two looks at the files


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The command's options."""

    target: str
    queues: tuple[str, ...]
    concurrency: int
    grace: float
    burst: bool
    schedules: bool
    max_jobs: int | None
    max_memory: int | None
    supervised: bool

    def options(self) -> WorkerOptions:
        """As the worker takes them."""
        return WorkerOptions(
            queues=self.queues,
            concurrency=self.concurrency,
            grace=self.grace,
            burst=self.burst,
            max_jobs=self.max_jobs,
            max_memory=self.max_memory,
        )

    def arguments(self) -> list[str]:
        """As a process of the supervisor gets them; the queues go apart."""
        given = ["--supervised", "--concurrency", str(self.concurrency), "--grace", str(self.grace)]
        given += ["--burst"] if self.burst else []
        given += [] if self.schedules else ["--no-schedules"]
        given += [] if self.max_jobs is None else ["--max-jobs", str(self.max_jobs)]
        given += [] if self.max_memory is None else ["--max-memory", str(self.max_memory)]
        return given


def run_worker(horizon: Horizon, work: Work) -> int:
    """Work in this process until it is told to stop.

    Returns:
        The exit status.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        status = asyncio.run(_work(horizon, work))
    except* GravitoError as errors:
        for error in errors.exceptions:
            typer.echo(f"Error: {error}", err=True)
        status = 1
    if any(thread.name.startswith("gravito-job") for thread in threading.enumerate()):
        logging.getLogger("gravito.horizon").warning(
            "jobs in threads did not end; the process ends without them"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


async def _work(horizon: Horizon, work: Work) -> int:
    worker = Worker(horizon, work.options())
    scheduler = Scheduler(horizon) if work.schedules and horizon.schedules and not work.burst else None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    typer.echo(f"Working on {', '.join(work.queues)} as {worker.id}; stop with Ctrl-C.")
    helpers = [asyncio.create_task(scheduler.run())] if scheduler is not None else []
    if work.supervised:
        helpers.append(asyncio.create_task(_end_with_parent(worker)))
    try:
        tally = await worker.run()
    finally:
        if scheduler is not None:
            scheduler.stop()
        for task in helpers[1 if scheduler is not None else 0 :]:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await horizon.aclose()
        await horizon.client.aclose()
    typer.echo(
        f"Stopped: {tally.done} done, {tally.retried} to be retried, {tally.dead} dead, "
        f"{tally.cancelled} cancelled, {tally.released} released."
    )
    if work.supervised and worker.retired:
        return RETIRED
    return RECYCLE if worker.recycle else 0


async def _end_with_parent(worker: Worker) -> None:
    """A supervisor that was killed leaves nobody to tell this process to stop."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(1)
    worker.stop()


def run_supervisor(horizon: Horizon, work: Work, processes: int, *, balance: bool, reload: bool) -> None:
    """Run several workers until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_supervise(horizon, work, processes, balance=balance, reload=reload))


async def _supervise(horizon: Horizon, work: Work, processes: int, *, balance: bool, reload: bool) -> None:
    async def loads() -> Mapping[str, Load]:
        return {queue: await load_of(horizon.broker(queue)) for queue in work.queues}

    supervisor = Supervisor(
        worker_command(work.target, work.arguments()),
        work.queues,
        processes,
        grace=work.grace,
        loads=loads if balance else None,
        until_done=work.burst,
    )
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
