"""Peers that do not speak RESP, or too much of it."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.bench import CANARY, Bench, row

from gravito import errors
from gravito.atlas import Client, Limits, Retry, Settings, Timeouts
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, Spec

MIB = 1024 * 1024
_SPEC = Spec.of("GET")


class _Transport(asyncio.Transport):
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def _wire(reply_bytes: int = 8 * MIB) -> tuple[Wire, _Transport]:
    limits = Limits(reply_bytes=reply_bytes)
    wire, transport = Wire(asyncio.get_running_loop(), "peer:1", limits, None), _Transport()
    wire.connection_made(transport)
    return wire, transport


def _ask(wire: Wire, count: int) -> list[Entry]:
    loop = asyncio.get_running_loop()
    entries = [Entry(loop.create_future(), b"x", _SPEC, None, bool(at % 2)) for at in range(count)]
    for entry in entries:
        wire.send(entry)
    wire._flush()
    return entries


def _mutate(rng: random.Random, data: bytes) -> bytes:
    """Good bytes with something wrong in them: cut, doubled, changed, swapped, or noise."""
    spoiled = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(spoiled) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            del spoiled[at : at + rng.randrange(1, 8)]
        elif kind == 1:
            spoiled[at:at] = rng.choice(
                (b"\r\n", b"*3\r\n", b"$-1\r\n", b"%2\r\n", b"~1\r\n", b"|1\r\n", b">1\r\n", b"_\r\n")
            )
        elif kind == 2 and spoiled:
            spoiled[at % len(spoiled)] = rng.randrange(256)
        elif kind == 3:
            spoiled[at:at] = spoiled[: rng.randrange(1, 16)]
        else:
            spoiled[at:at] = rng.randbytes(rng.randrange(1, 16))
    return bytes(spoiled)


GOOD = (
    b"+OK\r\n", b":42\r\n", b"$5\r\nhello\r\n", b"$-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"-ERR no\r\n",
    b"*2\r\n:1\r\n$1\r\na\r\n", b"%1\r\n+k\r\n*1\r\n:1\r\n", b"~2\r\n:1\r\n:2\r\n", b"=7\r\ntxt:abc\r\n",
    b"(12345678901234567890\r\n", b">3\r\n+message\r\n+a\r\n+b\r\n", b"-MOVED 1 a:1\r\n", b"-\r\n", b"$0\r\n\r\n",
)  # fmt: skip


@row(
    "fuzz",
    "malformed bytes: good replies cut, doubled, changed, mixed with noise, split anywhere",
    "replies, or ProtocolError and that wire ended with all waiters settled; no other exception",
)
async def fuzz(bench: Bench) -> None:
    total = bench.pick(3_000, 200_000)
    rng = random.Random(bench.pick(7, 11))
    ended = 0
    for number in range(total):
        wire, transport = _wire()
        entries = _ask(wire, rng.randrange(0, 6))
        data = _mutate(rng, b"".join(rng.choices(GOOD, k=rng.randrange(1, 8))))
        try:
            at = 0
            while at < len(data) and wire.ended is None:
                step = rng.randrange(1, len(data) + 1)
                wire.data_received(data[at : at + step])
                at += step
        except Exception as error:
            bench.ledger.promise(False, f"{data!r}: {error!r}")
        if wire.ended is not None:
            ended += 1
            bench.ledger.promise(type(wire.ended) is errors.ProtocolError, f"{data!r}: {wire.ended!r}")
            bench.ledger.promise(transport.aborted, "the socket was left open")
            bench.ledger.figures.unsettled += sum(not entry.future.done() for entry in entries)
        else:
            wire.close()
            bench.ledger.figures.unsettled += sum(not entry.future.done() for entry in entries)
        for entry in entries:
            entry.future.exception()
        if number % 500 == 0:
            await asyncio.sleep(0)
    bench.ledger.figures.operations = total
    bench.ledger.note(wires_ended=ended)


@row(
    "endless",
    "replies without end: bulk, line, array, map, nesting, number, push",
    "ProtocolError at limits.reply_bytes; memory stays within a few times that; depth is bounded",
)
async def endless(bench: Bench) -> None:
    limit = bench.pick(4, 32) * MIB
    chunk = 64 * 1024
    bodies: dict[str, tuple[bytes, bytes]] = {
        "bulk": (b"$99999999999\r\n", b"x"),
        "line": (b"+", b"x"),
        "error": (b"-", b"x"),
        "number": (b"(", b"1"),
        "array": (b"*100000000\r\n", b":1\r\n"),
        "strings": (b"*100000000\r\n", b"$1\r\nx\r\n"),
        "map": (b"%100000000\r\n", b"+k\r\n:1\r\n"),
        "set": (b"~100000000\r\n", b":1\r\n"),
        "push": (b">1000000\r\n", b":1\r\n"),
        "nested": (b"", b"*1\r\n"),
        "empties": (b"*1000000\r\n", b"*0\r\n"),
        "attribute": (b"|100000000\r\n", b"+k\r\n+v\r\n"),
        "absurd": (b"*4294967295\r\n", b":1\r\n"),
    }
    took = {}
    with bench.ledger.memory():
        for name, (head, unit) in bodies.items():
            wire, _ = _wire(limit)
            entries = _ask(wire, 3)
            block = unit * (chunk // len(unit))
            sent = 0
            wire.data_received(head or block)
            while wire.ended is None and sent < 2 * limit:
                wire.data_received(block)
                sent += len(block)
                if sent % (16 * chunk) == 0:
                    await asyncio.sleep(0)
            bench.ledger.promise(
                isinstance(wire.ended, errors.ProtocolError), f"{name}: {sent} bytes, and {wire.ended!r}"
            )
            bench.ledger.promise(sent <= limit + 2 * chunk, f"{name}: ended after {sent} bytes")
            bench.ledger.figures.unsettled += sum(not entry.future.done() for entry in entries)
            for entry in entries:
                if (error := entry.future.exception()) is not None:
                    bench.ledger.error(error)
            took[name] = sent
            bench.ledger.figures.operations += 1
            del wire, entries
    # An empty array costs 4 bytes on the wire and 56 in memory, and a place in its list.
    if bench.ledger.figures.memory is not None:
        allowed = limit / MIB * 20 + 32
        bench.ledger.promise(
            bench.ledger.figures.memory < allowed, f"{bench.ledger.figures.memory} MiB for {limit // MIB}"
        )
    bench.ledger.note(limit_mib=limit // MIB, ended_after=took)


PEERS = {
    "http": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "tls": b"\x15\x03\x03\x00\x02\x02\x46",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": b"\0" * 4096,
    "nothing": b"",
    "resp-of-others": b"+OK\r\n" * 100,
    "stray": b"$5\r\nhello\r\n*2\r\n:1\r\n:2\r\n" * 10,
}


@row(
    "strangers",
    "the port speaks HTTP, TLS, SSH, noise, or replies that nobody asked for",
    "ProtocolError (or a lost or late connection) in words that help; no loop; no leak",
)
async def strangers(bench: Bench) -> None:
    for name, words in PEERS.items():
        for eager in (True, False):
            outcome, connections = await _meet(bench, words, eager)
            bench.ledger.figures.operations += 1
            kinds = (
                errors.ProtocolError,
                errors.ConnectionLostError,
                errors.ConnectTimeoutError,
                errors.ResponseError,
            )
            bench.ledger.promise(isinstance(outcome, kinds), f"{name}: {outcome!r}")
            bench.ledger.promise(connections <= 4, f"{name}: {connections} connections")


async def _meet(bench: Bench, words: bytes, eager: bool) -> tuple[Any, int]:
    """A peer that says `words`, at once or when spoken to, and what a client makes of it."""
    count = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            if not eager:
                await reader.read(10)
            writer.write(words)
            await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    with tempfile.TemporaryDirectory(prefix="gravito-") as folder:
        path = str(Path(folder) / "peer.sock")
        server = await asyncio.start_unix_server(talk, path)
        settings = Settings(
            path=path,
            password=CANARY,
            retry=Retry(attempts=2, base=0.001, cap=0.01),
            timeouts=Timeouts(connect=0.2, command=0.5),
        )
        client = Client(settings)
        outcome = await bench.outcome(bench.ledger.watch(client.incr("n")))
        await client.aclose()
        server.close()
        await asyncio.sleep(0.01)
    return outcome, count
