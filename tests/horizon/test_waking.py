"""Claims that wait behind the wake token: what an idle worker does, and what becomes of it when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import ConnectionLostError
from gravito.horizon import Horizon
from gravito.horizon._broker import Broker
from gravito.horizon._lane import Lane
from gravito.horizon._messages import Claimed, Done, Envelope, Step
from gravito.horizon.worker import Worker, WorkerOptions

Make = Callable[..., Broker]


async def waiting(
    broker: Broker, worker: str = "w", want: int = 5, timeout: float = 20
) -> asyncio.Task[Step]:
    """A claim that waits at the server."""
    task = asyncio.create_task(broker.claim_on_wake(worker, want, timeout))
    blocked = 0
    async with asyncio.timeout(10):
        while not blocked:
            info: Any = await broker.client.info("clients")
            blocked = info["blocked_clients"]
    return task


async def give_up(task: asyncio.Task[Step]) -> None:
    """Cancel it."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_push_brings_its_job_to_a_worker_that_waits(broker: Broker) -> None:
    task = await waiting(broker)
    await broker.push(Envelope("a", b"x"))
    step = await task
    assert [(job.id, job.body) for job in step.claimed] == [("a", b"x")]
    end = await broker.step("w", [Done("a", step.claimed[0].fence, "ok")], 0)
    assert end.refused == []
    assert (await broker.sizes()).running == 0


async def test_steps_of_the_same_worker_go_on_meanwhile(broker: Broker) -> None:
    task = await waiting(broker)
    await broker.push(Envelope("a", b""))
    first = (await task).claimed
    task = await waiting(broker)
    assert (await broker.step("w", [Done("a", first[0].fence, "ok")], 5)).refused == []
    await broker.push(Envelope("b", b""))
    second = (await task).claimed
    assert [job.id for job in second] == ["b"]
    assert (await broker.step("w", [Done("b", second[0].fence, "ok")], 5)).refused == []
    assert (await broker.sizes()).totals["ok"] == 2


async def test_when_nobody_wakes_it_it_takes_what_is_there(broker: Broker) -> None:
    assert (await broker.claim_on_wake("w", 5, 0.01)).claimed == []
    await broker.push(Envelope("a", b""))
    assert await broker.wait(1)  # somebody else has the token
    assert [job.id for job in (await broker.claim_on_wake("w", 5, 0.01)).claimed] == ["a"]


async def test_a_server_that_has_forgotten_the_script_is_told_it(broker: Broker, redis: Client) -> None:
    task = await waiting(broker)
    await broker.push(Envelope("b", b""))
    assert [job.id for job in (await task).claimed] == ["b"]
    await redis.script_flush()
    await broker.push(Envelope("a", b""))
    assert [job.id for job in (await broker.claim_on_wake("w", 5, 5)).claimed] == ["a"]


async def test_a_paused_queue_gives_nothing_away(broker: Broker) -> None:
    await broker.pause()
    task = await waiting(broker)
    await broker.push(Envelope("a", b""))
    assert (await task).claimed == []
    task = await waiting(broker)
    await broker.resume()
    assert [job.id for job in (await task).claimed] == ["a"]


async def test_what_was_claimed_by_a_wait_that_was_given_up_is_found(broker: Broker) -> None:
    task = await waiting(broker)
    call = broker._steps._unanswered["w;wake"]
    await give_up(task)
    await broker.push(Envelope("a", b""))
    await broker._caller.run(
        "step", call.args, call.counters
    )  # it had been on its way, and its answer is lost
    step = await broker.settle("w")
    assert step is not None
    assert [job.id for job in step.claimed] == ["a"]
    assert (await broker.step("w", [Done("a", step.claimed[0].fence, "release")], 0)).refused == []
    assert await broker.settle("w") is None


