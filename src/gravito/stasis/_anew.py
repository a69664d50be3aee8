"""Computing a value although there is one."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from gravito import errors
from gravito.stasis._computed import Computed
from gravito.stasis._flight import Flight, Job, Landing
from gravito.stasis._policy import UNSET, Factory, Policy
from gravito.stasis._reads import Found, look

__all__ = ["compute_anew"]

_TRIES = 100  # others were faster so often in a row: something is wrong


async def compute_anew(view: Computed, key: str, policy: Policy, factory: Factory) -> Any:
    """Run the factory now and store what it returns; the old value serves others meanwhile.

    What runs already does not count: it may have looked at its source before now. What is invalidated while the
    factory runs is not stored. For a value without end others wait.

    Raises:
        Exception: the factory's. The old value stays, if it has an end.
    """
    core, entry = view._core, view._entry(key)
    failed: list[Exception] = []

    async def watched() -> Any:
        try:
            result = factory()
            return await result if isawaitable(result) else result
        except Exception as error:
            failed.append(error)
            raise

    job = Job(key, entry, view._scope, view._tags, policy, watched)
    flights = core.flights()
    for _ in range(_TRIES):
        found = await _found(view, job)
        running = flights.get(entry)
        if running is not None:
            await _ended(running)
            continue
        flight = flights[entry] = Flight(core, job, background=True)
        flight.start(found, flights)
        landing: Landing = await flight.join()
        if failed:
            raise failed[0]
        if landing.value is not UNSET or landing.kept_error is not None:
            return await landing.take(core, job, True)
    raise errors.CacheError(
        f"{key!r}: others changed it while it was to be refreshed, {_TRIES} times in a row"
    )


async def _found(view: Computed, job: Job) -> Found | None:
    """What is there, with its age: a value that is alive stays until the new one is there. None without the store."""
    core = view._core
    try:
        core.guard.check()
        template = job.policy.template
        return await look(core, job.scope, job.entry, job.tags, timed=True, template=template)
    except Exception as error:
        core.lost(error, job.key, job.policy.template)
        return None


async def _ended(flight: Flight) -> None:
    """Wait until a run is over, whatever came of it. One that waits for the caller is an error."""
    try:
        await flight.join()
    except Exception:  # its own callers are told
        if not flight.future.done():
            raise
