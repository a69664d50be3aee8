"""One run: engine, contenders, rows, in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import cluster, limits, programs
from bench.caching import rows as caching
from bench.caching.rows import CACHE_ROWS, CacheRow
from bench.cluster import CLUSTER_ROWS, ClusterRow
from bench.contenders import OURS, Contender, open_all
from bench.engine import Running, running
from bench.machine import describe, pin
from bench.programs import PROGRAM_ROWS, ProgramRow
from bench.queues import rows as queuing
from bench.queues.contenders import find
from bench.result import Result, RowResult
from bench.work import ROWS, Address, Row, Works, fill
from gravito.cli.measure import Race

ROW_NAMES = (
    *(row.name for row in (*ROWS, *CLUSTER_ROWS, *CACHE_ROWS, *PROGRAM_ROWS)),
    *queuing.QUEUE_ROWS,
)


@dataclass(frozen=True)
class Plan:
    """What to run: rows by name, seconds per sample, samples of each contender, the event loop's name."""

    rows: Sequence[str]
    seconds: float
    repeat: int
    loop: str  # "asyncio" or "uvloop"
    peers: Mapping[str, Any] = field(default_factory=dict)  # where other queues are: `queues.contenders.find`


def run(plan: Plan, console: Console) -> Result:
    """Start an engine, measure, end it.

    Raises:
        EngineError: the engine cannot be found or started.
        RuntimeError: the loop that was asked for is not installed.
    """
    with running() as engine, asyncio.Runner(loop_factory=_loop_factory(plan.loop)) as runner:
        return runner.run(_run(plan, engine, console))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as error:
        raise RuntimeError("uvloop is not installed: pip install uvloop, or use --loop asyncio") from error
    return uvloop.new_event_loop


async def _run(plan: Plan, engine: Running, console: Console) -> Result:
    address = engine.host, engine.port
    async with AsyncExitStack() as stack:
        contenders, left_out = await open_all(stack, *address)
        machine = describe(engine.version, plan.loop, pin(engine.pid))
        result = Result(machine, {"seconds": plan.seconds, "repeat": plan.repeat})
        result.notes = [f"{name}: {why}" for name, why in left_out.items()]
        result.notes.append(limits.NOTE if limits.find() else f"{limits.NAME}: left out: not on PATH")
        if contenders:
            await fill(next(iter(contenders.values())))
        with _progress(console) as progress:
            for row in ROWS:
                if row.name in plan.rows:
                    result.rows.append(await _rate_row(row, plan, contenders, address, progress))
            await _cluster_rows(plan, contenders.get(OURS), result, progress)
            await _cache_rows(plan, address, result, progress)
            for program_row in PROGRAM_ROWS:
                if program_row.name in plan.rows:
                    result.rows.append(await _program_row(program_row, plan, address, progress))
            await _queue_rows(plan, address, result, progress)
        return result


async def _rate_row(
    row: Row, plan: Plan, contenders: dict[str, Contender], address: Address, progress: Progress
) -> RowResult:
    works = row.works(contenders, address)
    if program := limits.find():
        works |= limits.works(row.name, program, address)
    return await _raced(row, works, plan, progress)


async def _cluster_rows(plan: Plan, single: Contender | None, result: Result, progress: Progress) -> None:
    rows = [row for row in CLUSTER_ROWS if row.name in plan.rows]
    if not rows:
        return  # nodes are started only for who asks for them
    async with cluster.opened() as (clients, left_out):
        result.notes += [cluster.NOTE, *(f"{name} (cluster): {why}" for name, why in left_out.items())]
        for row in rows:
            result.rows.append(await _raced(row, row.works(clients, single), plan, progress))


async def _cache_rows(plan: Plan, address: Address, result: Result, progress: Progress) -> None:
    rows = [row for row in CACHE_ROWS if row.name in plan.rows]
    if not rows:
        return
    async with caching.opened(address) as (caches, left_out):
        result.notes += [caching.NOTE, *(f"{name}: {why}" for name, why in left_out.items())]
        for row in rows:
            result.rows.append(await _raced(row, row.works(caches), plan, progress))


async def _queue_rows(plan: Plan, address: Address, result: Result, progress: Progress) -> None:
    rows = [name for name in queuing.QUEUE_ROWS if name in plan.rows]
    if not rows:
        return
    queues, left_out = await asyncio.to_thread(lambda: find(**plan.peers))
    result.notes += [queuing.NOTE, *(f"{name} (queue): {why}" for name, why in left_out.items())]
    repeat, share = min(plan.repeat, queuing.MOST), min(plan.seconds, 1.0)
    result.rows += await queuing.run(rows, queues, address, repeat, share, partial(_step, progress))


async def _raced(row: Row | ClusterRow | CacheRow, works: Works, plan: Plan, progress: Progress) -> RowResult:
    race = Race(works, plan.seconds, plan.repeat)
    figures = await race.run(_step(progress, row.title, plan.repeat * len(works)))
    return RowResult(row.name, row.title, row.unit, figures, race.failures)


async def _program_row(row: ProgramRow, plan: Plan, address: Address, progress: Progress) -> RowResult:
    samples = row.samples(address)
    repeat = max(plan.repeat, row.at_least)
    failures: dict[str, str] = {}
    step = _step(progress, row.title, repeat * len(samples))
    figures = await programs.run(samples, repeat, failures, step)
    return RowResult(row.name, row.title, row.unit, figures, failures)


def _progress(console: Console) -> Progress:
    # redrawn only between samples: a thread that draws would share the measuring core
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[contender]}"),
        console=console,
        auto_refresh=False,
    )


def _step(progress: Progress, title: str, total: int) -> Callable[[str], None]:
    task = progress.add_task(title, total=total, contender="")
    progress.refresh()

    def step(contender: str) -> None:
        progress.update(task, advance=1, contender=contender)
        progress.refresh()

    return step
