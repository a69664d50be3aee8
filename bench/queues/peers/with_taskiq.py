"""taskiq with taskiq-redis' streams (which acknowledge), one worker process, 100 tasks, uvloop as its command takes it."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import peer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(peer.URL, consumer_id="0-0", max_connection_pool_size=50)
if peer.RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(peer.URL, result_ex_time=3600))
jobs = {kind: broker.task(task_name=kind)(function) for kind, function in peer.ASYNC.items()}


def work():
    line = [sys.executable, "-m", "taskiq", "worker", "with_taskiq:broker", "--workers", "1"]
    os.execv(sys.executable, [*line, "--max-async-tasks", str(peer.CONCURRENCY), "--log-level", "WARNING"])


@asynccontextmanager
async def opened():
    await broker.startup()
    yield
    await broker.shutdown()


async def push_many(kind, numbers):
    line = list(numbers)
    for first in range(0, len(line), 500):
        await asyncio.gather(*[push(kind, number) for number in line[first : first + 500]])


async def push(kind, number):
    await jobs[kind].kiq(number)


if __name__ == "__main__":
    peer.main(work, opened, push_many, push)
