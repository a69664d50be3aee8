"""What the programs of this folder share. Each runs one peer, by an interpreter that may have nothing else installed.

`python with_saq.py ROLE [COUNT] [KIND]`, with the server, the results and a file for the tally in the environment:

work              run jobs, 100 at a time, until killed
pushmany N KIND   queue N jobs by the fastest way that the peer has
pushone N KIND    queue N jobs one by one from 50 tasks or threads
pickup N KIND     queue N jobs with a pause before each, and see in the tally when they began

All but `work` print one line of JSON.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import mmap
import os
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOST = os.environ["BENCH_HOST"]
PORT = int(os.environ["BENCH_PORT"])
RESULTS = os.environ["BENCH_RESULTS"] == "1"
URL = f"redis://{HOST}:{PORT}/0"
CONCURRENCY = 100
TASKS = 50
SLEEP = 0.05
PAUSE = 0.03  # seconds before each push of `pickup`
SLOTS = 4096  # places for counters in the tally, one a process; behind them there are as many for moments

_number = struct.Struct("q")
_moment = struct.Struct("d")


class Tally:
    """A file that all processes of a run have in memory: jobs done by each process, and when some began."""

    def __init__(self, path):
        with Path(path).open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
        self._lock = threading.Lock()
        self._pid = 0
        self._place = 0

    def count(self):
        if self._pid != os.getpid():  # peers fork
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._place = self._pid % SLOTS * 8
        with self._lock:
            _number.pack_into(self._bytes, self._place, _number.unpack_from(self._bytes, self._place)[0] + 1)

    def stamp(self, number):
        _moment.pack_into(self._bytes, (SLOTS + number) * 8, time.monotonic())

    def stamped(self, number):
        return _moment.unpack_from(self._bytes, (SLOTS + number) * 8)[0]


tally = Tally(os.environ["BENCH_TALLY"])


async def noop(number):
    tally.count()


async def result(number):
    tally.count()
    return number


async def sleep(number):
    if not number:
        tally.stamp(0)
    await asyncio.sleep(SLEEP)
    tally.count()


async def stamp(number):
    tally.stamp(number)
    tally.count()


def sync_noop(number):
    tally.count()


def sync_result(number):
    tally.count()
    return number


def sync_sleep(number):
    if not number:
        tally.stamp(0)
    time.sleep(SLEEP)
    tally.count()


def sync_stamp(number):
    tally.stamp(number)
    tally.count()


ASYNC = {"noop": noop, "result": result, "sleep": sleep, "stamp": stamp}
SYNC = {"noop": sync_noop, "result": sync_result, "sleep": sync_sleep, "stamp": sync_stamp}


def main(work, opened, push_many, push):
    """Do what the arguments say.

    Args:
        work: runs jobs until the process is killed.
        opened: an async context manager around pushes; None where pushes are plain functions.
        push_many: (kind, numbers) -> None or an awaitable.
        push: (kind, number) -> None or an awaitable.
    """
    role, *rest = sys.argv[1:]
    if role == "work":
        work()
        return
    count, kind = int(rest[0]), rest[1]
    act = {"pushmany": _push_many, "pushone": _push_one, "pickup": _pickup}[role]
    if inspect.iscoroutinefunction(push) or opened is not None:
        print(json.dumps(asyncio.run(_opened(opened, act[0], push_many, push, count, kind))))
    else:
        print(json.dumps(act[1](push_many, push, count, kind)))


async def _opened(opened, act, push_many, push, count, kind):
    async with opened():
        await push("noop", 0)  # connections and scripts are there before the clock starts
        return await act(push_many, push, count, kind)


async def _push_many_async(push_many, push, count, kind):
    start = time.perf_counter()
    await push_many(kind, range(count))
    return {"seconds": time.perf_counter() - start}


def _push_many_sync(push_many, push, count, kind):
    push("noop", 0)
    start = time.perf_counter()
    push_many(kind, range(count))
    return {"seconds": time.perf_counter() - start}


async def _push_one_async(push_many, push, count, kind):
    numbers = iter(range(count))

    async def one():
        for number in numbers:
            await push(kind, number)

    start = time.perf_counter()
    await asyncio.gather(*[one() for _ in range(TASKS)])
    return {"seconds": time.perf_counter() - start}


def _push_one_sync(push_many, push, count, kind):
    with ThreadPoolExecutor(TASKS) as pool:
        list(pool.map(lambda number: push("noop", number), range(TASKS)))
        start = time.perf_counter()
        list(pool.map(lambda number: push(kind, number), range(count)))
        return {"seconds": time.perf_counter() - start}


async def _pickup_async(push_many, push, count, kind):
    waits = []
    for number in range(count):
        await asyncio.sleep(PAUSE)
        pushed = time.monotonic()
        await push(kind, number)
        while not tally.stamped(number):  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.002)
        waits.append(tally.stamped(number) - pushed)
    return {"waits": waits}


def _pickup_sync(push_many, push, count, kind):
    waits = []
    for number in range(count):
        time.sleep(PAUSE)
        pushed = time.monotonic()
        push(kind, number)
        while not tally.stamped(number):
            time.sleep(0.002)
        waits.append(tally.stamped(number) - pushed)
    return {"waits": waits}


_push_many = (_push_many_async, _push_many_sync)
_push_one = (_push_one_async, _push_one_sync)
_pickup = (_pickup_async, _pickup_sync)
