"""The caches of code without an event loop, each thread asking again and again."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from bench.caching.base import KEYS, TTL, VALUE
from bench.contenders import OURS
from gravito.atlas.client import Client
from gravito.cli.measure import Timing, Work
from gravito.stasis import Cache

THREADS = 8
Get = Callable[[str], Any]
Address = tuple[str, int]


def _ours(stack: ExitStack, host: str, port: int) -> Get:
    cache = Cache(connection=Client.from_url(f"redis://{host}:{port}/0"), prefix="sync").sync
    stack.callback(cache.close)
    cache.put_many(dict.fromkeys(KEYS, VALUE), TTL)
    return cache.get


def _django_redis(stack: ExitStack, host: str, port: int) -> Get:
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    kind: Any = importlib.import_module("django_redis.cache").RedisCache
    cache = kind(f"redis://{host}:{port}/0", {"KEY_PREFIX": "django"})
    stack.callback(cache.close)
    cache.set_many(dict.fromkeys(KEYS, VALUE), TTL)
    get: Get = cache.get
    return get


def _dogpile(stack: ExitStack, host: str, port: int) -> Get:
    make_region: Any = importlib.import_module("dogpile.cache").make_region
    region = make_region(key_mangler=lambda key: f"dogpile:{key}").configure(
        "dogpile.cache.redis", arguments={"host": host, "port": port, "redis_expiration_time": TTL}
    )
    region.set_multi(dict.fromkeys(KEYS, VALUE))
    get: Get = region.get
    return get


CONTENDERS: Mapping[str, Callable[[ExitStack, str, int], Get]] = {
    OURS: _ours,
    "django-redis": _django_redis,
    "dogpile": _dogpile,
}


def open_all(stack: ExitStack, host: str, port: int) -> tuple[dict[str, Get], dict[str, str]]:
    """Set up each that is installed.

    Returns:
        Their way to get a value, and for each of the others why it is left out.
    """
    opened: dict[str, Get] = {}
    left_out: dict[str, str] = {}
    for name, make in CONTENDERS.items():
        try:
            opened[name] = make(stack, host, port)
        except Exception as error:  # not installed, or unusable on this machine: the others still run
            left_out[name] = f"left out: {type(error).__name__}: {error}"
    return opened, left_out


def works(opened: Mapping[str, Get], threads: int) -> dict[str, Work]:
    """Hits, from so many threads."""
    return {name: _work(get, threads) for name, get in opened.items()}


def _work(get: Get, threads: int) -> Work:
    def caller(key: str, times: int) -> None:
        for _ in range(times):
            value = get(key)
        if value != VALUE:
            raise AssertionError(f"{key} is {value!r}")

    async def work(count: int) -> Timing:
        times = max(1, count // threads)
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            done = [pool.submit(caller, key, times) for key in KEYS[:threads]]
            for each in done:
                each.result()  # the loop has nothing else to do
            took = time.perf_counter() - began
        return Timing(times * threads, took)

    return work
