"""Worker processes of a row, and the ledger of what they ran."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.faults.application import LEASE, RUNS, SETTINGS, Runs
from tests.faults.bench import CANARY, Bench

from gravito.atlas import Client
from gravito.horizon import Horizon, HorizonSettings
from gravito.horizon._messages import Sizes

QUEUE = "faults"
ROOT = Path(__file__).parents[2]


class Worker:
    """A process that works on the queue."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        """What it has printed and logged."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """A signal, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        """Wherever it is: be gone."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        self.process.wait()


class Workers:
    """Starts worker processes and reads what they did. All end with the row.

    Args:
        bench: the row's.
        settings: of the connection, as `Settings` takes them, without the password.
        lease: seconds.
    """

    def __init__(self, bench: Bench, settings: Mapping[str, Any], lease: float = 10.0) -> None:
        self.bench = bench
        self.lease = lease
        self.folder = bench.folder()
        self.started: list[Worker] = []
        self._logs = 0
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            RUNS: str(self.folder / "runs"),
            SETTINGS: msgspec.json.encode({"password": CANARY, **settings}).decode(),
            LEASE: str(lease),
        }
        bench.at_end(self.end)

    @property
    def runs(self) -> Runs:
        """All runs up to now."""
        return Runs(self.folder / "runs")

    def script(self, arguments: list[str], **environment: str) -> Worker:
        """Any process of Python that knows the connection."""
        self._logs += 1
        log = self.folder / f"log{self._logs}"
        made = Worker([sys.executable, *arguments], {**self.environment, **environment}, log)
        self.started.append(made)
        return made

    def start(self, *options: str, **environment: str) -> Worker:
        """A worker, or with `--processes` a supervisor; see `gravito horizon work --help`."""
        line = ["-m", "gravito.cli", "horizon", "work", "tests.faults.worker:horizon", "-q", QUEUE, *options]
        return self.script(line, **environment)

    async def ready(self, *some: Worker) -> None:
        """Wait until these workers work."""
        for each in some:
            await self.wait(lambda each=each: "Working on" in each.text, 30.0, "a worker that starts")

    async def wait(self, true: Callable[[], Any], within: float, what: str) -> float:
        """Wait for a condition; a promise is broken if it does not come. Seconds that it took."""
        took = await self.bench.until(true, within, 0.02)
        self.bench.ledger.promise(took < within, f"{what}: not within {within:g} s")
        return took

    def end(self) -> None:
        """kill -9 of those that still run; what they printed is searched for the password."""
        for each in self.started:
            each.end()
            self.bench.ledger.look(each.text)
        self.started.clear()


@asynccontextmanager
async def crew(
    bench: Bench, client: Client, settings: Mapping[str, Any], lease: float = 10.0
) -> AsyncIterator[tuple[Workers, Horizon]]:
    """Worker processes, and a Horizon of this process to push and to look; the processes end with the block."""
    workers = Workers(bench, settings, lease)
    async with Horizon(client, settings=HorizonSettings(lease=lease)) as horizon:
        try:
            yield workers, horizon
        finally:
            await asyncio.to_thread(workers.end)


def waiting(sizes: Sizes) -> int:
    """Jobs that have not ended."""
    return sum(sizes.ready) + sizes.fair + sizes.delayed + sizes.running + sizes.parked


async def settled(bench: Bench, horizon: Horizon, within: float = 50.0) -> Sizes:
    """Wait until every job of the queue has ended."""
    broker, end = horizon.broker(QUEUE), time.monotonic() + within
    while waiting(sizes := await broker.sizes()) and time.monotonic() < end:  # noqa: ASYNC110  # of a queue
        await asyncio.sleep(0.05)
    bench.ledger.promise(not waiting(sizes), f"jobs did not end within {within:g} s: {sizes}")
    return sizes
