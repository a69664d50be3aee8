"""Connections and servers that end in the middle."""

from __future__ import annotations

import asyncio
import time

from tests.faults.bench import Bench, row
from tests.faults.control import Control

from gravito import errors
from gravito.atlas import Client, Retry


@row(
    "kill9",
    "kill -9 and restart under INCRs, append-only file synced always",
    "each future settles; acknowledged increments are there; none is applied twice or lost without maybe_applied",
)
async def kill9(bench: Bench) -> None:
    server = bench.server(bench.folder())
    client = bench.client(server, retry=Retry(attempts=8, base=0.01, cap=0.1))
    cycles, workers = bench.pick(3, 40), 16
    acknowledged, ambiguous = [0] * workers, [0] * workers
    news = asyncio.Event()
    over = False

    async def count(worker: int) -> None:
        last = 0
        while not over:
            try:
                value = await bench.ledger.watch(client.incr(f"count {worker}"))
            except errors.GravitoError as error:
                bench.ledger.error(error)
                ambiguous[worker] += error.maybe_applied
                await asyncio.sleep(0.005)
                continue
            # What is counted is what the server says: an increment that was applied unseen shows as a step of two.
            bench.ledger.figures.wrong += not last < value <= acknowledged[worker] + ambiguous[worker] + 1
            last = value
            acknowledged[worker] += 1
            news.set()

    tasks = [asyncio.ensure_future(count(worker)) for worker in range(workers)]
    for _ in range(cycles):
        await asyncio.sleep(0.15)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.02)
        await asyncio.to_thread(server.restart)
        start = time.monotonic()
        news.clear()
        try:
            await asyncio.wait_for(news.wait(), 10)
        except TimeoutError:
            bench.ledger.promise(False, "no increment went through after a restart")
        bench.ledger.recovered(time.monotonic() - start)
    over = True
    await asyncio.gather(*tasks)
    values = [int(await client.get(f"count {worker}") or 0) for worker in range(workers)]
    for worker, value in enumerate(values):
        bench.ledger.figures.wrong += not (
            acknowledged[worker] <= value <= acknowledged[worker] + ambiguous[worker]
        )
    bench.ledger.figures.operations = sum(acknowledged)
    bench.ledger.note(
        kills=cycles, acknowledged=sum(acknowledged), applied=sum(values), maybe_applied=sum(ambiguous)
    )


@row(
    "reset",
    "the connection is reset at every byte offset of a reply",
    "all waiters fail once or are asked again; a new decoder; the next command works",
)
async def reset(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, retry=Retry(attempts=3, base=0.001, cap=0.01))
    await client.set("key", "0123456789" * 4)
    await client.hset("hash", mapping={"a": "1", "b": "2"})
    await client.rpush("list", *range(5))
    # A write's bulk string, an integer, a map, an array: each with a read behind it that may be asked again.
    writes = {
        "getset": (lambda: client.getset("key", "0123456789" * 4), 47),
        "incr": (lambda: client.incr("n"), 4),
        "eval": (lambda: client.eval("return {1, 'two', {3, 'four'}}", 0), 37),
    }
    stride = bench.pick(9, 1)
    for name, (write, length) in writes.items():
        for offset in range(0, length + 8, stride):
            await client.execute("PING")
            settled: list[object] = []
            waiting = [bench.ledger.watch(write()), bench.ledger.watch(client.get("key"))]
            waiting += [bench.ledger.watch(client.hgetall("hash")), bench.ledger.watch(write())]
            for entry in waiting:
                entry.future.add_done_callback(settled.append)
            proxy.allow(offset, "reset")
            start = time.monotonic()
            outcomes = [await bench.outcome(entry) for entry in waiting]
            await bench.outcome(client.execute("PING"))
            bench.ledger.figures.operations += len(waiting)
            bench.ledger.figures.wrong += outcomes[1] != "0123456789" * 4  # reads are asked again
            bench.ledger.figures.wrong += outcomes[2] != {"a": "1", "b": "2"}
            bench.ledger.promise(len(settled) == len(waiting), "a waiter was not settled exactly once")
            for outcome in (outcomes[0], outcomes[3]):
                if isinstance(outcome, Exception):
                    bench.ledger.promise(
                        getattr(outcome, "maybe_applied", False), f"{name}: no word of maybe_applied"
                    )
            bench.ledger.recovered(time.monotonic() - start)
    bench.ledger.note(connections=proxy.connections)
    bench.ledger.figures.bound = 1.0


