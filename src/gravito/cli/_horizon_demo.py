"""`gravito horizon demo`: many jobs, several worker processes, one of which is killed, and a tally of every job."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravito.atlas.embedded import Engine
from gravito.errors import GravitoError, HorizonError
from gravito.horizon.process import Work

if TYPE_CHECKING:
    from gravito.horizon import Horizon
    from gravito.horizon.repository import QueueRow, Repository

__all__ = ["Outcome", "show"]

_JOBS = "gravito.cli._demo_jobs"
_URL = "GRAVITO_DEMO_URL"  # as there
_PATIENCE = 120.0  # seconds; everything takes ten on two cores
_LOOK = 0.1  # seconds between two looks
_LINE = 1.0  # seconds between two lines where there is no terminal
_GRACE = 10.0  # seconds that workers get to end


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The tally, from the queues' own counters and from a look at every single job."""

    pushed: int
    done: int
    retried: int
    dead: int
    returned: int  # jobs that came back from the killed worker
    lost: int


class View(Protocol):
    """Shows how far it is."""

    def pushed(self, count: int) -> None:
        """So many jobs are queued."""

    def look(self, rows: Sequence[QueueRow], workers: int) -> None:
        """The queues now."""

    def say(self, text: str) -> None:
        """Something happened."""


def show(jobs: int, processes: int, console: Console) -> Outcome:
    """Run the demonstration.

    Raises:
        GravitoError: it could not be run to the end.
    """
    with tempfile.TemporaryDirectory(prefix="gravito-demo-") as folder, Engine() as engine:
        path = engine.ensure()
        application = _application(f"unix://{path}")
        with _view(console, jobs) as view:
            return asyncio.run(_run(application, view, Path(folder), jobs, processes))


def _application(url: str) -> ModuleType:
    """The jobs, on this engine: their module reads the address when it is imported, here as in the workers."""
    os.environ[_URL] = url
    module = sys.modules.get(_JOBS)
    return importlib.import_module(_JOBS) if module is None else importlib.reload(module)


async def _run(application: ModuleType, view: View, folder: Path, jobs: int, processes: int) -> Outcome:
    from gravito.horizon.repository import Repository  # noqa: PLC0415  # what `--help` need not wait for

    horizon: Horizon = application.horizon
    crew = _Crew(folder, application.QUEUES)
    repository = Repository(horizon)
    try:
        handles = await horizon.push_many(application.calls(jobs), progress=view.pushed)
        view.say(
            f"{jobs:,} jobs of {len(application.KINDS)} kinds are queued. {processes} worker processes start."
        )
        for _ in range(processes):
            await crew.start()
        async with asyncio.timeout(_PATIENCE):
            await _watch(repository, crew, view, jobs)
        await crew.end()
        return await _tally(horizon, repository, [(handle.queue, handle.id) for handle in handles])
    except TimeoutError:
        raise HorizonError(f"the jobs have not ended within {_PATIENCE:g} s") from None
    finally:
        await crew.clear()
        await horizon.aclose()
        await horizon.client.aclose()


async def _watch(repository: Repository, crew: _Crew, view: View, jobs: int) -> None:
    """Until every job has ended; at a third, a worker that has jobs is killed."""
    killed = False
    while True:
        rows = await repository.queues()
        view.look(rows, len(crew))
        if _ended(rows) >= jobs:
            return
        if not killed and _ended(rows) >= jobs // 3:
            running = (await repository.jobs("running", limit=1)).jobs
            pid = await crew.kill(running[0].worker) if running else None
            if pid is not None:
                killed = True
                view.say(
                    f"Worker process {pid} was killed (-9) in the middle of its jobs. Another one takes its place."
                )
                await crew.start()
        crew.check()
        await asyncio.sleep(_LOOK)


async def _tally(horizon: Horizon, repository: Repository, pushed: Sequence[tuple[str, str]]) -> Outcome:
    """Every job is looked at: what the queues do not know, is lost."""
    states: Counter[str] = Counter()
    for start in range(0, len(pushed), 1000):
        part = pushed[start : start + 1000]
        states.update(
            look.state for look in await asyncio.gather(*[horizon.broker(q).look(i) for q, i in part])
        )
    totals = await repository.totals()
    return Outcome(
        pushed=len(pushed),
        done=states["ok"],
        retried=totals["retry"],
        dead=states["dead"],
        returned=totals["crashed"],
        lost=len(pushed) - states["ok"] - states["dead"],
    )


def _ended(rows: Sequence[QueueRow]) -> int:
    return sum(row.sizes.totals.get("ok", 0) + row.sizes.totals.get("dead", 0) for row in rows)


