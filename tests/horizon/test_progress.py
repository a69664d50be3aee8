"""Progress: what a job may tell, and readers that bear what was told otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gravito.atlas import Client
from gravito.errors import PayloadError
from gravito.horizon import Horizon, JobContext, current_job
from gravito.horizon.repository import Repository
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.fixture
async def horizon(redis: Client) -> AsyncIterator[Horizon]:
    """On the empty engine."""
    async with Horizon(redis) as made:
        yield made


@pytest.fixture
def run(horizon: Horizon) -> JobContext:
    """A run that no worker listens to."""
    return JobContext(horizon, "default", "1", 1, 1, 0)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ((0.5,), (0.5, None, None)),
        ((3, 10, "page"), (3.0, 10.0, "page")),
        ((Decimal("0.5"), Fraction(1, 2)), (0.5, 0.5, None)),
        ((True,), (1.0, None, None)),
        ((1, 10, 5), (1.0, 10.0, "5")),
        ((1, None, Path("a/b")), (1.0, None, "a/b")),
        ((1, 2, "bad \udcff name"), (1.0, 2.0, "bad \\udcff name")),
        ((1, 2, "x" * 5000), (1.0, 2.0, "x" * 1000)),
    ],
)
def test_what_is_told_is_made_of_numbers_and_a_text(run: JobContext, told: Any, kept: Any) -> None:
    run.progress(*told)
    assert run.progressed == kept
    assert run.progressed is not None
    assert [type(part) for part in run.progressed] == [type(part) for part in kept]


@pytest.mark.parametrize("given", ["50%", object(), [1], 1j, float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_refused_by_name(run: JobContext, given: Any) -> None:
    with pytest.raises(PayloadError, match=r"progress: done is .*; allowed: a number"):
        run.progress(given)
    with pytest.raises(PayloadError, match="progress: total is"):
        run.progress(1, given)
    assert run.progressed is None


async def test_a_job_that_tells_nonsense_fails_with_the_reason(horizon: Horizon) -> None:
    @horizon.job(retries=0)
    def tell() -> None:
        current_job().progress("50%")  # type: ignore[arg-type]  # a mistake

    handle = await tell.push()
    await Worker(horizon, WorkerOptions(burst=True)).run()
    status = await handle.status()
    assert (status.state, status.error) == ("dead", "progress: done is '50%'; allowed: a number")


@pytest.mark.parametrize(
    "told",
    [b"\xa350%", b"\x93\xa350%\xc0\xc0", b"\x93\x01\x0a\x05", b"\x93\x01\x0a\xa3\xed\xb3\xbf", b"\xc1", b""],
)
async def test_readers_leave_out_what_they_cannot_read(horizon: Horizon, redis: Client, told: bytes) -> None:
    @horizon.job
    async def work() -> None: ...

    bad, good = await work.push(), await work.push()
    broker = horizon.broker("default")
    assert len((await broker.step("w", [], 2)).claimed) == 2
    key = broker.keys.part("progress")
    await redis.hset(key, mapping={bad.id: told, good.id: b"\x93\x01\x0a\xc0"})
    assert (await bad.status()).progress is None
    assert (await good.status()).progress == (1, 10, None)
    reader = Repository(horizon)
    found = await reader.progress([("default", bad.id), ("default", good.id)])
    assert found == {good.id: (1, 10, None)}
    detail = await reader.job(bad.id)
    assert detail is not None
    assert detail.progress is None
