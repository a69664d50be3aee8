"""Envelopes and completions as the scripts take them: columns, so that Lua hands them on without rebuilding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.horizon._keys import check_id
from gravito.horizon._messages import Done, Envelope, Limit

__all__ = ["check", "completions", "envelopes"]

_PLAIN: Final = ("0", "1", "2", "3")
_SPECIAL: Final = ("a", "b", "c", "d")  # the priorities of jobs with a unique key, a tenant or limits
_LETTERS: Final = {"ok": "o", "retry": "r", "dead": "d", "release": "l", "cancelled": "c"}
_KEPT: Final = {"ok": b"o", "cancelled": b"c"}
_LONGEST: Final = 1000  # characters of a unique key, a tenant or a limit's name
_FAR: Final = 100 * 366 * 86_400_000  # ms; what is later is a mistake in the unit
_encode = msgspec.msgpack.Encoder().encode

Columns = tuple[list[str], str, int, dict[int, tuple[Any, ...]]]
FIRST: Final = 3  # where the bytes begin in ARGV


def check(job: Envelope) -> Envelope:
    """The envelope, if the queue can take it.

    Raises:
        PayloadError: names the field and what is allowed.
    """
    check_id(job.id)
    if job.priority not in (0, 1, 2, 3):
        raise _wrong(job, "priority", job.priority, "0 (critical), 1 (high), 2 (default) or 3 (low)")
    if not 0 <= job.delay < _FAR:
        raise _wrong(job, "delay", job.delay, "milliseconds from 0 to 100 years")
    if job.unique_for < 0 or job.unique_for >= _FAR:
        raise _wrong(
            job, "unique_for", job.unique_for, "milliseconds from 0 (until the job ends) to 100 years"
        )
    for field in ("unique", "tenant"):
        value = getattr(job, field)
        if value is not None and not 0 < len(value) <= _LONGEST:
            raise _wrong(job, field, value[:20], f"1 to {_LONGEST} characters")
    for limit in job.limits:
        _check_limit(job, limit)
    return job


def _check_limit(job: Envelope, limit: Limit) -> None:
    if not 0 < len(limit.name) <= _LONGEST or "\0" in limit.name:
        raise _wrong(job, "limits.name", limit.name[:20], f"1 to {_LONGEST} characters, none of them NUL")
    if limit.kind not in ("rate", "concurrency"):
        raise _wrong(job, "limits.kind", limit.kind, "rate or concurrency")
    if limit.limit < 1:
        raise _wrong(job, "limits.limit", limit.limit, "at least 1")
    if limit.kind == "rate" and not 0 < limit.per_ms < _FAR:
        raise _wrong(job, "limits.per_ms", limit.per_ms, "the period of the rate in milliseconds, at least 1")


def _wrong(job: Envelope, field: str, value: object, allowed: str) -> errors.PayloadError:
    error = errors.PayloadError(f"job {job.id}: {field} is {value!r}; allowed: {allowed}")
    error.job_id, error.parameter = job.id, field
    return error


def envelopes(jobs: Sequence[Envelope], blobs: list[bytes]) -> Columns:
    """Ids, marks, where the bodies begin in ARGV, and by index from 1 what `take` in common.lua calls extra.

    Args:
        jobs: the jobs.
        blobs: what goes to ARGV as it is; the bodies are added to it.
    """
    marks: list[str] = []
    extra: dict[int, tuple[Any, ...]] = {}
    base = FIRST + len(blobs) - 1
    blobs += [job.body for job in jobs]
    for at, job in enumerate(jobs, 1):
        if job.unique is None and job.tenant is None and not job.limits:
            marks.append(_PLAIN[job.priority])
            if job.delay == 0 and job.at is None:
                continue
        else:
            marks.append(_SPECIAL[job.priority])
        limits = [(limit.name, limit.kind[0], limit.limit, limit.per_ms) for limit in job.limits]
        extra[at] = (
            job.at or False,
            job.delay,
            job.unique or False,
            job.unique_for,
            job.tenant or False,
            limits or False,
        )
    every = "".join(marks)
    if every == every[:1] * len(every):
        every = every[:1]
    return [job.id for job in jobs], every, base, extra


def completions(
    done: Sequence[Done],
    fields: Callable[[Done], tuple[str, ...]],
    queue: str,
    closed: Sequence[int],
    blobs: list[bytes],
) -> tuple[Any, ...]:
    """What step.lua takes for `done`.

    Args:
        done: the ended jobs.
        fields: the counters that one of them raises.
        queue: pushes into this one happen at once, others go through the outbox.
        closed: fences of which the worker has no more jobs.
        blobs: as for `envelopes`.
    """
    kinds: dict[tuple[str, ...], int] = {}
    groups = [kinds.setdefault(fields(one), len(kinds) + 1) for one in done]
    counts = [0] * len(kinds)
    for group in groups:
        counts[group - 1] += 1
    fences = [one.fence for one in done]
    outcomes = "".join([_LETTERS[one.outcome] for one in done])
    more = {
        at: _more(one, queue, blobs)
        for at, one in enumerate(done, 1)
        if one.delay or one.pushes or one.note is not None
    }
    return (
        [one.id for one in done],
        fences if fences.count(fences[0]) != len(fences) else fences[0],
        outcomes if outcomes.strip("o") else "",
        _records(done, blobs),
        groups,
        counts,
        list(kinds),
        more,
        closed,
    )


def _records(done: Sequence[Done], blobs: list[bytes]) -> int | list[int]:
    """Where the records are in ARGV; a result begins with the letter of its outcome."""
    base = FIRST + len(blobs) - 1
    records = [
        one.record if one.record is None or one.outcome not in _KEPT else _KEPT[one.outcome] + one.record
        for one in done
    ]
    there = [record for record in records if record is not None]
    blobs += there
    if not there:
        return 0
    if len(there) == len(records):
        return base
    places = iter(range(base + 1, base + 1 + len(there)))
    return [0 if record is None else next(places) for record in records]


def _index(data: bytes, blobs: list[bytes]) -> int:
    """Where ARGV has it."""
    blobs.append(data)
    return FIRST + len(blobs) - 1


def _more(one: Done, queue: str, blobs: list[bytes]) -> tuple[Any, ...]:
    own = [job for target, job in one.pushes if target == queue]
    others: dict[str, list[Envelope]] = {}
    for target, job in one.pushes:
        if target != queue:
            others.setdefault(target, []).append(job)
    entries = [_index(_encode(("push", target, jobs)), blobs) for target, jobs in others.items()]
    if one.note is not None:
        entries.append(_index(_encode(("note", "", one.note)), blobs))
    return one.delay, envelopes(own, blobs) if own else False, entries
