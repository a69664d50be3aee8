"""The rows about job queues. A sample may give the figures of several rows at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from bench.queues import session
from bench.queues.contenders import Queue
from bench.queues.session import Session
from bench.result import RowResult
from bench.work import Address
from gravito.cli.measure import spread_of

NOTE = (
    "queues: a worker process of each on any core, 100 jobs at a time where it has tasks, its own defaults or its"
    " documentation's advice elsewhere; ours with all that is on by default"
)
MOST = 3  # samples of each
PUSHED, ONE_BY_ONE, SLEEPING, PICKED, COUNTED = 20_000, 5_000, 2_000, 100, 2_000  # jobs
SLOW = {
    "rq": 0.05,
    "celery": 0.2,
    "streaq": 0.5,
}  # shares of these numbers, for queues that would take minutes


@dataclass(frozen=True)
class Measure:
    """What gives one or more rows their figures."""

    rows: dict[str, tuple[str, str]]  # by name, title and unit
    sample: Callable[[Queue, Address, float], Sequence[float]]  # the last one: share of the full size


def _drain(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address)) as run:
        cost = session.drain(run, max(50, int(queue.noops * share)))
    return cost.rate, cost.memory


def _results(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address, results=True)) as run:
        return (session.drain(run, max(50, int(queue.noops * share)), "result").rate,)


def _commands(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address)) as run:
        return session.commands(run, _of(queue, COUNTED))


def _push(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address)) as run:
        return (session.push_one(run, _of(queue, ONE_BY_ONE)),)


def _push_many(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address)) as run:
        return (session.push_many(run, _of(queue, PUSHED)),)


def _sleep(queue: Queue, address: Address, share: float) -> Sequence[float]:
    if queue.name == "rq":
        raise RuntimeError("its worker runs one job at a time: 100 s")
    with closing(Session(queue, *address, sleeps=True)) as run:
        return (session.sleeps(run, SLEEPING),)


def _pickup(queue: Queue, address: Address, share: float) -> Sequence[float]:
    with closing(Session(queue, *address)) as run:
        return session.pickup(run, max(30, int(PICKED * share)))


def _of(queue: Queue, count: int) -> int:
    return int(count * SLOW.get(queue.name, 1.0))


MEASURES = (
    Measure(
        {
            "horizon-drain": ("no-op jobs, drained", "jobs/s"),
            "horizon-memory": ("the worker behind that", "MB"),
        },
        _drain,
    ),
    Measure({"horizon-results": ("the same with results", "jobs/s")}, _results),
    Measure(
        {
            "horizon-sent": ("commands a job that clients send", "commands"),
            "horizon-executed": ("commands a job that the server executes", "commands"),
        },
        _commands,
    ),
    Measure({"horizon-push": ("jobs pushed one by one, 50 tasks", "jobs/s")}, _push),
    Measure({"horizon-pushmany": ("20,000 jobs pushed", "jobs/s")}, _push_many),
    Measure({"horizon-sleep": ("2,000 jobs of 50 ms, 100 at a time", "s")}, _sleep),
    Measure(
        {
            "horizon-pickup": ("from a push to its job, idle worker, p50", "ms"),
            "horizon-pickup99": ("the same, p99", "ms"),
            "horizon-idle": ("an idle worker", "commands/s"),
        },
        _pickup,
    ),
)
QUEUE_ROWS = tuple(name for measure in MEASURES for name in measure.rows)


async def run(
    rows: Collection[str],
    queues: Sequence[Queue],
    address: Address,
    repeat: int,
    share: float,
    step: Callable[[str, int], Callable[[str], None]],
) -> list[RowResult]:
    """Measure the rows that are asked for.

    Args:
        rows: names.
        queues: the contenders.
        address: the engine's.
        repeat: samples of each.
        share: of the full sizes, 1.0 for all of them.
        step: given a title and a number of samples, what is to be called after each.
    """
    found: list[RowResult] = []
    for measure in MEASURES:
        names = [name for name in measure.rows if name in rows]
        if names:
            titled = step(measure.rows[names[0]][0], repeat * len(queues))
            samples, failures = await _samples(measure, queues, address, repeat, share, titled)
            found += [row for row in _rows(measure, samples, failures) if row.name in names]
    return found


async def _samples(
    measure: Measure,
    queues: Sequence[Queue],
    address: Address,
    repeat: int,
    share: float,
    sampled: Callable[[str], None],
) -> tuple[dict[str, list[Sequence[float]]], dict[str, str]]:
    samples: dict[str, list[Sequence[float]]] = {}
    failures: dict[str, str] = {}
    for _ in range(repeat):
        for queue in queues:
            if queue.name in failures:
                continue
            try:
                figures = await asyncio.to_thread(measure.sample, queue, address, share)
            except (RuntimeError, ValueError, OSError) as error:
                failures[queue.name] = str(error)
            else:
                samples.setdefault(queue.name, []).append(figures)
            sampled(queue.name)
    return {name: all_ for name, all_ in samples.items() if name not in failures}, failures


def _rows(
    measure: Measure, samples: dict[str, list[Sequence[float]]], failures: dict[str, str]
) -> Iterator[RowResult]:
    for place, (name, (title, unit)) in enumerate(measure.rows.items()):
        figures = {queue: spread_of(each[place] for each in all_) for queue, all_ in samples.items()}
        yield RowResult(name, title, unit, figures, failures)
