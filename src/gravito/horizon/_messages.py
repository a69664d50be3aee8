"""What goes between the broker and whoever uses it. Plain data; times are milliseconds."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Claimed", "Done", "Envelope", "Kept", "Limit", "Look", "Pushed", "Sizes", "Step"]

Outcome = Literal["ok", "retry", "dead", "release", "cancelled"]
State = Literal["ready", "delayed", "running", "parked", "ok", "dead", "cancelled", "unknown"]


class Limit(msgspec.Struct, frozen=True):
    """A bound on the jobs that share a name.

    `rate`: at most `limit` starts per `per_ms`, evenly refilled (GCRA). `concurrency`: at most `limit` at a time.
    """

    name: str
    kind: Literal["rate", "concurrency"]
    limit: int
    per_ms: int = 0


class Envelope(msgspec.Struct, frozen=True):
    """A job as the queue sees it; the body is opaque to the server."""

    id: str
    body: bytes
    priority: int = 2  # 0 critical, 1 high, 2 default, 3 low
    delay: int = 0  # from the server's now
    at: int | None = None  # epoch; goes before `delay`
    unique: str | None = None  # as long as a live job holds this key, no other job of the queue may
    unique_for: int = 0  # for so long at most; 0: until the job ends
    tenant: str | None = None  # jobs of different tenants take turns
    limits: tuple[Limit, ...] = ()
    batch: str | None = None  # for whoever makes the body; the server does not look at it


class Pushed(msgspec.Struct, frozen=True, gc=False):
    """What became of a push: `exists` is a job with this very id, `unique` one that holds the same unique key."""

    id: str  # of the job that is in the queue
    state: Literal["new", "exists", "unique"]


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A job that this worker holds the lease of."""

    id: str
    fence: int  # grows with every claim in the queue; a completion needs the latest one of its job
    attempt: int  # 1 for the first
    crashes: int  # claims whose worker went silent
    body: bytes
    note: bytes | None = None  # of a further attempt: what the record of the latest one said


class Done(msgspec.Struct, frozen=True):
    """How a claimed job ended. `name`, `run_ms` and `wait_ms` are for the counters."""

    id: str
    fence: int
    outcome: Outcome
    # ok, cancelled: the result's record, kept if given. retry, dead: what went wrong, kept beside the body.
    record: bytes | None = None
    delay: int = 0  # of a retry, or of a release
    name: str = ""
    run_ms: float = 0.0
    wait_ms: float = 0.0
    pushes: tuple[
        tuple[str, Envelope], ...
    ] = ()  # (queue, job): they are pushed if this completion is accepted
    note: bytes | None = None  # for the outbox, under the same condition
    cause: str = ""  # dead: "<job's name>|<class of error>", by which the dead are counted


class Step(msgspec.Struct, frozen=True):
    """What one step brought."""

    now_ms: int  # server's clock
    next_due_ms: int | None  # when the next delayed job is due
    claimed: list[Claimed]
    refused: list[str]  # ids of completions that somebody else's claim has overtaken


class Kept(msgspec.Struct, frozen=True):
    """What housekeeping found."""

    now_ms: int
    next_due_ms: int | None
    lost: list[str]  # ids whose lease this worker no longer has
    cancel: list[str]  # running jobs that somebody wants to end
    outbox: int = 0  # entries that wait to be carried on
    buried: list[str] = []  # ids of jobs that were given up in this call, since their workers died


class Look(msgspec.Struct, frozen=True):
    """A job as the queue has it now."""

    id: str
    state: State
    body: bytes | None = None  # while it is live or dead
    record: bytes | None = None  # the result's; of a live or dead job what went wrong last
    attempts: int = 0  # that failed
    crashes: int = 0
    due_ms: int | None = None  # delayed: when; running: end of the lease; ended: when it did
    worker: str | None = None  # running: whose


class Sizes(msgspec.Struct, frozen=True):
    """How many jobs are where."""

    ready: tuple[int, int, int, int]  # by priority
    fair: int  # ready, in turns between tenants
    delayed: int
    running: int
    parked: int
    done: int
    dead: int
    outbox: int  # entries on their way to other queues
    paused: bool
    totals: dict[
        str, int
    ]  # since the queue's first job: pushed, ok, retry, dead, release, cancelled, crashed
