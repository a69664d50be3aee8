"""What the queue keeps of a job: its body, from the push on, and a record of what came of it.

The server never looks inside. A body is a MessagePack array, so that a plain job has no field names in it, and never
changes. A record holds the attempts and the end; that of a job that ended well, or was cancelled, takes the place of
the body and so contains it, that of a job that waits for another attempt or is dead stands beside it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gravito.errors import PayloadError
from gravito.horizon._messages import Envelope

__all__ = [
    "FORMAT",
    "NIL",
    "Attempt",
    "Body",
    "End",
    "Extra",
    "Failure",
    "Record",
    "Travel",
    "add_attempt",
    "depart",
    "encode",
    "read_body",
    "read_record",
]

FORMAT: Final = 1  # of bodies and records; a worker refuses a newer one
TRAIL: Final = 25  # attempts that a record remembers: the first and the latest

# `Raw | None` cannot be decoded, so None is a Raw, too.
NIL: Final = msgspec.Raw(b"\xc0")

Travel = tuple[str, Envelope]  # a job on its way to a queue


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job raised, as text: the exception lived in another process."""

    type: str  # class, with its module
    message: str
    traceback: str = ""
    sealed: bytes | None = None  # message and traceback of a job whose payload is encrypted


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One run that did not end the job. Times are epoch ms of the server's clock."""

    number: int
    started: int
    ended: int
    worker: str
    outcome: str  # retry, release
    error: Failure | None = None  # without its traceback, which only the latest keeps
    delay: int = 0  # ms until the next one


class End(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the job ended. Times are epoch ms of the server's clock."""

    state: str  # ok, dead, cancelled, discarded
    attempt: int
    started: int
    ended: int
    worker: str
    error: Failure | None = None
    kept: bool = False  # whether the result was
    result: msgspec.Raw = NIL  # bytes when sealed


class Extra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What most jobs don't have."""

    batch: str | None = None
    allowed: bool = False  # its batch does not mind if it fails
    chain: str | None = None
    then: Travel | None = None  # what follows when the job went well: the next of its chain
    catch: Travel | None = None  # what follows when it is dead
    parent: str | None = None  # id of the job that pushed it
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] | None = None
    context: dict[str, msgspec.Raw] | None = None  # context variables by name
    trace: dict[str, str] | None = None  # W3C trace context
    secret: tuple[str, ...] = ()  # parameters that no console may show
    sealed: bool = False  # arguments, result and error texts are encrypted


class Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See the module."""

    format: int
    name: str
    args: msgspec.Raw  # a map of arguments by name, or bytes when sealed
    version: int  # of the arguments' form
    pushed: int  # epoch ms, the pusher's clock
    due: int  # the same; when it is to run at first
    extra: Extra | None = None


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See the module."""

    format: int
    trail: tuple[Attempt, ...] = ()
    end: End | None = None
    body: msgspec.Raw = NIL  # a Body


encode = msgspec.msgpack.Encoder().encode
_body = msgspec.msgpack.Decoder(Body).decode
_record = msgspec.msgpack.Decoder(Record).decode


def read_body(data: bytes | msgspec.Raw) -> Body:
    """Decode a body.

    Raises:
        PayloadError: it is none, or one of a newer release.
    """
    try:
        body = _body(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise PayloadError(f"this is no job's body: {error}") from error
    if body.format > FORMAT:
        raise _newer(f"job {body.name!r}", body.format)
    return body


def read_record(data: bytes) -> Record:
    """Decode a record.

    Raises:
        PayloadError: it is none, or one of a newer release.
    """
    try:
        record = _record(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise PayloadError(f"this is no job's record: {error}") from error
    if record.format > FORMAT:
        raise _newer("a record", record.format)
    return record


def depart(travel: Travel, now_ms: int) -> Travel:
    """A job that was packed earlier, made due from now on."""
    queue, envelope = travel
    body = msgspec.structs.replace(read_body(envelope.body), pushed=now_ms, due=now_ms + envelope.delay)
    return queue, msgspec.structs.replace(envelope, body=encode(body))


def add_attempt(trail: tuple[Attempt, ...], attempt: Attempt) -> tuple[Attempt, ...]:
    """The trail with one more attempt. It stays bounded, and only the latest attempt keeps its traceback."""
    if trail and trail[-1].error is not None:
        last = trail[-1]
        bare = msgspec.structs.replace(last.error, traceback="", sealed=None) if last.error else None
        trail = (*trail[:-1], msgspec.structs.replace(last, error=bare))
    trail = (*trail, attempt)
    return trail if len(trail) <= TRAIL else (*trail[:1], *trail[-TRAIL + 1 :])


def _newer(what: str, format: int) -> PayloadError:
    return PayloadError(
        f"{what} is of a newer release of gravito (format {format}, this one knows {FORMAT}): update this worker"
    )
