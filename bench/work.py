"""The rows that are rates: what is done, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import publisher, tracked
from bench.contenders import Contender
from bench.contenders.base import Receive
from bench.feed import feed
from gravito.cli.measure import Timing, Work, gets, pipelines, sets

PREFIX = "bench"
VALUE = "v" * 32
PATIENCE = 120.0  # seconds until a subscriber that still misses messages is given up
LARGEST = 500  # keys that must exist before the first row
KEYS = [f"{PREFIX}:{number}" for number in range(LARGEST)]

Address = tuple[str, int]
Works = dict[str, Work]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str  # for --rows and the JSON file
    title: str  # for people
    unit: str
    works: Callable[[Mapping[str, Contender], Address], Works]


def _get(tasks: int) -> Callable[[Mapping[str, Contender], Address], Works]:
    return lambda contenders, _: {
        name: gets(contender.get, KEYS[:tasks], VALUE) for name, contender in contenders.items()
    }


def _set(tasks: int) -> Callable[[Mapping[str, Contender], Address], Works]:
    return lambda contenders, _: {
        name: sets(contender.set, KEYS[:tasks], VALUE) for name, contender in contenders.items()
    }


def _pipeline(commands: int) -> Callable[[Mapping[str, Contender], Address], Works]:
    return lambda contenders, _: {
        name: pipelines(contender.pipeline_get, KEYS[:commands], VALUE)
        for name, contender in contenders.items()
    }


def _tracked(contenders: Mapping[str, Contender], address: Address) -> Works:
    return tracked.works(contenders, address, KEYS[0], VALUE)


def _pubsub(contenders: Mapping[str, Contender], address: Address) -> Works:
    return {
        f"{name} ({way})": _received(receive, address, f"{PREFIX}:{name}:{way}")
        for name, contender in contenders.items()
        for way, receive in contender.receivers().items()
    }


def _received(receive: Receive, address: Address, channel: str) -> Work:
    async def work(count: int) -> Timing:
        whole = -(-count // publisher.BATCH) * publisher.BATCH
        async with feed(*address, channel, whole) as source, asyncio.timeout(PATIENCE):
            await receive(channel, source)
        return Timing(whole, source.seconds)

    return work


ROWS = (
    Row("get50", "GET, 50 tasks", "GET/s", _get(50)),
    Row("get500", "GET, 500 tasks", "GET/s", _get(500)),
    Row("set500", "SET, 500 tasks", "SET/s", _set(500)),
    Row("get1", "GET, one task in sequence", "GET/s", _get(1)),
    Row("pipeline100", "pipeline of 100 GETs", "GET/s", _pipeline(100)),
    Row("tracked", "tracked GET, all hits, one task", "GET/s", _tracked),
    Row("pubsub", "pub/sub, messages delivered", "messages/s", _pubsub),
)


async def fill(contender: Contender) -> None:
    """Write the keys that the rows read."""
    for key in KEYS:
        await contender.set(key, VALUE)
