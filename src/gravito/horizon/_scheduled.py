"""What a schedule runs, and whether it can fire at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gravito.errors import ConfigurationError, PayloadError
from gravito.horizon.call import Call
from gravito.horizon.command import run_command

if TYPE_CHECKING:
    from gravito.horizon.schedule import Schedule

__all__ = ["check_schedule", "scheduled"]


def scheduled(schedule: Schedule) -> Call[Any]:
    """What a fire pushes.

    Raises:
        ConfigurationError: there is nothing to run, or the job has parameters that it is not given.
    """
    if schedule.argv is not None:
        return run_command.make(list(schedule.argv))
    if isinstance(schedule.what, Call):
        return schedule.what
    if schedule.what is None:
        raise _wrong(
            schedule,
            "has nothing to run: give it a job, as `horizon.schedule(name, job)`, or a `.command(...)`",
        )
    try:
        call: Call[Any] = schedule.what.make()
    except PayloadError as error:
        raise _wrong(
            schedule, f"cannot run its job without arguments, as `job.make(...)` gives them: {error}"
        ) from error
    return call


def check_schedule(schedule: Schedule) -> None:
    """Refuse a schedule that could not do its work.

    Raises:
        ConfigurationError: it does not say how often, has nothing to run or not all arguments for it, or never fires.
    """
    plan = schedule.plan
    scheduled(schedule)
    if plan.after(datetime.now(UTC)) is None:
        windows = [f"{'' if one.inside else 'not '}between {one.begin} and {one.end}" for one in plan.windows]
        raise _wrong(
            schedule, f"never fires: {schedule.expression!r} has no moment {', '.join(windows)}".rstrip()
        )


def _wrong(schedule: Schedule, reason: str) -> ConfigurationError:
    allowed = "a job with its arguments, or a command, and a moment to fire"
    return ConfigurationError(f"schedule {schedule.name!r} {reason}", field="schedule", allowed=allowed)
