"""streaq: concurrency 100; without results these end at once."""

import asyncio
from contextlib import asynccontextmanager

import peer
import uvloop
from streaq import Worker

worker = Worker(redis_url=peer.URL, concurrency=peer.CONCURRENCY)
jobs = {
    kind: worker.task(name=kind, ttl=3600 if peer.RESULTS else 0)(function)
    for kind, function in peer.ASYNC.items()
}


def work():
    uvloop.install()
    asyncio.run(worker.run_async())


@asynccontextmanager
async def opened():
    async with worker:
        yield


async def push_many(kind, numbers):
    line = list(numbers)
    for first in range(0, len(line), 1000):
        await worker.enqueue_many([jobs[kind].enqueue(number) for number in line[first : first + 1000]])


async def push(kind, number):
    await jobs[kind].enqueue(number)


if __name__ == "__main__":
    peer.main(work, opened, push_many, push)
