"""What a record says of a run: its result, its failure, the attempts before it, how long it waited."""

from __future__ import annotations

import concurrent.futures.thread
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.errors import PayloadError, PayloadTooLargeError
from gravito.horizon import _arguments, _payload
from gravito.horizon._payload import Attempt, End, Failure, read_record
from gravito.horizon.context import JobContext

if TYPE_CHECKING:
    from gravito.horizon.job import Definition

__all__ = ["failure_of", "note_of", "pack_result", "trail_of", "waited"]

_LONGEST_TRACEBACK: Final = 20_000  # characters; of a longer one the ends are kept
_LONGEST_MESSAGE: Final = 4_000  # the same; each attempt that is remembered has one
_OWN: Final = frozenset(  # files whose frames are not the job's
    (
        str(Path(__file__).with_name("_run.py")),
        str(Path(__file__).with_name("_places.py")),
        concurrent.futures.thread.__file__,
    )
)


def pack_result(job: JobContext, definition: Definition, result: Any) -> msgspec.Raw:
    """What the job returned, encoded, and encrypted if its arguments were.

    Raises:
        PayloadError: it cannot be encoded, or is too large.
    """
    try:
        data = _arguments.encode(result)
    except Exception as error:  # msgspec, or the user's own type
        raise _about_result(
            definition,
            f"a {type(result).__name__} cannot be encoded ({error}); return what it is made of, or set results=False",
        ) from error
    limit = job.horizon.max_bytes(definition)
    if len(data) > limit:
        raise _about_result(
            definition,
            f"{len(data)} bytes, allowed are {limit}; store it elsewhere and return where",
            PayloadTooLargeError,
        )
    if job.body.extra is not None and job.body.extra.sealed:
        data = _payload.encode(job.horizon.vault.seal(f"result of {job.id}", data))
    return msgspec.Raw(data)


def failure_of(job: JobContext, error: BaseException) -> Failure:
    """What the job raised, as text. Never fails, whatever the error is like."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        message = _cut(str(error), _LONGEST_MESSAGE)
    except BaseException:  # the user's own code
        message = "(its text cannot be had)"
    if (
        job.stopped in ("timeout", "cancel")
        and job.definition is not None
        and job.definition.kind == "thread"
    ):
        message += "; its thread cannot be stopped and may still be running"
    text = "".join(traceback.format_exception(type(error), error, _own_frames_cut(error)))
    text = _cut(text, _LONGEST_TRACEBACK)
    message, text = (part.encode(errors="backslashreplace").decode() for part in (message, text))
    if job.body.extra is None or not job.body.extra.sealed:
        return Failure(name, message, text)
    if not job.horizon.vault and isinstance(error, PayloadError):
        return Failure(name, message)  # that the keys are missing: the arguments were never read
    try:
        sealed = job.horizon.vault.seal(f"error of {job.id}", _payload.encode((message, text)))
    except PayloadError:  # no keys here; its words could hold what is secret
        sealed = None
    return Failure(name, "(encrypted)", "", sealed)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def waited(job: JobContext) -> float:
    """Milliseconds since it was due; when a crashed run gave it back is not known here."""
    if job.crashes:
        return 0.0
    due = job.trail[-1].ended + job.trail[-1].delay if job.trail else job.body.due
    return max(0.0, job.started - due)


def trail_of(note: bytes) -> tuple[Attempt, ...]:
    """Earlier attempts, from the record of the latest one."""
    try:
        return read_record(note).trail
    except PayloadError:  # what the server itself wrote, or a newer release
        return ()


def _own_frames_cut(error: BaseException) -> TracebackType | None:
    """The traceback from the job's own code on, where it got that far."""
    start = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename in _OWN:
        start = start.tb_next
    return start or error.__traceback__


def note_of(job: JobContext, end: End) -> bytes | None:
    """What its batch is to hear."""
    batch = job.batch
    return None if batch is None else _payload.encode((batch, job.id, end.state))


def _about_result(
    definition: Definition, reason: str, kind: type[PayloadError] = PayloadError
) -> PayloadError:
    error = kind(f"the result of job {definition.name!r}: {reason}")
    error.job, error.parameter = definition.name, "return"
    return error
