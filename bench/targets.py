"""What the figures must reach: data, and the arithmetic that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.cluster import ONE_SERVER
from bench.contenders import OURS
from bench.limits import NAME as REDIS_BENCHMARK
from bench.queues.contenders import BULLMQ
from bench.tracked import REDIS_PY as TRACKED_REDIS_PY
from bench.tracked import UNTRACKED
from gravito.cli.measure import Spread

Kind = Literal["at least", "less than", "at most plus", "at most"]

BEST = "the best other one in Python"  # without BullMQ, which has a runtime of its own
NOBODY = "a fixed bound"


@dataclass(frozen=True)
class Target:
    """`at least`: ours >= bound x theirs; `less than`: ours < bound x theirs; `at most plus`: ours <= theirs + bound;
    `at most`: ours <= bound.
    """

    row: str
    against: str
    bound: float
    kind: Kind = "at least"
    way: str | None = None  # of ours, where several are measured and each must do

    @property
    def who(self) -> str:
        """Whom ours is held against, and which way of ours."""
        return f"{self.against}, ours by {self.way}" if self.way else self.against

    def __str__(self) -> str:
        if self.kind == "at least":
            return f">= {self.bound:g} x"
        if self.kind == "at most":
            return f"<= {self.bound:g}"
        return f"< {self.bound:g} x" if self.kind == "less than" else f"<= + {self.bound:g}"


TARGETS = (
    Target("get50", "redis-py", 10),
    Target("get50", "valkey-glide", 3.5),
    Target("get50", "floor", 0.7),
    Target("get500", "redis-py", 15),
    Target("get500", "valkey-glide", 4),
    Target("get500", "floor", 0.7),
    Target("get500", REDIS_BENCHMARK, 0.35),
    Target("set500", "redis-py", 8),
    Target("set500", "valkey-glide", 3),
    Target("get1", "redis-py", 1.6),
    Target("get1", "valkey-glide", 1.6),
    Target("get1", "floor", 0.9),
    Target("pipeline100", "redis-py", 4),
    Target("pipeline100", "valkey-glide", 2.5),
    Target("tracked", UNTRACKED, 20),
    Target("tracked", TRACKED_REDIS_PY, 3),
    Target("pubsub", "redis-py", 4),
    Target("cluster500", "redis-py", 8),
    Target("cluster500", "valkey-glide", 3),
    Target("clusterpipe", "redis-py", 4),
    Target("clusterone", ONE_SERVER, 0.7),
    Target("cache-get", "cashews", 8),
    Target("cache-get", "aiocache", 8),
    Target("cache-remember", "cashews", 8),
    Target("cache-remember", "aiocache", 8),
    Target("cache-local", "cashews", 2),
    Target("cache-put", "cashews", 6),
    Target("cache-put", "aiocache", 6),
    Target("cache-many", "cashews", 3),
    Target("cache-many", "aiocache", 3),
    Target("memory", "redis-py", 1, "less than", way="pipeline"),
    Target("memory", "redis-py", 1, "less than", way="awaited"),
    Target("memory", "redis-py", 1, "less than", way="gather"),
    Target("import", "redis-py", 60, "at most plus"),
    Target("horizon-drain", "saq", 12),
    Target("horizon-drain", "huey", 3.5),
    Target("horizon-drain", BULLMQ, 2),
    Target("horizon-results", "saq", 10),
    Target("horizon-push", "saq", 5),
    Target("horizon-pushmany", BEST, 5),
    Target("horizon-sleep", NOBODY, 1.06, "at most"),
    Target("horizon-pickup", BEST, 0, "at most plus"),
    Target("horizon-idle", NOBODY, 6, "at most"),
    Target("horizon-sent", NOBODY, 0.1, "at most"),
    Target("horizon-executed", NOBODY, 2.5, "at most"),
    Target("horizon-memory", "saq", 10, "at most plus"),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; `met` is None where one of the two was not measured."""

    target: Target
    measured: float | None  # the ratio, or the difference for `at most plus`
    met: bool | None

    @property
    def text(self) -> str:
        """The measured figure as people write it."""
        if self.measured is None:
            return "-"
        if self.target.kind == "at most":
            return f"{self.measured:.3g}"
        return f"{self.measured:+.1f}" if self.target.kind == "at most plus" else f"{self.measured:.2f} x"


def best(figures: Mapping[str, Spread], contender: str, smaller_wins: bool = False) -> float | None:
    """The best median among a contender's ways (`name` and `name (way)`), or None without any."""
    if contender == BEST:
        medians = [spread.median for name, spread in figures.items() if name not in (OURS, BULLMQ)]
    else:
        medians = [spread.median for name, spread in figures.items() if name.split(" (")[0] == contender]
    if not medians:
        return None
    return min(medians) if smaller_wins else max(medians)


def judge(row: str, figures: Mapping[str, Spread]) -> list[Verdict]:
    """Hold a row's medians against its targets."""
    return [_judge(target, figures) for target in TARGETS if target.row == row]


def _ours(target: Target, figures: Mapping[str, Spread]) -> float | None:
    if target.way is None:
        return best(figures, OURS, smaller_wins=target.kind != "at least")
    spread = figures.get(f"{OURS} ({target.way})")
    return spread.median if spread else None


def _judge(target: Target, figures: Mapping[str, Spread]) -> Verdict:
    ours = _ours(target, figures)
    if target.kind == "at most":
        return Verdict(target, ours, None if ours is None else ours <= target.bound)
    theirs = best(figures, target.against, smaller_wins=target.kind != "at least")
    if ours is None or theirs is None:
        return Verdict(target, None, None)
    if target.kind == "at most plus":
        return Verdict(target, ours - theirs, ours - theirs <= target.bound)
    ratio = ours / theirs
    return Verdict(
        target, ratio, ratio >= target.bound if target.kind == "at least" else ratio < target.bound
    )
