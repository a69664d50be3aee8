"""`python -m bench.console`: the console before a million jobs in 50 queues, 200 workers, and a week of counters.

One queue is filled by real pushes and a real worker; the server copies it to the others. Simulated are the counters of
the past (random ones, closed by the queue's own script), some of the present, and the workers' records. The console is a process of its own,
asked by this one; it starts anew for each answer that is called its first. Every page and every route of the API is asked
for again and again; then 100 pages stay open, first on an idle server and then beside a worker at full load, and the
commands that the console costs are set beside those of the queue. What the console sent is its own count, times what
each command brought about on the idle server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import uvicorn

from bench.engine import running
from bench.stored import NAMES, fill, traffic
from gravito.atlas import Client
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon.console._api import ENDPOINTS
from gravito.horizon.console._pages import PAGES

TARGET = 300.0  # ms at p95
SHARE = 0.02  # of the commands that the queue executes, for 100 open pages
OPEN = 100


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[str, int]]:
    """The console as a process of its own: its address, and its process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.console", "--serve", url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        yield line.decode().strip(), process.pid
    finally:
        process.terminate()
        await process.wait()


def serve(url: str) -> None:
    """What that process does."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1000)
        horizon = Horizon(Client.from_url(url))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(horizon.console(), log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run([listener])


def addresses(places: dict[str, str]) -> list[str]:
    """Every page and every route, and lists at their far end."""
    found = [page.path.format(**places) for page in PAGES]
    found += ["/?window=7d", "/queues/b00?window=7d", "/statistics?window=7d", "/workers?offset=150"]
    found += ["/statistics?window=7d&job=shop.tasks.job03", "/statistics?window=24h&queue=b00"]
    found += ["/jobs?offset=900000", "/jobs?state=ready&offset=500000", "/jobs?state=delayed&offset=90000"]
    found += [
        "/jobs?state=dead&offset=9000",
        "/jobs?state=done&offset=140000",
        "/jobs?state=running&offset=5000",
    ]
    found += ["/jobs?state=done&name=shop.tasks.job03", "/jobs?state=ready&tag=nowhere", "/jobs?id=nowhere"]
    for one in ENDPOINTS:
        path = one.path.format(**places) if "batches/{" not in one.path else f"/api/batches/{places['batch']}"
        found.append(path)
    found += [
        "/api/jobs?state=dead&offset=9000",
        "/api/jobs?state=ready&offset=500000",
        "/api/metrics?window=7d",
    ]
    return [*found, "/metrics", "/healthz"]


async def ask(address: str, pid: int, paths: Sequence[str], times: int) -> list[dict[str, Any]]:
    """Each path so many times: how long it took, and what it cost the console's process."""
    rows = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as web:
        for path in paths:
            took, cpu = [], processor(pid)
            for _ in range(times):
                begin = time.perf_counter()
                answer = await web.get(path, headers={"accept": "*/*"})
                took.append((time.perf_counter() - begin) * 1000)
                answer.raise_for_status()
            rows.append(
                {
                    "path": path,
                    **spread(took),
                    "cpu": (processor(pid) - cpu) * 1000 / times,
                    "rss": memory(pid),
                }
            )
    return rows


def spread(took: Sequence[float]) -> dict[str, float]:
    """Half, and nineteen of twenty, took no longer; and the longest."""
    cuts = quantiles(took, n=20, method="inclusive") if len(took) > 1 else [took[0]] * 19
    return {"p50": cuts[9], "p95": cuts[18], "max": max(took)}


async def cold(url: str, paths: Sequence[str], times: int) -> list[dict[str, Any]]:
    """How long the very first answer of a console takes, behind its first breath."""
    rows = []
    for path in paths:
        took = []
        for _ in range(times):
            async with serving(url) as (address, _), httpx.AsyncClient(base_url=address, timeout=60) as web:
                await web.get("/healthz")
                begin = time.perf_counter()
                (await web.get(path, headers={"accept": "*/*"})).raise_for_status()
                took.append((time.perf_counter() - begin) * 1000)
        rows.append({"path": path, **spread(took)})
    return rows


