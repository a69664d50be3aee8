"""A worker process: what `gravito horizon work` becomes, and what a supervisor starts.

It has no part of the terminal in it, which would cost each worker some megabytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec

from gravito.errors import ConfigurationError, GravitoError, InjectionError
from gravito.horizon._logs import log_lines
from gravito.horizon.horizon import Horizon
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.supervisor import MISCONFIGURED, RECYCLE, RETIRED
from gravito.horizon.worker import Worker, WorkerOptions

__all__ = ["Work", "run_worker"]

_log = logging.getLogger("gravito.horizon")


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker process works.

    Args:
        target: where the application's Horizon is, as app:horizon.
        schedules: fire the application's schedules, too.
        supervisor: process id of the parent, with which it ends; None: nobody minds it.
        ...: the others as in `WorkerOptions`.
    """

    target: str
    queues: tuple[str, ...]
    concurrency: int = 100
    grace: float = 30.0
    burst: bool = False
    schedules: bool = True
    max_jobs: int | None = None
    max_memory: int | None = None
    supervisor: int | None = None

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

    def command(self) -> list[str]:
        """The command line of a process that works so."""
        return [sys.executable, "-m", "gravito.horizon", msgspec.json.encode(self).decode()]


def run_worker(horizon: Horizon, work: Work) -> int:
    """Work in this process until it is told to stop.

    Returns:
        The exit status.
    """
    log_lines()
    try:
        status = asyncio.run(_work(horizon, work))
    except* GravitoError as errors:
        for error in errors.exceptions:
            print(f"Error: {error}", file=sys.stderr)
        status = MISCONFIGURED if errors.subgroup((ConfigurationError, InjectionError)) else 1
    if any(thread.name.startswith("gravito-job") for thread in threading.enumerate()):
        _log.warning("jobs in threads did not end; the process ends without them")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


async def _work(horizon: Horizon, work: Work) -> int:
    worker = Worker(horizon, work.options())
    scheduler = Scheduler(horizon) if work.schedules and not work.burst else None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    print(f"Working on {', '.join(work.queues)} as {worker.id}; stop with Ctrl-C.", flush=True)
    helpers = []
    if scheduler is not None:
        helpers = [_helper(worker, _fire(worker, scheduler)), _helper(worker, _stop_along(worker, scheduler))]
    if work.supervisor is not None:
        helpers.append(_helper(worker, _end_with_parent(worker, work.supervisor)))
    try:
        tally = await worker.run()
    finally:
        if scheduler is not None:
            scheduler.stop()
        for task in helpers[1 if worker.started.is_set() and scheduler is not None else 0 :]:
            task.cancel()  # a scheduler that has begun ends by itself
        ends = await asyncio.gather(*helpers, return_exceptions=True)
        await horizon.aclose()
        await horizon.client.aclose()
    print(
        f"Stopped: {tally.done} done, {tally.retried} to be retried, {tally.dead} dead, "
        f"{tally.cancelled} cancelled, {tally.released} released.",
        flush=True,
    )
    if any(isinstance(end, Exception) for end in ends):
        return 1
    if work.supervisor is not None and worker.retired:
        return RETIRED
    return RECYCLE if worker.recycle else 0


def _helper(worker: Worker, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task beside the worker; when it fails the process ends, since it would go on by halves."""

    def look(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("a part of this process failed, so it ends", exc_info=error)
            worker.stop()

    task = asyncio.create_task(run)
    task.add_done_callback(look)
    return task


async def _fire(worker: Worker, scheduler: Scheduler) -> None:
    """Fire schedules while the worker takes jobs; those that its start-up hooks added are among them."""
    await worker.started.wait()
    if scheduler.horizon.schedules:
        await scheduler.run()


async def _stop_along(worker: Worker, scheduler: Scheduler) -> None:
    """A worker that only finishes what it has begins nothing, so it fires nothing either."""
    await worker.stopping()
    scheduler.stop()


async def _end_with_parent(worker: Worker, supervisor: int) -> None:
    """A supervisor that was killed, perhaps while this process was starting, leaves nobody to tell it to stop."""
    while os.getppid() == supervisor:  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(1)
    worker.stop()
