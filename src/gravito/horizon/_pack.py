"""Envelopes and completions as the scripts take them: columns, so that Lua hands them on without rebuilding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.horizon._keys import check_id
from gravito.horizon._messages import Done, Envelope, Limit

__all__ = ["check", "completions", "envelopes", "raw"]

_PLAIN: Final = ("0", "1", "2", "3")
_SPECIAL: Final = ("a", "b", "c", "d")  # the priorities of jobs with a unique key, a tenant or limits
_LETTERS: Final = {"ok": "o", "retry": "r", "dead": "d", "release": "l", "cancelled": "c"}
_KEPT: Final = {"ok": b"o", "cancelled": b"c"}
_LONGEST: Final = 1000  # characters of a unique key, a tenant or a limit's name
_FAR: Final = 100 * 366 * 86_400_000  # ms; what is later is a mistake in the unit
FIRST: Final = 3  # where bytes that travel by themselves begin in ARGV
_HEADS: Final = tuple(bytes([0xA0 | n] if n < 32 else [0xD9, n]) for n in range(256))
_encode = msgspec.msgpack.Encoder().encode

Columns = tuple[list[str], str, list[msgspec.Raw], dict[int, tuple[Any, ...]]]


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


def raw(data: bytes) -> msgspec.Raw:
    """Bytes as a MessagePack string, whatever is in them: the servers' decoder knows no other kind."""
    size = len(data)
    if size < 256:
        return msgspec.Raw(_HEADS[size] + data)
    if size < 65_536:
        return msgspec.Raw(b"\xda" + size.to_bytes(2, "big") + data)
    return msgspec.Raw(b"\xdb" + size.to_bytes(4, "big") + data)


def envelopes(jobs: Sequence[Envelope]) -> Columns:
    """Ids, marks, bodies, and by index from 1 what `take` in common.lua calls extra."""
    marks: list[str] = []
    extra: dict[int, tuple[Any, ...]] = {}
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
    return [job.id for job in jobs], every, [raw(job.body) for job in jobs], extra


def completions(
    done: Sequence[Done],
    fields: Callable[[Done], tuple[str, ...]],
    queue: str,
    closed: Sequence[int],
) -> tuple[Any, ...]:
    """What step.lua takes for `done`.

    Args:
        done: the ended jobs.
        fields: the counters that one of them raises.
        queue: pushes into this one happen at once, others go through the outbox.
        closed: fences of which the worker has no more jobs.
    """
    kinds: dict[tuple[str, ...], int] = {}
    groups = [kinds.setdefault(fields(one), len(kinds) + 1) for one in done]
    counts = [0] * len(kinds)
    for group in groups:
        counts[group - 1] += 1
    fences = [one.fence for one in done]
    outcomes = "".join([_LETTERS[one.outcome] for one in done])
    more = {
        at: _more(one, queue)
        for at, one in enumerate(done, 1)
        if one.delay or one.pushes or one.note is not None or one.cause
    }
    return (
        [one.id for one in done],
        fences if fences.count(fences[0]) != len(fences) else fences[0],
        outcomes if outcomes.strip("o") else "",
        _records(done),
        groups,
        counts,
        list(kinds),
        more,
        closed,
    )


def _records(done: Sequence[Done]) -> list[msgspec.Raw | str]:
    """What is kept of each; a result begins with the letter of its outcome."""
    if all(one.record is None for one in done):
        return []
    return ["" if one.record is None else raw(_KEPT.get(one.outcome, b"") + one.record) for one in done]


def _more(one: Done, queue: str) -> tuple[Any, ...]:
    own = [job for target, job in one.pushes if target == queue]
    others: dict[str, list[Envelope]] = {}
    for target, job in one.pushes:
        if target != queue:
            others.setdefault(target, []).append(job)
    entries = [raw(_encode(("push", target, jobs))) for target, jobs in others.items()]
    if one.note is not None:
        entries.append(raw(_encode(("note", "", one.note))))
    return one.delay, envelopes(own) if own else False, entries, one.cause or "|"
