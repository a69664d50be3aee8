"""huey: the consumer's threads, 4 as its documentation has them for such jobs, and 100 for jobs that sleep."""

import os

import peer
from huey import RedisHuey

huey = RedisHuey("bench", url=peer.URL, results=peer.RESULTS)
jobs = {kind: huey.task(name=kind)(function) for kind, function in peer.SYNC.items()}


def work():
    workers = peer.CONCURRENCY if os.environ.get("BENCH_SLEEPS") == "1" else 4
    huey.create_consumer(workers=workers, worker_type="thread").run()


def push_many(kind, numbers):
    for number in numbers:
        push(kind, number)


def push(kind, number):
    jobs[kind](number)


if __name__ == "__main__":
    peer.main(work, None, push_many, push)