def memory(pid: int) -> int:
    """Resident bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def calls(client: Client) -> int:
    """Commands that the server has executed, those inside of scripts too."""
    said = await client.info("commandstats")
    return sum(int(one["calls"]) for one in said.values())


async def rate(client: Client, seconds: float) -> float:
    """Commands a second while this waits, without those of asking for it."""
    before, begin = await calls(client), time.perf_counter()
    await asyncio.sleep(seconds)
    return (await calls(client) - before - 1) / (time.perf_counter() - begin)


@asynccontextmanager
async def watching(address: str, pages: Sequence[str]) -> AsyncIterator[None]:
    """100 open pages, these in turns. As in a browser, each reads itself anew when its shape changes."""

    async def watch(web: httpx.AsyncClient, page: str) -> None:
        path, _, live = page.partition(" ")
        shape, read = None, time.monotonic()
        while True:
            async with web.stream("GET", live) as answer:
                async for line in answer.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    told = json.loads(line[6:]).get("shape", shape)
                    if told != shape and time.monotonic() - read > 5 * (1 + random.random()):
                        if shape is not None:  # as console.js does
                            await web.get(path, headers={"accept": "*/*", "x-live": "1"})
                        shape, read = told, time.monotonic()

    limits = httpx.Limits(max_connections=2 * OPEN)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits) as web:
        watchers = [asyncio.create_task(watch(web, pages[n % len(pages)])) for n in range(OPEN)]
        await asyncio.sleep(5)
        yield
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


async def sent(web: httpx.AsyncClient) -> int:
    """Commands that the console itself has sent."""
    [own, *_] = (await web.get("/api/connections")).json()["connections"]
    return int(own["stats"]["commands"])


async def live(horizon: Horizon, address: str, kinds: dict[str, list[str]], seconds: float) -> dict[str, Any]:
    """Commands a second that open pages cost: on a server that does nothing else, and beside a worker at full load."""
    found: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=address, timeout=60) as web:
        for kind, pages in kinds.items():
            async with watching(address, pages):
                before = await sent(web)
                commands = await rate(horizon.client, seconds)
                inner = commands * seconds / max(1, await sent(web) - before - 4)  # those of asking for it
            found[kind] = {"idle": commands, "inner": max(1.0, inner)}
        async with working(horizon) as tally:
            found["queue"] = await pace(horizon, tally, seconds)
            for kind, pages in kinds.items():
                async with watching(address, pages):
                    before = await sent(web)
                    both = await pace(horizon, tally, seconds)
                    own = (await sent(web) - before - 4) / seconds * found[kind]["inner"]
                found[kind] |= {"loaded": own, "share": own / (both["commands"] - own), "jobs": both["jobs"]}
    return found


async def pace(horizon: Horizon, tally: Any, seconds: float) -> dict[str, float]:
    """Jobs and commands a second."""
    done, begin = tally.done, time.perf_counter()
    commands = await rate(horizon.client, seconds)
    return {"jobs": (tally.done - done) / (time.perf_counter() - begin), "commands": commands}


@asynccontextmanager
async def working(horizon: Horizon) -> AsyncIterator[Any]:
    """A worker at full load, and whoever pushes to it; gives the worker's tally."""
    job = horizon.job(name="bench.nothing", queue="load", retries=0)(_nothing)
    worker = Worker(horizon, WorkerOptions(queues=("load",), concurrency=200))

    async def push() -> None:
        pushed = 0
        while True:
            await horizon.push_many(job.make() for _ in range(500))
            pushed += 500
            while pushed > worker.tally.done + 20_000:  # noqa: ASYNC110  # a tally sets no event
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(push()), asyncio.create_task(worker.run())]
    await asyncio.sleep(2)
    yield worker.tally
    tasks[0].cancel()
    worker.stop()
    await asyncio.gather(*tasks, return_exceptions=True)


def _nothing() -> None:
    """A job."""


async def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """All of it."""

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    with running() as engine:
        url = f"redis://{engine.host}:{engine.port}"
        client = Client.from_url(url)
        async with Horizon(client) as horizon:
            places = await fill(horizon, chosen.jobs, say)
            say(f"filled; the server uses {int((await client.info('memory'))['used_memory']) >> 20} MiB")
            first = await cold(url, ["/", "/?window=7d", "/statistics?window=7d", "/metrics"], chosen.cold)
            say("cold starts are over")
            async with serving(url) as (address, pid):
                begin = memory(pid)
                busy = asyncio.create_task(traffic(horizon, [f"shop.tasks.job{n:02}" for n in range(NAMES)]))
                rows = await ask(address, pid, addresses(places), chosen.times)
                busy.cancel()
                say("pages are over")
                kinds = {
                    "overview": ["/ /live/overview"],
                    "one queue": ["/queues/b00 /live/queue?of=b00"],
                    "three queues": [f"/queues/b{n:02} /live/queue?of=b{n:02}" for n in range(3)],
                    "workers": ["/workers /live/workers"],
                    "running": ["/running /live/running"],
                    "batch": [f"/batches/{places['batch']} /live/batch?of={places['batch']}"],
                }
                kinds["all kinds"] = [page for kind in list(kinds) for page in kinds[kind]]
                shares = await live(horizon, address, kinds, chosen.seconds)
                end = memory(pid)
        await client.aclose()
    return {"cold": first, "pages": rows, "memory": [begin, rows[-1]["rss"], end], "live": shares}


def report(found: dict[str, Any]) -> bool:
    """Print the tables; whether the targets are met."""
    good = True
    print(f"{'ms, of which the console was at work':50} {'p50':>6} {'p95':>6} {'max':>6} {'cpu':>6}")
    for kind in ("cold", "pages"):
        for row in found[kind]:
            slowest = row["max" if kind == "cold" else "p95"]
            good &= slowest < TARGET
            name = f"first: {row['path']}" if kind == "cold" else row["path"]
            line = f"{name[:50]:50} {row['p50']:6.0f} {row['p95']:6.0f} {row['max']:6.0f} {row.get('cpu', 0):6.0f}"
            print(line + (" over" if slowest >= TARGET else ""))
    shares = found["live"]
    queue = shares.pop("queue")
    print(f"a worker and its pusher: {queue['jobs']:,.0f} jobs/s, {queue['commands']:,.0f} commands/s")
    for kind, one in shares.items():
        good &= one["share"] < SHARE
        print(
            f"{OPEN} open pages of {kind}: {one['idle']:.1f} commands/s on an idle server; "
            f"{one['loaded']:.1f} beside that worker, {one['share']:.1%} of what it did then"
        )
    print("memory of the console: " + ", ".join(f"{one >> 20} MiB" for one in found["memory"]))
    return good


def main() -> int:
    """Measure; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=40, help="requests of each path")
    parser.add_argument("--cold", type=int, default=4, help="starts for each path that is asked for first")
    parser.add_argument("--seconds", type=float, default=6.0, help="for which commands are counted")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return 0
    logging.getLogger("gravito").setLevel(logging.CRITICAL)  # dead jobs are wanted here
    found = asyncio.run(measure(chosen))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
