"""Processes and loops that end, or split, when they should not. Each script runs in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import textwrap
import time
from typing import Any

from tests.faults.bench import CANARY, Bench, row
from tests.faults.control import Control

_HEAD = """
import asyncio, gc, json, os, signal, sys, threading, time, warnings
from gravito import errors
from gravito.atlas import Client, Settings
port, secret = int(sys.argv[1]), sys.stdin.readline().strip()
client = Client(Settings(port=port, password=secret))
def say(**facts):
    print(json.dumps(facts), flush=True)
"""


async def _script(
    bench: Bench, server: Control, body: str, *, interrupt: float | None = None, options: tuple[str, ...] = ()
) -> tuple[dict[str, Any], str, int]:
    """Run a script. Returns what it said, what it wrote to standard error, and its status."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *options, "-c", _HEAD + textwrap.dedent(body), str(server.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(CANARY.encode() + b"\n")
    if interrupt is not None:
        await bench.until(lambda: len(server.clients()) >= 1, 10.0, 0.01)
        await asyncio.sleep(interrupt)
        process.send_signal(signal.SIGINT)
    start = time.monotonic()
    try:
        out, err = await asyncio.wait_for(process.communicate(), 20.0)
    except TimeoutError:
        process.kill()
        await process.wait()
        bench.ledger.promise(False, "the script hung")
        return {}, "", -1
    bench.ledger.recovered(time.monotonic() - start)
    facts: dict[str, Any] = {}
    for line in out.decode().splitlines():
        facts.update(json.loads(line))
    bench.ledger.look(err.decode())
    bench.ledger.figures.operations += 1
    status = process.returncode
    assert status is not None
    return facts, err.decode(), status


@row(
    "fork",
    "fork after connect, inside the running loop; parent and child go on at the same time",
    "the child is refused in the parent's loop and works in its own; the parent is unharmed",
)
async def fork(bench: Bench) -> None:
    server = bench.server()
    body = """
    async def use(name, count):
        wrong = 0
        for number in range(count):
            tokens = [f"{name} {number} {at}" for at in range(20)]
            wrong += list(await asyncio.gather(*[client.execute("ECHO", token) for token in tokens])) != tokens
        return wrong

    async def main():
        await use("first", 5)
        task = asyncio.create_task(use("parent", 100))
        await asyncio.sleep(0)
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                try:
                    client.get("x")
                except errors.LoopError:
                    status = 2
                status = 0 if asyncio.run(use("child", 50)) == 0 and status == 2 else status + 10
            finally:
                os._exit(status)
        wrong = await task
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            wrong += await use("parent too", 2)
        say(wrong=wrong, child=os.waitstatus_to_exitcode(ended[1]))
        await client.aclose()
    asyncio.run(main())
    """
    for _ in range(bench.pick(1, 5)):
        facts, err, status = await _script(bench, server, body)
        bench.ledger.promise(status == 0 and facts.get("child") == 0, f"{status} {facts} {err[-500:]}")
        bench.ledger.figures.wrong += facts.get("wrong", 1)


@row(
    "fork-pool",
    "worker processes are forked after the parent has used its client",
    "each worker works; the parent's connection stays; nobody hears another's replies",
)
async def fork_pool(bench: Bench) -> None:
    server = bench.server()
    body = """
    import multiprocessing
    def work(number):
        async def main():
            return [await client.execute("ECHO", f"{number} {at}") for at in range(50)]
        return asyncio.run(main()) == [f"{number} {at}" for at in range(50)]
    loop = asyncio.new_event_loop()
    async def number():
        return await client.client_id()
    before = loop.run_until_complete(number())
    with multiprocessing.get_context("fork").Pool(3) as pool:
        good = pool.map(work, range(12))
    after = loop.run_until_complete(number())
    loop.run_until_complete(client.aclose())
    loop.close()
    say(good=all(good), same=before == after)
    """
    facts, err, status = await _script(bench, server, body)
    bench.ledger.promise(
        status == 0 and facts.get("good") and facts.get("same"), f"{status} {facts} {err[-500:]}"
    )
    bench.ledger.figures.wrong += not facts.get("good", False)


@row(
    "loop-closed",
    "the loop is closed with work in flight; then another loop uses the client",
    "no hang; the new loop works; a ResourceWarning names the client",
)
async def loop_closed(bench: Bench) -> None:
    server = bench.server()
    body = """
    loop = asyncio.new_event_loop()
    async def begin():
        await client.execute("ECHO", "x")
        return [asyncio.ensure_future(client.blpop(["none"], 5)), client.get("x")]
    left = loop.run_until_complete(begin())
    loop.close()
    async def again():
        async with client:
            return await client.execute("ECHO", "again")
    say(again=asyncio.run(again()))
    """
    facts, err, status = await _script(bench, server, body, options=("-X", "dev"))
    bench.ledger.promise(status == 0 and facts.get("again") == "again", f"{status} {facts} {err[-800:]}")
    bench.ledger.promise("ResourceWarning" in err, f"no warning: {err[-500:]}")


