"""Where jobs run that are not coroutines: threads of the worker, and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from gravito.errors import PayloadError
from gravito.horizon._processes import Processes, ResultLostError

if TYPE_CHECKING:
    from gravito.horizon.context import JobContext


class Places:
    """Threads and processes of one worker; each kind is made when the first job needs it.

    Args:
        concurrency: of the worker: so many threads at most.
    """

    def __init__(self, concurrency: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._concurrency = concurrency
        self._threads: ThreadPoolExecutor | None = None
        self._processes: Processes | None = None

    async def run(
        self, job: JobContext, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a job's function where its definition says. Cancelled, it kills the process, and leaves a thread alone."""
        assert job.definition is not None
        if job.definition.kind == "process":
            if self._processes is None:
                self._processes = Processes()
            wanted = job.definition.options.results
            try:
                return await self._processes.run(function, args, kwargs, f"job {job.name!r}", wanted=wanted)
            except ResultLostError as error:
                job.broken = PayloadError(
                    str(error)
                )  # it has done its work: another attempt would do it twice
                raise job.broken from None
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="gravito-job")
        call = partial(copy_context().run, in_thread, function, *args, **kwargs)
        return await self.loop.run_in_executor(self._threads, call)

    def close(self) -> None:
        """End the processes; threads end with their jobs."""
        if self._processes is not None:
            self._processes.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it for a future, which cannot hold a StopIteration: whoever waits would wait for ever."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{getattr(function, '__qualname__', function)} raised StopIteration") from error
