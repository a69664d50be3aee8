"""The rows of caches: what is done, and by whom."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.caching import sync
from bench.caching.base import KEYS, MANY, TASKS, VALUE, CacheContender, Get, GetMany, Load, Put
from bench.contenders import OURS
from gravito.atlas.client import Client
from gravito.cli.measure import Timing, Work

MODULES = {
    OURS: "bench.caching.ours",
    "cashews": "bench.caching.cashews",
    "aiocache": "bench.caching.aiocache",
}
COLUMNS = (*MODULES, *(name for name in sync.CONTENDERS if name != OURS))
NOTE = (
    "caches: objects of 1 KB, the same for all. aiocache has no tags: its function has none."
    " The local tier of Gravito is kept honest by the server, a cache in memory is not. That of cashews, unless it"
    " pickles, gives all callers the same object: what one of them changes, the others see"
)
PINGS = 10  # commands of one sample that are none of a hit: the first read, and signs of life

Address = tuple[str, int]
Works = dict[str, Work]


@dataclass(frozen=True)
class Opened:
    """All caches, filled."""

    address: Address
    caches: Mapping[str, Any]  # each a `CacheContender`
    threaded: Mapping[str, sync.Get]


@dataclass(frozen=True)
class CacheRow:
    """One line of the table."""

    name: str
    title: str
    unit: str
    works: Callable[[Opened], Works]


@asynccontextmanager
async def opened(address: Address) -> AsyncIterator[tuple[Opened, dict[str, str]]]:
    """Connect and fill every cache that is installed; also, for each of the others, why it is left out."""
    caches: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for name, module in MODULES.items():
            try:
                cache = importlib.import_module(module).Contender()
                await cache.open(stack, *address)
                await _fill(cache)
            except Exception as error:  # not installed, or unusable on this machine: the others still run
                left_out[name] = f"left out: {type(error).__name__}: {error}"
            else:
                caches[name] = cache
        threaded, without = sync.open_all(stack.enter_context(ExitStack()), *address)
        yield Opened(address, caches, threaded), left_out | without


async def _fill(cache: CacheContender) -> None:
    for put in cache.puts().values():
        for key in KEYS:
            await put(key, VALUE)


def _all(opened: Opened, ways: Callable[[Any], Mapping[str, Any]], work: Callable[[Any], Work]) -> Works:
    return {
        f"{name} ({way})" if way else name: work(call)
        for name, cache in opened.caches.items()
        for way, call in ways(cache).items()
    }


def _tasks(caller: Callable[[int, int], Awaitable[None]]) -> Work:
    """The caller's number and how often it asks, for each of the tasks."""

    async def work(count: int) -> Timing:
        times = max(1, count // TASKS)
        began = time.perf_counter()
        await asyncio.gather(*[caller(number, times) for number in range(TASKS)])
        return Timing(times * TASKS, time.perf_counter() - began)

    return work


def _get(get: Get) -> Work:
    async def caller(number: int, times: int) -> None:
        key = KEYS[number]
        for _ in range(times):
            value = await get(key)
        _check(value)

    return _tasks(caller)


def _load(load: Load) -> Work:
    async def caller(number: int, times: int) -> None:
        for _ in range(times):
            value = await load(number)
        _check(value)

    return _tasks(caller)


def _put(put: Put) -> Work:
    async def caller(number: int, times: int) -> None:
        key = KEYS[number]
        for _ in range(times):
            await put(key, VALUE)

    return _tasks(caller)


def _many(many: GetMany) -> Work:
    async def work(count: int) -> Timing:
        rounds = max(1, count // MANY)
        began = time.perf_counter()
        for _ in range(rounds):
            values = await many(KEYS)
        took = time.perf_counter() - began
        _check_all(list(values.values()) if isinstance(values, dict) else values)
        return Timing(rounds * MANY, took)

    return work


def _local(opened: Opened) -> Works:
    works = {}
    for name, cache in opened.caches.items():
        for way, get in cache.locals().items():
            called = f"{name} ({way})" if way else name
            works[called] = _counted(opened.address, cache.fill_locals, get)
    return works


def _counted(address: Address, fill: Callable[[str], Awaitable[None]], get: Get) -> Work:
    """One task's hits, and by the server's own count no commands for them."""
    host, port = address
    key = KEYS[0]

    async def work(count: int) -> Timing:
        await fill(key)
        await get(key)
        async with Client.from_url(f"redis://{host}:{port}/0") as asking:
            before = await _calls(asking)
            began = time.perf_counter()
            for _ in range(count):
                value = await get(key)
            timing = Timing(count, time.perf_counter() - began)
            asked = await _calls(asking) - before
        _check(value)
        if asked > PINGS + 20 * timing.seconds:
            raise AssertionError(f"{count} hits sent {asked} commands to the server")
        return timing

    return work


async def _calls(client: Client) -> int:
    """How many commands the server has answered."""
    stats: dict[str, Any] = await client.info("commandstats")
    return sum(each["calls"] for each in stats.values())


def _check(value: Any) -> None:
    if type(value) is not type(VALUE) or value != VALUE:
        raise AssertionError(f"the cache answered {value!r}")


def _check_all(values: Sequence[Any]) -> None:
    if len(values) != MANY:
        raise AssertionError(f"the cache answered {len(values)} values for {MANY} keys")
    for value in values:
        _check(value)


CACHE_ROWS = (
    CacheRow(
        "cache-get", "cache: get, 50 tasks", "hits/s", lambda all_: _all(all_, lambda c: c.gets(), _get)
    ),
    CacheRow(
        "cache-remember",
        "cache: a function with two tags, 50 tasks",
        "hits/s",
        lambda all_: _all(all_, lambda c: c.loads(), _load),
    ),
    CacheRow("cache-local", "cache: hit without the server, one task", "hits/s", _local),
    CacheRow(
        "cache-put", "cache: put, 50 tasks", "puts/s", lambda all_: _all(all_, lambda c: c.puts(), _put)
    ),
    CacheRow(
        "cache-many", "cache: many, 100 keys", "values/s", lambda all_: _all(all_, lambda c: c.manys(), _many)
    ),
    CacheRow(
        "cache-sync",
        "cache: get, one thread, no event loop",
        "hits/s",
        lambda all_: sync.works(all_.threaded, 1),
    ),
    CacheRow(
        "cache-threads",
        f"cache: get, {sync.THREADS} threads, no event loop",
        "hits/s",
        lambda all_: sync.works(all_.threaded, sync.THREADS),
    ),
)
