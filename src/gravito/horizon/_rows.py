"""Jobs as readers see them, and the conditions that they search by. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.errors import PayloadError
from gravito.horizon import _payload
from gravito.horizon._messages import Look
from gravito.horizon._payload import NIL, Body, Record, Travel
from gravito.horizon.handle import JobStatus, moment, read_end, read_failure, read_status

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = [
    "MASKED",
    "AttemptRow",
    "Filter",
    "JobDetail",
    "JobRow",
    "body_of",
    "moment",
    "read_detail",
    "read_row",
]

MASKED: Final = "******"


class JobRow(JobStatus, frozen=True, kw_only=True):
    """A job in a list: its status, and where it belongs.

    Args:
        queue: where it is.
        run_ms: how long its latest run took, of those that ended.
        batch: id of its batch.
        chain: id of its chain.
        parent: id of the job that pushed it.
    """

    queue: str
    run_ms: int | None = None
    batch: str | None = None
    chain: str | None = None
    parent: str | None = None


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a job's timeline.

    Args:
        number: 1 for the first.
        outcome: retry, or how the job ended.
        started: by the server's clock, as `ended`.
        worker: whose run it was.
        error: what it raised, as `error_type` its class; the traceback of the latest one only.
        delay: seconds until the next one.
    """

    number: int
    outcome: str
    started: datetime | None
    ended: datetime | None
    worker: str
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    delay: float = 0.0


class JobDetail(JobRow, frozen=True, kw_only=True):
    """All that is known of a job.

    Args:
        arguments: by name, those marked secret masked; None for encrypted ones without their key.
        result: what it returned; None if nothing is kept.
        has_result: whether that is kept.
        attempts: its runs that ended, the first one first; of many, the first and the latest.
        following: `(queue, id)` of the job that follows in its chain.
        rest: `(queue, id, name)` of the jobs that follow in its chain, in order; fifty at most.
        secret: names of the masked arguments.
        encrypted: whether arguments, result and errors are stored encrypted.
        bytes: of the stored arguments.
    """

    arguments: dict[str, Any] | None = None
    result: Any = None
    has_result: bool = False
    attempts: tuple[AttemptRow, ...] = ()
    following: tuple[str, str] | None = None
    rest: tuple[tuple[str, str, str], ...] = ()
    secret: tuple[str, ...] = ()
    encrypted: bool = False
    bytes: int = 0


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a search asks for; all of it has to hold.

    Args:
        name: the job's name.
        tag: one of its tags.
        outcome: ok or cancelled, of ended jobs.
        error: the class of its latest error.
        parent: id of the job that pushed it.
        batch: id of its batch.
        chain: id of its chain.
        since: at the earliest: when it ended, for ended and dead jobs; when it is due, for others.
        until: at the latest, likewise.
    """

    name: str | None = None
    tag: str | None = None
    outcome: str | None = None
    error: str | None = None
    parent: str | None = None
    batch: str | None = None
    chain: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether more than the time is asked for."""
        return any(
            getattr(self, field) is not None
            for field in self.__struct_fields__
            if field not in ("since", "until")
        )

    @property
    def by_cause(self) -> bool:
        """Whether it asks for what dead jobs are counted by."""
        return self.name is not None or self.error is not None

    @property
    def beyond_cause(self) -> bool:
        """Whether it asks for more than that."""
        return msgspec.structs.replace(self, name=None, error=None).looks_inside

    def failed_with(self, record: Record | None) -> bool:
        """Whether a job's latest error is the one that is asked for."""
        return self.error is None or (record is not None and _error_type(record) == self.error)

    def admits(self, body: Body | None, outcome: str | None = None) -> bool:
        """Whether a job is one of those that are asked for, but for its time and its errors.

        Args:
            body: the job's.
            outcome: of an ended job.
        """
        if body is None or (self.name is not None and body.name != self.name):
            return False
        if self.outcome is not None and outcome != self.outcome:
            return False
        extra = body.extra
        if self.tag is not None and (extra is None or self.tag not in extra.tags):
            return False
        wanted = (self.parent, self.batch, self.chain)
        has = (None, None, None) if extra is None else (extra.parent, extra.batch, extra.chain)
        return all(want is None or want == one for want, one in zip(wanted, has, strict=True))

    def in_time(self, ms: int | None) -> bool:
        """Whether a moment is within the time that is asked for."""
        low, high = self.bounds
        return ms is None or ((low is None or ms >= low) and (high is None or ms <= high))

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """The time that is asked for, in ms since the epoch."""
        return milliseconds(self.since), milliseconds(self.until)


def milliseconds(moment: datetime | None) -> int | None:
    """Since the epoch."""
    return None if moment is None else round(moment.timestamp() * 1000)