class _Crew:
    """The worker processes.

    Args:
        folder: where they write what they say.
        queues: which they serve.
    """

    def __init__(self, folder: Path, queues: Sequence[str]) -> None:
        self._log = folder / "workers.log"
        self._work = Work(
            target=f"{_JOBS}:horizon", queues=tuple(queues), schedules=False, supervisor=os.getpid()
        )
        self._processes: list[asyncio.subprocess.Process] = []

    def __len__(self) -> int:
        return len(self._processes)

    async def start(self) -> None:
        """One more."""
        with self._log.open("ab") as log:  # a file of its own
            process = await asyncio.create_subprocess_exec(
                *self._work.command(), stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)

    async def kill(self, worker: str | None) -> int | None:
        """End one as the kernel would.

        Args:
            worker: its id, which names its process.

        Returns:
            The process; None if it is none of these.
        """
        for process in self._processes:
            if f":{process.pid}:" in (worker or ""):
                self._processes.remove(process)
                process.kill()
                await process.wait()
                return process.pid
        return None

    def check(self) -> None:
        """Fail if one has ended by itself."""
        for process in self._processes:
            if process.returncode is not None:
                said = self._log.read_text("utf-8", "replace")[-2000:]
                raise HorizonError(f"worker process {process.pid} ended by itself:\n{said}")

    async def end(self) -> None:
        """Ask all to end."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_GRACE):
            for process in self._processes:
                await process.wait()

    async def clear(self) -> None:
        """End what is left, whatever it does."""
        for process in self._processes:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


# -- what is seen --------------------------------------------------------------------------------------------


@contextmanager
def _view(console: Console, jobs: int) -> Iterator[View]:
    if not console.is_terminal:
        yield _Lines(console, jobs)
        return
    screen = _Screen(console, jobs)
    with screen.live:
        yield screen


class _Lines:
    """One line a second, for files and pipes."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console = console
        self._jobs = jobs
        self._last = 0.0

    def pushed(self, count: int) -> None:
        if count == self._jobs:
            self.say(f"pushed {count:,} of {self._jobs:,}")

    def look(self, rows: Sequence[QueueRow], workers: int) -> None:
        ended = _ended(rows)
        if time.monotonic() - self._last < _LINE and ended < self._jobs:
            return
        self._last = time.monotonic()
        running = sum(row.sizes.running for row in rows)
        retried = sum(row.sizes.totals.get("retry", 0) for row in rows)
        dead = sum(row.sizes.dead for row in rows)
        self.say(
            f"{ended:,} of {self._jobs:,} ended, {running} running, {retried} retried, {dead} dead; {workers} workers"
        )

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


class _Screen:
    """Bars and a table that change in place."""

    def __init__(self, console: Console, jobs: int) -> None:
        columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._pushing = self._progress.add_task("pushed", total=jobs)
        self._ending = self._progress.add_task("ended", total=jobs)
        self._table = Table()
        self.live = Live(self._progress, console=console, refresh_per_second=8)

    def pushed(self, count: int) -> None:
        self._progress.update(self._pushing, completed=count)

    def look(self, rows: Sequence[QueueRow], workers: int) -> None:
        self._progress.update(self._ending, completed=_ended(rows))
        table = Table(title=f"{workers} worker processes", title_justify="left", title_style="")
        table.add_column("queue")
        for name in ("ready", "delayed", "running", "done", "retried", "dead"):
            table.add_column(name, justify="right", min_width=8)
        for row in rows:
            totals = row.sizes.totals
            numbers = (row.ready, row.sizes.delayed, row.sizes.running, totals.get("ok", 0))
            more = (totals.get("retry", 0), row.sizes.dead)
            table.add_row(row.name, *[f"{number:,}" for number in (*numbers, *more)])
        self.live.update(Group(self._progress, table))

    def say(self, text: str) -> None:
        self.live.console.print(Text(text), soft_wrap=True)


def report(outcome: Outcome, console: Console, took: float) -> int:
    """Print the tally; the exit status."""
    console.print(f"\nEvery job was looked at, {took:.1f} s after the start:")
    notes = {
        "retried": "failed at first, and were tried again",
        "dead": "could never work: kept with their traceback",
        "returned": "the killed worker had them: they ran again elsewhere",
    }
    for name in Outcome.__struct_fields__:
        note = notes.get(name, "")
        console.print(f"  {name:9}{getattr(outcome, name):>8,}   {note}".rstrip(), soft_wrap=True)
    return 1 if outcome.lost else 0


def run(jobs: int, processes: int) -> int:
    """The command; the exit status."""
    console = Console(highlight=False)
    began = time.perf_counter()
    try:
        outcome = show(jobs, processes, console)
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    except GravitoError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return report(outcome, console, time.perf_counter() - began)
