"""Several small commands in one write, without a pipeline's conveniences: no converters, no numbering of errors."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Sequence
from typing import Any

from gravito.atlas.client import Client
from gravito.atlas.wire.entry import Batch, Spec
from gravito.atlas.wire.resp import encode, pack

__all__ = ["bundle"]

_BUNDLE = Spec.of("PIPELINE")


def bundle(client: Client, commands: Sequence[tuple[Any, ...]]) -> Awaitable[list[Any]]:
    """Send several commands at once.

    Args:
        client: sends them.
        commands: each its name and arguments; none that blocks or changes the connection, and few enough for a
            shared wire.

    Returns:
        An awaitable of the replies as they came: bytes, unconverted, an error in its place.

    Raises:
        DataError: an argument that has no place on the wire; nothing is sent then.
    """
    # a method of the instance's own: its options, or telemetry, concern each command
    if "_send" in client.__dict__ or type(client)._send is not Client._send or not commands:
        return _piped(client, commands)
    try:
        packed = [pack(args) for args in commands]
    except (TypeError, UnicodeEncodeError):
        packed = [encode(args) for args in commands]
    future: Future[list[Any]] = Future(loop=get_running_loop())
    batch = Batch(future, b"".join(packed), _BUNDLE, None, False, need=len(packed), decode=False)
    client._state(_BUNDLE.name).topology.send(batch)
    return batch


async def _piped(client: Client, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    pipeline = client.with_options(decode_responses=False).pipeline(transaction=False)
    for args in commands:
        pipeline.execute_command(*args)
    return await pipeline.execute(raise_on_error=False)
