"""More than fits: crowds, large values, slow readers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from tests.faults.bench import CANARY, Bench, row

from gravito import errors
from gravito.atlas import Client, Limits

MIB = 1024 * 1024


@row(
    "crowd",
    "100,000 tasks against a paused server",
    "the caps on commands and bytes in flight hold; order is kept; waiters can be cancelled; memory is reported",
)
async def crowd(bench: Bench) -> None:
    server = bench.server()
    limits = Limits(in_flight=2_000, in_flight_bytes=96 * 1024)
    client = bench.client(server, timeout=120.0, limits=limits)
    await client.execute("DEL", "list")
    wire = client._state().topology.shared.wire
    assert wire is not None
    total = bench.pick(10_000, 100_000)
    most = {"commands": 0, "bytes": 0}

    async def push(number: int) -> None:
        await bench.ledger.watch(client.rpush("list", number))

    def look() -> None:
        most["commands"], most["bytes"] = map(max, most.values(), wire.load)

    server.pause(300.0, "WRITE")
    with bench.ledger.memory():
        tasks = [asyncio.create_task(push(number)) for number in range(total)]
        await bench.until(lambda: wire.in_flight + wire.unsent >= total, 60.0)
        look()
        waiting = wire.unsent
        gone = set(range(total // 2, total, 7))  # all of these wait for room
        for number in gone:
            tasks[number].cancel()
        await asyncio.sleep(0.05)
        look()
        bench.ledger.promise(
            all(tasks[number].cancelled() for number in gone), "a waiter could not be cancelled"
        )
        server.unpause()
        start = time.monotonic()
        while not all(task.done() for task in tasks[-50:]):
            look()
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks, return_exceptions=True)
        drained = time.monotonic() - start
    found = await client.lrange("list", 0, -1)
    expected = [str(number) for number in range(total) if number not in gone]
    bench.ledger.figures.wrong += found != expected
    bench.ledger.figures.operations = total
    bench.ledger.promise(most["commands"] <= limits.in_flight, f"{most['commands']} commands in flight")
    bench.ledger.promise(most["bytes"] <= limits.in_flight_bytes, f"{most['bytes']} bytes in flight")
    bench.ledger.note(
        most_commands=most["commands"],
        most_bytes=most["bytes"],
        waited_for_room=waiting,
        cancelled=len(gone),
        drained=drained,
    )


@row(
    "no-room",
    "no room in flight until the deadline",
    "who waits fails with LeaseTimeoutError, not sent; who was sent fails with maybe_applied; then all goes on",
)
async def no_room(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server, timeout=0.3, limits=Limits(in_flight=10))
    await client.execute("DEL", "n")
    server.pause(0.38, "WRITE")
    outcomes = await asyncio.gather(
        *[bench.outcome(bench.ledger.watch(client.incr("n"))) for _ in range(100)]
    )
    unsent = [each for each in outcomes if type(each) is errors.LeaseTimeoutError]
    bench.ledger.promise(len(unsent) >= 80, f"{len(unsent)} of 90 say that they were not sent")
    bench.ledger.promise(not any(each.maybe_applied for each in unsent), "not sent, and yet maybe_applied")
    await bench.revive(client)
    applied = int(await client.get("n") or 0)
    bench.ledger.figures.wrong += not applied <= 100 - len(unsent)
    bench.ledger.figures.operations = 100


async def _small(client: Client, seconds: float) -> list[float]:
    """The times of small GETs from a few tasks."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def ask() -> None:
        while (start := time.monotonic()) < end:
            await client.get("small")
            times.append(time.monotonic() - start)
            await asyncio.sleep(0.0005)

    await asyncio.gather(*[ask() for _ in range(10)])
    return sorted(times)


@row(
    "large-beside-small",
    "a value of 100 MiB is written, or read, once a second beside small GETs",
    "the small GETs' p99 stays within 3 times of what it is without",
)
async def large_beside_small(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server, timeout=30.0)
    size = bench.pick(20, 100) * MIB
    seconds = bench.pick(0.5, 8.0)
    await client.set("small", "x" * 100)
    other = bench.client(server, timeout=30.0, decode_responses=False)
    await other.set("large", b"y" * size)
    quiet = await _small(client, seconds)
    figures: dict[str, float] = {"quiet_p99_ms": _p99(quiet) * 1000}
    raw = client.with_options(decode_responses=False)
    value = b"y" * size

    async def read() -> None:
        got = await raw.get("large")  # comparing all of it would hold up the loop by itself
        bench.ledger.figures.wrong += len(got) != size or got[: 1 << 12] != value[: 1 << 12]

    async def write() -> None:
        await raw.set("large", value)

    async def elsewhere() -> None:
        """What the server itself holds up: nobody here has to do with it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _READER, str(server.port), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(CANARY.encode() + b"\n")
        bench.ledger.promise(process.returncode == 0, "the other process failed")

    kinds: dict[str, Callable[[], Awaitable[None]]] = {
        "read": read,
        "write": write,
        "other_process": elsewhere,
    }
    for name, act in kinds.items():
        over = asyncio.Event()
        done = 0

        async def large(act: Callable[[], Awaitable[None]] = act, over: asyncio.Event = over) -> None:
            nonlocal done
            while not over.is_set():
                await act()
                done += 1
                await asyncio.sleep(bench.pick(0.2, 1.0))

        task = asyncio.ensure_future(large())
        times = await _small(client, seconds)
        over.set()
        await task
        figures[f"{name}_p50_ms"] = times[len(times) // 2] * 1000
        figures[f"{name}_p99_ms"] = _p99(times) * 1000
        figures[f"{name}_max_ms"] = times[-1] * 1000
        figures[f"{name}_values"] = done
        bench.ledger.figures.operations += len(times)
    bench.ledger.note(**figures)
    allowed = 3 * figures["quiet_p99_ms"]
    for name in ("read", "write"):  # a short form has too few samples for a 99th percentile
        kept = not bench.full or figures[f"{name}_p99_ms"] <= allowed
        bench.ledger.promise(kept, f"{name}: p99 {figures[f'{name}_p99_ms']:.1f} ms, over {allowed:.1f} ms")


_READER = """
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.sendall(b"AUTH " + sys.stdin.buffer.readline().strip() + b"\\r\\nGET large\\r\\n")
head = peer.recv(64)
while head.count(b"\\n") < 2:
    head += peer.recv(64)
