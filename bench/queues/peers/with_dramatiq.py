"""dramatiq: one process; its default of 8 threads, and 100 for jobs that sleep. Without results it stores none."""

import os
import sys

import dramatiq
import peer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=peer.URL)
if peer.RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=peer.URL)))
dramatiq.set_broker(broker)
options = {"store_results": True} if peer.RESULTS else {}
jobs = {kind: dramatiq.actor(actor_name=kind, **options)(function) for kind, function in peer.SYNC.items()}


def work():
    threads = str(peer.CONCURRENCY) if os.environ.get("BENCH_SLEEPS") == "1" else "8"
    line = [sys.executable, "-m", "dramatiq", "with_dramatiq", "--processes", "1", "--threads", threads]
    os.execv(sys.executable, line)


def push_many(kind, numbers):
    for number in numbers:  # it has no way to queue many
        push(kind, number)


def push(kind, number):
    jobs[kind].send(number)


if __name__ == "__main__":
    peer.main(work, None, push_many, push)
