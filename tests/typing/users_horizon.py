"""What users of the queue write, as a type checker sees it; `make types` checks it, nothing runs it."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, assert_type

from gravito.horizon import (
    BatchHandle,
    BatchStatus,
    Call,
    ChainHandle,
    Concurrency,
    Exponential,
    Horizon,
    HorizonSettings,
    Job,
    JobContext,
    JobHandle,
    JobStatus,
    Middleware,
    Rate,
    Retention,
    current_job,
    inject,
    job,
    new_key,
)
from gravito.horizon.context import Progress
from gravito.horizon.middleware import Proceed

tenant: ContextVar[str] = ContextVar("tenant")


class Database: ...


class Timing(Middleware):
    async def around(self, job: JobContext, proceed: Proceed) -> Any:
        return await proceed()

    def died(self, job: JobContext, error: BaseException) -> None:
        print(job.name, error)


horizon = Horizon(
    "redis",
    settings=HorizonSettings(prefix="app", lease=20, keep=Retention(done=100)),
    keys=[new_key()],
    carry=[tenant],
    middleware=[Timing()],
)


@job
async def bare(n: int, text: str = "") -> str:
    return text * n


@job(
    queue="emails",
    retries=5,
    backoff=Exponential(cap=60),
    timeout=30,
    unique=lambda to, **_: to,
    unique_for=60,
    rate=Rate(100, 60),
    concurrency=Concurrency(2, by=lambda to, **_: to),
    retry_on=(OSError, TimeoutError),
)
def options(to: str, *, run: JobContext = inject(), database: Database = inject()) -> int:
    run.progress(1, 2)
    return len(to)


@horizon.job(priority="high")
async def owned() -> None:
    run = current_job()
    run.push(bare.make(1))
    run.retry(5)


class Report(Job):
    queue = "reports"

    def __init__(self, month: str) -> None:
        self.month = month

    async def handle(self, database: Database = inject()) -> None: ...

    async def failed(self, error: BaseException) -> None: ...


@horizon.provider
async def database() -> AsyncIterator[Database]:
    yield Database()


@horizon.on_startup
async def ready() -> None: ...


async def pushing() -> None:
    assert_type(await bare.push(1, text="x"), JobHandle[str])
    assert_type(await options.push("a"), JobHandle[int])
    assert_type(await bare.delay(60).priority("low").push(2), JobHandle[str])
    assert_type(bare.make(1), Call[str])
    assert_type(bare.make(1).on("other").at(dt.datetime.now(dt.UTC)).id("x").tags("a").meta(b=1), Call[str])
    handle = await bare.make(1).push()
    assert_type(await handle.result(timeout=10), str)
    assert_type(await handle, str)
    assert_type(await handle.status(), JobStatus)
    assert_type(await handle.progress(), Progress | None)
    assert_type(await handle.cancel(), bool)
    assert_type(await Report.push("2026-01"), JobHandle[Any])
    assert_type(await horizon.push_many(bare.make(n) for n in range(3)), list[JobHandle[str]])
    assert_type(horizon.handle("id", job=bare), JobHandle[str])
    batch = (
        await horizon.batch([bare.make(1), options.make("a")]).then(owned.make()).allow_failures(0.5).push()
    )
    assert_type(batch, BatchHandle)
    assert_type(await batch.wait(), BatchStatus)
    assert_type(await horizon.chain(bare.make(1), owned.make()).push(), ChainHandle)


async def mistakes() -> None:
    await bare.push("one")  # type: ignore[arg-type]  # a text is no number
    await bare.push()  # type: ignore[call-arg]  # it needs one
    bare.make(1, txt="x")  # type: ignore[call-arg]  # no such parameter
    bare.make(1).priority("urgent")  # type: ignore[arg-type]  # no such priority
    await Report.push(3)  # type: ignore[arg-type]  # a number is no text
    Report.make()  # type: ignore[call-arg]  # it needs one
    job(que="x")  # type: ignore[call-overload]  # no such option
    job(retries="3")  # type: ignore[call-overload]  # a text is no number
