"""Clusters and sentinels of this machine's own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.waiting import alive

from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas._local_sentinels import LocalSentinels


def test_a_cluster_serves_every_slot(cluster: LocalCluster) -> None:
    assert len(cluster.primaries()) == 3
    assert {cluster.owner_of(slot).port for slot in (0, 8000, 16383)} == {node.port for node in cluster.nodes}
    assert cluster.url.startswith("redis+cluster://127.0.0.1:")


def test_a_slot_moves_with_its_keys(cluster: LocalCluster) -> None:
    slot = int(cluster.nodes[0].ask("CLUSTER", "KEYSLOT", "moving"))
    source = cluster.owner_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    source.ask("SET", "moving", "here")
    try:
        cluster.migrate(slot, target)
        assert cluster.owner_of(slot) is target
        assert target.ask("GET", "moving") == "here"
    finally:
        cluster.migrate(slot, source)
        source.ask("DEL", "moving")


def test_a_replica_takes_the_place_of_its_primary(cluster_with_replicas: LocalCluster) -> None:
    cluster = cluster_with_replicas
    lost = cluster.primaries()[0]
    lost.kill()
    cluster.wait()
    assert len(cluster.primaries()) == 3
    assert not lost.running
    cluster.rejoin(lost)
    assert lost in cluster.replicas()
    assert len(cluster.replicas()) == 3


def test_sentinels_name_another_primary(sentinels: LocalSentinels) -> None:
    lost = sentinels.primary()
    lost.kill()
    sentinels.rejoin(lost)
    assert sentinels.primary() is not lost
    assert lost in sentinels.replicas()


@pytest.mark.parametrize(("primaries", "replicas"), [(2, 0), (3, -1)])
def test_a_cluster_that_cannot_be(primaries: int, replicas: int) -> None:
    with pytest.raises(ValueError, match="at least 3 primaries"):
        LocalCluster(primaries, replicas)


PROGRAM = """
import os, sys
from gravito.atlas._local_cluster import LocalCluster
cluster = LocalCluster(3)
cluster.start()
print(*[node.engine.pid for node in cluster.nodes], *[os.path.dirname(node.engine.path) for node in cluster.nodes])
sys.stdout.flush()
sys.stdin.read()
"""


def test_nothing_is_left_of_a_killed_program() -> None:
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as program:
        assert program.stdout is not None
        words = program.stdout.readline().split()
        program.send_signal(signal.SIGKILL)
    processes, folders = [int(word) for word in words[:3]], [Path(word) for word in words[3:]]
    assert len(folders) == 3
    deadline = time.monotonic() + 5
    while any(map(alive, processes)) or any(folder.exists() for folder in folders):
        assert time.monotonic() < deadline, "left behind"
        time.sleep(0.02)
