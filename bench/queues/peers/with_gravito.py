"""Ours: `gravito horizon work`, with what is on by default."""

import os
import sys
from contextlib import asynccontextmanager

import peer

from gravito.atlas import Client
from gravito.horizon import Horizon

horizon = Horizon(Client.from_url(peer.URL))
jobs = {name: horizon.job(name=name, results=peer.RESULTS)(function) for name, function in peer.ASYNC.items()}


def work():
    line = [sys.executable, "-m", "gravito.cli", "horizon", "work", "with_gravito:horizon", "-c"]
    os.execv(sys.executable, [*line, str(peer.CONCURRENCY)])


@asynccontextmanager
async def opened():
    yield
    await horizon.aclose()
    await horizon.client.aclose()


async def push_many(kind, numbers):
    await horizon.push_many(jobs[kind].make(number) for number in numbers)


async def push(kind, number):
    await jobs[kind].push(number)


if __name__ == "__main__":
    peer.main(work, opened, push_many, push)
