"""What both clients send: the same words for every call of the table, those of modules among them.

A peer that refuses each command stands for the server here, because the engine has no modules and would not
show what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import hiredis
import pytest

from .agreement import outcomes
from .clients import atlas, redis_py
from .recorder import Family, calls_of
from .test_parity import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

HELLO = b"%3\r\n+server\r\n+peer\r\n+version\r\n+8.0.0\r\n+proto\r\n:3\r\n"


@contextlib.asynccontextmanager
async def recording_peer(path: str) -> AsyncIterator[list[list[bytes]]]:
    """Listen on a unix socket, agree to handshakes, refuse and note all else."""
    seen: list[list[bytes]] = []
    connections: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (words := parser.gets()) is not False:
                if words[0] == b"HELLO":
                    writer.write(HELLO)
                elif words[:2] == [b"CLIENT", b"SETINFO"]:
                    writer.write(b"+OK\r\n")
                else:
                    seen.append(words)
                    writer.write(b"-ERR refused\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield seen
    finally:
        server.close()
        await asyncio.gather(*filter(None, connections))  # the clients are closed by now


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
async def test_the_same_words_are_sent(family: Family, tmp_path: Path) -> None:
    calls = calls_of(family)
    async with recording_peer(path := str(tmp_path / "theirs")) as expected, redis_py(path) as client:
        await outcomes(calls, client)
    async with recording_peer(path := str(tmp_path / "ours")) as actual, atlas(path) as client:
        await outcomes(calls, client)
    assert expected
    assert actual == expected