@row(
    "cut-handshake",
    "the connection is cut at every byte offset of the handshake's replies",
    "connecting is tried again; the command then works, nothing is sent twice",
)
async def cut_handshake(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    probe = bench.client(server)
    await probe.set("n", 0)
    offsets = range(0, 230, bench.pick(23, 1))
    acknowledged = 0
    for offset in offsets:
        client = Client(bench.settings(proxy, retry=Retry(attempts=3, base=0.001, cap=0.01)))
        proxy.first_budget = offset
        start = time.monotonic()
        value = await bench.outcome(bench.ledger.watch(client.incr("n")))
        bench.ledger.recovered(time.monotonic() - start)
        # Behind the handshake's last byte it is the reply itself that is cut.
        bench.ledger.figures.wrong += not isinstance(value, int) and not value.maybe_applied
        acknowledged += isinstance(value, int)
        await client.aclose()
    bench.ledger.figures.operations = len(offsets)
    applied = int(await probe.get("n"))
    unsure = bench.ledger.figures.ambiguous
    bench.ledger.figures.wrong += not acknowledged <= applied <= acknowledged + unsure
    bench.ledger.promise(unsure <= 8, f"{unsure} are unsure, and the reply has 4 to 6 bytes")
    bench.ledger.figures.bound = 1.0


@row(
    "pieces",
    "replies arrive a byte at a time, and slowly",
    "every reply is whole and its own",
)
async def pieces(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    proxy.piece = {"down": 1, "up": 7}
    client = bench.client(proxy, timeout=30.0)
    total = bench.pick(300, 5_000)

    async def ask(number: int) -> None:
        token = f"ünï {number}"
        bench.ledger.figures.wrong += await bench.outcome(client.execute("ECHO", token)) != token

    await asyncio.gather(*[ask(number) for number in range(total)])
    bench.ledger.figures.operations = total


@row(
    "client-kill",
    "CLIENT KILL of every connection, again and again, under load",
    "reads are asked again and succeed; writes say maybe_applied or succeed",
)
async def client_kill(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server, retry=Retry(attempts=20, base=0.001, cap=0.02))
    await client.set("key", "value")
    over = False
    count = 0

    async def read() -> None:
        nonlocal count
        while not over:
            bench.ledger.figures.wrong += (
                await bench.outcome(bench.ledger.watch(client.get("key"))) != "value"
            )
            count += 1

    tasks = [asyncio.ensure_future(read()) for _ in range(20)]
    for _ in range(bench.pick(10, 200)):
        await asyncio.sleep(0.02)
        server.kill_clients()
        start = time.monotonic()
        before = count
        await bench.until(lambda before=before: count > before + 20, 5.0)
        bench.ledger.recovered(time.monotonic() - start)
    over = True
    await asyncio.gather(*tasks)
    bench.ledger.figures.operations = count
    bench.ledger.note(reconnects=client.stats().connects - 1)
    bench.ledger.figures.bound = 1.0


@row(
    "torn-writes",
    "the connection is reset while large values are on their way up",
    "no half-written value is ever seen; each failure says maybe_applied",
)
async def torn_writes(bench: Bench) -> None:
    server: Control = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, retry=Retry(attempts=5, base=0.001, cap=0.02))
    rounds = bench.pick(10, 100)
    for number in range(rounds):
        size = 400_000 if number % 2 else 1_500_000  # on the shared wire, and on a leased one
        values = [f"{letter}" * size for letter in "abc"]
        tasks = [asyncio.ensure_future(bench.outcome(client.set("large", value))) for value in values]
        await asyncio.sleep(0.002 * (number % 5))
        proxy.reset()
        for outcome in await asyncio.gather(*tasks):
            if isinstance(outcome, errors.GravitoError):
                bench.ledger.promise(outcome.maybe_applied, f"a lost SET is not maybe_applied: {outcome!r}")
        stored = await bench.outcome(client.get("large"))
        bench.ledger.figures.wrong += stored not in (None, *values) and not isinstance(stored, Exception)
        await client.delete("large")
    bench.ledger.figures.operations = rounds * 3
