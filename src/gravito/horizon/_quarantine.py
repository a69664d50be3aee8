"""Jobs whose worker died with them more than once: the last run that they get is one by themselves.

A worker that is killed leaves all its jobs behind, and nobody can tell which of them it was. So a job that has one run
left until it is given up runs while nothing else does in its process: if that dies again, it was this one, and no other
job is charged for it. What has not crashed within some seconds of that is taken for harmless, and others run beside it
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from gravito.horizon._messages import Claimed, Done

if TYPE_CHECKING:
    from gravito.horizon._lane import Lane

__all__ = ["Quarantine"]

_LAST: Final = 2  # crashes of a job whose next one would be its last
_ALONE: Final = 10.0  # seconds that others wait for it at most, before it begins and after
_LATER: Final = 500  # ms after which a second one is offered again


class Quarantine:
    """One such job at a time, of all lanes of a worker."""

    def __init__(self) -> None:
        self.lane: Lane | None = None  # whose job is held or runs alone
        self.job: Claimed | None = None
        self._since = 0.0  # loop time at which it came, or began
        self._begun = False
        self._released: set[tuple[str, int]] = (
            set()
        )  # not to be charged: they must have been handed in before

    def __repr__(self) -> str:
        state = "empty" if self.job is None else f"{self.job.id} {'runs' if self._begun else 'waits'}"
        return f"<Quarantine {state}>"

    def holds(self, lane: Lane) -> list[Claimed]:
        """The lane's job that waits here."""
        return [self.job] if self.job is not None and self.lane is lane and not self._begun else []

    def sort(self, lane: Lane, claims: Sequence[Claimed], now: float) -> tuple[Sequence[Claimed], list[Done]]:
        """Part what a lane has claimed into what may run as any job, and what goes back.

        Args:
            lane: whose claims.
            claims: its new ones.
            now: loop time.
        """
        if not any(job.crashes >= _LAST for job in claims):
            return claims, []
        fit, back = [], []
        for job in claims:
            if job.crashes < _LAST:
                fit.append(job)
            elif self.job is None:
                self.lane, self.job, self._since, self._begun = lane, job, now, False
            else:
                back.append(Done(job.id, job.fence, "release", delay=_LATER))
        return fit, back

    def wait_for(self, released: Iterable[Done]) -> None:
        """These are on their way back, and must be there before the job begins."""
        self._released.update((done.id, done.fence) for done in released)

    def handed_in(self, done: Iterable[Done]) -> None:
        """The server knows of these."""
        if self._released:
            self._released.difference_update((one.id, one.fence) for one in done)

    def due(self, running: int, now: float) -> Claimed | None:
        """The job, if it is to begin now.

        Args:
            running: jobs that run in this worker.
            now: loop time.
        """
        if self._begun or self._released or (running and now - self._since < _ALONE):
            return None
        self._begun, self._since = True, now
        return self.job

    def over(self, now: float) -> bool:
        """Whether others have waited long enough for the job that runs."""
        return self._begun and now - self._since >= _ALONE

    def drop(self, job: Claimed | None) -> bool:
        """This one has ended, or is somebody else's; whether it was the one here."""
        if job is None or job is not self.job:
            return False
        self.lane = self.job = None
        self._released.clear()
        return True