def body_of(look: Look, record: Record) -> Body | None:
    """The body, which an ended job has in its record."""
    data = look.body if look.body is not None else record.body
    if data == NIL:
        return None
    try:
        return _payload.read_body(data)
    except PayloadError:
        return None


def read_row(horizon: Horizon, queue: str, look: Look) -> JobRow:
    """A row from what the queue says; of a job that a newer release wrote, its state alone."""
    return JobRow(**_row(horizon, queue, look))


def _row(horizon: Horizon, queue: str, look: Look) -> dict[str, Any]:
    try:
        status, record = read_status(horizon, look), read_end(look)
        body = body_of(look, record)
    except PayloadError as error:
        return {"queue": queue, "id": look.id, "state": look.state, "error": str(error)}
    known = {field: getattr(status, field) for field in JobStatus.__struct_fields__}
    last = record.end or (record.trail[-1] if record.trail else None)
    run_ms = last.ended - last.started if last is not None and last.started else None
    extra = body.extra if body is not None else None
    place = {} if extra is None else {"batch": extra.batch, "chain": extra.chain, "parent": extra.parent}
    return {**known, **place, "queue": queue, "run_ms": run_ms}


def read_detail(horizon: Horizon, queue: str, look: Look) -> JobDetail:
    """All that is known of a job, from what the queue says."""
    row = _row(horizon, queue, look)
    try:
        record = read_end(look)
    except PayloadError:
        return JobDetail(**row)
    body = body_of(look, record)
    extra = body.extra if body is not None else None
    following = extra.then if extra is not None else None
    has_result, result = _result(horizon, look.id, record, extra is not None and extra.sealed)
    return JobDetail(
        **row,
        arguments=None if body is None else _arguments(horizon, body, look.id),
        result=result,
        has_result=has_result,
        attempts=_timeline(horizon, look.id, record),
        following=None if following is None else (following[0], following[1].id),
        rest=tuple(_rest(following)),
        secret=extra.secret if extra is not None else (),
        encrypted=extra is not None and extra.sealed,
        bytes=0 if body is None else len(bytes(body.args)),
    )


def _rest(travel: Travel | None, most: int = 50) -> Iterator[tuple[str, str, str]]:
    """The jobs of a chain from one on: each has the next one in its body."""
    while travel is not None and most:
        queue, envelope = travel
        try:
            body = _payload.read_body(envelope.body)
        except PayloadError:  # a newer release's
            yield queue, envelope.id, ""
            return
        yield queue, envelope.id, body.name
        travel, most = body.extra.then if body.extra is not None else None, most - 1


def _arguments(horizon: Horizon, body: Body, job_id: str) -> dict[str, Any] | None:
    try:
        named = msgspec.msgpack.decode(horizon.vault.arguments(body, job_id))
    except (PayloadError, msgspec.DecodeError):
        return None
    if not isinstance(named, dict):
        return None
    secret = body.extra.secret if body.extra is not None else ()
    definition = horizon.jobs.get(body.name)
    if definition is not None:  # a parameter that was marked since the push is secret, too
        secret += definition.options.secret
    return {str(name): MASKED if name in secret else value for name, value in named.items()}


def _result(horizon: Horizon, job_id: str, record: Record, sealed: bool) -> tuple[bool, Any]:
    end = record.end
    if end is None or not end.kept:
        return False, None
    try:
        data: bytes | msgspec.Raw = end.result
        if sealed and data != NIL:
            data = horizon.vault.open(f"result of {job_id}", msgspec.msgpack.decode(data, type=bytes))
        return True, msgspec.msgpack.decode(data)
    except (PayloadError, msgspec.DecodeError):
        return True, None


def _timeline(horizon: Horizon, job_id: str, record: Record) -> tuple[AttemptRow, ...]:
    rows = [
        AttemptRow(
            number=attempt.number,
            outcome=attempt.outcome,
            started=moment(attempt.started),
            ended=moment(attempt.ended),
            worker=attempt.worker,
            error_type=attempt.error.type if attempt.error is not None else None,
            error=attempt.error.message if attempt.error is not None else None,
            delay=attempt.delay / 1000,
        )
        for attempt in record.trail
    ]
    latest = read_failure(horizon, job_id, record)
    end = record.end
    if end is not None:
        rows.append(
            AttemptRow(
                number=end.attempt,
                outcome=end.state,
                started=moment(end.started),
                ended=moment(end.ended),
                worker=end.worker,
            )
        )
    place = -1 if end is None or end.error is not None else -2  # whose the latest error is
    if latest is not None and len(rows) >= -place:
        text = {"error_type": latest.type, "error": latest.message, "traceback": latest.traceback or None}
        rows[place] = msgspec.structs.replace(rows[place], **text)
    return tuple(rows)


def _error_type(record: Record) -> str | None:
    error = record.end.error if record.end is not None else None
    if error is None and record.trail:
        error = record.trail[-1].error
    return error.type if error is not None else None
