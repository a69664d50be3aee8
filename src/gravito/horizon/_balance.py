"""How many processes each queue gets: by the time its jobs will wait, within bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What one queue has to do now.

    Args:
        ready: jobs that could run.
        run_time: seconds that one of them takes, on average.
    """

    ready: int
    run_time: float

    @property
    def work(self) -> float:
        """Seconds of work that wait; a millisecond a job where no time is known yet."""
        return self.ready * max(self.run_time, 0.001)


def balance(loads: Mapping[str, Load], processes: int, *, at_least: int = 1) -> dict[str, int]:
    """Processes for each queue; in sum `processes`, or what the minima need if that is more.

    Each queue gets `at_least`; the others go where the most work for each process waits, one by one. With no work
    anywhere they are spread evenly.

    Args:
        loads: by queue, in the order of their rank; a tie goes to the first.
        processes: how many there are.
        at_least: that each queue gets.

    Raises:
        ValueError: no queue, or a number below 0.
    """
    if not loads:
        raise ValueError("balance: there is no queue")
    if processes < 0 or at_least < 0:
        raise ValueError(f"balance: {processes} processes, at least {at_least} each; both must be 0 or more")
    shares = dict.fromkeys(loads, at_least)
    for _ in range(processes - at_least * len(loads)):
        busiest = max(shares, key=lambda queue: (loads[queue].work / (shares[queue] + 1), -shares[queue]))
        shares[busiest] += 1
    return shares


def step_towards(now: Mapping[str, int], wanted: Mapping[str, int], *, most: int = 1) -> dict[str, int]:
    """The next state on the way from `now` to `wanted`, moving at most `most` processes; so a gust moves little.

    Args:
        now: processes of each queue at present.
        wanted: what `balance` says.
        most: how many may move in one step.
    """
    shares = {queue: now.get(queue, 0) for queue in wanted}
    for _ in range(most):
        short = max(wanted, key=lambda queue: wanted[queue] - shares[queue])
        if wanted[short] <= shares[short]:
            break
        spare = sum(wanted.values()) - sum(shares.values())
        if spare <= 0:
            rich = max(shares, key=lambda queue: shares[queue] - wanted[queue])
            if shares[rich] <= wanted[rich]:
                break
            shares[rich] -= 1
        shares[short] += 1
    return shares
