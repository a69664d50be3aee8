"""What must hold when answers are lost, memory is full, workers freeze and servers differ. Real servers, real faults."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from tests.faults.control import Control
from tests.faults.proxy import Proxy
from tests.servers.catalogue import SERVERS, needed
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.atlas.embedded import Engine
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Claimed, Done, Envelope, Limit
from gravito.testing import empty

MEGABYTE = 1024 * 1024


def ended(jobs: list[Claimed], outcome: str = "ok", record: bytes | None = None) -> list[Done]:
    return [Done(job.id, job.fence, outcome, record, name="noop") for job in jobs]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def control() -> Iterator[Control]:
    """A server of this module's own, on TCP."""
    with Control(None) as control:
        yield control


@pytest.fixture
def server(control: Control) -> Control:
    """The same, empty and as it was started."""
    control.ask("FLUSHALL")
    control.set("maxmemory", 0)
    control.set("maxmemory-policy", "noeviction")
    return control


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}?timeouts.command=1"


# -- answers that are lost ---------------------------------------------------------------------------------------


async def lose_the_next_answer(proxy: Proxy) -> None:
    """What the server answers to the next command does not arrive; the connection ends with it."""
    proxy.allow(0, "reset")


@pytest.mark.parametrize("keep", [True, False])
async def test_a_push_whose_answer_is_lost_is_one_job(server: Control, keep: bool) -> None:
    with Proxy(server.port) as proxy:
        async with (
            Client.from_url(url(proxy.port)) as client,
            Client.from_url(url(server.port)) as plain,
        ):
            broker, worker = Broker(client, "q"), Broker(plain, "q")
            await broker.push(Envelope("first", b""))
            await lose_the_next_answer(proxy)
            pushing = asyncio.ensure_future(broker.push_many([Envelope(f"{n}", b"") for n in range(10)]))
            while (await worker.sizes()).totals["pushed"] < 11:  # noqa: ASYNC110  # it arrived, its answer did not
                await asyncio.sleep(0)
            assert not pushing.done()
            # Even when all ran and nothing of them is kept, repeating the push brings none of them back.
            jobs = (await worker.step("w", [], 100)).claimed
            await worker.step("w", ended(jobs, record=b"r" if keep else None), 0)
            assert [one.state for one in await pushing] == ["new"] * 10
            sizes = await worker.sizes()
            assert (sum(sizes.ready), sizes.totals["pushed"], sizes.totals["ok"]) == (0, 11, 11)
            assert proxy.connections > 1


