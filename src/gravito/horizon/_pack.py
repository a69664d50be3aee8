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
_LONGEST: Final = 1000  # characters of a unique key, a tenant or a limit's name
_FAR: Final = 100 * 366 * 86_400_000  # ms; what is later is a mistake in the unit
_encode = msgspec.msgpack.Encoder().encode

Columns = tuple[list[str], int, dict[int, tuple[Any, ...]]]
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
    """Members, where the bodies begin in ARGV, and by index from 1 what `take` in common.lua calls extra.

    Args:
        jobs: the jobs.
        blobs: what goes to ARGV as it is; the bodies are added to it.
    """
    members: list[str] = []
    extra: dict[int, tuple[Any, ...]] = {}
    base = FIRST + len(blobs) - 1
    blobs += [job.body for job in jobs]
    for at, job in enumerate(jobs, 1):
        if job.unique is None and job.tenant is None and not job.limits:
            members.append(_PLAIN[job.priority] + job.id)
            if job.delay == 0 and job.at is None:
                continue
        else:
            members.append(_SPECIAL[job.priority] + job.id)
        limits = [(limit.name, limit.kind[0], limit.limit, limit.per_ms) for limit in job.limits]
        extra[at] = (
            job.at or False,
            job.delay,
            job.unique or False,
            job.unique_for,
            job.tenant or False,
            limits or False,
        )
    return members, base, extra


def completions(
    done: Sequence[Done], fields: Callable[[Done], tuple[str, ...]], queue: str, blobs: list[bytes]
) -> tuple[Any, ...]:
    """What step.lua takes for `done`.

    Args:
        done: the ended jobs.
        fields: the counters that one of them raises.
        queue: pushes into this one happen at once, others go through the outbox.
        blobs: as for `envelopes`.
    """
    kinds: dict[tuple[str, ...], int] = {}
    groups: list[int] = []
    more: dict[int, tuple[Any, ...]] = {}
    for at, one in enumerate(done, 1):
        groups.append(kinds.setdefault(fields(one), len(kinds) + 1))
        if one.delay or one.pushes or one.note is not None:
            more[at] = _more(one, queue, blobs)
    return (
        [one.id for one in done],
        [one.fence for one in done],
        "".join([_LETTERS[one.outcome] for one in done]),
        [_index(one.record, blobs) for one in done],
        groups,
        list(kinds),
        more,
    )


def _index(data: bytes | None, blobs: list[bytes]) -> int:
    """Where ARGV has it; 0 for none."""
    if data is None:
        return 0
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
