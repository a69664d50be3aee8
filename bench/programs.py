"""The rows whose samples are taken by fresh processes, one per sample: memory and import time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import imports, memory
from bench.work import Address
from gravito.cli.measure import Spread, spread_of

Sample = Callable[[], float]


@dataclass(frozen=True)
class ProgramRow:
    """One line of the table; a sample is a function that runs a process and returns its figure."""

    name: str
    title: str
    unit: str
    at_least: int  # samples of each, however short the run
    samples: Callable[[Address], dict[str, Sample]]


def _memory(address: Address) -> dict[str, Sample]:
    host, port = address
    return {way: lambda way=way: memory.bytes_per_command(way, host, port) for way in memory.WAYS}  # type: ignore[misc]


def _imports(_: Address) -> dict[str, Sample]:
    return {
        name: lambda statement=statement: imports.milliseconds(statement)  # type: ignore[misc]
        for name, statement in imports.STATEMENTS.items()
    }


PROGRAM_ROWS = (
    ProgramRow("memory", "100,000 commands in flight", "bytes per command", 1, _memory),
    ProgramRow("import", "import", "ms", 11, _imports),
)


async def run(
    samples: Mapping[str, Sample], repeat: int, failures: dict[str, str], sampled: Callable[[str], None]
) -> dict[str, Spread]:
    """Take the samples in turn, each after a first one that is thrown away (files come into the cache).

    Args:
        samples: by contender.
        repeat: how many of each.
        failures: filled with what could not be measured and why.
        sampled: called with the contender's name after each.
    """
    found: dict[str, list[float]] = {}
    for turn in range(repeat + 1):
        for name, sample in samples.items():
            if name in failures:
                continue
            try:
                figure = await asyncio.to_thread(sample)
            except (RuntimeError, ValueError) as error:
                failures[name] = str(error)
                continue
            if turn:
                found.setdefault(name, []).append(figure)
                sampled(name)
    return {name: spread_of(figures) for name, figures in found.items() if name not in failures}