async def test_a_wait_that_was_given_up_claims_nothing_later(broker: Broker) -> None:
    task = await waiting(broker)
    call = broker._steps._unanswered["w;wake"]
    await give_up(task)
    step = await broker.settle("w")
    assert step is not None
    assert step.claimed == []
    await broker.push(Envelope("a", b""))
    for _ in range(2):  # it arrives after all; the second time when the worker has ended
        reply = await broker._caller.run("step", call.args, call.counters)
        assert reply[3] == b""
        await broker.leave("w")
    assert [job.id for job in (await broker.step("x", [], 5)).claimed] == ["a"]


async def test_a_token_that_went_with_a_wait_that_was_given_up_is_put_back(broker: Broker) -> None:
    task = await waiting(broker)
    await give_up(task)
    await broker.push(Envelope("a", b""))
    assert await broker.wait(1)
    assert await broker.settle("w") is not None
    assert await broker.wait(1)


async def test_a_wait_whose_wire_is_cut_can_be_settled(broker: Broker, redis: Client) -> None:
    task = await waiting(broker)
    [blocked] = [each for each in await redis.client_list() if each["cmd"] == "blpop"]
    await redis.client_kill_filter(_id=blocked["id"])
    with pytest.raises(ConnectionLostError):
        await task
    await broker.push(Envelope("a", b""))
    step = await broker.settle("w")
    assert step is not None
    assert step.claimed == []
    assert [job.id for job in (await broker.claim_on_wake("w", 5, 5)).claimed] == ["a"]


# -- in the worker -------------------------------------------------------------------------------------------


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


async def test_a_worker_that_stops_when_a_job_comes_neither_loses_nor_charges_it(horizon: Horizon) -> None:
    ran: list[int] = []

    @horizon.job
    async def note(number: int) -> None:
        ran.append(number)

    broker = horizon.broker("default")
    await note.push(0)
    for number in range(1, 40):
        worker = Worker(horizon)
        task = asyncio.create_task(worker.run())
        await until(lambda: number - 1 in ran)  # noqa: B023  # this turn's
        push = asyncio.ensure_future(broker.push(horizon.prepare(note.make(number))[0][1]))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        worker.stop()
        async with asyncio.timeout(10):
            await task
            await push
    await Worker(horizon, WorkerOptions(burst=True)).run()
    assert sorted(ran) == list(range(40))
    sizes = await broker.sizes()
    assert (sizes.running, sizes.totals.get("crashed", 0), sizes.totals["ok"]) == (0, 0, 40)


async def test_what_was_claimed_when_a_worker_stopped_goes_back_without_a_charge(horizon: Horizon) -> None:
    @horizon.job
    async def note() -> None: ...

    broker = horizon.broker("default")
    claim = broker._caller.run_on_wake

    async def slowly(*args: Any, **options: Any) -> Any:
        await claim(*args, **options)
        await asyncio.Event().wait()  # the answer is on its way for ever

    broker._caller.run_on_wake = slowly  # type: ignore[method-assign]  # the real one, whose answer is late
    worker = Worker(horizon)
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.lanes and worker.lanes[0]._listener is not None)
    await note.push()
    async with asyncio.timeout(10):
        while not (await broker.sizes()).running:  # noqa: ASYNC110  # another side's doing
            await asyncio.sleep(0.01)
        worker.stop()
        tally = await task
    sizes = await broker.sizes()
    assert (sizes.running, sizes.ready, tally.released) == (0, (0, 0, 1, 0), 1)
    [job] = (await broker.step("other", [], 1)).claimed
    assert (job.attempt, job.crashes) == (1, 0)


async def test_what_two_claims_took_for_the_same_place_goes_back(horizon: Horizon) -> None:
    hold = asyncio.Event()

    @horizon.job
    async def held(number: int) -> None:
        await hold.wait()

    worker = Worker(horizon, WorkerOptions(concurrency=2))
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.lanes)
    handles = [await held.push(number) for number in range(2)]
    await until(lambda: len(worker.running) == 2)
    lane = worker.lanes[0]
    broker = lane.broker
    await broker.pause()
    handles += [await held.push(number) for number in range(2, 5)]
    await broker.resume()
    step = await broker._steps._run(worker.id, broker._steps._call(worker.id, (), 2, 2))
    assert len(step.claimed) == 2
    lane._take(step)
    async with asyncio.timeout(10):
        while (await broker.sizes()).ready != (0, 0, 3, 0):  # noqa: ASYNC110  # another side's doing
            await asyncio.sleep(0.01)
    again = (await broker.step("other", [], 3)).claimed
    assert [job.id for job in again] == [handle.id for handle in handles[2:]]  # in their old order
    hold.set()
    worker.stop()
    await task
    assert (worker.tally.done, worker.tally.refused) == (2, 0)