@row(
    "never-closed",
    "the client is never closed: asyncio.run ends, and with a loop that is only left",
    "no hang, no noise after asyncio.run; a ResourceWarning for the loop that was left; the server is rid of both",
)
async def never_closed(bench: Bench) -> None:
    server = bench.server()
    tidy = """
    async def main():
        subscription = await client.subscribe("news")
        say(reply=await client.execute("ECHO", "x"), id=await client.client_id())
    asyncio.run(main())
    """
    facts, err, status = await _script(bench, server, tidy, options=("-X", "dev"))
    bench.ledger.promise(
        status == 0 and facts.get("reply") == "x" and not err, f"{status} {facts} {err[-800:]}"
    )
    left = """
    loop = asyncio.new_event_loop()
    async def main():
        say(reply=await client.execute("ECHO", "x"))
    loop.run_until_complete(main())
    """
    facts, err, status = await _script(bench, server, left, options=("-X", "dev"))
    bench.ledger.promise(status == 0 and facts.get("reply") == "x", f"{status} {facts} {err[-800:]}")
    bench.ledger.promise("ResourceWarning" in err, f"no warning: {err[-500:]}")
    bench.ledger.figures.wires += await asyncio.to_thread(server.gone)


@row(
    "interrupted",
    "Ctrl-C while commands, a blocking read, a subscription and a connect are under way",
    "KeyboardInterrupt ends the program within two seconds; nothing else is said",
)
async def interrupted(bench: Bench) -> None:
    server = bench.server()
    body = """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    async def main():
        subscription = await client.subscribe("news", lambda message: None)
        async def forever():
            while True:
                await client.incr("n")
        import socket
        deaf = socket.create_server(("127.0.0.1", 0))
        other = Client(Settings(port=deaf.getsockname()[1]))
        await asyncio.gather(*[forever() for _ in range(20)], client.blpop(["none"], 0), other.get("x"))
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        say(interrupted=True)
    """
    bench.ledger.figures.bound = 2.0
    for _ in range(bench.pick(1, 5)):
        facts, err, status = await _script(bench, server, body, interrupt=0.3)
        bench.ledger.promise(status == 0 and facts.get("interrupted"), f"{status} {facts} {err[-800:]}")
        bench.ledger.promise("never retrieved" not in err and "Traceback" not in err, err[-800:])
        bench.ledger.figures.wires += await asyncio.to_thread(server.gone)


@row(
    "exit",
    "sys.exit and os._exit with work in flight; a daemon thread's loop left running",
    "the program ends at once with its own status",
)
async def exits(bench: Bench) -> None:
    server = bench.server()
    bodies = {
        "sys.exit": """
            async def main():
                tasks = [asyncio.ensure_future(client.blpop(["none"], 0)) for _ in range(5)]
                await asyncio.sleep(0.1)
                sys.exit(7)
            asyncio.run(main())
            """,
        "thread": """
            ready = threading.Event()
            async def main():
                await client.execute("ECHO", "x")
                ready.set()
                await client.blpop(["none"], 0)
            threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
            ready.wait(5)
            sys.exit(7)
            """,
        "os._exit": """
            async def main():
                await client.execute("ECHO", "x")
                os._exit(7)
            asyncio.run(main())
            """,
    }
    bench.ledger.figures.bound = 3.0
    for name, body in bodies.items():
        _, err, status = await _script(bench, server, body)
        bench.ledger.promise(status == 7, f"{name}: {status} {err[-500:]}")
        bench.ledger.promise("Traceback" not in err, f"{name}: {err[-800:]}")
        bench.ledger.figures.wires += await asyncio.to_thread(server.gone)


@row(
    "threads",
    "one client in the loops of several threads, closed from one of them",
    "each loop has wires of its own; no reply reaches another thread; closing ends them all",
)
async def threads(bench: Bench) -> None:
    server = bench.server()
    client = bench.client(server)
    count = bench.pick(200, 3_000)

    def work(name: int) -> int:
        async def main() -> int:
            tokens = [f"{name} {at}" for at in range(count)]
            replies = await asyncio.gather(*[_echo(token) for token in tokens])
            return sum(reply != token for reply, token in zip(replies, tokens, strict=True))

        async def _echo(token: str) -> Any:
            return await client.execute("ECHO", token)

        return asyncio.run(main())

    wrong = await asyncio.gather(*[asyncio.to_thread(work, name) for name in range(4)])
    bench.ledger.figures.wrong += sum(wrong)
    bench.ledger.figures.operations = 4 * count
