"""What a server says when it does not do it: own classes, and only what was not applied is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from tests.faults.bench import CANARY, Bench, row
from tests.faults.control import Control

from gravito import errors
from gravito.atlas import Client, Retry


def _expect(bench: Bench, outcome: Any, kind: type[Exception], applied: bool = False) -> None:
    bench.ledger.figures.operations += 1
    bench.ledger.promise(type(outcome) is kind, f"{kind.__name__} was due, not {outcome!r}")
    bench.ledger.promise(
        getattr(outcome, "maybe_applied", applied) is applied, f"maybe_applied is wrong on {outcome!r}"
    )
    bench.ledger.promise(getattr(outcome, "node", None), f"{kind.__name__} names no node")


async def _timed(bench: Bench, awaitable: Any) -> tuple[Any, float]:
    start = time.monotonic()
    outcome = await bench.outcome(bench.ledger.watch(awaitable))
    return outcome, time.monotonic() - start


@row(
    "loading",
    "LOADING: the server reads its data",
    "tried again with backoff until the deadline; then LoadingError; works once it has loaded",
)
async def loading(bench: Bench) -> None:
    folder = bench.folder()
    first = Control(CANARY, folder)
    with first:
        for start in range(0, 4000, 1000):
            first.plain.mset({f"key {number}": number for number in range(start, start + 1000)})
        first.plain.bgrewriteaof()
        await bench.until(lambda: not first.plain.info("persistence")["aof_rewrite_in_progress"], 10.0, 0.01)
    # 4000 keys at 0.25 ms; between them the server answers others, with LOADING
    slow = {"key-load-delay": 250, "loading-process-events-interval-bytes": 1024}
    server = bench.server(folder, slow, start=False, start_timeout=0.1)
    with contextlib.suppress(errors.EngineError):  # "still reading"
        server.engine.ensure()
    short = bench.client(server, timeout=0.2, connect=3.0)
    outcome, took = await _timed(bench, short.incr("n"))
    _expect(bench, outcome, errors.LoadingError)
    bench.ledger.promise(took < 0.5, f"a deadline of 0.2 s was met after {took:.2f} s")
    patient = bench.client(server, timeout=20.0, connect=3.0)
    outcome, took = await _timed(bench, patient.incr("n"))
    bench.ledger.figures.wrong += outcome != 1  # applied once, however often it was tried
    bench.ledger.recovered(took)
    bench.ledger.figures.wrong += await patient.get("key 3999") != "3999"
    bench.ledger.note(tries_with_retries=patient.stats().retries)


@row("oom", "OOM: maxmemory is reached", "OutOfMemoryError at once; reads go on; works when there is room")
async def oom(bench: Bench) -> None:
    server = bench.server(directives={"maxmemory": "3mb", "maxmemory-policy": "noeviction"})
    client = bench.client(server)
    full: Any = None
    for number in range(400):
        full, took = await _timed(bench, client.set(f"key {number}", "x" * 20_000))
        if isinstance(full, Exception):
            break
    _expect(bench, full, errors.OutOfMemoryError)
    bench.ledger.promise(took < 0.2 and full.attempt == 1, "it was tried again")
    server.set("maxmemory", "1mb")  # well below what is used, which goes up and down a little
    pipe = client.pipeline(transaction=False).get("key 0").set("more", "x" * 20_000).get("key 0")
    replies = await pipe.exec(raise_on_error=False)
    bench.ledger.figures.wrong += len(replies[0]) != 20_000 or len(replies[2]) != 20_000
    bench.ledger.error(replies[1])
    _expect(bench, await bench.outcome(client.pipeline().set("more", "x").exec()), errors.OutOfMemoryError)
    server.set("maxmemory", "0")
    await bench.revive(client)
    bench.ledger.figures.wrong += await client.set("more", "x") is not True


@row(
    "readonly",
    "READONLY: a write reaches a replica; then that is promoted",
    "ReadOnlyError, nothing applied; reads go on; works after the promotion",
)
async def readonly(bench: Bench) -> None:
    primary = bench.server()
    replica = bench.server(directives={"primaryauth": CANARY})
    await _follow(bench, primary, replica)
    client = bench.client(replica, timeout=0.4)
    outcome, took = await _timed(bench, client.incr("n"))
    _expect(bench, outcome, errors.ReadOnlyError)
    bench.ledger.promise(took < 0.6, f"it took {took:.2f} s with a deadline of 0.4 s")
    bench.ledger.figures.wrong += await client.get("n") is not None
    bench.ledger.note(took=took)
    replica.ask("REPLICAOF", "NO", "ONE")
    await bench.revive(client)
    bench.ledger.figures.wrong += await client.incr("n") != 1


@row(
    "masterdown",
    "MASTERDOWN: a replica that lost its primary and may not serve old data",
    "tried again until the deadline; then MasterDownError; works after the promotion, also in the middle of the tries",
)
async def masterdown(bench: Bench) -> None:
    primary = bench.server()
    replica = bench.server(directives={"primaryauth": CANARY, "replica-serve-stale-data": "no"})
    await _follow(bench, primary, replica)
    primary.kill()
    await bench.until(lambda: replica.plain.info("replication")["master_link_status"] == "down", 5.0)
    client = bench.client(replica, timeout=0.3)
    outcome, took = await _timed(bench, client.get("n"))
    _expect(bench, outcome, errors.MasterDownError)
    bench.ledger.promise(took < 0.5 and outcome.attempt > 1, f"{took:.2f} s, try {outcome.attempt}")
    patient = bench.client(replica, timeout=5.0)
    waiting = bench.ledger.watch(patient.get("n"))
    await asyncio.sleep(0.05)
    replica.ask("REPLICAOF", "NO", "ONE")
    start = time.monotonic()
    bench.ledger.figures.wrong += await bench.outcome(waiting) is not None
    bench.ledger.recovered(time.monotonic() - start)


async def _follow(bench: Bench, primary: Control, replica: Control) -> None:
    primary.set("repl-diskless-sync-delay", 0)
    replica.ask("REPLICAOF", "127.0.0.1", primary.port)
    await bench.until(lambda: replica.plain.info("replication")["master_link_status"] == "up", 10.0, 0.02)


@row("noauth", "NOAUTH: no password where one is needed", "AuthenticationError at once; never a loop")
async def noauth(bench: Bench) -> None:
    await _unwelcome(bench, None)


@row(
    "wrongpass",
    "WRONGPASS: a wrong password",
    "AuthenticationError at once; one try for each command; never a loop",
)
async def wrongpass(bench: Bench) -> None:
    await _unwelcome(bench, "not-the-password")


async def _unwelcome(bench: Bench, password: str | None) -> None:
    server = bench.server()
    before = server.stat("total_connections_received")
    commands = bench.pick(5, 50)
    client = bench.client(server, password=password, retry=Retry(attempts=5))
    for number in range(commands):
        outcome, took = await _timed(bench, client.blpop(["x"], 1) if number % 2 else client.incr("n"))
        _expect(bench, outcome, errors.AuthenticationError)
        bench.ledger.promise(took < 0.5, f"{took:.2f} s")
        bench.ledger.promise(
            "not-the-password" not in f"{outcome!r}{outcome.__cause__!r}", "it shows what it tried"
        )
    outcome = await bench.outcome(client.subscribe("news"))
    _expect(bench, outcome, errors.AuthenticationError)
    await asyncio.sleep(0.3)  # nothing goes on behind our back
    tried = server.stat("total_connections_received") - before
    bench.ledger.promise(tried <= commands + 1, f"{tried} connections for {commands + 1} calls")
    bench.ledger.note(connections=tried)


@row(
    "noperm",
    "NOPERM: the ACL forbids a command, a key, a channel; then it is changed under us",
    "NoPermissionError at once, on the same wire; works as soon as the ACL allows it",
)
async def noperm(bench: Bench) -> None:
    server = bench.server()
    rules = (
        "on",
        f">{CANARY}",
        "resetkeys",
        "~mine:*",
        "resetchannels",
        "&mine:*",
        "-@all",
        "+get",
        "+echo",
        "+hello",
    )
    server.ask("ACL", "SETUSER", "worker", *rules, "+client|setinfo", "+subscribe", "+unsubscribe", "+ping")
    client = bench.client(server, username="worker")
    await client.execute("ECHO", "first")
    wire = client._state().topology.shared.wire
    _expect(bench, await bench.outcome(client.get("yours:1")), errors.NoPermissionError)
    _expect(bench, await bench.outcome(client.set("mine:1", 1)), errors.NoPermissionError)
    outcome = await bench.outcome(client.subscribe("yours:news"))
    bench.ledger.promise(isinstance(outcome, errors.NoPermissionError), f"{outcome!r}")
    server.ask("ACL", "SETUSER", "worker", "+set")
    bench.ledger.figures.wrong += await client.set("mine:1", 1) is not True
    bench.ledger.promise(client._state().topology.shared.wire is wire, "the wire was replaced")
    # A user that is removed is thrown out by the server; its next command is refused, without end of tries.
    server.ask("ACL", "DELUSER", "worker")
    outcome = await bench.outcome(client.set("mine:1", 2))
    bench.ledger.promise(isinstance(outcome, errors.ConnectionError), f"{outcome!r}")
    _expect(bench, await bench.outcome(client.set("mine:1", 3)), errors.AuthenticationError)


@row(
    "busy",
    "BUSY: a script blocks the server",
    "tried again until the deadline; then BusyError; works after SCRIPT KILL, also in the middle of the tries",
)
async def busy(bench: Bench) -> None:
    server = bench.server(directives={"busy-reply-threshold": 30})
    client = bench.client(server, timeout=0.4)
    patient = bench.client(server, timeout=10.0)
    await client.execute("PING")
    await patient.execute("PING")
    script = bench.client(server, timeout=30.0)
    running = asyncio.ensure_future(bench.outcome(script.eval("while true do end", 0)))
    await asyncio.sleep(0.15)
    outcome, took = await _timed(bench, client.incr("n"))
    _expect(bench, outcome, errors.BusyError)
    bench.ledger.promise(outcome.attempt > 1 and took < 0.7, f"{took:.2f} s, try {outcome.attempt}")
    waiting = bench.ledger.watch(patient.incr("n"))
    await asyncio.sleep(0.05)
    await bench.outcome(client.script_kill())
    start = time.monotonic()
    bench.ledger.figures.wrong += await bench.outcome(waiting) != 1
    bench.ledger.recovered(time.monotonic() - start)
    await running


@row(
    "maxclients",
    "the server takes no more clients",
    "MaxClientsError after the tries; works when there is a place, also in the middle of them",
)
async def maxclients(bench: Bench) -> None:
    server = bench.server()
    server.ask("PING")
    server.set("maxclients", 1)
    client = bench.client(server, retry=Retry(attempts=2, base=0.01, cap=0.05))
    _expect(bench, await bench.outcome(client.incr("n")), errors.MaxClientsError)
    _expect(bench, await bench.outcome(client.blpop(["n"], 1)), errors.MaxClientsError)
    patient: Client = bench.client(server, retry=Retry(attempts=50, base=0.02, cap=0.05))
    waiting = bench.ledger.watch(patient.incr("n"))
    await asyncio.sleep(0.1)
    server.set("maxclients", 100)
    start = time.monotonic()
    bench.ledger.figures.wrong += await bench.outcome(waiting) != 1
    bench.ledger.recovered(time.monotonic() - start)
    await bench.revive(client)
