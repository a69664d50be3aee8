"""rq: its default worker, which forks a process for each job."""

import peer
from redis import Redis
from rq import Queue, Worker

redis = Redis(host=peer.HOST, port=peer.PORT)
queue = Queue("bench", connection=redis)
TTL = 500 if peer.RESULTS else 0


def work():
    Worker([queue], connection=redis).work(logging_level="ERROR")


def push_many(kind, numbers):
    line = list(numbers)
    for first in range(0, len(line), 500):
        some = line[first : first + 500]
        queue.enqueue_many([Queue.prepare_data(peer.SYNC[kind], (n,), result_ttl=TTL) for n in some])


def push(kind, number):
    queue.enqueue(peer.SYNC[kind], number, result_ttl=TTL)


if __name__ == "__main__":
    peer.main(work, None, push_many, push)