async def test_a_claim_whose_answer_is_lost_is_the_same_claim(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with (
            Client.from_url(url(proxy.port)) as client,
            Client.from_url(url(server.port)) as plain,
        ):
            broker, other = Broker(client, "q"), Broker(plain, "q")
            await other.push_many([Envelope(f"{n}", b"body%d" % n) for n in range(10)])
            await broker.step("w", [], 0)
            await lose_the_next_answer(proxy)
            step = await broker.step("w", [], 6)
            assert [(job.id, job.body) for job in step.claimed] == [(f"{n}", b"body%d" % n) for n in range(6)]
            sizes = await other.sizes()
            assert (sizes.running, sum(sizes.ready)) == (6, 4)
            assert (await broker.step("w", ended(step.claimed), 0)).refused == []
            assert proxy.connections > 1


async def test_a_finish_whose_answer_is_lost_is_accepted_once(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with (
            Client.from_url(url(proxy.port)) as client,
            Client.from_url(url(server.port)) as plain,
        ):
            broker, other = Broker(client, "q"), Broker(plain, "q")
            await other.push_many([Envelope(f"{n}", b"") for n in range(10)])
            first = (await broker.step("w", [], 5)).claimed
            stale = Done("never", 1, "ok")
            await lose_the_next_answer(proxy)
            step = await broker.step("w", [*ended(first[:3]), stale, *ended(first[3:], "retry")], 3)
            assert step.refused == ["never"]
            assert [job.id for job in step.claimed] == ["5", "6", "7"]
            sizes = await other.sizes()
            assert sizes.totals == {"pushed": 10, "ok": 3, "retry": 2}
            assert (sizes.running, sum(sizes.ready)) == (3, 4)
            assert proxy.connections > 1


async def test_a_step_that_was_given_up_is_made_up_for_by_the_next(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with (
            Client.from_url(url(proxy.port)) as client,
            Client.from_url(url(server.port)) as plain,
        ):
            broker, other = Broker(client, "q", patience=0.1), Broker(plain, "q")
            await other.push_many([Envelope(f"{n}", b"") for n in range(10)])
            first = (await broker.step("w", [], 4)).claimed
            proxy.allow(0, "hold")
            with pytest.raises(errors.TimeoutError):
                await broker.step("w", ended(first[:2]), 3)
            assert (await other.sizes()).running == 5  # it was carried out
            proxy.release()
            step = await broker.step("w", ended(first), 5)
            assert step.refused == []
            assert [job.id for job in step.claimed] == [str(n) for n in range(4, 9)]
            await broker.step("w", ended(step.claimed), 0)
            sizes = await other.sizes()
            assert (sizes.totals, sizes.running, sum(sizes.ready)) == ({"pushed": 10, "ok": 9}, 0, 1)


async def test_a_step_whose_caller_was_cancelled_is_made_up_for_too(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with (
            Client.from_url(url(proxy.port)) as client,
            Client.from_url(url(server.port)) as plain,
        ):
            broker, other = Broker(client, "q"), Broker(plain, "q")
            await other.push_many([Envelope(f"{n}", b"") for n in range(3)])
            await broker.step("w", [], 0)
            proxy.allow(0, "hold")
            lost = asyncio.ensure_future(broker.step("w", [], 2))
            while (await other.sizes()).running < 2:  # noqa: ASYNC110  # the server sets no event
                await asyncio.sleep(0)
            lost.cancel()
            proxy.release()
            step = await broker.step("w", [], 3)
            assert [(job.id, job.crashes) for job in step.claimed] == [("0", 0), ("1", 0), ("2", 0)]


async def test_counters_count_a_repeated_step_once(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with Client.from_url(url(proxy.port)) as client:
            broker = Broker(client, "q")
            await broker.push_many([Envelope(f"{n}", b"") for n in range(5)])
            jobs = (await broker.step("w", [], 5)).claimed
            await lose_the_next_answer(proxy)
            await broker.step("w", ended(jobs), 0)
            minute = await client.hgetall(broker.keys.minute(broker.now_ms() // 60_000))
            assert sum(int(count) for field, count in minute.items() if field.startswith("r|ok|")) == 5


async def test_an_answer_that_never_comes_is_asked_for_again(server: Control) -> None:
    with Proxy(server.port) as proxy:
        async with Client.from_url(url(proxy.port)) as client:
            broker = Broker(client, "q")
            await broker.push(Envelope("first", b""))
            proxy.allow(0, "hold")
            pushing = asyncio.ensure_future(broker.push(Envelope("a", b"")))
            while server.ask("HLEN", broker.keys.part("jobs")) < 2:  # noqa: ASYNC110  # the server sets no event
                await asyncio.sleep(0)
            assert (await pushing).state == "new"
            assert (await broker.sizes()).totals["pushed"] == 2


async def test_a_server_that_stays_away_is_given_up_on_in_time() -> None:
    async with Client.from_url("redis://127.0.0.1:1") as client:
        with pytest.raises(errors.ConnectionError):
            await Broker(client, "q", patience=0.1).push(Envelope("a", b""))


async def test_calls_go_on_when_the_server_is_back(tmp_path: Path) -> None:
    with Control(None, tmp_path) as server:
        async with Client.from_url(url(server.port)) as client:
            broker = Broker(client, "q")
            await broker.push(Envelope("a", b""))
            [job] = (await broker.step("w", [], 1)).claimed
            server.kill()
            step = asyncio.ensure_future(broker.step("w", ended([job]), 1))
            push = asyncio.ensure_future(broker.push(Envelope("b", b"")))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart)
            assert (await step).refused == []
            assert (await push).state == "new"


async def test_a_fork_of_a_producer_is_a_producer_of_its_own(server: Control) -> None:
    async with Client.from_url(url(server.port)) as client:
        parent, child = Broker(client, "q"), Broker(client, "q")
        await parent.push(Envelope("first", b""))
        [used] = [lane for lane in parent._pusher._lanes if lane.serial]
        for lane in child._pusher._lanes:  # what a fork inherits, in a process that is another one
            lane.client, lane.serial, lane._owner = used.client, used.serial, -1
        used._owner = os.getpid()
        parent._pusher._idle = [used]
        await parent.push(Envelope("second", b""))
        assert (await child.push(Envelope("third", b""))).state == "new"
        assert (await parent.look("third")).state == "ready"


async def test_connections_that_end_at_random_lose_no_job_and_run_none_twice(server: Control) -> None:
    claims: dict[str, int] = {}
    count = 3000

    async def produce(broker: Broker) -> None:
        for start in range(0, count, 50):
            await broker.push_many([Envelope(f"{n}", b"", priority=n % 4) for n in range(start, start + 50)])
            await asyncio.sleep(0)

    async def work(client: Client, name: str) -> None:
        broker, done = Broker(client, "q"), list[Done]()
        while sum(claims.values()) < count or done:
            step = await broker.step(name, done, 10)
            assert step.refused == []
            for job in step.claimed:
                claims[job.id] = claims.get(job.id, 0) + 1
            done = ended(step.claimed)

    async def disturb(proxy: Proxy) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.001, 0.02))
            await asyncio.to_thread(proxy.reset)

    with Proxy(server.port) as proxy:
        async with Client.from_url(url(proxy.port)) as client:
            fault = asyncio.ensure_future(disturb(proxy))
            async with asyncio.timeout(60):
                await asyncio.gather(produce(Broker(client, "q")), *[work(client, f"w{n}") for n in range(3)])
            fault.cancel()
            proxy.heal()
            assert len(claims) == count
            assert set(claims.values()) == {1}
            totals = (await Broker(client, "q").sizes()).totals
            assert totals == {"pushed": count, "ok": count}
            assert proxy.connections > 3


async def test_a_broker_closes_while_the_server_is_away() -> None:
    with Control(None) as server:
        async with Client.from_url(url(server.port)) as client:
            broker = Broker(client, "q", patience=600)
            await broker.push(Envelope("a", b""))
            server.kill()
            closing = asyncio.ensure_future(broker.aclose())
            await asyncio.wait({closing}, timeout=60)
            assert closing.done(), "it waits for the server"
            await closing


# -- workers that freeze -----------------------------------------------------------------------------------------


async def test_a_worker_that_was_frozen_past_its_lease_is_refused(server: Control, tmp_path: Path) -> None:
    async with Client.from_url(url(server.port)) as client:
        broker = Broker(client, "q", lease_ms=100)
        await broker.push(Envelope("a", b"body"))
        program = f"""
import asyncio
from gravito.atlas import Client
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Done

async def main():
    async with Client.from_url({url(server.port)!r}) as client:
        broker = Broker(client, "q", lease_ms=100)
        [job] = (await broker.step("frozen", [], 1)).claimed
        print("claimed", flush=True)
        await asyncio.to_thread(input)
        print(*(await broker.step("frozen", [Done(job.id, job.fence, "ok", b"mine")], 0)).refused, flush=True)

asyncio.run(main())
"""
        pipe = asyncio.subprocess.PIPE
        frozen = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=pipe, stdout=pipe, env=os.environ | {"PYTHONPATH": _source()}
        )
        assert frozen.stdin is not None
        assert frozen.stdout is not None
        try:
            assert await frozen.stdout.readline() == b"claimed\n"
            frozen.send_signal(signal.SIGSTOP)
            job = None
            while job is None:
                await broker.keep("w", [])
                job = next(iter((await broker.step("w", [], 1)).claimed), None)
                await asyncio.sleep(0.005)
            assert job.crashes == 1
            frozen.send_signal(signal.SIGCONT)
            frozen.stdin.write(b"\n")
            assert await frozen.stdout.readline() == b"a\n"
            await broker.step("w", [Done("a", job.fence, "ok", b"ours")], 0)
            assert (await broker.look("a")).record == b"ours"
        finally:
            frozen.stdin.close()
            await frozen.wait()


def _source() -> str:
    return str(Path(__file__).parents[2] / "src")


# -- memory ------------------------------------------------------------------------------------------------------


async def test_a_full_server_refuses_pushes_and_takes_everything_else(redis_of: tuple[str, str]) -> None:
    path, _name = redis_of
    limits = (Limit("db", "concurrency", 2),)
    with Redis(unix_socket_path=path) as plain:
        async with Client.from_url(f"unix://{path}") as client:
            broker = Broker(client, "q", lease_ms=60_000)
            await broker.push_many([Envelope(f"{n}", b"x" * 100, limits=limits * (n % 2)) for n in range(20)])
            running = (await broker.step("w", [], 5)).claimed
            plain.config_set("maxmemory", 1)
            before = sorted((key, plain.type(key)) for key in plain.scan_iter())
            with pytest.raises(errors.OutOfMemoryError):
                await broker.push_many(
                    [Envelope(f"new{n}", b"", unique=f"u{n}", tenant="t") for n in range(3)]
                )
            with pytest.raises(errors.OutOfMemoryError):
                await broker.push(Envelope("plain", b""))
            assert sorted((key, plain.type(key)) for key in plain.scan_iter()) == before
            assert plain.hlen(broker.keys.part("jobs")) == 20
            assert (await broker.keep("w", running)).lost == []
            refused: list[str] = []
            outcomes = ("ok", "retry", "release", "dead", "ok")
            done = [
                Done(job.id, job.fence, outcome, b"record", name="n")  # type: ignore[arg-type]  # plain text
                for job, outcome in zip(running, outcomes, strict=True)
            ]
            while done:
                step = await broker.step("w", done, 3)
                refused += step.refused
                done = ended(step.claimed, record=b"r" * 50)
            assert refused == []
            plain.config_set("maxmemory", 0)
            sizes = await broker.sizes()
            assert (sizes.totals["ok"], sizes.dead, sum(sizes.ready), sizes.parked) == (19, 1, 0, 0)


async def test_a_lease_is_renewed_and_a_lost_one_recovered_on_a_full_server(
    redis_of: tuple[str, str],
) -> None:
    path, _name = redis_of
    with Redis(unix_socket_path=path) as plain:
        async with Client.from_url(f"unix://{path}") as client:
            broker = Broker(client, "q", lease_ms=30)
            await broker.push_many([Envelope("a", b""), Envelope("later", b"", delay=20)])
            await broker.step("gone", [], 1)
            plain.config_set("maxmemory", 1)
            try:
                await asyncio.sleep(0.05)
                await broker.keep("w", [])
                jobs = (await broker.step("w", [], 10)).claimed
                assert sorted((job.id, job.crashes) for job in jobs) == [("a", 1), ("later", 0)]
                assert (await broker.keep("w", jobs)).lost == []
            finally:
                plain.config_set("maxmemory", 0)


async def test_a_server_that_evicts_is_refused_unless_told(server: Control) -> None:
    server.set("maxmemory", 100 * MEGABYTE)
    server.set("maxmemory-policy", "allkeys-lru")
    async with Client.from_url(url(server.port)) as client:
        broker = Broker(client, "q")
        with pytest.raises(errors.ConfigurationError, match=r"allkeys-lru.*allow_eviction=True"):
            await broker.push(Envelope("a", b""))
        with pytest.raises(errors.ConfigurationError, match="evicts"):
            await broker.step("w", [], 1)
        assert server.ask("DBSIZE") == 0
        told = Broker(client, "q", allow_eviction=True)
        assert (await told.push(Envelope("a", b""))).state == "new"
        server.set("maxmemory-policy", "volatile-lru")  # jobs have no time to live
        assert (await Broker(client, "q").push(Envelope("b", b""))).state == "new"


# -- servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """One engine of each server that is asked for."""
    running: dict[str, Engine] = {}
    yield running
    for engine in running.values():
        engine.stop()


@pytest.fixture(params=list(SERVERS))
def redis_of(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> tuple[str, str]:
    """Socket and name of each server, empty."""
    name: str = request.param
    if name not in engines:
        engines[name] = Engine(binary=needed(name))
    path = engines[name].ensure()
    with Redis(unix_socket_path=path) as plain:
        plain.config_set("maxmemory", 0)
    empty(path)
    return path, name


async def test_every_server_runs_every_script(redis_of: tuple[str, str]) -> None:
    path, _name = redis_of
    async with Client.from_url(f"unix://{path}") as client:
        broker = Broker(client, "q")
        limits = (Limit("db", "concurrency", 1), Limit("api", "rate", 100, 1))
        await broker.push_many([Envelope(f"{n}", b"", tenant=f"t{n % 3}", limits=limits) for n in range(9)])
        await broker.push(Envelope("later", b"", delay=3_600_000, unique="k"))
        waiting = asyncio.ensure_future(broker.result("0", 30))
        await until(lambda: "0" in broker._endings._waiting)
        seen = []
        for _ in range(40):
            jobs = (await broker.step("w", [], 10)).claimed
            seen += [job.id for job in jobs]
            await broker.step("w", ended(jobs, record=b"r"), 0)
            await broker.keep("w", [])
        assert sorted(seen) == [str(n) for n in range(9)]
        assert (await waiting).state == "ok"
        await broker.pause()
        await broker.resume()
        assert await broker.cancel(["later"]) == {"later": "cancelled"}
        assert await broker.retry() == ([], [])
        assert await broker.discard(["0"]) == ["0"]
        assert await broker.purge("done") == 8
        assert (await broker.sizes()).totals == {"pushed": 10, "ok": 9, "cancelled": 1}
        assert await broker.relay() == 0
        await broker.leave("w")
        await broker.aclose()


async def test_a_queue_needs_rights_on_its_own_keys_and_channels_only(redis_of: tuple[str, str]) -> None:
    path, _name = redis_of
    rights = "reset resetchannels on >secret ~horizon:* &horizon:* +@read +@write +@scripting +@pubsub +@connection +time"
    with Redis(unix_socket_path=path) as plain:
        plain.execute_command("ACL", "SETUSER", "jobs", *rights.split())
    async with Client.from_url(f"unix://{path}", username="jobs", password="secret") as client:
        broker = Broker(client, "q", lease_ms=60_000)
        limits = (Limit("db", "concurrency", 1), Limit("api", "rate", 5, 1))
        await broker.push_many(
            [Envelope(f"{n}", b"", tenant="t", limits=limits, unique=f"u{n}") for n in range(3)]
        )
        waiting = asyncio.ensure_future(broker.result("0", 30))
        await until(lambda: "0" in broker._endings._waiting)
        jobs = (await broker.step("w", [], 10)).claimed
        await broker.keep("w", jobs)
        await broker.step("w", ended(jobs, record=b"r"), 0)
        assert (await waiting).state == "ok"
        assert set((await broker.cancel(["1", "2"])).values()) == {"cancelled"}
        await broker.purge("done")
        await broker.aclose()


async def test_queues_of_a_cluster_live_in_their_slots_and_the_outbox_reaches_across() -> None:
    with LocalCluster(3) as cluster:
        async with Client.from_url(cluster.url) as client:
            names = [f"queue{n}" for n in range(6)]
            assert len({cluster.owner_of(client.keyslot(f"{{{name}}}")).port for name in names}) > 1
            brokers = {name: Broker(client, name) for name in names}
            for name, broker in brokers.items():
                await broker.push(Envelope(f"in-{name}", b"body"))
            first = brokers["queue0"]
            waiting = asyncio.ensure_future(first.result("in-queue0", 30))
            await until(lambda: "in-queue0" in first._endings._waiting)
            assert await first.wait(5)
            [job] = (await first.step("w", [], 10)).claimed
            pushes = tuple((name, Envelope(f"from-queue0-{name}", b"")) for name in names)
            await first.step("w", [Done(job.id, job.fence, "ok", b"r", pushes=pushes)], 0)
            await first._relay.drain()
            assert (await waiting).record == b"r"
            for name, broker in brokers.items():
                ids = {job.id for job in (await broker.step("w", [], 10)).claimed}
                assert ids == {f"from-queue0-{name}"} | ({f"in-{name}"} if name != "queue0" else set())
                await broker.aclose()
