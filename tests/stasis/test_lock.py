"""Locks on a real server, with real processes that die."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.exceptions as redis_errors
from tests.stasis.stores import info_of_each, url_of

from gravito import errors
from gravito.atlas import Client
from gravito.atlas.embedded import Engine
from gravito.stasis._scripts import source
from gravito.stasis.lock import Lease, Lock

KEY = "cache:l:{jobs}"
FENCE = KEY + ":f"


@pytest.fixture
def url(redis: Client) -> str:
    return url_of(redis)


@asynccontextmanager
async def program(source: str, *args: str) -> AsyncIterator[Process]:
    """Another process that runs `source`; it is killed at the end."""
    path = os.pathsep.join(filter(None, sys.path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, *args, stdin=PIPE, stdout=PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


async def nothing_is_left(redis: Client) -> None:
    """Only the fence stays, once what is in flight has ended."""
    async with asyncio.timeout(5):
        while await redis.keys("*") not in ([], [FENCE]):  # noqa: ASYNC110  # the server sets no event
            await asyncio.sleep(0.01)


async def waiters(redis: Client, count: int) -> None:
    """So many blocked on the server."""
    async with asyncio.timeout(10):
        while True:
            blocked = [each["blocked_clients"] for each in await info_of_each(redis, "clients")]
            if sum(blocked) == count:
                return
            await asyncio.sleep(0.01)


async def held(lock: Lock) -> Lease:
    lease = await lock.acquire(0)
    assert lease is not None
    return lease


# -- one at a time -------------------------------------------------------------------------------------------


async def test_one_holder_at_a_time(redis: Client) -> None:
    async with Lock(redis, "jobs") as lease:
        assert lease.held
        assert await Lock(redis, "jobs").acquire(wait=0) is None
        assert await Lock(redis, "other").acquire(wait=0) is not None
        assert await Lock(redis, "jobs").locked()
        assert 9_000 < await redis.pttl(KEY) <= 10_000
    assert not lease.held
    assert not await Lock(redis, "jobs").locked()
    assert await redis.exists(KEY) == 0


async def test_a_name_of_any_text(redis: Client) -> None:
    for name in ("a{b}c", "a}", "{", "\u00e9 \n", "x" * 1024):
        async with Lock(redis, name):
            assert await Lock(redis, name).acquire(0) is None


async def test_fences_grow(redis: Client) -> None:
    fences = []
    for _ in range(5):
        async with Lock(redis, "jobs") as lease:
            fences.append(lease.fence)
    assert fences == sorted(set(fences))


async def test_a_fence_never_goes_back(redis: Client) -> None:
    """Neither with its key lost, nor with the server's clock set back."""
    async with Lock(redis, "jobs") as first:
        pass
    await redis.delete(FENCE)
    async with Lock(redis, "jobs") as second:
        assert second.fence > first.fence
    ahead = second.fence + 10**12
    await redis.set(FENCE, ahead)
    async with Lock(redis, "jobs") as third:
        assert third.fence == ahead + 1
    assert await redis.pttl(FENCE) > 6 * 24 * 3600 * 1000


COUNTER = """
import asyncio, sys
from gravito.atlas import Client
from gravito.stasis.lock import Lock

async def main():
    async with Client.from_url(sys.argv[1]) as redis:
        lock = Lock(redis, "jobs", ttl=30)
        for _ in range(50):
            async with lock as lease:
                count = int(await redis.get("count") or 0)
                await redis.rpush("fences", lease.fence)
                await redis.set("count", count + 1)

asyncio.run(main())
"""


async def test_three_processes_count_right(redis: Client, url: str) -> None:
    async with program(COUNTER, url) as a, program(COUNTER, url) as b, program(COUNTER, url) as c:
        assert await asyncio.gather(a.wait(), b.wait(), c.wait()) == [0, 0, 0]
    assert await redis.get("count") == "150"
    fences = [int(fence) for fence in await redis.lrange("fences", 0, -1)]
    assert len(fences) == 150
    assert fences == sorted(set(fences))
    await redis.delete("count", "fences")
    await nothing_is_left(redis)