left = int(head.split(b"\\r\\n")[1][1:]) + 2 - len(head.split(b"\\r\\n", 2)[2])
room = bytearray(1 << 18)
while left > 0:
    left -= peer.recv_into(room)
"""


def _p99(times: list[float]) -> float:
    return times[min(len(times) - 1, int(len(times) * 0.99))]


@row(
    "oversize",
    "an argument above what any server takes",
    "refused before anything is sent; the wire stays",
)
async def oversize(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server)
    await client.execute("PING")
    wire = client._state().topology.shared.wire
    value = bytes(512 * MIB + 1) if bench.full else None
    if value is None:  # the limit itself is too large for a short run
        from gravito.atlas.wire import resp

        resp.MAX_ARGUMENT, real = 2 * MIB, resp.MAX_ARGUMENT
        value = bytes(2 * MIB + 1)
    else:
        real = 0
    try:
        for act in (lambda: client.set("large", value), lambda: client.pipeline().set("large", value)):
            try:
                bench.ledger.promise(False, f"it was taken: {act()!r}")
            except errors.DataError as error:
                bench.ledger.error(error)
                bench.ledger.promise("not sent" in str(error), str(error))
    finally:
        if real:
            resp.MAX_ARGUMENT = real
    await bench.revive(client)
    bench.ledger.figures.operations = 2
    bench.ledger.promise(client._state().topology.shared.wire is wire, "the wire was replaced")


@row(
    "slow-subscriber",
    "a subscriber that is too slow is cut off by the server's output buffer limit",
    "a gap event with the reason; subscribed again; counted; no message twice or out of order",
)
async def slow_subscriber(bench: Bench) -> None:
    server = bench.server(directives={"client-output-buffer-limit": ["pubsub", "1mb", "0", "0"]})
    proxy = bench.proxy(server)
    client = bench.client(proxy, limits=Limits(push_buffer=1_000_000))
    talker = bench.client(server)
    subscription = await client.subscribe("news")
    rounds = bench.pick(2, 10)
    published, received, gaps = 0, [], []
    for _ in range(rounds):
        proxy.deaf = {"down"}
        wire = client._hub()._wire
        cuts = server.stat("client_output_buffer_limit_disconnections")
        # Small ones: above 16 KB Valkey 9 shares the payload and sees the limit only when the reader reads again.
        for _ in range(60):  # what the kernel buffers, and then some
            pipe = talker.pipeline(transaction=False)
            for number in range(published, published + 100):
                pipe.publish("news", f"{number} " + "x" * 8_000)
            await pipe.exec()
            published += 100
            if server.stat("client_output_buffer_limit_disconnections") > cuts:
                break
        else:
            bench.ledger.promise(False, "the server did not cut it off")
        proxy.deaf = set()
        start = time.monotonic()
        await bench.until(lambda wire=wire: client._hub()._wire not in (wire, None), 5.0)
        bench.ledger.recovered(time.monotonic() - start)
        published += 1
        await talker.publish("news", f"{published - 1} last")
        while True:
            message = await subscription.get(3.0)
            if message is None:
                bench.ledger.promise(False, "the message after the gap did not come")
                break
            if message.type == "gap":
                gaps.append(message.data)
                continue
            received.append(int(message.data.split()[0]))
            if received[-1] == published - 1:
                break
    bench.ledger.figures.wrong += received != sorted(set(received))
    bench.ledger.promise(len(gaps) == rounds, f"{len(gaps)} gap events for {rounds} cuts")
    bench.ledger.promise(all("closed" in reason for reason in gaps), f"reasons: {gaps[:2]}")
    bench.ledger.promise(client.stats().gaps == rounds, f"stats count {client.stats().gaps}")
    bench.ledger.figures.operations = published
    bench.ledger.note(
        published=published, received=len(received), gaps=len(gaps), reason=gaps[0] if gaps else ""
    )
    await subscription.aclose()
