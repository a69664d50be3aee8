"""Batches: what a pipeline travels as, and what becomes of their replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.entry import Batch, Spec

CHUNK_COMMANDS = (
    4096  # of one batch; larger pipelines travel as several, so that limits in flight can hold them
)
_CHUNK_BYTES = 1024 * 1024

BATCH = Spec.of("PIPELINE")
READS = Spec.of("PIPELINE", Route.READ_ONLY)
TRANSACTION = Spec.of("MULTI")


def chunks(commands: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Bounds of the batches for packed commands: few commands and few bytes each."""
    if len(commands) <= CHUNK_COMMANDS and sum(map(len, commands)) <= _CHUNK_BYTES:
        yield 0, len(commands)
        return
    start = size = 0
    for at, packed in enumerate(commands):
        size += len(packed)
        if at - start + 1 >= CHUNK_COMMANDS or size >= _CHUNK_BYTES:
            yield start, at + 1
            start, size = at + 1, 0
    if start < len(commands):
        yield start, len(commands)


def withdraw(batches: list[Batch]) -> None:
    """After one batch failed: those not yet written are taken out, the others' replies are dropped."""
    for batch in batches:
        if not batch.future.done():
            batch.future.cancel()
        elif not batch.future.cancelled():
            batch.future.exception()


def decoded(reply: Any, text: bool) -> Any:
    """Text for the replies of a transaction of which one had to stay bytes: EXEC's reply is read as a whole."""
    if not text:
        return reply
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list):
        return [decoded(item, text) for item in reply]
    if isinstance(reply, dict):
        return {decoded(key, text): decoded(value, text) for key, value in reply.items()}
    return reply