async def test_many_tasks_count_right(redis: Client) -> None:
    count = 0

    async def increment() -> None:
        nonlocal count
        async with Lock(redis, "jobs"):
            seen = count
            await redis.ping()
            count = seen + 1

    await asyncio.gather(*[increment() for _ in range(100)])
    assert count == 100


async def test_one_lock_object_for_many_tasks(redis: Client) -> None:
    lock = Lock(redis, "jobs")
    inside: list[int] = []

    async def enter() -> None:
        async with lock as lease:
            inside.append(lease.fence)
            await redis.ping()

    await asyncio.gather(*[enter() for _ in range(10)])
    assert inside == sorted(set(inside))
    assert len(inside) == 10


# -- waiting -------------------------------------------------------------------------------------------------


@pytest.mark.one_server("a slot that moves wakes all who wait")
async def test_a_release_wakes_one_waiter(redis: Client, url: str) -> None:
    async with Lock(redis, "jobs"):
        pass  # the scripts are there
    lease = await held(Lock(redis, "jobs", ttl=30))
    async with Client.from_url(url) as b, Client.from_url(url) as c:
        waiting = [asyncio.create_task(Lock(client, "jobs", ttl=30).acquire()) for client in (b, c)]
        await waiters(redis, 2)
        await redis.config_resetstat()
        await lease.release()
        done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(rest)) == (1, 1)
        calls = await commands(redis)
        assert calls["evalsha"] == 2  # the release, and the question of the one who was woken
        assert calls["blpop"] <= 1  # newer servers count the one that ended
        (first,) = [task.result() for task in done]
        await first.release()
        (second,) = await asyncio.gather(*rest)
        assert second.fence > first.fence
        await second.release()
    await nothing_is_left(redis)


async def commands(redis: Client) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blpop")}


