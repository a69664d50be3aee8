"""saq: concurrency 100, uvloop as its command uses it where it is installed; without results their time is over at once."""

import asyncio
from contextlib import asynccontextmanager

import peer
import uvloop
from saq import Job, Queue, Worker

queue = Queue.from_url(peer.URL)
TTL = 600 if peer.RESULTS else -1


def _function(kind):
    async def run(ctx, *, number):
        return await peer.ASYNC[kind](number)

    return kind, run


def work():
    async def main():
        await Worker(queue, [_function(kind) for kind in peer.ASYNC], concurrency=peer.CONCURRENCY).start()

    uvloop.install()
    asyncio.run(main())


@asynccontextmanager
async def opened():
    await queue.connect()
    yield
    await queue.disconnect()


async def push_many(kind, numbers):
    line = list(numbers)
    for first in range(0, len(line), 500):  # it has no way to queue many but many at the same time
        await asyncio.gather(*[push(kind, number) for number in line[first : first + 500]])


async def push(kind, number):
    await queue.enqueue(Job(kind, kwargs={"number": number}, ttl=TTL))


if __name__ == "__main__":
    peer.main(work, opened, push_many, push)
