"""A program that publishes as fast as it is allowed: raw pipelined bytes, no client.

Arguments: host, port, channel, count. Says "ready", then sends one batch per byte of its standard input.
"""

from __future__ import annotations

import os
import socket
import sys

BATCH = 1_000  # messages
PAYLOAD = b"x" * 32


def main(host: str, port: str, channel: str, count: str) -> None:
    """Publish `count` messages, rounded up to whole batches."""
    name = channel.encode()
    command = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(PAYLOAD), PAYLOAD)
    batch = command * BATCH
    due = -(-int(count) // BATCH)
    with socket.create_connection((host, int(port))) as wire:
        # no replies: on a machine of two cores their cost would be taken from the engine's core
        wire.sendall(b"CLIENT REPLY OFF\r\n")
        print("ready", flush=True)
        while due > 0 and (allowed := os.read(0, 64)):
            batches = min(due, len(allowed))
            wire.sendall(batch * batches)
            due -= batches
        os.read(0, 64)  # the end of the credit: leaving earlier could cut off what the engine has not read


if __name__ == "__main__":
    main(*sys.argv[1:])
