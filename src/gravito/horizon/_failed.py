"""`failed` of the class form: what a job's own code does once it is dead."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

from gravito.horizon._logs import escaped
from gravito.horizon._places import in_thread

if TYPE_CHECKING:
    from gravito.horizon.context import JobContext

__all__ = ["tell_instance"]

_log = logging.getLogger("gravito.horizon")


async def tell_instance(job: JobContext, error: BaseException) -> None:
    """Call it, if there is one. Whatever it does, the job stays dead."""
    definition = job.definition
    if definition is None or definition.method is None or job.stopped == "lost":
        return
    try:
        if job.instance is None and job.broken is None:
            job.instance = definition.target(*job.args, **job.kwargs)
        if job.instance is not None:
            failed = job.instance.failed
            # a plain one may block, as a plain `handle` may
            answer = (
                failed(error)
                if inspect.iscoroutinefunction(failed)
                else await asyncio.to_thread(in_thread, failed, error)
            )
            if inspect.isawaitable(answer):
                await answer
    except BaseException:  # also one that exits, or releases the job
        _log.exception("failed() of job %s %s failed", escaped(job.name), job.id)
