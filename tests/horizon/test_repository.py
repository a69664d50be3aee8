"""What readers see: exact figures, every job, and what they may do to jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravito.atlas import Client
from gravito.atlas._local_cluster import LocalCluster
from gravito.errors import ConfigurationError, HorizonError
from gravito.horizon import Concurrency, Rate, _scripts
from gravito.horizon._acts import Acted
from gravito.horizon._rows import MASKED, Filter, JobRow
from gravito.horizon.horizon import Horizon, HorizonSettings
from gravito.horizon.repository import Repository
from gravito.horizon.testing import travel
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


@pytest.fixture
def repository(horizon: Horizon) -> Repository:
    """A reader."""
    return Repository(horizon)


async def burst(horizon: Horizon, *queues: str, **options: Any) -> Worker:
    """A worker that has done all there is."""
    worker = Worker(horizon, WorkerOptions(burst=True, queues=queues or ("default",), **options))
    async with asyncio.timeout(30):
        await worker.run()
    return worker


async def every(repository: Repository, state: Any, queue: str | None, filter: Filter) -> list[JobRow]:
    """All pages of a search."""
    found, mark, pages = [], None, 0
    while True:
        page = await repository.jobs(state, queue, limit=7, filter=filter, mark=mark)
        found += page.jobs
        mark = page.mark
        pages += 1
        assert pages < 1000
        if mark is None:
            return found


async def test_figures_are_exact_whoever_reads(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(queue="a", retries=1, backoff=0.01)
    async def work(number: int) -> None:
        if number % 10 == 0:
            raise LookupError("tenth")

    @horizon.job(queue="b")
    async def other() -> None: ...

    await horizon.push_many(work.make(number) for number in range(1000))
    await horizon.push_many(other.make() for _ in range(500))
    other_reader = Repository(horizon)
    reading = asyncio.create_task(keep_reading(repository, other_reader))
    await burst(horizon, "a", "b")
    reading.cancel()
    for reader in (repository, other_reader):
        for window in ("1h", "24h", "7d"):
            metrics = await reader.metrics(window)  # type: ignore[arg-type]
            total = metrics.total
            assert (total.ok, total.retried, total.dead, total.cancelled) == (1400, 100, 100, 0)
            assert sum(point.figures.ok for point in metrics.points) == 1400
            assert sum(total.run.values()) == sum(total.wait.values()) == 1600
            assert {name: one.ok for name, one in metrics.jobs.items()} == {"work": 900, "other": 500}
            assert (await reader.metrics(window, "b")).total.ok == 500  # type: ignore[arg-type]
            assert (await reader.metrics(window, job="work")).total.dead == 100  # type: ignore[arg-type]
        assert await reader.totals() == {
            "pushed": 1500,
            "ok": 1400,
            "retry": 100,
            "dead": 100,
            "release": 0,
            "cancelled": 0,
            "crashed": 0,
        }


async def keep_reading(*readers: Repository) -> None:
    while True:
        for reader in readers:
            await reader.metrics("1h")
            await reader.metrics("7d")
            await reader.queues()
        await asyncio.sleep(0)


async def test_queues_are_known_from_their_first_job_or_worker(
    horizon: Horizon, repository: Repository
) -> None:
    @horizon.job(queue="mail")
    async def send() -> None: ...

    assert await repository.queues() == []
    await send.push()
    await send.delay(60).push()
    await burst(horizon, "idle")
    [idle, mail] = await repository.queues()
    assert (idle.name, idle.ready, idle.oldest) == ("idle", 0, None)
    assert (mail.name, mail.ready, mail.sizes.delayed, mail.workers) == ("mail", 1, 1, 0)
    assert mail.oldest is not None
    assert 0 <= mail.oldest < 10
    await repository.pause("mail")
    assert (await repository.queue("mail")).sizes.paused
    await repository.resume("mail")
    assert not (await repository.queue("mail")).sizes.paused
    with pytest.raises(HorizonError, match="'mail' has 2 jobs; purge it first"):
        await repository.forget("mail")
    await repository.forget("idle")
    assert await repository.names() == ["mail"]


async def test_a_queue_that_nobody_knows_is_refused(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(queue="emails")
    async def send() -> None: ...

    await burst(horizon, "idle")

    async def purge(name: str) -> None:
        async for _ in repository.purging(name, "ready"):
            pass

    said = r"^there is no queue 'emials'; there are: emails, .*\bidle\b"
    for change in (repository.pause, repository.resume, repository.forget, purge):
        with pytest.raises(HorizonError, match=said):
            await change("emials")
    with pytest.raises(ConfigurationError, match="no name for a queue"):
        await repository.pause("e mails")
    assert await repository.names() == ["idle"]
    assert not await horizon.client.keys("horizon:{emials}*")


async def test_a_queue_of_the_code_is_paused_ahead_of_its_first_job_and_seen(
    horizon: Horizon, repository: Repository
) -> None:
    @horizon.job(queue="emails")
    async def send() -> str:
        return "sent"

    horizon.schedule("weekly", send.make().on("letters")).weekly()
    await repository.pause("emails")
    await repository.pause("letters")
    assert [(row.name, row.sizes.paused) for row in await repository.queues()] == [
        ("emails", True),
        ("letters", True),
    ]
    await send.push()
    await burst(horizon, "emails")
    assert (await repository.queue("emails")).ready == 1
    with pytest.raises(HorizonError, match="'letters' is paused; resume it first"):
        await repository.forget("letters")
    for name in ("emails", "letters"):
        await repository.resume(name)
    await repository.forget("letters")
    await burst(horizon, "emails")
    assert (await repository.queue("emails")).ready == 0
    assert await repository.names() == ["emails"]


async def test_a_queue_that_was_forgotten_and_is_used_again_comes_back(
    horizon: Horizon, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    @horizon.job(queue="mail", results=False)
    async def send() -> None: ...

    monkeypatch.setattr(_scripts, "_LISTED", 0.0)  # a minute later
    await send.push()
    await burst(horizon, "mail")
    await repository.forget("mail")
    assert await repository.names() == []
    await send.push()
    assert await repository.names() == ["mail"]


async def test_a_queue_is_known_as_long_as_a_worker_serves_it(
    horizon: Horizon, repository: Repository
) -> None:
    worker = Worker(horizon, WorkerOptions(queues=("idle",)))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while not await repository.workers():  # noqa: ASYNC110  # told by its heartbeat
            await asyncio.sleep(0.01)
    await repository.forget("idle")
    await repository.pause("idle")
    assert (await repository.queue("idle")).sizes.paused
    await repository.resume("idle")
    worker.stop()
    await task


async def test_a_queue_off_the_list_comes_back_when_it_is_paused(
    horizon: Horizon, repository: Repository
) -> None:
    @horizon.job
    async def send() -> None: ...

    await send.make().on("old").push()
    await burst(horizon, "old")
    await horizon.client.srem("horizon:queues", "old")
    await repository.pause("old")
    assert await repository.names() == ["old"]


async def test_a_search_reaches_every_job(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(queue="a")
    async def work(number: int) -> None: ...

    @horizon.job(queue="b")
    async def rest(number: int) -> None: ...

    rare = {12, 1999}
    calls = [
        (work.tags("rare") if n in rare else work).priority("low" if n % 2 else "high").make(n)
        for n in range(2000)
    ]
    handles = await horizon.push_many(calls)
    wanted = {handles[n].id for n in rare}
    assert {row.id for row in await every(repository, "ready", None, Filter(tag="rare"))} == wanted
    assert {row.id for row in await every(repository, "ready", "a", Filter(name="work"))} == {
        h.id for h in handles
    }
    assert await every(repository, "ready", None, Filter(name="rest")) == []
    assert await repository.count("ready", "a", Filter(tag="rare")) == 2
    await burst(horizon, "a")
    assert {row.id for row in await every(repository, "done", None, Filter(tag="rare"))} == wanted
    assert {row.id for row in await every(repository, "done", None, Filter(name="work"))} == {
        h.id for h in handles
    }


async def test_pages_show_each_job_once(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(retries=0)
    async def fail() -> None:
        raise LookupError("no")

    @horizon.job(queue="second")
    async def later() -> None: ...

    await horizon.push_many(fail.make() for _ in range(100))
    await horizon.push_many(later.delay(1000 - n).make() for n in range(100))
    for state, queue in (("ready", "default"), ("delayed", "second"), ("delayed", None)):
        pages = [await repository.jobs(state, queue, offset=at, limit=30) for at in range(0, 120, 30)]  # type: ignore[arg-type]
        assert [len(page.jobs) for page in pages] == [30, 30, 30, 10]
        assert {page.total for page in pages} == {100}
        assert len({row.id for page in pages for row in page.jobs}) == 100
    rows = (await repository.delayed(limit=100)).jobs
    assert [row.due for row in rows] == sorted(row.due for row in rows if row.due)
    await burst(horizon)
    dead = await repository.failed(limit=60)
    assert dead.total == 100
    assert {(row.state, row.name, row.error, row.error_type) for row in dead.jobs} == {
        ("dead", "fail", "no", "LookupError")
    }


async def test_a_search_goes_on_while_jobs_come_and_go(horizon: Horizon, repository: Repository) -> None:
    """Jobs that stay are seen, though others leave the head of the line and join its end between the pages."""

    @horizon.job
    async def work() -> None: ...

    handles = await horizon.push_many(work.tags("x").make() for _ in range(300))
    seen: set[str] = set()
    mark, taken = None, set()
    broker = horizon.broker("default")
    while True:
        page = await repository.jobs("ready", "default", limit=40, filter=Filter(tag="x"), mark=mark)
        seen |= {row.id for row in page.jobs}
        mark = page.mark
        if mark is None:
            break
        if len(taken) < 180:
            taken |= {job.id for job in (await broker.step("w", [], 60)).claimed}
            await work.push()
    assert {handle.id for handle in handles} - taken <= seen


async def test_a_job_tells_its_story(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(retries=2, backoff=0.01, secret=("password",), tags=("t",))
    async def login(user: str, password: str) -> str:
        if len(stories) < 2:
            stories.append(1)
            raise PermissionError(f"try {len(stories)}")
        return "in"

    stories: list[int] = []
    handle = await login.meta(source="test").push("ann", "s3cret")
    before = await repository.job(handle.id)
    assert before is not None
    assert (before.state, before.queue, before.attempts) == ("ready", "default", ())
    assert before.arguments == {"user": "ann", "password": MASKED}
    async with asyncio.timeout(20):
        while not (await handle.status()).finished:  # a worker may end before the next attempt is due
            await burst(horizon)
    job = await repository.job(handle.id)
    assert job is not None
    assert (job.state, job.name, job.has_result, job.result) == ("ok", "login", True, "in")
    assert (job.tags, job.meta) == (("t",), {"source": "test"})
    assert [(one.number, one.outcome, one.error) for one in job.attempts] == [
        (1, "retry", "try 1"),
        (2, "retry", "try 2"),
        (3, "ok", None),
    ]
    assert "s3cret" not in repr(job)
    assert await repository.job("nobody") is None


async def test_dead_jobs_are_grouped_by_error(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(retries=0)
    async def fail(number: int) -> None:
        raise LookupError("lost") if number % 3 else ValueError(f"odd {number}")

    await horizon.push_many(fail.make(number) for number in range(30))
    await burst(horizon)
    groups = await repository.dead_groups()
    assert [(group.name, group.error, group.count) for group in groups] == [
        ("fail", "LookupError", 20),
        ("fail", "ValueError", 10),
    ]
    assert groups[0].message == "lost"
    acted = [one async for one in repository.acting("retry", "dead", filter=Filter(error="ValueError"))]
    assert acted[-1] == Acted(done=10)
    assert [(group.error, group.count) for group in await repository.dead_groups()] == [("LookupError", 20)]
    assert (await repository.queue("default")).ready == 10
    acted = [one async for one in repository.acting("discard", "dead", "default")]
    assert acted[-1].done == 20
    assert await repository.dead_groups() == []


async def test_what_readers_do_is_done_to_the_jobs_alone_that_they_name(
    horizon: Horizon, repository: Repository
) -> None:
    @horizon.job
    async def work() -> str:
        return "done"

    ready, later, gone, deleted = [
        await call.push() for call in (work.tags("a"), work.delay(600), work.tags("b"), work.delay(500))
    ]
    assert await repository.act("run_now", "default", [later.id, ready.id]) == Acted(done=1, left=1)
    assert await repository.act("cancel", "default", [gone.id, "nobody"]) == Acted(done=1, left=1)
    assert await repository.act("delete", "default", [deleted.id]) == Acted(done=1)
    await burst(horizon)
    assert [await handle.result(timeout=5) for handle in (ready, later)] == ["done", "done"]
    assert (await gone.status()).state == "cancelled"
    assert (await deleted.status()).state == "unknown"
    assert await repository.act("delete", "default", [ready.id, gone.id]) == Acted(done=2)
    assert await repository.act("retry", "default", [later.id]) == Acted(left=1)
    assert (await repository.recent()).total == 1
    with pytest.raises(HorizonError, match="retry is for jobs that are dead, not ready"):
        async for _ in repository.acting("retry", "ready"):
            pass
    with pytest.raises(HorizonError, match="'explode' is no action"):
        await repository.act("explode", "default", ["x"])  # type: ignore[arg-type]


async def test_bad_questions_are_refused_with_what_is_allowed(
    repository: Repository, horizon: Horizon
) -> None:
    await horizon.client.sadd("horizon:queues", "q")
    with pytest.raises(HorizonError, match="'2h' is no window; allowed: 1h, 24h, 7d"):
        await repository.metrics("2h")  # type: ignore[arg-type]
    with pytest.raises(HorizonError, match="'sleeping' is no state to list; allowed: ready"):
        await repository.jobs("sleeping", "q")  # type: ignore[arg-type]
    with pytest.raises(HorizonError, match="'%%%' is no mark"):
        await repository.jobs("ready", "q", mark="%%%")


async def test_time_narrows_a_list(horizon: Horizon, repository: Repository) -> None:
    @horizon.job
    async def work() -> None: ...

    await horizon.push_many(work.delay(60 * minute).make() for minute in range(1, 61))
    now = datetime.now(UTC)
    window = Filter(since=now + timedelta(minutes=20.5), until=now + timedelta(minutes=30.5))
    page = await repository.jobs("delayed", "default", filter=window)
    assert (page.total, len(page.jobs)) == (10, 10)
    assert await repository.count("delayed", None, window) == 10
    named = await repository.jobs("delayed", "default", filter=Filter(name="work", since=window.since))
    assert len(named.jobs) == 40


async def test_running_and_parked_jobs_are_listed(horizon: Horizon, repository: Repository) -> None:
    @horizon.job(concurrency=Concurrency(2))
    async def narrow() -> None: ...

    @horizon.job(rate=Rate(1, per=3600))
    async def slow() -> None: ...

    await horizon.push_many([*[narrow.make() for _ in range(5)], *[slow.make() for _ in range(3)]])
    await horizon.broker("default").step("w", [], 8)
    running = await repository.jobs("running", "default")
    assert [row.worker for row in running.jobs] == ["w"] * 3
    parked = await repository.jobs("parked", "default")
    assert sorted(row.name for row in parked.jobs) == ["narrow"] * 3 + ["slow"] * 2
    assert {row.state for row in parked.jobs} == {"parked"}
    assert len(await every(repository, "parked", None, Filter(name="slow"))) == 2
    assert len(await every(repository, "running", None, Filter(name="narrow"))) == 2
    limits = await repository.limits("default")
    assert [(row.name, row.kind, row.running) for row in limits] == [
        ("narrow", "concurrency", 2),
        ("slow", "rate", None),
    ]
    assert (await repository.jobs("delayed", "default")).total == 0
    assert (await repository.jobs("delayed", "default")).jobs == []


async def test_batches_and_schedules_are_listed(horizon: Horizon, repository: Repository) -> None:
    @horizon.job
    async def work() -> None: ...

    first = await horizon.batch([work.make() for _ in range(3)], name="one").push()
    second = await horizon.batch([work.make()], name="two").push()
    await burst(horizon)
    await second.wait(timeout=5)
    await first.wait(timeout=5)
    total, batches = await repository.batches()
    assert total == 2
    assert [(batch.name, batch.total, batch.state) for batch in batches] == [
        ("two", 1, "done"),
        ("one", 3, "done"),
    ]
    assert (await repository.batch(first.id)).ok == 3
    horizon.schedule("nightly", work).daily().at("02:00")
    [row] = await repository.schedules()
    assert (row.name, row.what, row.queue, row.paused, row.last) == (
        "nightly",
        "work",
        "default",
        False,
        None,
    )
    assert row.next is not None
    await repository.pause_schedule("nightly")
    [row] = await repository.schedules()
    assert (row.paused, row.next) == (True, None)
    job_id = await repository.run_schedule("nightly")
    job = await repository.job(job_id)
    assert job is not None
    assert job.tags == ("schedule:nightly",)
    with pytest.raises(HorizonError, match="no schedule 'weekly'"):
        await repository.run_schedule("weekly")


async def test_deep_pages_over_several_queues_show_each_job_once_in_order(
    horizon: Horizon, repository: Repository
) -> None:
    """Many of the jobs have the same moment: whole steps end at once."""

    @horizon.job
    async def work() -> None: ...

    at = datetime.now(UTC) + timedelta(hours=1)
    calls = [
        work.on(f"q{n % 3}").at(at + timedelta(milliseconds=n // 100 * 7)).id(f"j{n:04}").make()
        for n in range(1500)
    ]
    await horizon.push_many(calls)
    pages = [await repository.delayed(50, offset) for offset in range(0, 1550, 50)]
    rows = [row for page in pages for row in page.jobs]
    assert [len(page.jobs) for page in pages] == [50] * 30 + [0]
    assert len({row.id for row in rows}) == 1500
    assert [row.due for row in rows] == sorted(row.due for row in rows if row.due)
    await travel(horizon, hours=2)
    await burst(horizon, "q0", "q1", "q2")
    pages = [await repository.recent(50, offset) for offset in range(0, 1550, 50)]
    rows = [row for page in pages for row in page.jobs]
    assert len({row.id for row in rows}) == len(rows) == 1500
    ended = [row.ended for row in rows if row.ended]
    assert ended == sorted(ended, reverse=True)


async def test_figures_of_past_days_survive_without_workers(
    horizon: Horizon, repository: Repository, redis: Client
) -> None:
    """Counters that no worker has added to their hours are there all the same, and are added once."""

    @horizon.job
    async def work() -> None: ...

    await work.push()
    await burst(horizon)
    broker = horizon.broker("default")
    minute = broker.now_ms() // 60_000
    lives = [await redis.ttl(broker.keys.minute(one)) for one in (minute - 1, minute)]
    assert max(lives) > 7 * 86_400, "counters wait for a week to be added to their hour"
    hours = {minute // 60 - 2: 20, minute // 60 - 100: 300}
    for hour, count in hours.items():
        for part in (0, 59):
            await redis.hset(
                broker.keys.minute(hour * 60 + part),
                mapping={"r|ok|3|work": count // 2, "w|2|work": count // 2},
            )
    await redis.hset(broker.keys.part("conf"), "rolled", (minute // 60 - 101) * 60)
    readers = [repository, Repository(horizon)]
    for _ in range(2):
        found = await asyncio.gather(*[reader.metrics("7d") for reader in readers])
        assert [metrics.total.ok for metrics in found] == [321, 321]
        assert [
            metrics.total.ok for metrics in await asyncio.gather(*[r.metrics("24h") for r in readers])
        ] == [21, 21]
    points = {round(point.at.timestamp()) // 3600: point.figures.ok for point in found[0].points}
    assert {hour: points[hour] for hour in hours} == hours
    assert len(points) == 168
    assert (
        min([await redis.ttl(name) for name in broker.keys.counts if name != broker.keys.counts[1]])
        > 8 * 86_400
    )


async def test_readers_see_all_of_a_cluster(cluster: LocalCluster) -> None:
    settings = HorizonSettings(prefix="readers")
    async with Client.from_url(cluster.url) as client, Horizon(client, settings=settings) as horizon:

        @horizon.job(retries=0)
        async def work(fail: bool) -> None:
            if fail:
                raise LookupError("no")

        names = [f"queue{number}" for number in range(6)]
        await horizon.push_many(work.on(names[n % 6]).make(fail=n % 10 == 0) for n in range(600))
        await work.on("later").delay(600).push(fail=False)
        repository = Repository(horizon)
        await burst(horizon, *names)
        assert await repository.names() == ["later", *names]
        metrics = await repository.metrics("1h")
        assert (metrics.total.ok, metrics.total.dead) == (540, 60)
        assert sum(group.count for group in await repository.dead_groups()) == 60
        pages = [await repository.recent(100, offset) for offset in range(0, 600, 100)]
        assert len({row.id for page in pages for row in page.jobs}) == 540
        assert (await repository.delayed()).total == 1
        assert [row.sizes.dead for row in await repository.queues()] == [0, 20, 0, 20, 0, 20, 0]
        await travel(horizon, hours=1)
        assert (await horizon.work("later")).done == 1


@pytest.mark.parametrize("number", [20, 2500])
async def test_cancelled_jobs_are_not_counted_or_listed_as_ready(horizon: Horizon, number: int) -> None:
    """Their members stay in the line until a worker comes to them; readers must not see that."""

    @horizon.job
    async def work(number: int) -> None: ...

    handles = await horizon.push_many(work.make(one) for one in range(number))
    urgent = await work.priority("high").push(0)
    repository = Repository(horizon)
    dropped = [one.id for place, one in enumerate(handles) if place % 2 == 0]  # with the one that is in front
    assert (await repository.act("delete", "default", dropped)).done == number // 2
    row = await repository.queue("default")
    assert row.sizes.ready == (0, 1, number // 2, 0)
    assert row.oldest is not None
    assert await repository.count("ready") == number // 2 + 1
    page = await repository.jobs("ready", limit=8)
    assert [one.id for one in page.jobs] == [urgent.id, *[one.id for one in handles[1:15:2]]]
    assert page.total == number // 2 + 1
    last = await repository.jobs("ready", offset=number // 2 - 1, limit=8)
    assert [one.id for one in last.jobs] == [one.id for one in handles[-3::2]]
    async for acted in repository.acting("cancel", "ready", "default"):
        done = acted.done
    assert (done, acted.left) == (number // 2 + 1, 0)
    row = await repository.queue("default")
    assert (row.ready, row.oldest) == (0, None)
    assert (await repository.jobs("ready")).jobs == []
    await repository.forget("default")
    assert await repository.names() == []
