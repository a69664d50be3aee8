"""The moves of a job, one by one, on a real server."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable

import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.horizon._broker import Broker, Retention
from gravito.horizon._messages import Claimed, Done, Envelope, Limit, Pushed

Make = Callable[..., Broker]


def ended(job: Claimed, outcome: str = "ok", record: bytes | None = b"record", **more: object) -> Done:
    return Done(job.id, job.fence, outcome, record, name="noop", **more)  # type: ignore[arg-type]


async def claim(broker: Broker, want: int = 100, worker: str = "w") -> list[Claimed]:
    return (await broker.step(worker, [], want)).claimed


async def claim_ids(broker: Broker, want: int = 100, worker: str = "w") -> list[str]:
    return [job.id for job in await claim(broker, want, worker)]


async def finish(
    broker: Broker, jobs: list[Claimed], outcome: str = "ok", worker: str = "w", **more: object
) -> list[str]:
    return (await broker.step(worker, [ended(job, outcome, **more) for job in jobs], 0)).refused


async def left(redis: Client, *but: str) -> set[str]:
    """Keys of the queue, without those that every queue has."""
    always = {"conf", "totals", "steps", "producers", "wake", *but}
    parts = {key.partition("}:")[2] for key in await redis.keys("horizon:{*")}
    return {part for part in parts if part not in always and not part.startswith("m:")}


async def test_a_job_is_pushed_claimed_and_done(broker: Broker, redis: Client) -> None:
    assert await broker.push(Envelope("a", b"\x00\xffbody")) == Pushed("a", "new")
    [job] = await claim(broker)
    assert (job.id, job.body, job.attempt, job.crashes) == ("a", b"\x00\xffbody", 1, 0)
    assert (await broker.look("a")).state == "running"
    assert (await broker.look("a")).worker == "w"
    assert await finish(broker, [job]) == []
    look = await broker.look("a")
    assert (look.state, look.record, look.body) == ("ok", b"record", None)
    assert await left(redis) == {"done", "results"}


async def test_without_a_record_nothing_stays_of_a_job(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b""))
    await finish(broker, await claim(broker), record=None)
    assert (await broker.look("a")).state == "unknown"
    assert await left(redis) == set()


async def test_a_retry_comes_back_as_the_next_attempt(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b"body", priority=1))
    [job] = await claim(broker)
    await finish(broker, [job], "retry", record=b"why")
    look = await broker.look("a")
    assert (look.state, look.record, look.attempts) == ("ready", b"why", 1)
    assert await redis.llen(broker.keys.part("ready:1")) == 1  # it keeps its priority
    [again] = await claim(broker)
    assert (again.attempt, again.body) == (2, b"body")
    assert again.fence > job.fence
    await finish(broker, [again], record=None)
    assert await left(redis) == set()


async def test_a_retry_with_a_delay_waits(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    before = broker.now_ms()
    await finish(broker, await claim(broker), "retry", delay=60_000)
    look = await broker.look("a")
    assert look.state == "delayed"
    assert look.due_ms is not None
    assert before + 59_000 < look.due_ms < before + 62_000
    assert await claim(broker) == []


async def test_a_released_job_is_the_next_and_costs_no_attempt(broker: Broker) -> None:
    await broker.push_many([Envelope("a", b""), Envelope("b", b"")])
    [a] = await claim(broker, 1)
    await finish(broker, [a], "release", record=None)
    claimed = await claim(broker)
    assert [(job.id, job.attempt) for job in claimed] == [("a", 1), ("b", 1)]


async def test_a_dead_job_is_kept_with_its_body_and_can_be_tried_again(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b"body", priority=0))
    await finish(broker, await claim(broker), "dead", record=b"traceback")
    look = await broker.look("a")
    assert (look.state, look.body, look.record, look.attempts) == ("dead", b"body", b"traceback", 1)
    assert await broker.retry() == (["a"], [])
    assert await redis.llen(broker.keys.part("ready:0")) == 1
    [job] = await claim(broker)
    assert (job.attempt, job.body) == (1, b"body")
    await finish(broker, [job], record=None)
    assert await left(redis) == set()


async def test_only_the_latest_claim_may_finish(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [first] = await claim(broker)
    await finish(broker, [first], "release", record=None)
    [second] = await claim(broker, worker="other")
    assert await finish(broker, [first]) == ["a"]
    assert (await broker.look("a")).state == "running"
    assert await finish(broker, [second], worker="other") == []
    assert await finish(broker, [second], worker="other") == ["a"]
    assert (await broker.sizes()).totals["ok"] == 1


async def test_a_fence_of_another_worker_is_refused(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    assert await finish(broker, [job], worker="other") == ["a"]


async def test_one_job_twice_in_a_step_ends_once(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    assert await finish(broker, [job, job]) == ["a"]
    assert (await broker.sizes()).totals["ok"] == 1


async def test_an_id_is_one_job(broker: Broker) -> None:
    pushed = await broker.push_many([Envelope("a", b"1"), Envelope("b", b"2"), Envelope("a", b"3")])
    assert [one.state for one in pushed] == ["new", "new", "exists"]
    assert (await broker.push(Envelope("b", b"4"))).state == "exists"
    claimed = await claim(broker)
    assert {job.id: job.body for job in claimed} == {"a": b"1", "b": b"2"}
    assert (await broker.push(Envelope("a", b"5"))).state == "exists"  # running
    await finish(broker, claimed)
    assert (await broker.push(Envelope("a", b"6"))).state == "exists"  # its result is kept
    assert await broker.discard(["a"]) == ["a"]
    assert (await broker.push(Envelope("a", b"7"))).state == "new"


async def test_higher_priorities_come_first(broker: Broker) -> None:
    names = ("critical", "high", "default", "low")
    await broker.push_many(
        [Envelope(name, b"", priority=at) for at, name in reversed(list(enumerate(names)))]
    )
    assert [(await claim_ids(broker, 1))[0] for _ in names] == list(names)


async def test_no_priority_starves(broker: Broker) -> None:
    async def flood(at: int) -> None:
        await broker.push_many([Envelope(f"c{at}-{n}", b"", priority=0) for n in range(100)])

    await broker.push_many([Envelope(f"p{priority}", b"", priority=priority) for priority in (1, 2, 3)])
    seen: set[str] = set()
    for at in range(20):
        await flood(at)
        seen.update(await claim_ids(broker, 50))
    assert {"p1", "p2", "p3"} <= seen


async def test_no_priority_starves_when_jobs_are_claimed_one_by_one(broker: Broker) -> None:
    await broker.push_many([Envelope(f"p{priority}", b"", priority=priority) for priority in (1, 2, 3)])
    await broker.push_many([Envelope(f"c{n}", b"", priority=0) for n in range(200)])
    seen: set[str] = set()
    for _ in range(100):
        seen.update(await claim_ids(broker, 1))
    assert {"p1", "p2", "p3"} <= seen


async def test_a_delayed_job_is_ready_when_due(broker: Broker) -> None:
    await broker.push(Envelope("a", b"", delay=30))
    assert (await broker.look("a")).state == "delayed"
    step = await broker.step("w", [], 10)
    assert step.claimed == []
    assert step.next_due_ms is not None
    await asyncio.sleep((step.next_due_ms - broker.now_ms() + 1) / 1000)
    assert await claim_ids(broker) == ["a"]


async def test_a_time_in_the_past_is_now(broker: Broker) -> None:
    await broker.push(Envelope("a", b"", at=1))
    assert await claim_ids(broker) == ["a"]


async def test_a_push_wakes_a_worker_that_waits(broker: Broker) -> None:
    waiting = asyncio.ensure_future(broker.wait(10))
    await asyncio.sleep(0)
    await broker.push(Envelope("a", b""))
    assert await waiting


async def test_callers_that_push_again_and_again_keep_both_lanes_busy(broker: Broker) -> None:
    seen: list[int] = []

    async def push(caller: int) -> None:
        for number in range(20):
            await broker.push(Envelope(f"{caller}:{number}", b""))
            if number == 10:
                seen.append(max(lane.load for lane in broker._pusher._lanes))

    await asyncio.gather(*(push(caller) for caller in range(50)))
    assert (await broker.sizes()).totals["pushed"] == 1000
    # not 49 in one and 1 in the other, whose answer comes when nobody has anything to push
    assert statistics.median(seen) <= 34


async def test_a_job_that_is_due_before_the_others_wakes_a_worker(broker: Broker) -> None:
    await broker.push(Envelope("late", b"", delay=60_000))
    assert await broker.wait(1)
    await broker.push(Envelope("later", b"", delay=90_000))
    assert not await broker.wait(0.01)
    await broker.push(Envelope("soon", b"", delay=30_000))
    assert await broker.wait(1)


async def test_a_claim_that_leaves_jobs_wakes_the_next_worker(broker: Broker) -> None:
    await broker.push_many([Envelope(str(n), b"") for n in range(10)])
    assert await broker.wait(1)
    await claim(broker, 5)
    assert await broker.wait(1)
    await claim(broker, 5)
    assert not await broker.wait(0.01)


async def test_housekeeping_wakes_somebody_when_a_token_was_lost(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    assert await broker.wait(1)  # and whoever took it died
    await broker.keep("other", [])
    assert await broker.wait(1)


async def test_a_lease_that_is_renewed_lasts(brokers: Make) -> None:
    broker = brokers(lease_ms=150)
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    first = (await broker.look("a")).due_ms
    kept = await broker.keep("w", [job])
    assert (kept.lost, kept.cancel) == ([], [])
    await asyncio.sleep(0.02)
    await broker.keep("w", [job])
    assert (await broker.look("a")).due_ms > first  # type: ignore[operator]  # it runs, so it has a time


async def test_a_lease_that_ends_gives_the_job_to_another(brokers: Make) -> None:
    broker = brokers(lease_ms=20)
    await broker.push(Envelope("a", b"body"))
    [job] = await claim(broker)
    await asyncio.sleep(0.03)
    await broker.keep("other", [])
    [again] = await claim(broker, worker="other")
    assert (again.id, again.attempt, again.crashes) == ("a", 1, 1)
    assert (await broker.keep("w", [job])).lost == ["a"]
    assert await finish(broker, [job]) == ["a"]
    assert (await broker.sizes()).totals["crashed"] == 1


async def test_a_lease_that_ended_while_nobody_looked_is_given_time(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    unseen = broker.now_ms() - 20_000  # the server was away, say
    await redis.zadd(broker.keys.part("leases"), {str(job.fence): unseen}, xx=True)
    await broker.keep("other", [])
    assert (await broker.look("a")).state == "running"
    assert (await broker.keep("w", [job])).lost == []
    assert await finish(broker, [job]) == []


async def test_a_lease_is_given_time_once(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    leases = broker.keys.part("leases")
    await redis.zadd(leases, {str(job.fence): broker.now_ms() - 20_000}, xx=True)
    await broker.keep("other", [])
    await redis.zincrby(leases, -20_000, str(job.fence))  # and nobody looks for long, again
    await broker.keep("other", [])
    assert [job.crashes for job in await claim(broker, worker="other")] == [1]


async def test_all_jobs_of_a_dead_worker_come_back_at_once(brokers: Make) -> None:
    broker = brokers(lease_ms=20)
    await broker.push_many([Envelope(f"{n}", b"") for n in range(100)])
    for _ in range(100):
        await claim(broker, 1)
    await asyncio.sleep(0.03)
    await broker.keep("other", [])
    assert len(await claim(broker, 200, worker="other")) == 100


async def test_a_job_whose_worker_dies_three_times_is_dead(brokers: Make) -> None:
    broker = brokers(lease_ms=5)
    await broker.push_many([Envelope("bad", b"body"), Envelope("good", b"")])
    for at in range(3):
        claimed = await claim(broker, worker=f"w{at}")
        await finish(broker, [job for job in claimed if job.id == "good"], worker=f"w{at}")
        await asyncio.sleep(0.01)
        await broker.keep("other", [])
    look = await broker.look("bad")
    assert (look.state, look.body, look.crashes) == ("dead", b"body", 3)
    assert b"died 3 times" in (look.record or b"")
    assert (await broker.look("good")).state == "ok"
    assert await claim(broker) == []


async def test_waiting_jobs_are_cancelled_at_once(broker: Broker, redis: Client) -> None:
    await broker.push_many([Envelope("now", b""), Envelope("later", b"", delay=60_000)])
    states = await broker.cancel(["now", "later", "never"], {"later": b"record"})
    assert states == {"now": "cancelled", "later": "cancelled", "never": "unknown"}
    look = await broker.look("later")
    assert (look.state, look.record) == ("cancelled", b"record")
    assert await broker.cancel(["later"]) == {"later": "ended"}
    assert await claim(broker) == []
    assert await left(redis) == {"done", "results"}


async def test_a_cancelled_id_can_be_pushed_again_and_runs_once(broker: Broker, redis: Client) -> None:
    await broker.push_many([Envelope("a", b"old"), Envelope("b", b"")])
    await broker.cancel(["a"])
    assert (await broker.push(Envelope("a", b"new"))).state == "new"
    claimed = await claim(broker)
    assert [(job.id, job.body) for job in claimed] == [("b", b""), ("a", b"new")]
    await finish(broker, claimed, record=None)
    assert await left(redis) == set()


async def test_a_running_job_is_asked_to_end(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    assert await broker.cancel(["a"]) == {"a": "running"}
    assert (await broker.keep("w", [job])).cancel == ["a"]
    await finish(broker, [job], "retry")  # it failed by being cancelled: that is no reason to try again
    assert (await broker.look("a")).state == "cancelled"
    assert (await broker.sizes()).totals["cancelled"] == 1


async def test_a_worker_hears_of_a_cancellation(broker: Broker, redis: Client) -> None:
    heard: list[str] = []
    async with await redis.subscribe(broker.keys.control, heard.append):
        await broker.push(Envelope("a", b""))
        await claim(broker)
        await broker.cancel(["a"])
        await until(lambda: heard)
    assert heard == ["cancel a"]


async def test_one_producer_of_many_gets_the_unique_job(broker: Broker, redis: Client) -> None:
    answers = await asyncio.gather(*[broker.push(Envelope(f"a{n}", b"", unique="k")) for n in range(50)])
    [new] = [one.id for one in answers if one.state == "new"]
    assert {one.id for one in answers} == {new}
    [job] = await claim(broker)
    assert (await broker.push(Envelope("b", b"", unique="k"))) == Pushed(job.id, "unique")
    await finish(broker, [job], record=None)
    assert (await broker.push(Envelope("b", b"", unique="k"))).state == "new"
    await finish(broker, await claim(broker), record=None)
    assert await left(redis) == set()


async def test_a_unique_key_outlasts_a_retry_and_is_free_after_death_and_cancellation(broker: Broker) -> None:
    await broker.push(Envelope("a", b"", unique="k"))
    await finish(broker, await claim(broker), "retry")
    assert (await broker.push(Envelope("b", b"", unique="k"))).state == "unique"
    await finish(broker, await claim(broker), "dead")
    assert (await broker.push(Envelope("b", b"", unique="k"))).state == "new"
    assert await broker.retry(["a"]) == ([], ["a"])  # the key is somebody else's now
    await broker.cancel(["b"])
    assert await broker.retry(["a"]) == (["a"], [])
    assert (await broker.push(Envelope("c", b"", unique="k"))) == Pushed("a", "unique")


async def test_dead_jobs_that_are_kept_out_do_not_hold_up_the_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gravito.horizon._broker._AT_ONCE", 2)
    await broker.push_many([Envelope(f"{n}", b"", unique=f"k{n % 4}" if n < 4 else None) for n in range(9)])
    for job in await claim(broker):
        await finish(broker, [job], "dead")
    await broker.push_many([Envelope(f"new{n}", b"", unique=f"k{n}") for n in range(4)])
    back, held = await broker.retry()
    assert (sorted(back), sorted(held)) == (list("45678"), list("0123"))


async def test_a_unique_key_is_held_for_its_time_at_most(broker: Broker) -> None:
    await broker.push(Envelope("a", b"", unique="k", unique_for=20))
    assert (await broker.push(Envelope("b", b"", unique="k"))).state == "unique"
    await asyncio.sleep(0.03)
    assert (await broker.push(Envelope("b", b"", unique="k"))).state == "new"
    jobs = {job.id: job for job in await claim(broker)}
    await finish(broker, [jobs["a"]])  # the key is no longer its own to free
    assert (await broker.push(Envelope("c", b"", unique="k"))) == Pushed("b", "unique")


async def test_tenants_take_turns(broker: Broker, redis: Client) -> None:
    await broker.push_many([Envelope(f"big{n:03}", b"", tenant="big") for n in range(200)])
    await claim(broker, 50)
    await broker.push_many([Envelope(f"small{n}", b"", tenant="small") for n in range(5)])
    order = await claim_ids(broker, 10)
    assert sum(name.startswith("small") for name in order) >= 4
    assert [name for name in order if name.startswith("big")] == sorted(
        name for name in order if name.startswith("big")
    )


async def test_turns_leave_nothing_behind(broker: Broker, redis: Client) -> None:
    await broker.push_many([Envelope(f"{n}", b"", tenant=f"t{n % 7}", priority=n % 4) for n in range(50)])
    await finish(broker, await claim(broker), record=None)
    await broker.keep("w", [])
    assert await left(redis) == set()


async def test_priorities_weigh_in_turns(broker: Broker) -> None:
    await broker.push_many([Envelope(f"low{n}", b"", tenant="a", priority=3) for n in range(20)])
    await broker.push_many([Envelope(f"high{n}", b"", tenant="b", priority=1) for n in range(20)])
    order = await claim_ids(broker, 10)
    assert sum(name.startswith("high") for name in order) >= 7


async def test_no_more_jobs_run_at_a_time_than_the_limit(broker: Broker, redis: Client) -> None:
    limits = (Limit("db", "concurrency", 2),)
    await broker.push_many([Envelope(f"{n}", b"", limits=limits) for n in range(5)])
    await broker.push(Envelope("free", b""))
    first = await claim(broker)
    assert {job.id for job in first} == {"free", "0", "1"}
    assert (await broker.sizes()).parked == 3
    assert (await broker.look("2")).state == "parked"
    assert await claim(broker, worker="other") == []
    await finish(broker, [job for job in first if job.id == "0"], record=None)
    second = await claim(broker)
    assert [job.id for job in second] == ["2"]
    await finish(broker, [*second, *[job for job in first if job.id != "0"]], record=None)
    third = await claim(broker)
    assert [job.id for job in third] == ["3", "4"]
    await finish(broker, third, record=None)
    assert await left(redis) == set()


@pytest.mark.parametrize("outcome", ["retry", "release", "dead", "cancelled"])
async def test_every_way_to_end_gives_a_slot_back(broker: Broker, outcome: str) -> None:
    limits = (Limit("db", "concurrency", 1),)
    await broker.push_many([Envelope(f"{n}", b"", limits=limits) for n in range(2)])
    first = await claim(broker)
    assert [job.id for job in first] == ["0"]
    await finish(broker, first, outcome)
    assert await claim_ids(broker) == ["1"]


async def test_a_lost_lease_gives_its_slot_back(brokers: Make) -> None:
    broker = brokers(lease_ms=10)
    limits = (Limit("db", "concurrency", 1),)
    await broker.push_many([Envelope(f"{n}", b"", limits=limits) for n in range(2)])
    assert await claim_ids(broker) == ["0"]
    await asyncio.sleep(0.02)
    await broker.keep("other", [])
    assert len(await claim(broker, worker="other")) == 1


async def test_a_parked_job_can_be_cancelled_and_one_that_was_let_go_on_passes_its_turn(
    broker: Broker, redis: Client
) -> None:
    limits = (Limit("db", "concurrency", 1),)
    await broker.push_many([Envelope(f"{n}", b"", limits=limits) for n in range(4)])
    [job] = await claim(broker)
    assert await broker.cancel(["1"]) == {"1": "cancelled"}
    await finish(broker, [job], record=None)
    assert await broker.cancel(["2"]) == {"2": "cancelled"}  # it was let go on
    last = await claim(broker)
    assert [job.id for job in last] == ["3"]
    await finish(broker, last, record=None)
    assert await left(redis) == set()


async def test_a_raised_limit_lets_parked_jobs_go_on(broker: Broker) -> None:
    await broker.push_many([Envelope("0", b"", limits=(Limit("db", "concurrency", 1),))])
    await broker.push_many(
        [Envelope(f"{n}", b"", limits=(Limit("db", "concurrency", 3),)) for n in (1, 2, 3)]
    )
    assert await claim_ids(broker) == ["0", "1", "2"]
    assert (await broker.sizes()).parked == 1


async def test_starts_keep_to_their_rate(broker: Broker, redis: Client) -> None:
    limits = (Limit("api", "rate", 3, 90),)
    await broker.push_many([Envelope(f"{n}", b"", limits=limits) for n in range(6)])
    first = await broker.step("w", [], 10)
    assert [job.id for job in first.claimed] == ["0", "1", "2"]
    sizes = await broker.sizes()
    assert (sizes.parked, sizes.delayed) == (3, 0)
    started: dict[str, int] = {}
    while len(started) < 3:
        step = await broker.step("w", [], 10)
        started.update({job.id: step.now_ms for job in step.claimed})
        await asyncio.sleep(0.001)
    assert list(started) == ["3", "4", "5"]
    assert all(started[name] - first.now_ms >= 30 * at for at, name in enumerate("345", 1))


async def test_completions_push_into_their_own_queue(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    pushes = (("q", Envelope("b", b"1")), ("q", Envelope("c", b"2", delay=60_000)))
    await finish(broker, [job], pushes=pushes)
    assert await claim_ids(broker) == ["b"]
    assert (await broker.look("c")).state == "delayed"


async def test_a_refused_completion_pushes_nothing(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    await finish(broker, [job], "release", record=None)
    await finish(broker, [job], pushes=(("q", Envelope("b", b"")), ("other", Envelope("c", b""))), note=b"n")
    assert (await broker.look("b")).state == "unknown"
    assert (await broker.sizes()).outbox == 0


async def test_completions_push_into_other_queues(brokers: Make) -> None:
    broker, other = brokers(), brokers("other")
    notes: list[tuple[int, bytes]] = []

    async def take(serial: int, note: bytes) -> None:
        notes.append((serial, note))

    broker.on_note(take)
    await broker.push(Envelope("a", b""))
    [job] = await claim(broker)
    await finish(broker, [job], pushes=(("other", Envelope("b", b"\xff1", priority=0)),), note=b"\xff done")
    await broker._relay.drain()
    [arrived] = await claim(other)
    assert (arrived.id, arrived.body) == ("b", b"\xff1")
    assert [note for _, note in notes] == [b"\xff done"]


async def test_an_entry_of_the_outbox_that_is_carried_twice_is_one_job(brokers: Make) -> None:
    broker, again, other = brokers(), brokers(), brokers("other")
    broker._steps._posted = lambda: None  # nobody but this test carries
    await broker.push_many([Envelope(f"{n}", b"") for n in range(20)])
    for job in await claim(broker):
        await finish(broker, [job], pushes=(("other", Envelope(f"to-{job.id}", b"")),))
    assert (await broker.sizes()).outbox == 20
    await asyncio.gather(broker.relay(), again.relay())
    jobs = await claim(other)
    await finish(other, jobs, record=None)
    assert sorted(job.id for job in jobs) == sorted(f"to-{n}" for n in range(20))
    assert (await broker.sizes()).outbox == 0
    assert (await other.sizes()).totals["pushed"] == 20


async def test_notes_that_nobody_takes_stay(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    await broker.push(Envelope("a", b""))
    await finish(broker, await claim(broker), note=b"n")
    with pytest.raises(errors.HorizonError, match="nobody takes the notes"):
        await broker.relay()
    assert (await broker.sizes()).outbox == 1


async def test_a_paused_queue_gives_no_jobs_and_takes_completions(broker: Broker) -> None:
    await broker.push_many([Envelope("a", b""), Envelope("b", b"")])
    running = await claim(broker, 1)
    await broker.pause()
    assert (await broker.sizes()).paused
    assert await claim(broker) == []
    assert await finish(broker, running) == []
    await broker.resume()
    assert await broker.wait(1)
    assert await claim_ids(broker) == ["b"]


async def test_results_wait_for_the_end(broker: Broker) -> None:
    await broker.push_many([Envelope("a", b""), Envelope("b", b""), Envelope("c", b"")])
    waiting = [asyncio.ensure_future(broker.result(name, 10)) for name in ("a", "b", "c", "a")]
    await until(lambda: broker._endings._waiting.keys() == {"a", "b", "c"})
    a, b, c = await claim(broker)
    await broker.step("w", [ended(a), ended(b, "dead", b"why"), ended(c, record=None)], 0)
    looks = await asyncio.gather(*waiting)
    assert [(look.state, look.record) for look in looks] == [
        ("ok", b"record"),
        ("dead", b"why"),
        ("ok", None),
        ("ok", b"record"),
    ]
    assert await broker.client.hlen(broker.keys.part("waiting")) == 0


async def test_results_of_what_has_ended_come_at_once(broker: Broker) -> None:
    await broker.push(Envelope("a", b""))
    await finish(broker, await claim(broker))
    assert (await broker.result("a", 10)).record == b"record"
    assert (await broker.result("never", 10)).state == "unknown"


async def test_a_result_that_is_late(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b""))
    with pytest.raises(errors.ResultTimeoutError, match=r"job a has not ended within 0\.02 s"):
        await broker.result("a", 0.02)
    assert await redis.hlen(broker.keys.part("waiting")) == 0


@pytest.mark.parametrize("part", ["ready", "delayed", "done", "dead", "parked"])
async def test_a_part_of_the_queue_is_purged(broker: Broker, redis: Client, part: str) -> None:
    limits = (Limit("db", "concurrency", 1),)
    names = ["done", "dead", "running", "parked"]
    await broker.push_many([Envelope(name, b"", limits=limits, unique=name) for name in names])
    for name in ("done", "dead"):
        [job] = await claim(broker)
        assert job.id == name
        await finish(broker, [job], "ok" if name == "done" else "dead")
    await claim(broker)
    await broker.push_many([Envelope("ready", b"", unique="ready"), Envelope("fair", b"", tenant="t")])
    await broker.push(Envelope("delayed", b"", delay=60_000))
    gone = {part} if part != "ready" else {"ready", "fair"}
    assert await broker.purge(part) == len(gone)  # type: ignore[arg-type]  # pytest's parameters are plain text
    for name in (*names, "ready", "delayed", "fair"):
        state = (await broker.look(name)).state
        assert (state == "unknown") == (name in gone), name
    if "ready" in gone:
        assert (await broker.push(Envelope("x", b"", unique="ready"))).state == "new"


async def test_ended_jobs_are_kept_by_number_and_by_age(brokers: Make, redis: Client) -> None:
    broker = brokers(retention=Retention(done=5, done_ms=10, dead=2, dead_ms=60_000))
    await broker.push_many([Envelope(f"{n:02}", b"") for n in range(12)])
    jobs = await claim(broker)
    await finish(broker, jobs[:8])
    sizes = await broker.sizes()
    assert (sizes.done, await redis.hlen(broker.keys.results)) == (5, 5)
    await finish(broker, jobs[8:], "dead")
    await asyncio.sleep(0.02)
    await broker.keep("w", [])
    sizes = await broker.sizes()
    assert (sizes.done, sizes.dead) == (0, 2)
    assert await left(redis) == {"causes", "dead", "jobs", "notes", "tries"}
    assert sorted(await broker.discard(["10", "11", "09"])) == ["10", "11"]
    assert await left(redis) == set()


@pytest.mark.parametrize(
    ("job", "what"),
    [
        (Envelope("no spaces", b""), "no id for a job"),
        (Envelope("", b""), "no id for a job"),
        (Envelope("a", b"", priority=4), "priority is 4"),
        (Envelope("a", b"", delay=-1), "delay is -1"),
        (Envelope("a", b"", unique=""), "unique is ''"),
        (Envelope("a", b"", unique="k", unique_for=-5), "unique_for is -5"),
        (Envelope("a", b"", tenant="x" * 2000), "tenant is"),
        (Envelope("a", b"", limits=(Limit("x", "rate", 5),)), "limits.per_ms is 0"),
        (Envelope("a", b"", limits=(Limit("x", "concurrency", 0),)), "limits.limit is 0"),
        (Envelope("a", b"", limits=(Limit("\0", "concurrency", 1),)), "limits.name"),
    ],
)
async def test_what_the_queue_cannot_take_is_refused_before_it_is_sent(
    broker: Broker, redis: Client, job: Envelope, what: str
) -> None:
    with pytest.raises(errors.PayloadError, match=what):
        broker.push(job)
    assert await redis.keys("*") == []


@pytest.mark.parametrize("name", ["", "a b", "{x}", "x" * 101, None])
def test_what_is_no_name_for_a_queue(redis: Client, name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="no name for a queue"):
        Broker(redis, name)


async def test_nothing_stays_of_a_worker_and_a_producer_that_left(brokers: Make, redis: Client) -> None:
    broker = brokers()
    await broker.push(Envelope("a", b""))
    await finish(broker, await claim(broker), record=None)
    await broker.leave("w")
    await broker.aclose()
    assert await redis.hlen(broker.keys.part("steps")) == 0
    assert await redis.hlen(broker.keys.part("producers")) == 0


async def test_keys_have_the_connections_prefix(gravito_engine: object, redis: Client, brokers: Make) -> None:
    async with Client.from_url(f"unix://{redis.settings.path}", key_prefix="app:") as prefixed:
        broker = brokers(client=prefixed)
        await broker.push(Envelope("a", b""))
        waiting = asyncio.ensure_future(broker.result("a", 10))
        await until(lambda: "a" in broker._endings._waiting)
        assert await broker.wait(1)
        await finish(broker, await claim(broker))
        assert (await waiting).state == "ok"
        assert all(
            key.startswith(("app:horizon:{q}:", "app:horizon:queues")) for key in await redis.keys("*")
        )
        await broker.aclose()