@pytest.mark.parametrize("idle", [False, True])
async def test_a_queue_that_waits_for_tokens_goes_on_when_places_were_taken_by_another(
    horizon: Horizon, idle: bool
) -> None:
    hold = asyncio.Event()

    @horizon.job(queue="a")
    async def held() -> None:
        await hold.wait()

    @horizon.job(queue="b")
    async def quick() -> None: ...

    worker = Worker(horizon, WorkerOptions(queues=("a", "b"), concurrency=2))
    task = asyncio.create_task(worker.run())
    await until(lambda: len(worker.lanes) == 2)
    await (await quick.push()).wait(10)  # both wait for tokens now
    for _ in range(2):
        await held.push()
    await until(lambda: len(worker.running) == 2)
    broker = horizon.broker("b")
    if idle:  # it is woken for nothing, and sees that it has no place
        listener = worker.lanes[1]._listener
        await broker.resume()
        await until(lambda: listener is None or listener.done())
    handles = [await quick.push() for _ in range(3)]
    async with asyncio.timeout(10):
        while (await broker.sizes()).running:  # noqa: ASYNC110  # what its wait had claimed goes back
            await asyncio.sleep(0.01)
    hold.set()
    for handle in handles:
        assert (await handle.wait(10)).state == "ok"
    worker.stop()
    await task


async def test_jobs_with_a_tenant_are_claimed_for_free_places_only(broker: Broker) -> None:
    await broker.push_many([Envelope(f"a{n}", b"", tenant="a") for n in range(20)])
    first = (await broker.step("w", [], 10, 2)).claimed
    assert len(first) == 2
    assert (await broker.step("w", [], 10, 0)).claimed == []
    await broker.push(Envelope("b", b"", tenant="b"))  # its turn comes before most of the flood
    ids = [
        job.id for job in (await broker.step("w", [Done(first[0].id, first[0].fence, "ok")], 10, 2)).claimed
    ]
    assert ids == ["a2", "b"]
    await broker.purge("ready")
    await broker.push_many([Envelope(str(n), b"") for n in range(9)])
    assert len((await broker.step("w", [], 9, 0)).claimed) == 9  # the others are claimed ahead


async def test_ended_jobs_gather_while_others_wait_for_their_places(horizon: Horizon) -> None:
    worker = Worker(horizon, WorkerOptions(concurrency=8))
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.lanes)
    lane, ended = worker.lanes[0], Done("x", 1, "ok")
    lane.buffer.extend([Claimed(str(number), 1, 1, 0, b"") for number in range(4)])
    assert lane._leisure()
    lane.done.extend([ended, ended])
    assert not lane._leisure()  # worth a step
    lane.done.clear()
    lane.buffer.pop()
    assert not lane._leisure()  # the next places would stay empty
    lane.buffer.clear()
    worker.stop()
    await task
    lane.buffer.extend([Claimed(str(number), 1, 1, 0, b"") for number in range(4)])
    assert not lane._leisure()  # it is to end


async def test_an_answer_that_was_overtaken_does_not_put_the_alarm_off(horizon: Horizon) -> None:
    lane = Lane(Worker(horizon, WorkerOptions()), horizon.broker("default"), 0)
    lane._set_alarm(2_000, 62_000)
    alarm = lane._alarm
    assert alarm is not None
    lane._set_alarm(1_000, None)  # as the queue was before a delayed job came
    assert lane._alarm is alarm
    assert not alarm.cancelled()
    lane._set_alarm(3_000, None)
    assert lane._alarm is None
    assert alarm.cancelled()
