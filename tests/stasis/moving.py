"""A cluster whose slots never rest: those that hold keys move from node to node until it ends."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas.topology.slots import slot_of

_PAUSE = 0.1  # seconds between two moves: the nodes have to serve the tests, too


class Mover:
    """Moves slots of a cluster in a thread of its own."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="moves slots")
        self._error: Exception | None = None  # what ended it
        self._chance = random.Random()  # the common one belongs to the tests
        self.rest = threading.Lock()  # held during a move
        self.moved = 0  # slots that held a key

    def _work(self) -> None:
        try:
            while not self._ended.wait(_PAUSE):
                with self.rest:
                    self._move()
        except Exception as error:
            self._error = error

    def _move(self) -> None:
        source, target = self._chance.sample(self._cluster.nodes, 2)
        key = source.ask("RANDOMKEY")
        if key is not None:
            self._cluster.migrate(slot_of(key), target)
            self.moved += 1

    def empty(self) -> None:
        """Forget all keys, those that are between two nodes, too."""
        with self.rest:
            for node in self._cluster.nodes:
                node.ask("FLUSHALL")
                node.ask("SCRIPT", "FLUSH")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Stop after the move that is under way. Raises what went wrong with one."""
        self._ended.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


@contextmanager
def moving_cluster() -> Iterator[tuple[LocalCluster, Mover]]:
    """Three nodes, their slots on the move."""
    with LocalCluster(3) as cluster:
        mover = Mover(cluster)
        mover.start()
        try:
            yield cluster, mover
        finally:
            mover.end()
        assert mover.moved > 0, "no slot was moved"
