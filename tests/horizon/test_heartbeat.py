"""What workers say of themselves, and how they obey."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gravito.atlas import Client
from gravito.errors import HorizonError
from gravito.horizon import _heartbeat
from gravito.horizon._heartbeat import Heartbeat, WorkerKeys, WorkerRecord
from gravito.horizon.horizon import Horizon
from gravito.horizon.repository import Repository
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


async def eventually(
    look: Callable[[], Awaitable[list[WorkerRecord]]],
    wanted: Callable[[list[WorkerRecord]], object],
    timeout: float = 30.0,
) -> list[WorkerRecord]:
    """Look at the workers until they are as wanted."""
    async with asyncio.timeout(timeout):
        while not wanted(found := await look()):  # noqa: ASYNC110  # records set no event
            await asyncio.sleep(0.05)
    return found


async def test_a_worker_tells_how_it_is(horizon: Horizon) -> None:
    going = asyncio.Event()

    @horizon.job(queue="a")
    async def wait() -> None:
        await going.wait()

    repository = Repository(horizon)
    handles = await horizon.push_many(wait.make() for _ in range(3))
    worker = Worker(horizon, WorkerOptions(queues=("a", "b"), concurrency=2))
    task = asyncio.create_task(worker.run())
    [first] = await eventually(repository.workers, lambda found: found and found[0].running == 2)
    assert (first.id, first.host, first.pid) == (worker.id, socket.gethostname(), os.getpid())
    assert (first.queues, first.concurrency, first.state) == (("a", "b"), 2, "working")
    assert 10 << 20 < first.memory < 4 << 30
    assert 0 <= first.cpu < 10_000
    assert {job.id for job in first.jobs} < {handle.id for handle in handles}
    assert {(job.name, job.queue, job.attempt) for job in first.jobs} == {("wait", "a", 1)}
    assert all(first.started - 60_000 < job.since <= first.at for job in first.jobs)
    assert await repository.names() == ["a", "b"]
    assert [row.workers for row in await repository.queues()] == [1, 1]
    going.set()
    [later] = await eventually(repository.workers, lambda found: found and found[0].tally["done"] == 3)
    assert (later.started, later.jobs, later.running) == (first.started, (), 0)
    worker.stop()
    await task
    assert await repository.workers() == []


@pytest.mark.parametrize(("what", "again"), [("drain", False), ("restart", True)])
async def test_a_worker_obeys(horizon: Horizon, what: _heartbeat.Order, again: bool) -> None:
    @horizon.job
    async def work() -> None:
        running.set()
        await asyncio.sleep(0.2)

    running = asyncio.Event()
    repository = Repository(horizon)
    worker = Worker(horizon)
    task = asyncio.create_task(worker.run())
    handle = await work.push()
    await running.wait()
    await eventually(repository.workers, lambda found: found)
    await repository.order(worker.id, what)
    async with asyncio.timeout(20):
        await task
    assert (worker.recycle, worker.retired) == (again, not again)
    assert (await handle.status()).state == "ok"
    with pytest.raises(HorizonError, match="there is no worker"):
        await repository.order(worker.id, what)


async def test_an_order_is_obeyed_once_and_survives_no_worker(horizon: Horizon, redis: Client) -> None:
    obeyed: list[str] = []
    worker = Worker(horizon)
    heart = Heartbeat(worker, obeyed.append)
    await heart.beat()
    await _heartbeat.order(horizon, worker.id, "drain")
    [record] = await Repository(horizon).workers()
    assert record.id == worker.id, "the record is there while the order waits"
    await heart.beat()
    await heart.beat()
    assert obeyed == ["drain"]
    await heart.end()
    assert await redis.keys("horizon:{gravito.workers}*") == []


async def test_a_silent_worker_is_no_longer_listed(
    horizon: Horizon, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_heartbeat, "_LIFE", 50)
    repository = Repository(horizon)
    heart = Heartbeat(Worker(horizon), lambda order: None)
    await heart.beat()
    await eventually(repository.workers, lambda found: not found)
    keys = WorkerKeys("horizon")
    await redis.zadd(keys.list, {f"gone{n}": n for n in range(100)})
    await Heartbeat(Worker(horizon), lambda order: None).beat()
    assert await redis.zcard(keys.list) == 2, "those that are gone for long are struck out"


async def test_a_supervised_process_that_is_killed_drained_or_restarted(
    horizon: Horizon, redis: Client, tmp_path: Path
) -> None:
    application = f"""
        from gravito.atlas import Client
        from gravito.horizon import Horizon
        horizon = Horizon(Client.from_url("unix://{redis.settings.path}"))
    """
    (tmp_path / "application.py").write_text(textwrap.dedent(application))
    repository = Repository(horizon)
    work = ["-m", "gravito.cli", "horizon", "work", "application:horizon", "-p", "2"]
    with (tmp_path / "log").open("w") as log:
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable,
            *work,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        first, second = await eventually(repository.workers, lambda found: len(found) == 2)
        await repository.order(first.id, "restart")
        found = await eventually(
            repository.workers, lambda found: len(found) == 2 and first.id not in {one.id for one in found}
        )
        assert second.id in {one.id for one in found}
        os.kill(second.pid, signal.SIGKILL)  # its record stays until it expires
        found = await eventually(repository.workers, lambda found: len(found) == 3)
        live = {one.id for one in found} - {second.id}
        for worker in live:
            await repository.order(worker, "drain")
        await eventually(repository.workers, lambda found: not live & {one.id for one in found})
        assert await asyncio.wait_for(supervisor.wait(), 20) == 0, "nobody is left to supervise"
    finally:
        if supervisor.returncode is None:
            supervisor.kill()
        await supervisor.wait()
    assert "a new one starts" in (tmp_path / "log").read_text()
