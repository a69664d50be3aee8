"""Jobs in processes of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.horizon import tasks
from tests.waiting import until

from gravito.errors import ProcessDiedError
from gravito.horizon._processes import Processes, ResultLostError


@pytest_asyncio.fixture
async def processes() -> AsyncIterator[Processes]:
    """Two at most."""
    pool = Processes(2)
    yield pool
    pool.close()


async def test_a_result_comes_back_from_another_process(processes: Processes) -> None:
    assert await processes.run(tasks.double, (21,), {}) == 42
    assert await processes.run(tasks.pid, (), {}) != os.getpid()


async def test_a_process_is_used_again(processes: Processes) -> None:
    pids = {await processes.run(tasks.pid, (), {}) for _ in range(4)}
    assert len(pids) == 1


async def test_no_more_run_than_there_is_room_for(processes: Processes) -> None:
    pids = await asyncio.gather(*(processes.run(tasks.pid, (), {}) for _ in range(8)))
    assert 1 <= len(set(pids)) <= 2


async def test_an_error_comes_back_with_its_class_and_its_traceback(processes: Processes) -> None:
    with pytest.raises(LookupError, match="nothing there") as caught:
        await processes.run(tasks.fail, (), {"message": "nothing there"})
    assert "raise LookupError(message)" in caught.value.__notes__[0]


async def test_an_error_that_pickle_cannot_make_anew_keeps_its_class_and_what_it_holds(
    processes: Processes,
) -> None:
    with pytest.raises(tasks.ApiError, match="no answer") as caught:
        await processes.run(tasks.fail_at_the_api, (503,), {})
    assert (caught.value.args, caught.value.code) == (("no answer",), 503)
    assert "raise ApiError(code" in caught.value.__notes__[0]


async def test_an_error_s_text_is_not_made_twice(processes: Processes) -> None:
    with pytest.raises(tasks.PrefixedError) as caught:
        await processes.run(tasks.fail_prefixed, (), {})
    assert str(caught.value) == "partner: busy"


async def test_an_error_of_a_class_that_is_nowhere_else_is_one_of_the_class_above_it(
    processes: Processes,
) -> None:
    with pytest.raises(tasks.ApiError, match="gone") as caught:
        await processes.run(tasks.fail_locally, (), {})
    kind = type(caught.value)
    assert (kind.__module__, kind.__qualname__) == ("tests.horizon.tasks", "fail_locally.<locals>.LocalError")
    assert caught.value.code == 7
    assert not hasattr(caught.value, "lock")


@pytest.mark.parametrize("kind", ["local", "module", "unreadable"])
async def test_a_result_that_cannot_travel_is_told_and_the_process_lives_on(
    processes: Processes, kind: str
) -> None:
    before = await processes.run(tasks.pid, (), {})
    with pytest.raises(ResultLostError, match=r"the result of unsendable: .*; return what it is made of"):
        await processes.run(tasks.unsendable, (kind,), {})
    assert await processes.run(tasks.pid, (), {}) == before


async def test_a_result_that_nobody_wants_stays_where_it_is(processes: Processes) -> None:
    assert await processes.run(tasks.unsendable, (), {}, wanted=False) is None
    assert await processes.run(tasks.double, (2,), {}, wanted=False) is None


async def test_a_process_that_dies_fails_its_own_job_only(processes: Processes) -> None:
    with pytest.raises(ProcessDiedError, match=r"die ended \(SIGKILL\)"):
        await processes.run(tasks.die, (), {})
    assert await processes.run(tasks.double, (4,), {}) == 8


async def test_a_cancelled_job_is_killed(processes: Processes, tmp_path: Path) -> None:
    mark = tmp_path / "began"
    task = asyncio.create_task(processes.run(tasks.spin, (str(mark),), {}))
    await until(lambda: mark.exists() and mark.read_text() != "")
    pid = int(mark.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not tasks.alive(pid)
    assert await processes.run(tasks.double, (5,), {}) == 10


async def test_closing_kills_what_still_runs(tmp_path: Path) -> None:
    pool = Processes(1)
    mark = tmp_path / "began"
    task = asyncio.create_task(pool.run(tasks.spin, (str(mark),), {}))
    await until(lambda: mark.exists() and mark.read_text() != "")
    pool.close()
    with pytest.raises(ProcessDiedError):
        await task
    assert not tasks.alive(int(mark.read_text()))
