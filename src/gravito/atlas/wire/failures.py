"""What goes wrong on a wire, as errors that say who, where, and whether the command may have been applied. Pure."""

from __future__ import annotations

from typing import Any

from gravito import errors
from gravito.atlas.wire.entry import Batch, Entry


def late_reply(entry: Entry, address: str, timeout: float) -> errors.GravitoError:
    """The error of a caller whose reply did not come in time."""
    error = errors.TimeoutError(
        f"{entry.spec.name}: no reply from {address} within {timeout:g} s; "
        + ("it changes nothing and can be sent again" if entry.spec.read_only else "it may have been applied")
    )
    return error.about(node=address, maybe_applied=not entry.spec.read_only)


def lost_reply(entry: Entry, cause: Exception, written: bool = True) -> errors.GravitoError:
    """The error of an entry whose wire ended; `maybe_applied` is True for a write that had been sent."""
    unsure = written and not entry.spec.read_only
    kind = type(cause) if isinstance(cause, errors.GravitoError) else errors.ConnectionLostError
    text = str(cause) + ("; the command may have been applied" if unsure else "")
    error = kind(text)
    error.__dict__.update(cause.__dict__)  # a setting's error names its field, too
    error.__cause__ = cause
    return error.about(node=getattr(cause, "node", None), maybe_applied=unsure)


def no_room(address: str, timeout: float, commands: int, size: int) -> errors.GravitoError:
    """The error of an entry that waited too long for room in flight."""
    return errors.LeaseTimeoutError(
        f"no room in flight to {address} within {timeout:g} s "
        f"({commands} commands, {size} bytes in flight); the command was not sent"
    )


def refusal(batch: Batch) -> errors.GravitoError | None:
    """The error for which the server applied nothing of a batch; None when it may have applied something."""
    first, last = batch.replies[0], batch.replies[-1]
    if isinstance(last, errors.ExecAbortError) and batch.spec.name == "MULTI":
        return next(reply for reply in batch.replies if isinstance(reply, errors.GravitoError))
    if isinstance(first, errors.GravitoError) and all(type(reply) is type(first) for reply in batch.replies):
        return first
    return None


def undecodable(error: UnicodeDecodeError) -> Exception:
    """The error of a caller who asked for text and got something else."""
    error.add_note("The reply is not UTF-8 text; ask for bytes with decode_responses=False.")
    return error


def unexpected(reply: Any) -> errors.ProtocolError:
    """The error for a reply that belongs to nobody."""
    shown = str(reply)[:80] if isinstance(reply, Exception) else type(reply).__name__
    return errors.ProtocolError(f"a reply came that nobody asked for ({shown})")


def not_resp(address: str, error: Exception) -> errors.ProtocolError:
    """The error that ends a wire whose bytes cannot be read."""
    failure = errors.ProtocolError(
        f"{address} sent what is not RESP ({str(error)[:120]}). "
        "Is it a Redis or Valkey server, and is TLS set as it is there?"
    )
    failure.__cause__ = error
    return failure
