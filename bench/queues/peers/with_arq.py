"""arq: max_jobs 100, and its default poll of the queue every half a second."""

import asyncio
from contextlib import asynccontextmanager

import peer
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

settings = RedisSettings(host=peer.HOST, port=peer.PORT)
state = {}


def _function(kind):
    async def run(ctx, number):
        return await peer.ASYNC[kind](number)

    return func(run, name=kind, keep_result=3600 if peer.RESULTS else 0)


def work():
    asyncio.set_event_loop(asyncio.new_event_loop())
    functions = [_function(kind) for kind in peer.ASYNC]
    Worker(functions, redis_settings=settings, max_jobs=peer.CONCURRENCY).run()


@asynccontextmanager
async def opened():
    state["pool"] = await create_pool(settings)
    yield
    await state["pool"].aclose()


async def push_many(kind, numbers):
    line = list(numbers)
    for first in range(0, len(line), 500):
        await asyncio.gather(*[push(kind, number) for number in line[first : first + 500]])


async def push(kind, number):
    await state["pool"].enqueue_job(kind, number)


if __name__ == "__main__":
    peer.main(work, opened, push_many, push)
