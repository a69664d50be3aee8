"""The two ways to write a job, how a push is built, names, options, and what runs where."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from tests.horizon.driving import drain

import gravito.horizon
from gravito.atlas import Client
from gravito.errors import (
    ConfigurationError,
    DuplicateJobError,
    HorizonError,
    InjectionError,
    JobCancelledError,
    JobFailedError,
    PayloadError,
    UnknownJobError,
)
from gravito.horizon import (
    Concurrency,
    Horizon,
    HorizonSettings,
    Job,
    JobContext,
    Middleware,
    QueueLimits,
    Rate,
    current_job,
    inject,
    job,
)
from gravito.horizon._current import current_horizon
from gravito.horizon._payload import read_record
from gravito.horizon._run import Runner, Well
from gravito.horizon.call import Call
from gravito.horizon.job import Definition, FunctionJob
from gravito.horizon.options import Options, read_options


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    gc.collect()  # Horizons that failed tests left behind
    async with Horizon(redis) as made:
        yield made.use()


def test_what_a_user_may_import() -> None:
    assert set(gravito.horizon.__all__) <= set(dir(gravito.horizon))
    assert gravito.horizon.__all__ == sorted(gravito.horizon.__all__)


# -- the forms -------------------------------------------------------------------------------------------------


async def test_a_function_stays_a_function(horizon: Horizon) -> None:
    @job
    async def welcome(to: str, name: str = "you") -> str:
        """Docs."""
        return f"{name} <{to}>"

    assert await welcome("a@b.c") == "you <a@b.c>"
    assert (welcome.__name__, welcome.__doc__) == ("welcome", "Docs.")
    handle = await welcome.push("a@b.c", name="A")
    assert handle.new
    assert [done.outcome for done in await drain(horizon)] == ["ok"]
    assert await handle.result(5) == "A <a@b.c>"
    assert await handle == "A <a@b.c>"


async def test_sync_functions_run_in_threads(horizon: Horizon) -> None:
    @job
    def where() -> list[str]:
        return [threading.current_thread().name, current_job().id]

    handle = await where.push()
    await drain(horizon)
    thread, job_id = await handle.result(5)
    assert thread != threading.main_thread().name
    assert job_id == handle.id


class Report(Job):
    queue = "reports"
    retries = 0
    priority = "high"
    tags = ("monthly",)
    failures: list[str] = []

    def __init__(self, month: str, broken: bool = False) -> None:
        self.month = month
        self.broken = broken

    async def handle(self) -> str:
        if self.broken:
            raise ValueError(self.month)
        return self.month

    async def failed(self, error: BaseException) -> None:
        self.failures.append(f"{self.month}: {error}")


async def test_the_class_form(horizon: Horizon) -> None:
    good = await Report.push("2026-01")
    bad = await Report.make("2026-02", broken=True).push()
    assert (good.queue, Report.definition.name) == ("reports", "Report")
    assert [done.outcome for done in await drain(horizon, "reports")] == ["ok", "dead"]
    assert await good.result(5) == "2026-01"
    with pytest.raises(JobFailedError, match="ValueError: 2026-02"):
        await bad.result(5)
    assert Report.failures == ["2026-02: 2026-02"]
    with pytest.raises(PayloadError, match="parameter 'month' of job 'Report'"):
        Report.make(5)  # type: ignore[arg-type]  # the mistake that is tested


def test_a_base_class_is_no_job() -> None:
    class Base(Job):
        queue = "x"

    with pytest.raises(ConfigurationError, match="no handle"):
        Base.make()

    class Child(Base):
        def handle(self) -> None: ...

    assert Child.definition.options.queue == "x"
    assert Child.definition.kind == "thread"


def cpu_bound(n: int) -> int:
    return n * n


def test_what_goes_to_another_process_can_be_pickled() -> None:
    squared = job(name="squared", cpu=True)(cpu_bound)
    assert squared.definition.kind == "process"
    function, args, kwargs = pickle.loads(pickle.dumps(squared.definition.portable((), {"n": 3})))
    assert function(*args, **kwargs) == 9
    function, args, kwargs = pickle.loads(pickle.dumps(PROCESSED.definition.portable((), {"n": 4})))
    assert function(*args, **kwargs) == 16


class Processed(Job):
    cpu = True

    def __init__(self, n: int) -> None:
        self.n = n

    def handle(self) -> int:
        return self.n**2


PROCESSED = Processed


# -- options and names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"que": "x"}, "option"),
        ({"queue": "a b"}, "queue"),
        ({"priority": "urgent"}, "priority"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"backoff": "slow"}, "backoff"),
        ({"retry_on": ValueError("x")}, "retry_on"),
        ({"discard_on": [ValueError]}, "discard_on"),
        ({"unique": "to"}, "unique"),
        ({"unique_for": 60}, "unique_for"),
        ({"rate": "many"}, "rate"),
        ({"rate": "0/s"}, "rate.limit"),
        ({"concurrency": 0}, "concurrency.limit"),
        ({"tags": "one"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"results": 1}, "results"),
        ({"fair_by": "tenant"}, "fair_by"),
        ({"version": -1}, "version"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"concurrency": True}, "concurrency.limit"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match="job 'x'") as caught:
        read_options("x", options)
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [Rate, Concurrency])
def test_limits_that_cannot_be_used(kind: Any) -> None:
    for given, field in (
        ({"limit": True}, "limit"),
        ({"limit": 0.5}, "limit"),
        ({"limit": 1, "by": "user"}, "by"),
    ):
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__.lower()}\.{field} is"):
            kind(**given)


def backoff(self: Any, attempt: int) -> float:
    return 0


def unique(self: Any) -> str:
    return ""


def unique_of(cls: Any, month: str) -> str:
    return month


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backoff", backoff),
        ("unique", unique),
        ("fair_by", unique),
        ("tags", unique),
        ("name", unique),
        ("queue", property(unique)),
        ("unique", classmethod(unique_of)),
    ],
)
def test_an_option_that_is_a_method_is_refused_with_the_way_to_write_it(field: str, value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"job 'Wrong': {field} is a method, .*`@staticmethod def {field}\("
    ) as caught:
        type("Wrong", (Job,), {field: value, "handle": lambda self: None})
    assert caught.value.field == field


def test_an_option_may_be_a_function_of_the_arguments_in_a_class() -> None:
    class Fine(Job):
        unique = lambda month: month  # noqa: E731

        def __init__(self, month: str) -> None: ...

        def handle(self) -> None: ...

        @staticmethod
        def backoff(attempt: int) -> float:
            return 2.0 * attempt

    options = Fine.definition.options
    assert callable(options.unique)
    assert options.unique(month="2026-01") == "2026-01"
    assert options.backoff(2) == 4.0


def test_options_in_words() -> None:
    options = read_options("x", {"rate": "10/30s", "concurrency": 3, "backoff": [1, 2], "retry_on": OSError})
    assert options.rate == Rate(10, 30.0)
    assert options.concurrency == Concurrency(3)
    assert options.retry_on == (OSError,)
    assert read_options("x", {"rate": "5/minute"}).rate == Rate(5, 60.0)
    assert repr(read_options("x", {"retries": 1})) == "Options(retries=1)"
    assert repr(Options()) == "Options()"


def other_place() -> Any:
    def duplicate() -> None: ...

    duplicate.__qualname__ = "duplicate"
    duplicate.__module__ = "elsewhere"
    return duplicate


def duplicate() -> None: ...


def test_two_jobs_cannot_have_one_name() -> None:
    first = job(duplicate)
    with pytest.raises(DuplicateJobError, match=r"duplicate and elsewhere\.duplicate"):
        job(other_place())
    again = job(duplicate)  # a module that is loaded again
    assert first.definition.name == again.definition.name
    other = other_place()
    with pytest.raises(DuplicateJobError):
        Horizon().register(FunctionJob(other, Definition("duplicate", other, Options())))


@pytest.mark.parametrize("name", ["a b", "x" * 101, "...", "ä\n"])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name for a job"):
        job(name=name)(duplicate)


def test_what_is_no_job() -> None:
    with pytest.raises(ConfigurationError, match="derives from Job"):
        job(int)
    with pytest.raises(ConfigurationError, match="generator"):

        @job
        def gen() -> Iterator[int]:
            yield 1

    with pytest.raises(ConfigurationError, match="cpu=True"):

        @job(cpu=True)
        async def x() -> None: ...


async def test_unknown_names_are_buried_with_a_reason(horizon: Horizon) -> None:
    async with Horizon(horizon.client) as other:

        @other.job
        async def only_there() -> None: ...

        handle = await only_there.push()

    @horizon.job
    async def only_here() -> None: ...

    with pytest.raises(UnknownJobError, match="did you mean only_here"):
        horizon.find("only_hre")
    (done,) = await drain(horizon)
    assert done.outcome == "dead"
    with pytest.raises(JobFailedError, match="there is no job 'only_there' in this process"):
        await horizon.handle(handle.id).result(5)


async def test_bytes_that_are_no_body_are_buried(horizon: Horizon) -> None:
    from gravito.horizon._messages import Envelope

    await horizon.broker("default").push(Envelope("odd", b"\xc1 no body"))
    (done,) = await drain(horizon)
    assert (done.outcome, done.name) == ("dead", "")
    broker = horizon.broker("default")
    assert (await broker.look("odd")).state == "dead"


async def test_which_horizon_is_meant(redis: Client) -> None:
    gc.collect()
    with pytest.raises(HorizonError, match="there is no Horizon"):
        current_horizon()
    async with Horizon(redis) as first:
        assert current_horizon() is first
        async with Horizon(redis) as second:
            with pytest.raises(HorizonError, match="2 Horizons are open"):
                current_horizon()
            second.use()
            assert current_horizon() is second
        assert current_horizon() is first


# -- building a push -------------------------------------------------------------------------------------------


async def test_the_builder_leaves_what_it_was_called_on(horizon: Horizon) -> None:
    @job
    async def work(n: int) -> int:
        return n

    call = work.make(1)
    later = call.delay(60).priority("high").on("other").tags("t").id("mine")
    assert (call.queue, call.how.delay, later.queue, later.how.delay) == ("default", 0, "other", 60_000)
    handle = await later.push()
    assert (handle.id, handle.queue) == ("mine", "other")
    status = await handle.status()
    assert (status.state, status.name, status.tags) == ("delayed", "work", ("t",))
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    due = (await (await work.at(moment).push(2)).status()).due
    assert due is not None
    assert abs((due - moment).total_seconds()) < 0.01
    soon = await work.delay(dt.timedelta(milliseconds=20)).priority("low").push(3)
    await drain(horizon, most=1)
    assert await soon.result(5) == 3


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("delay", -1, "seconds"),
        ("delay", True, "seconds"),
        ("delay", float("nan"), "seconds"),
        ("at", dt.datetime(2030, 1, 1), "no time zone"),
        ("at", 5, "datetime"),
        ("priority", "urgent", "critical, high, default, low"),
        ("priority", 1, "critical"),
        ("id", "a b", "no id for a job"),
        ("tags", 5, "tags"),
    ],
)
def test_words_of_the_builder_that_cannot_be_used(word: str, value: Any, message: str) -> None:
    work = job(name="builder")(duplicate)
    for start in (work, work.make(), work.delay(1)):
        with pytest.raises((PayloadError, ConfigurationError), match=message):
            getattr(start, word)(value)


async def test_an_id_is_an_idempotency_key(horizon: Horizon) -> None:
    runs = []

    @job
    async def pay(order: int) -> None:
        runs.append(order)

    handles = [await pay.make(7).id("order-7").push() for _ in range(3)]
    assert [handle.new for handle in handles] == [True, False, False]
    await drain(horizon)
    assert (await pay.make(7).id("order-7").push()).new is False  # its record is still kept
    await drain(horizon)
    assert runs == [7]


async def test_unique_jobs(horizon: Horizon) -> None:
    @job(unique=lambda to, **_: to, unique_for=60)
    async def mail(to: str, text: str) -> None: ...

    @job(unique=True)
    async def whole(a: int, b: int) -> None: ...

    first = await mail.push("x", "1")
    second = await mail.push("x", text="2")
    assert (second.new, second.id) == (False, first.id)
    assert (await mail.push("y", "1")).new
    assert (await whole.push(1, 2)).new
    assert (await whole.push(1, 3)).new
    assert not (await whole.push(1, b=2)).new
    await drain(horizon)
    assert (await mail.push("x", "1")).new

    @job(unique=lambda **_: 1 / 0)
    async def broken() -> None: ...

    with pytest.raises(PayloadError, match="its function for unique failed: ZeroDivisionError"):
        await broken.push()


async def test_limits_and_tenants_reach_the_queue(horizon: Horizon) -> None:
    @job(
        rate=Rate(5, 2, by=lambda user, **_: user),
        concurrency=2,
        fair_by=lambda tenant, **_: tenant,
        priority="low",
    )
    async def work(user: str, tenant: str = "t0") -> None: ...

    (_, envelope), _ = horizon.prepare(work.make("ada"))
    assert envelope.tenant == "t0"
    assert envelope.priority == 3
    assert [(limit.name, limit.kind, limit.limit, limit.per_ms) for limit in envelope.limits] == [
        ("work:ada", "rate", 5, 2000),
        ("work", "concurrency", 2, 0),
    ]


async def test_limits_of_a_queue_hold_for_all_of_its_jobs(redis: Client) -> None:
    limits = {"slow": QueueLimits(concurrency=Concurrency(2), rate=Rate(100, 1))}
    async with Horizon(redis, settings=HorizonSettings(limits=limits)) as horizon:

        @horizon.job(queue="slow")
        async def plain() -> None: ...

        @horizon.job(queue="slow", concurrency=5)
        async def own() -> None: ...

        (_, envelope), _ = horizon.prepare(own.make())
        assert [limit.name for limit in envelope.limits] == ["/queue", "/queue", "own"]
        await horizon.push_many([plain.make(), own.make(), plain.make(), own.make()])
        broker = horizon.broker("slow")
        assert len((await broker.step("w", [], 10)).claimed) == 2
        await plain.make().on("default").push()
        assert len((await horizon.broker("default").step("w", [], 10)).claimed) == 1
    with pytest.raises(ConfigurationError, match="without `by`"):
        QueueLimits(concurrency=Concurrency(1, by=len))


async def test_many_at_once(horizon: Horizon) -> None:
    @job
    async def count(n: int) -> int:
        return n

    seen: list[int] = []
    handles = await horizon.push_many((count.make(n) for n in range(4500)), progress=seen.append)
    assert seen == [2000, 4000, 4500]
    assert len({handle.id for handle in handles}) == 4500
    assert sum((await horizon.broker("default").sizes()).ready) == 4500
    with pytest.raises(PayloadError, match=r"job\.make"):
        await horizon.push_many([count.make(1), "count"])  # type: ignore[list-item]  # the mistake that is tested
    assert sum((await horizon.broker("default").sizes()).ready) == 4500


# -- what a job may do -----------------------------------------------------------------------------------------


async def test_retries_are_counted_and_the_last_one_is_dead(horizon: Horizon) -> None:
    seen = []

    @job(retries=2, backoff=0)
    async def flaky() -> None:
        run = current_job()
        seen.append((run.attempt, run.fence))
        raise RuntimeError(f"attempt {run.attempt}")

    handle = await flaky.push()
    done = await drain(horizon)
    assert [item.outcome for item in done] == ["retry", "retry", "dead"]
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    fences = [fence for _, fence in seen]
    assert fences == sorted(set(fences))
    with pytest.raises(JobFailedError, match="RuntimeError: attempt 3") as caught:
        await handle.result(5)
    assert caught.value.error_type == "RuntimeError"
    assert 'raise RuntimeError(f"attempt {run.attempt}")' in caught.value.traceback
    assert "_run.py" not in caught.value.traceback
    status = await handle.status()
    assert (status.state, status.attempt, status.error) == ("dead", 3, "attempt 3")


async def test_release_retry_and_fail(horizon: Horizon) -> None:
    told = []

    @job(retries=1)
    async def odd(how: str) -> str:
        run = current_job()
        told.append((how, run.attempt))
        if how == "release" and told.count((how, 1)) < 3:
            run.release(0.01)
        if how == "retry" and run.attempt == 1:
            try:
                run.retry(0.01, "not yet")
            except Exception:
                pytest.fail("a job's own handler must let it pass")
        if how == "fail":
            run.fail("no such order")
        return how

    handles = {how: await odd.push(how) for how in ("release", "retry", "fail")}
    await drain(horizon)
    assert [attempt for how, attempt in told if how == "release"] == [1, 1, 1]
    assert [attempt for how, attempt in told if how == "retry"] == [1, 2]
    assert await handles["release"].result(5) == "release"
    assert await handles["retry"].result(5) == "retry"
    with pytest.raises(JobFailedError, match="no such order"):
        await handles["fail"].result(5)


async def test_discarded_jobs_leave_no_dead_letter(horizon: Horizon) -> None:
    @job(discard_on=LookupError)
    async def gone() -> None:
        raise KeyError("user")

    handle = await gone.push()
    await drain(horizon)
    with pytest.raises(JobCancelledError, match="KeyError"):
        await handle.result(5)
    assert (await horizon.broker("default").sizes()).dead == 0


async def test_a_push_goes_with_the_completion_or_not_at_all(horizon: Horizon) -> None:
    @job(queue="other")
    async def child(of: str) -> str:
        return of

    children = []

    @job(retries=1, backoff=0)
    async def parent() -> None:
        children.append(current_job().push(child.make(current_job().id)))
        if current_job().attempt == 1:
            raise ValueError

    handle = await parent.push()
    await drain(horizon)
    await horizon.broker("default").relay()
    assert (await horizon.broker("other").sizes()).totals["pushed"] == 1
    await drain(horizon, "other")
    assert await children[1].result(5) == handle.id
    with pytest.raises(UnknownJobError):
        await children[0].result(5)


async def test_a_thread_may_push_with_its_completion(horizon: Horizon) -> None:
    @job
    def child(n: int) -> int:
        return n + 1

    @job
    def parent() -> str:
        return current_job().push(child.make(1)).id

    handle = await parent.push()
    await drain(horizon)
    assert await horizon.handle(await handle.result(5)).result(5) == 2


async def test_sys_exit_does_not_end_the_worker(horizon: Horizon) -> None:
    @job
    async def leave() -> None:
        raise SystemExit(3)

    await leave.push()
    assert [done.outcome for done in await drain(horizon)] == ["dead"]


def test_no_job_runs_here() -> None:
    with pytest.raises(HorizonError, match="no job runs here"):
        current_job()


# -- injection -------------------------------------------------------------------------------------------------


class Database:
    def __init__(self, url: str = "db") -> None:
        self.url = url


class Mailer:
    def __init__(self, database: Database) -> None:
        self.database = database


async def test_shared_state_is_made_once_and_ended(redis: Client) -> None:
    events = []
    async with Horizon(redis) as horizon:

        @horizon.provider
        async def database() -> AsyncIterator[Database]:
            events.append("open")
            yield Database("there")
            events.append("close")

        @horizon.provider
        def mailer(database: Database) -> Mailer:
            return Mailer(database)

        horizon.provide(int, 42)

        @horizon.on_startup
        async def ready() -> None:
            events.append("startup")

        @horizon.on_shutdown
        def bye() -> None:
            events.append("shutdown")

        @horizon.job
        async def send(
            to: str, mailer: Mailer = inject(), *, n: int = inject(), run: JobContext = inject()
        ) -> list[Any]:
            return [to, mailer.database.url, n, run.id]

        class Send(Job):
            async def handle(self, database: Database = inject()) -> str:
                return database.url

        horizon.register(Send)
        handle = await send.push("ada")
        other = await horizon.push(Send.make())
        await horizon.startup()
        await drain(horizon)
        await horizon.shutdown()
        assert await handle.result(5) == ["ada", "there", 42, handle.id]
        assert await other.result(5) == "there"
    assert events == ["open", "startup", "shutdown", "close"]


async def test_what_nothing_provides(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job
        async def lonely(database: Database = inject()) -> None: ...

        handle = await lonely.push()
        with pytest.raises(InjectionError, match=r"nothing provides Database.*horizon\.provide\(Database"):
            await horizon.startup()
        await drain(horizon)
        with pytest.raises(JobFailedError, match="nothing provides Database"):
            await handle.result(5)

    async with Horizon(redis) as horizon:
        horizon.provide(Database, lambda mailer: mailer)
        with pytest.raises(InjectionError, match="nothing provides None"):
            await horizon.startup()

    def first(mailer: Mailer) -> Database: ...
    def second(database: Database) -> Mailer: ...

    async with Horizon(redis) as horizon:
        horizon.provider(first)
        horizon.provider(second)
        with pytest.raises(InjectionError, match="Database -> Mailer -> Database"):
            await horizon.startup()
        with pytest.raises(ConfigurationError, match="return annotation"):
            horizon.provider(lambda: 1)


def test_where_injection_cannot_be() -> None:
    @job(name="inject-cpu", cpu=True)
    def heavy(database: Database = inject()) -> None: ...

    with pytest.raises(ConfigurationError, match="cpu=True"):
        _ = heavy.definition.injected

    class Asks(Job):
        async def handle(self, database: Database) -> None: ...

    with pytest.raises(ConfigurationError, match=r"given nothing for 'database'.*inject\(\)"):
        _ = Asks.definition.injected


# -- middleware ------------------------------------------------------------------------------------------------


class Log(Middleware):
    def __init__(self, name: str, into: list[str]) -> None:
        self.name = name
        self.into = into

    def pushing(self, call: Any) -> Any:
        return call.tags(self.name)

    def pushed(self, call: Any, handle: Any) -> None:
        self.into.append(f"{self.name} pushed")

    async def around(self, job: JobContext, proceed: Any) -> Any:
        self.into.append(f"{self.name} in")
        try:
            return await proceed()
        finally:
            self.into.append(f"{self.name} out")

    async def started(self, job: JobContext) -> None:
        self.into.append(f"{self.name} started")

    def succeeded(self, job: JobContext, result: Any) -> None:
        self.into.append(f"{self.name} succeeded {result}")
        raise RuntimeError("hooks that only listen change nothing")

    def retried(self, job: JobContext, error: BaseException, delay: float) -> None:
        self.into.append(f"{self.name} retried {error} {delay}")

    def died(self, job: JobContext, error: BaseException) -> None:
        self.into.append(f"{self.name} died {error}")


async def test_hooks_in_order(redis: Client) -> None:
    events: list[str] = []
    async with Horizon(redis, middleware=[Log("a", events), Log("b", events)]) as horizon:

        @horizon.job(retries=1, backoff=0)
        async def work(fail: bool = False) -> int:
            if fail:
                raise ValueError("no")
            return 1

        handle = await work.push()
        await drain(horizon)
        assert (await handle.status()).tags == ("a", "b")
        assert events == [
            *("a pushed", "b pushed", "a started", "b started", "a in", "b in", "b out", "a out"),
            *("a succeeded 1", "b succeeded 1"),
        ]
        events.clear()
        batch = await horizon.batch([work.make()]).push()
        assert (await batch.jobs[0].status()).tags == ("a", "b")
        await drain(horizon)
        events.clear()
        await work.push(fail=True)
        await drain(horizon)
        assert [event for event in events if event.startswith("a")] == [
            *("a pushed", "a started", "a in", "a out", "a retried no 0.0"),
            *("a started", "a in", "a out", "a died no"),
        ]


async def test_an_error_around_a_job_is_the_jobs(redis: Client) -> None:
    class Guard(Middleware):
        async def around(self, job: JobContext, proceed: Any) -> Any:
            raise PermissionError("not now")

    async with Horizon(redis, middleware=[Guard()]) as horizon:

        @horizon.job(retries=0)
        async def work() -> None: ...

        handle = await work.push()
        await drain(horizon)
        with pytest.raises(JobFailedError, match="PermissionError: not now"):
            await handle.result(5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefix", "a{b}"),
        ("prefix", ""),
        ("lease", 0.5),
        ("lease", "10"),
        ("lease", True),
        ("keep", 3600),
        ("allow_eviction", "no"),
        ("max_bytes", 0),
        ("max_bytes", 1e6),
        ("patience", -1),
        ("patience", None),
        ("limits", [QueueLimits()]),
        ("limits", {"q": 5}),
        ("limits", {"q": Rate(1)}),
    ],
)
def test_settings_that_cannot_be_used(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field) as caught:
        HorizonSettings(**{field: value})
    assert caught.value.field == field


def test_limits_of_a_queue_that_cannot_be_used() -> None:
    for field, value in (
        ("rate", "100/m"),
        ("rate", Concurrency(1)),
        ("concurrency", 5),
        ("concurrency", Rate(1)),
    ):
        with pytest.raises(ConfigurationError, match=rf"{field} is .*{field.title()}\(...\) without `by`"):
            QueueLimits(**{field: value})
    with pytest.raises(ConfigurationError, match="no name for a queue"):
        HorizonSettings(limits={"a queue": QueueLimits()})


class Forgetful(Middleware):
    def pushing(self, call: Call[Any]) -> Any:
        call.tags("lost")


class Late(Middleware):
    async def pushing(self, call: Call[Any]) -> Any:  # type: ignore[override]
        return call


VARIABLE: ContextVar[str] = ContextVar("variable")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"settings": {"prefix": "x"}}, r"settings is .*; allowed: HorizonSettings\(...\)"),
        ({"middleware": [Forgetful]}, r"middleware is <class .*Forgetful'>; allowed: a list of objects"),
        ({"middleware": ["x"]}, "middleware is 'x'"),
        ({"middleware": Forgetful()}, "middleware is .*; allowed: a list"),
        ({"middleware": [Late()]}, r"Late.pushing is 'async'; allowed: a plain `def`"),
        ({"carry": ["x"]}, "carry: 'x' is not allowed; allowed: a list of"),
        ({"carry": "x"}, "carry: 'x' is not allowed"),
        ({"carry": VARIABLE}, "carry: .*variable.* is not allowed"),
        ({"carry": [VARIABLE, VARIABLE]}, "the same name"),
    ],
)
def test_what_a_horizon_cannot_be_given(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Horizon(**given)


async def test_a_hook_that_forgets_to_return_the_call_is_told_by_name(redis: Client) -> None:
    async with Horizon(redis, middleware=[Forgetful()]) as horizon:

        @horizon.job
        async def work() -> None: ...

        with pytest.raises(
            ConfigurationError, match=r"the middleware hook Forgetful.pushing returned None; it has to"
        ):
            await work.push()
        assert (await horizon.broker("default").sizes()).totals == {}


async def test_a_name_for_a_schedule_is_used_once(horizon: Horizon) -> None:
    @job
    async def clean() -> None: ...

    horizon.schedule("clean", clean).daily()
    with pytest.raises(ConfigurationError, match="already"):
        horizon.schedule("clean", clean)


def test_each_loop_has_its_own_brokers(redis: Client) -> None:
    horizon = Horizon(redis)

    async def broker() -> Any:
        assert horizon.broker("q") is horizon.broker("q")
        return horizon.broker("q")

    assert asyncio.run(broker()) is not asyncio.run(broker())


async def test_earlier_attempts_are_remembered(horizon: Horizon) -> None:
    @job(retries=5, backoff=[0, 0.02])
    async def flaky(good: int) -> int:
        run = current_job()
        if run.attempt == 2 and run.fence % 2:
            run.release()  # is not an attempt, and forgets none
        if run.attempt < good:
            raise ValueError(f"attempt {run.attempt}")
        return run.attempt

    handle = await flaky.push(4)
    done = await drain(horizon)
    assert await handle.result(5) == 4
    look = await horizon.broker("default").look(handle.id)
    assert look.record is not None
    trail = read_record(look.record).trail
    assert [(item.number, item.outcome, item.delay) for item in trail] == [
        (1, "retry", 0),
        (2, "retry", 20),
        (3, "retry", 20),
    ]
    assert [item.error.message for item in trail if item.error] == ["attempt 1", "attempt 2", "attempt 3"]
    assert all(item.wait_ms < 1000 for item in done)
    dead = await flaky.push(9)
    await drain(horizon)
    look = await horizon.broker("default").look(dead.id)
    assert look.record is not None
    assert len(read_record(look.record).trail) == 5


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [ValueError("\ud800"), UnspeakableError()])
async def test_any_error_leaves_a_record(horizon: Horizon, error: Exception) -> None:
    @job(retries=0)
    async def odd() -> None:
        raise error

    handle = await odd.push()
    assert [done.outcome for done in await drain(horizon)] == ["dead"]
    with pytest.raises(JobFailedError) as caught:
        await handle.result(5)
    assert type(error).__name__ in caught.value.error_type


async def test_a_stop_behind_the_end_changes_nothing(redis: Client) -> None:
    class Slow(Middleware):
        async def succeeded(self, job: JobContext, result: Any) -> None:
            reached.set()
            await asyncio.sleep(100)

    reached = asyncio.Event()
    async with Horizon(redis, middleware=[Slow()]) as horizon:

        @horizon.job
        async def work() -> int:
            return 1

        await work.push()
        broker = horizon.broker("default")
        runner = Runner(horizon, "default", "w", broker.now_ms)
        (claimed,) = (await broker.step("w", [], 1)).claimed
        run = runner.open(claimed)
        task = asyncio.create_task(runner.run(run))
        await reached.wait()
        runner.stop(run, "timeout")
        task.cancel()
        ended = await task
        assert isinstance(ended, Well)
        assert ended.done().outcome == "ok"