@pytest.mark.one_server("a slot that moves wakes all who wait")
async def test_waiting_costs_next_to_nothing(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs", ttl=30))
    assert await Lock(redis, "jobs").acquire(0) is None  # the scripts are there
    await redis.config_resetstat()
    waiting = [asyncio.create_task(Lock(redis, "jobs").acquire(wait=2)) for _ in range(20)]
    assert await asyncio.gather(*waiting) == [None] * 20
    calls = await commands(redis)
    assert calls["blpop"] == 1
    assert calls["evalsha"] <= 21  # one asks and waits; at the end each asks once more, at most
    await lease.release()
    await nothing_is_left(redis)


async def test_waiters_of_one_process_go_in_order(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs"))
    order: list[int] = []

    async def enter(number: int) -> None:
        async with Lock(redis, "jobs"):
            order.append(number)

    tasks = []
    for number in range(10):
        tasks.append(asyncio.create_task(enter(number)))
        await asyncio.sleep(0)
    await waiters(redis, 1)
    await lease.release()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_not_in_time(redis: Client) -> None:
    async with Lock(redis, "jobs"):
        assert await Lock(redis, "jobs", wait=timedelta(milliseconds=50)).acquire() is None
        assert set(await redis.keys("*")) <= {KEY, FENCE}
        with pytest.raises(errors.LockTimeoutError, match=r"'jobs' was held .* 0\.05 s") as caught:
            async with Lock(redis, "jobs", wait=0.05):
                pytest.fail("two holders")
        assert isinstance(caught.value, redis_errors.LockError)
        assert caught.value.lock_name == "jobs"
    await nothing_is_left(redis)


HOLDER = """
import asyncio, sys
from gravito.atlas import Client
from gravito.stasis.lock import Lock

async def main():
    async with Client.from_url(sys.argv[1]) as redis:
        async with Lock(redis, "jobs", ttl=float(sys.argv[2]), renew=True) as lease:
            print(lease.token, lease.fence, flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_a_killed_holder_is_succeeded(redis: Client, url: str) -> None:
    async with program(HOLDER, url, "1") as holder:
        _, fence = (await line_of(holder)).split()
        waiting = asyncio.create_task(Lock(redis, "jobs").acquire())
        await waiters(redis, 1)
        left_at_most = 1.0
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        left = await redis.pttl(KEY)
        assert left <= left_at_most * 1000  # and nobody renews it
        lease = await asyncio.wait_for(waiting, 10)
        assert lease is not None
        assert lease.fence > int(fence)
        await lease.release()


WAITER = HOLDER.replace("print", "pass; print", 1).replace(
    "async with Lock", "print('waiting', flush=True)\n        async with Lock"
)


async def test_a_killed_waiter_is_not_waited_for(redis: Client, url: str) -> None:
    lease = await held(Lock(redis, "jobs", ttl=30))
    async with program(WAITER, url, "30") as process:
        assert await line_of(process) == "waiting"
        await waiters(redis, 1)
        behind = asyncio.create_task(Lock(redis, "jobs").acquire())
        await waiters(redis, 2)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await waiters(redis, 1)
        await lease.release()
        next_ = await asyncio.wait_for(behind, 5)
        assert next_ is not None
        await next_.release()


async def test_a_cancelled_waiter_leaves_nothing(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs", ttl=30))
    waiting = [asyncio.create_task(Lock(redis, "jobs").acquire()) for _ in range(3)]
    await waiters(redis, 1)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*waiting, return_exceptions=True)
    )
    assert set(await redis.keys("*")) <= {KEY, FENCE}
    await waiters(redis, 0)
    await lease.release()
    assert set(await redis.keys("*")) <= {FENCE}


@pytest.mark.parametrize("known", [True, False], ids=["script known", "script to be loaded"])
@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_while_asking(redis: Client, turns: int, known: bool) -> None:
    """Whatever the server has done by then, nobody holds the lock afterwards."""
    await (await held(Lock(redis, "jobs"))).release()
    for _ in range(20):
        if not known:
            await redis.script_flush()
            await redis.script_load(source("lock_release.lua"))
        task = asyncio.create_task(Lock(redis, "jobs", ttl=60).acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert set(await redis.keys("*")) <= {FENCE}


async def test_a_woken_waiter_that_is_cancelled_passes_it_on(redis: Client, url: str) -> None:
    for _ in range(10):
        lease = await held(Lock(redis, "jobs", ttl=30))
        async with Client.from_url(url) as other:
            first = asyncio.create_task(Lock(redis, "jobs").acquire())
            await waiters(redis, 1)
            second = asyncio.create_task(Lock(other, "jobs").acquire())
            await waiters(redis, 2)
            await asyncio.gather(lease.release(), cancel_soon(first))
            got = await asyncio.wait_for(second, 5)  # not after the 30 s that it would wait by itself
            assert got is not None
            await got.release()
    await nothing_is_left(redis)


async def cancel_soon(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_no_more_than_half_of_the_leased_wires(url: str) -> None:
    async with Client.from_url(url, limits={"leased_wires": 2}) as redis:
        leases = [await held(Lock(redis, name, ttl=30)) for name in "abc"]
        waiting = [asyncio.create_task(Lock(redis, name).acquire()) for name in "abc"]
        await waiters(redis, 1)
        assert await redis.blpop(["nothing"], timeout=0.01) is None  # a wire is free for others
        for lease in leases:
            await lease.release()
        got = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        for lease in got:
            assert lease is not None
            await lease.release()


# -- holding -------------------------------------------------------------------------------------------------


async def test_renewal(redis: Client) -> None:
    async with Lock(redis, "jobs", ttl=0.6, renew=True) as lease:
        assert await Lock(redis, "jobs").acquire(wait=1.3) is None
        assert lease.held
        assert not lease.lost.is_set()
    await nothing_is_left(redis)


async def test_without_renewal_it_runs_out(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs", ttl=0.1))
    await asyncio.wait_for(lease.lost.wait(), 5)
    assert not lease.held
    other = await Lock(redis, "jobs").acquire(wait=5)
    assert other is not None
    with pytest.raises(
        errors.LockNotOwnedError, match=r"'jobs' cannot be released .* somebody else"
    ) as caught:
        await lease.release()
    assert isinstance(caught.value, redis_errors.LockNotOwnedError)
    with pytest.raises(errors.LockNotOwnedError, match="not held any more"):
        await lease.extend()
    assert other.held
    assert await Lock(redis, "jobs").locked()
    await other.release()


async def test_a_renewal_notices_the_loss(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs", ttl=0.3, renew=True))
    await redis.delete(KEY)
    await asyncio.wait_for(lease.lost.wait(), 5)
    with pytest.raises(errors.LockNotOwnedError, match="nobody holds it"):
        await lease.release()


async def test_a_frozen_server_costs_the_lock_in_time(gravito_protocol: int | None) -> None:
    """A holder that cannot renew knows before the server gives the lock to somebody else."""
    with Engine() as engine:
        async with Client.from_url(f"unix://{engine.ensure()}") as redis:
            lease = await held(Lock(redis, "jobs", ttl=0.5, renew=True))
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                await asyncio.wait_for(lease.lost.wait(), 5)
            finally:
                os.kill(engine.pid, signal.SIGCONT)


async def test_the_body_is_cancelled_with_the_loss(redis: Client) -> None:
    async def body() -> None:
        async with Lock(redis, "jobs", ttl=0.3, renew=True, cancel=True):
            await redis.delete(KEY)
            await asyncio.sleep(60)

    with pytest.raises(errors.LockNotOwnedError, match="'jobs'"):
        await body()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_stays_one(redis: Client) -> None:
    inside = asyncio.Event()

    async def body() -> None:
        async with Lock(redis, "jobs", cancel=True):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_is_left(redis)


async def test_the_bodys_error_comes_first(redis: Client) -> None:
    async def body(error: Exception | None) -> None:
        async with Lock(redis, "jobs"):
            await redis.delete(KEY)
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        await body(ZeroDivisionError())
    with pytest.raises(errors.LockNotOwnedError):
        await body(None)


async def test_released_inside_the_body(redis: Client) -> None:
    async with Lock(redis, "jobs") as lease:
        await lease.release()
        with pytest.raises(errors.LockNotOwnedError, match="released already"):
            await lease.release()
        with pytest.raises(errors.LockNotOwnedError, match="released already"):
            await lease.extend(5)


async def test_extending(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs", ttl=1))
    await lease.extend(60)
    assert 50_000 < await redis.pttl(KEY) <= 60_000
    assert lease.ttl == 60
    await lease.extend(timedelta(seconds=5))
    assert 4_000 < await redis.pttl(KEY) <= 5_000
    await lease.extend()
    assert lease.held
    await redis.set(KEY, "somebody 1")
    with pytest.raises(errors.LockNotOwnedError, match="somebody else"):
        await lease.extend()
    assert lease.lost.is_set()
    assert await redis.get(KEY) == "somebody 1"


async def test_a_renewal_follows_a_shorter_ttl(redis: Client) -> None:
    async with Lock(redis, "jobs", ttl=60, renew=True) as lease:
        await lease.extend(0.6)
        assert await Lock(redis, "jobs").acquire(wait=1.3) is None
        assert lease.held


async def test_a_dropped_lease_is_renewed_no_more(redis: Client) -> None:
    lease: Lease | None = await held(Lock(redis, "jobs", ttl=0.6, renew=True))
    assert lease is not None
    await asyncio.sleep(0.8)
    assert lease.held  # so it is being renewed
    del lease
    gc.collect()
    successor = await asyncio.wait_for(Lock(redis, "jobs").acquire(), 5)
    assert successor is not None
    await successor.release()


# -- tokens --------------------------------------------------------------------------------------------------


async def test_restored_elsewhere(redis: Client, url: str) -> None:
    async with program(HOLDER, url, "5") as holder:
        token, fence = (await line_of(holder)).split()
        lease = await Lock(redis, "jobs").restore(token)
        assert (lease.fence, lease.token) == (int(fence), token)
        await lease.extend(50)
        assert await redis.pttl(KEY) > 40_000
        async with lease:
            pass
    assert await redis.exists(KEY) == 0
    with pytest.raises(errors.LockNotOwnedError, match=r"cannot be restored .* nobody"):
        await Lock(redis, "jobs").restore(token)


async def test_only_the_owners_token(redis: Client) -> None:
    lease = await held(Lock(redis, "jobs"))
    for token in ("", "guess", lease.token[:-1], lease.token + " ", f"{lease.token} {lease.fence}", "*"):
        with pytest.raises(errors.LockNotOwnedError, match="somebody else"):
            await Lock(redis, "jobs").restore(token)
    assert lease.token not in repr(lease)
    await lease.release()


async def test_restored_and_renewed(redis: Client) -> None:
    first = await held(Lock(redis, "jobs", ttl=60))
    again = await Lock(redis, "jobs", ttl=0.6, renew=True).restore(first.token)
    assert await redis.pttl(KEY) <= 600
    assert await Lock(redis, "jobs").acquire(wait=1.3) is None
    await again.release()


# -- faults and nonsense -------------------------------------------------------------------------------------


async def test_a_lost_reply_is_no_lost_lock(redis: Client) -> None:
    """The question is asked again under the same token, and the answer is the same."""
    calls = Lock(redis, "jobs")._calls
    first = await calls.acquire("token", 10_000, 0)
    assert await calls.acquire("token", 10_000, 0) == first
    assert await calls.acquire("other", 10_000, 0) == [0, pytest.approx(10_000, abs=1000)]


async def test_connections_that_are_cut_while_waiting(redis: Client, url: str) -> None:
    lease = await held(Lock(redis, "jobs", ttl=30))
    async with Client.from_url(url, client_name="cut-me") as other:
        waiting = asyncio.create_task(Lock(other, "jobs").acquire())
        await waiters(redis, 1)
        for client in await redis.client_list():
            if client["name"] == "cut-me":
                await redis.client_kill_filter(_id=client["id"])
        await waiters(redis, 0)
        await waiters(redis, 1)
        await lease.release()
        got = await asyncio.wait_for(waiting, 5)
        assert got is not None
        await got.release()
    await nothing_is_left(redis)


@pytest.mark.parametrize("name", ["", "}x", "\ud800", "x" * 1025, "\u00e9" * 513, None, b"bytes", 7])
def test_names_that_cannot_be(redis: Client, name: Any) -> None:
    with pytest.raises(errors.InvalidKeyError, match="a lock cannot be named"):
        Lock(redis, name)


@pytest.mark.parametrize(
    "ttl", [0, -1, None, True, "10", float("nan"), float("inf"), datetime.now(UTC) + timedelta(hours=1)]
)
def test_times_that_no_lock_lives(redis: Client, ttl: Any) -> None:
    with pytest.raises(errors.InvalidTTLError, match="ttl"):
        Lock(redis, "jobs", ttl=ttl)


@pytest.mark.parametrize("wait", [-1, True, "10", float("nan"), timedelta(seconds=-1)])
async def test_times_that_nobody_waits(redis: Client, wait: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"wait is .*; allowed: seconds") as caught:
        Lock(redis, "jobs", wait=wait)
    assert caught.value.field == "wait"
    with pytest.raises(errors.ConfigurationError, match="wait is"):
        await Lock(redis, "jobs").acquire(wait)
    assert await redis.keys("*") == []


async def test_the_server_is_away(make_away: Callable[[], Client]) -> None:
    redis = make_away()
    with pytest.raises(errors.ConnectionError):
        await Lock(redis, "jobs").acquire()
    await redis.aclose()


@pytest.fixture
def make_away() -> Callable[[], Client]:
    return lambda: Client.from_url("redis://127.0.0.1:1", retry={"attempts": 0})


def test_what_they_look_like(redis: Client) -> None:
    assert repr(Lock(redis, "jobs", ttl=1.5, renew=True)) == "<Lock 'jobs' for 1.5 s, renewed>"


async def test_what_a_lease_looks_like(redis: Client) -> None:
    async with Lock(redis, "jobs") as lease:
        assert repr(lease) == f"<Lease 'jobs' fence {lease.fence}, held>"
    assert repr(lease) == f"<Lease 'jobs' fence {lease.fence}, released>"


async def test_a_connection_with_a_key_prefix_for_bytes(url: str, redis: Client) -> None:
    async with Client.from_url(url, key_prefix="app:", decode_responses=False) as prefixed:
        lease = await held(Lock(prefixed, "jobs", ttl=30))
        waiting = asyncio.create_task(Lock(prefixed, "jobs").acquire())
        await waiters(redis, 1)
        assert all(key.startswith("app:cache:l:{jobs}") for key in await redis.keys("*"))
        again = await Lock(prefixed, "jobs").restore(lease.token)
        assert again.fence == lease.fence
        await lease.release()
        next_ = await asyncio.wait_for(waiting, 5)
        assert next_ is not None
        await next_.release()
