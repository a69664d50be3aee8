"""celery: one worker with a pool of one process (prefork), and of 100 threads for jobs that sleep."""

import os
import sys

import peer
from celery import Celery

app = Celery("bench", broker=peer.URL, backend=peer.URL if peer.RESULTS else None)
app.conf.task_ignore_result = not peer.RESULTS
app.conf.broker_connection_retry_on_startup = True
jobs = {kind: app.task(name=kind)(function) for kind, function in peer.SYNC.items()}


def work():
    threads = os.environ.get("BENCH_SLEEPS") == "1"
    pool = ["-P", "threads", "-c", str(peer.CONCURRENCY)] if threads else ["-P", "prefork", "-c", "1"]
    line = [sys.executable, "-m", "celery", "-A", "with_celery", "worker", "-l", "ERROR", *pool]
    os.execv(sys.executable, line)


def push_many(kind, numbers):
    for number in numbers:
        push(kind, number)


def push(kind, number):
    jobs[kind].delay(number)


if __name__ == "__main__":
    peer.main(work, None, push_many, push)
