"""Callers that go away, and deadlines that pass."""

from __future__ import annotations

import asyncio
import random
import time

from tests.faults.bench import Bench, row

from gravito.atlas import Client


@row(
    "cancel",
    "callers cancelled at random points, under delay",
    "no reply reaches another caller; the wire is not replaced for it",
)
async def cancel(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    proxy.delay = (0.0, 0.004)
    client = bench.client(proxy, timeout=20.0)
    await client.execute("ECHO", "first")
    wire = client._state().topology.shared.wire
    total, workers = bench.pick(4_000, 100_000), 200
    numbers = iter(range(total))
    cancelled = 0

    async def call(number: int) -> None:
        token = f"token {number}"
        choice = number % 20
        if choice == 0:
            reply = await client.pipeline(transaction=number % 40 == 0).echo(token).echo(token).exec()
            wrong = reply != [token, token]
        elif choice == 1:  # on a leased wire
            reply = await client.blpop([f"nothing {number}"], timeout=0.01)
            wrong = reply is not None
        elif choice == 2:
            reply = await client.set(f"key {number % 50}", token, get=True)
            wrong = reply is not None and not reply.startswith("token ")
        else:
            wrong = await client.execute("ECHO", token) != token
        bench.ledger.figures.wrong += wrong

    async def work() -> None:
        nonlocal cancelled
        for number in numbers:
            task = bench.ledger.watch(asyncio.ensure_future(call(number)))
            if random.random() < 0.5:
                await asyncio.wait([task], timeout=random.choice((0.0, random.random() * 0.02)))
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            except Exception as error:
                bench.ledger.error(error)

    await asyncio.gather(*[work() for _ in range(workers)])
    bench.ledger.figures.operations = total
    bench.ledger.note(cancelled=cancelled, connections=proxy.connections)
    bench.ledger.promise(client._state().topology.shared.wire is wire, "the shared wire was replaced")
    bench.ledger.promise(not bench.ledger.errors, f"errors: {bench.ledger.errors}")
    bench.ledger.promise(cancelled > total / 10, "too few cancellations to show anything")


@row(
    "withdraw",
    "callers cancelled before their command was written",
    "the command is never sent; the others are, in order",
)
async def withdraw(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server)
    await client.execute("DEL", "list")
    total = bench.pick(2_000, 50_000)
    rng = random.Random(1)
    expected = []
    for start in range(0, total, 500):
        entries = [bench.ledger.watch(client.rpush("list", number)) for number in range(start, start + 500)]
        gone = set(rng.sample(range(500), 200))
        gone.discard(0)  # a lone caller's command is written at once
        for at in gone:
            entries[at].future.cancel()
        expected += [str(start + at) for at in range(500) if at not in gone]
        await asyncio.gather(*[entry.future for entry in entries], return_exceptions=True)
    found = await client.lrange("list", 0, -1)
    bench.ledger.figures.operations = total
    bench.ledger.figures.wrong += found != expected
    bench.ledger.note(withdrawn=total - len(expected))


@row(
    "cancel-handshake",
    "callers cancelled while their leased wire shakes hands",
    "that wire is closed, the next caller gets another",
)
async def cancel_handshake(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, connect=5.0)
    await client.execute("ECHO", "first")
    proxy.delay = (0.005, 0.015)
    rounds = bench.pick(10, 100)
    for number in range(rounds):
        tasks = [
            bench.ledger.watch(asyncio.ensure_future(_await(client.blpop([f"none {number}"], timeout=1))))
            for _ in range(10)
        ]
        await asyncio.sleep(random.random() * 0.03)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    proxy.delay = (0.0, 0.0)
    await bench.revive(client)
    bench.ledger.figures.operations = rounds * 10
    await bench.until(lambda: not client._state().topology.pool.lent, 2.0)
    # The shared wire, and whatever lies ready in the pool.
    idle = client._state().topology.pool.idle
    await bench.until(lambda: len(server.clients()) <= 1 + idle, 2.0, 0.02)
    bench.ledger.figures.wires += max(0, len(server.clients()) - 1 - idle)


async def _await(awaitable: object) -> object:
    return await awaitable  # type: ignore[misc]  # an entry


@row(
    "deadline-late",
    "deadline passes with k of n pipeline replies in; the rest comes late",
    "the k replies are on the error, which says maybe_applied; the same wire goes on",
)
async def deadline_late(bench: Bench) -> None:
    await _deadline(bench, late=True)


@row(
    "deadline-lost",
    "deadline passes with k of n pipeline replies in; the rest never comes",
    "the k replies are on the error, which says maybe_applied; the wire is replaced",
)
async def deadline_lost(bench: Bench) -> None:
    await _deadline(bench, late=False)


async def _deadline(bench: Bench, late: bool) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    timeout = 0.3
    client = bench.client(proxy, timeout=timeout, health=timeout)
    rounds, count = bench.pick(3, 20), 20
    if not late:
        bench.ledger.figures.bound = timeout * 1.5 + timeout + 0.15
    for number in range(rounds):
        wire = await _id(client)
        kept = random.randrange(0, count)
        texts = [f"{number} {at}" for at in range(count)]
        proxy.allow(sum(len(f"${len(text)}\r\n{text}\r\n") for text in texts[:kept]), "hold")
        pipe = client.pipeline(transaction=False)
        for at in range(count):
            pipe.echo(texts[at]) if at != count - 1 else pipe.getset("key", texts[at])
        start = time.monotonic()
        error = await bench.outcome(pipe.exec())
        took = time.monotonic() - start
        bench.ledger.promise(
            timeout * 0.9 <= took < timeout + 0.2, f"the deadline was met after {took:.3f} s"
        )
        got = getattr(error, "replies", None)
        bench.ledger.figures.wrong += got != texts[:kept]
        bench.ledger.promise(getattr(error, "maybe_applied", False), "the error does not say maybe_applied")
        if late:
            proxy.release()
            answered = await bench.outcome(client.execute("ECHO", "after"))
            bench.ledger.figures.wrong += answered != "after"
            bench.ledger.recovered(time.monotonic() - start - took)
            bench.ledger.promise(await _id(client) == wire, "the wire was replaced although it was only late")
        else:
            shared = client._state().topology.shared
            old = shared.wire
            await bench.until(lambda old=old, shared=shared: shared.wire is not old, 3.0)
            bench.ledger.recovered(time.monotonic() - start)
            bench.ledger.promise(await _id(client) != wire, "the silent wire was not replaced")
    bench.ledger.figures.operations = rounds * count


async def _id(client: Client) -> int:
    number = await client.client_id()
    assert isinstance(number, int)
    return number
