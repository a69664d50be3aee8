"""The supervisor and its workers' ends: which are replaced, and which are final."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from gravito.atlas import Client
from gravito.errors import ConfigurationError
from gravito.horizon import Horizon, process, supervisor
from gravito.horizon.process import Work
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.supervisor import MISCONFIGURED, Supervisor

REFUSES = f"raise SystemExit({MISCONFIGURED})"
WORKS = "import time; time.sleep(60)"
APPLICATION = """
from gravito.horizon import Horizon, inject

horizon = Horizon()


@horizon.job
async def odd(what: complex = inject()) -> None: ...
"""


def _line(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


async def test_workers_that_refuse_their_configuration_are_not_started_for_ever() -> None:
    started = 0

    def command(queues: Sequence[str]) -> list[str]:
        nonlocal started
        started += 1
        return _line(REFUSES)

    supervised = Supervisor(command, ["default"], 2)
    async with asyncio.timeout(20):
        with pytest.raises(ConfigurationError, match="cannot work as things are set"):
            await supervised.run()
    assert started == 2
    assert supervised.pids == []


@pytest.mark.parametrize("patient", [True, False])
async def test_while_some_worker_works_the_others_are_tried_again(
    patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_SOON", 0.0)  # whoever has begun has got far enough
    programs = iter([] if patient else [WORKS])
    supervised = Supervisor(lambda _: _line(next(programs, REFUSES)), ["default"], 2)
    supervised.patient = patient
    task = asyncio.create_task(supervised.run())
    async with asyncio.timeout(20):
        while supervised.restarts < 2:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
        assert not task.done()
        supervised.stop()
        await task


def test_a_worker_that_lacks_what_its_jobs_need_says_so_by_its_exit_status(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    work = Work(target="app:horizon", queues=("default",), supervisor=os.getpid())
    environ = {**os.environ, "REDIS_URL": "embedded://"}
    done = subprocess.run(
        work.command(), cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == MISCONFIGURED, done.stderr
    assert "complex" in done.stderr
    nowhere = msgspec.structs.replace(work, target="app:none").command()
    done = subprocess.run(
        nowhere, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == MISCONFIGURED, done.stderr


async def test_a_worker_that_finishes_its_jobs_fires_no_schedules(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    horizon, begun, hold, ended = Horizon(redis), asyncio.Event(), asyncio.Event(), asyncio.Event()
    run = Scheduler.run

    async def observed(self: Scheduler) -> None:
        await run(self)
        ended.set()

    monkeypatch.setattr(Scheduler, "run", observed)

    @horizon.job
    async def held() -> None:
        begun.set()
        await hold.wait()

    horizon.schedule("often", held).every_second()
    await held.push()
    work = asyncio.create_task(process._work(horizon, Work(target="app:horizon", queues=("default",))))
    async with asyncio.timeout(20):
        await begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await ended.wait()  # while its job still runs
        assert not work.done()
        hold.set()
        assert await work == 0
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
