"""Batches: counts, what follows, allowed failures, cancelling, and jobs that end without a word."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.horizon.driving import drain

from gravito.atlas import Client
from gravito.errors import PayloadError, ResultTimeoutError, UnknownJobError
from gravito.horizon import Horizon, HorizonSettings, Retention, _batches, current_job
from gravito.horizon.job import FunctionJob


class Jobs:
    """The jobs of these tests, and what ran."""

    def __init__(self, horizon: Horizon) -> None:
        self.ran: list[str] = []

        @horizon.job(retries=0)
        async def work(n: int, fail: bool = False) -> int:
            self.ran.append(f"work {n}")
            if fail:
                raise ValueError(n)
            return n

        @horizon.job(queue="other")
        async def follow(what: str) -> None:
            self.ran.append(what)

        self.work: FunctionJob[Any, Any] = work
        self.follow: FunctionJob[Any, Any] = follow


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    gc.collect()
    async with Horizon(redis) as made:
        yield made


@pytest.fixture
def jobs(horizon: Horizon) -> Jobs:
    return Jobs(horizon)


async def settle(horizon: Horizon) -> None:
    """Run everything, and carry every note."""
    for _ in range(3):
        for queue in ("default", "other"):
            await drain(horizon, queue)
            await horizon.broker(queue).relay()


def batch(horizon: Horizon, jobs: Jobs, calls: list[Any]) -> Any:
    return (
        horizon.batch(calls, name="import")
        .then(jobs.follow.make("then"))
        .catch(jobs.follow.make("catch"))
        .finally_(jobs.follow.make("finally"))
    )


async def test_all_went_well(horizon: Horizon, jobs: Jobs) -> None:
    seen: list[int] = []
    handle = await batch(horizon, jobs, [jobs.work.make(n) for n in range(1200)]).push(progress=seen.append)
    assert seen == [500, 1000, 1200]
    status = await handle.status()
    assert (status.state, status.total, status.left, status.share) == ("running", 1200, 1200, 0.0)
    with pytest.raises(ResultTimeoutError, match="has not ended"):
        await handle.wait(0.05)
    waiting = asyncio.create_task(handle.wait(60))
    await drain(horizon, most=600)
    await horizon.broker("default").relay()
    assert (await handle.status()).share == 0.5
    await settle(horizon)
    done = await waiting
    assert (done.state, done.name, done.ok, done.left, done.share) == ("done", "import", 1200, 0, 1.0)
    assert jobs.ran[-2:] == ["then", "finally"]
    assert await handle.jobs[7].result(5) == 7


async def test_a_failure_ends_it(horizon: Horizon, jobs: Jobs) -> None:
    calls = [jobs.work.make(0, fail=True), *[jobs.work.delay(1000).make(n) for n in range(1, 4)]]
    handle = await batch(horizon, jobs, calls).push()
    await drain(horizon, most=1)
    await settle(horizon)
    status = await handle.wait(10)
    assert (status.state, status.dead, status.cancelled, status.ok) == ("failed", 1, 3, 0)
    assert status.failed_ids == (handle.jobs[0].id,)
    assert jobs.ran == ["work 0", "catch", "finally"]
    assert (await handle.jobs[1].status()).state == "cancelled"


@pytest.mark.parametrize(
    ("allowed", "state"), [(0, "failed"), (1, "failed"), (2, "done"), (0.5, "done"), (1.0, "done")]
)
async def test_allowed_failures(horizon: Horizon, jobs: Jobs, allowed: float, state: str) -> None:
    calls = [jobs.work.make(n, fail=n < 2) for n in range(4)]
    handle = await batch(horizon, jobs, calls).allow_failures(allowed).push()
    await settle(horizon)
    status = await handle.wait(10)
    assert (status.state, status.dead) == (state, 2)
    assert ("then" in jobs.ran) is (state == "done")
    assert ("catch" in jobs.ran) is (state == "failed")
    assert jobs.ran.count("finally") == 1


async def test_cancelling(horizon: Horizon, jobs: Jobs) -> None:
    handle = await batch(horizon, jobs, [jobs.work.make(n) for n in range(5)]).push()
    status = await handle.cancel()
    assert (status.state, status.cancelled, status.finished) == ("cancelled", 5, True)
    assert (await handle.cancel()).cancelled == 5
    await settle(horizon)
    assert jobs.ran == ["finally"]


async def test_an_empty_batch_is_done_at_once(horizon: Horizon, jobs: Jobs) -> None:
    handle = await batch(horizon, jobs, []).push()
    assert (await handle.wait(10)).state == "done"
    await settle(horizon)
    assert jobs.ran == ["then", "finally"]


async def test_jobs_that_ended_without_a_word_are_found(horizon: Horizon, jobs: Jobs) -> None:
    handle = await batch(horizon, jobs, [jobs.work.make(n) for n in range(3)]).allow_failures(3).push()
    await handle.jobs[0].cancel()  # of this one the batch hears at once
    await horizon.broker("default").purge("ready")  # nobody knows the other two any more
    assert (await handle.status()).left == 2
    await horizon.batches.sweep()
    status = await handle.status()
    assert (status.cancelled, status.lost, status.left) == (1, 2, 0)
    await settle(horizon)
    assert jobs.ran == ["then", "finally"]
    await horizon.batches.sweep()
    assert await horizon.client.zcard("horizon:batches") == 0


async def test_a_large_batch_is_looked_through_in_parts(
    horizon: Horizon, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "_SAMPLE", 4)
    handle = await horizon.batch([jobs.work.make(n) for n in range(10)]).push()
    await horizon.broker("default").purge("ready")
    seen = [(await horizon.batches.reconcile(handle.id)).left for _ in range(3)]
    assert seen == [6, 2, 0]


async def test_a_worker_looks_after_open_batches(
    horizon: Horizon, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "_SWEEP", 0.01)
    handle = await batch(horizon, jobs, [jobs.work.make(1)]).push()
    await horizon.broker("default").cancel([handle.jobs[0].id])
    await horizon.startup()
    async with asyncio.timeout(10):
        while not (await handle.status()).finished:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.01)
    await horizon.shutdown()
    assert (await handle.status()).lost == 1


async def test_nothing_is_called_lost_while_its_note_is_under_way(redis: Client) -> None:
    async with Horizon(redis, settings=HorizonSettings(keep=Retention(done=0))) as horizon:
        jobs = Jobs(horizon)
        handle = await batch(horizon, jobs, [jobs.work.make(1)]).push()
        broker = horizon.broker("default")
        broker._relay.start = lambda: None  # type: ignore[method-assign]  # the note stays in the outbox
        await drain(horizon)
        assert (await handle.status()).left == 1
        await horizon.batches.sweep()
        status = await handle.status()
        assert (status.ok, status.lost) == (1, 0)


async def test_notes_and_payments_may_come_twice(horizon: Horizon, jobs: Jobs) -> None:
    import msgspec

    handle = await batch(horizon, jobs, [jobs.work.make(n) for n in range(2)]).push()
    note = msgspec.msgpack.encode((handle.id, handle.jobs[0].id, "ok"))
    for _ in range(3):
        await horizon.batches.noted(1, note)
    status = await handle.status()
    assert (status.ok, status.left) == (1, 1)
    await settle(horizon)
    await horizon.client.hdel(f"horizon:{{batch:{handle.id}}}:state", "paid:then", "paid:finally")
    await horizon.batches.reconcile(handle.id)  # as if who was to push them had died behind the push
    await settle(horizon)
    assert jobs.ran.count("then") == 1
    assert jobs.ran.count("finally") == 1
    answer = await horizon.batches._run(handle.id, "look")
    assert answer is not None
    assert answer[2] == []  # nothing is owed any more


async def test_a_chain_may_follow(horizon: Horizon, jobs: Jobs) -> None:
    chain = horizon.chain(jobs.follow.make("one"), jobs.follow.make("two"))
    handle = await horizon.batch([jobs.work.make(1)]).then(chain).push()
    await settle(horizon)
    await handle.wait(10)
    assert jobs.ran == ["work 1", "one", "two"]


async def test_a_job_that_was_there_belongs_to_whoever_pushed_it(horizon: Horizon, jobs: Jobs) -> None:
    await jobs.work.make(1).id("same").push()
    handle = await horizon.batch([jobs.work.make(1).id("same"), jobs.work.make(2)]).push()
    await settle(horizon)
    status = await handle.wait(10)
    assert (status.ok, status.discarded) == (1, 1)


async def test_nothing_is_begun_for_calls_that_cannot_be_pushed(horizon: Horizon, jobs: Jobs) -> None:
    with pytest.raises(PayloadError, match=r"job\.make"):
        horizon.batch([jobs.work])  # type: ignore[list-item]  # the mistake that is tested
    with pytest.raises(PayloadError, match="metadata"):
        await horizon.batch([jobs.work.make(1), jobs.work.make(2).meta(x=object())]).push()
    assert await horizon.client.dbsize() == 0
    for most in (-1, 1.5, True, "2"):
        with pytest.raises(PayloadError, match="allow_failures"):
            horizon.batch([]).allow_failures(most)  # type: ignore[arg-type]  # the mistake that is tested


async def test_batches_that_do_not_exist(horizon: Horizon) -> None:
    nobody = horizon.batch_handle("nobody")
    for ask in (nobody.status, nobody.wait, nobody.cancel):
        with pytest.raises(UnknownJobError, match="no batch 'nobody'"):
            await ask()
    await horizon.batches.noted(
        1, b"\x93\xa6nobody\xa1x\xa2ok"
    )  # a note of a batch that is forgotten: no error


async def test_jobs_know_their_batch(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> str | None:
        return current_job().batch

    handle = await horizon.batch([work.make()]).push()
    await settle(horizon)
    assert await handle.jobs[0].result(5) == handle.id
