"""Every error that Gravito raises, in one tree.

Each class is also a subclass of redis-py's matching one, so an `except redis.TimeoutError` that is already
in an application goes on working::

    GravitoError                      redis.RedisError
    |- ConfigurationError             (also ValueError)
    |- EngineError                    the embedded engine cannot run
    |- DataError                      redis.DataError: an argument that has no place on the wire
    |- LoopError                      used from another event loop, process, or after close
    |- WatchError                     redis.WatchError
    |- PubSubError                    redis.PubSubError
    |- CacheError                     what the cache itself refuses or cannot do
    |  |- CounterError                (also OverflowError) a counter's new number would not fit in 64 bits
    |  |- InvalidKeyError             (also ValueError) a key, tag, namespace or template that cannot be used
    |  |- InvalidTTLError             (also ValueError)
    |  |- SerializationError          (also TypeError) a value that would not come back as it went in
    |  |- UnreadableValueError        (also ValueError) stored bytes that cannot be read: the cache's miss
    |  |- LockError                   redis.LockError
    |  |  |- LockTimeoutError         not had within the time that the caller would wait
    |  |  `- LockNotOwnedError        redis.LockNotOwnedError: it is somebody else's by now, or nobody's
    |  `- LimitExceededError          a limiter refuses; says when to come again
    |- TimeoutError                   redis.TimeoutError
    |  |- ConnectTimeoutError
    |  `- LeaseTimeoutError           no leased wire (or no room in flight) within the deadline
    |- ConnectionError                redis.ConnectionError
    |  |- RefusedError                nobody listens there
    |  |- NameResolutionError         the host name does not resolve
    |  |- TLSError                    certificate, host name or protocol refused
    |  |  `- TLSTimeoutError          also ConnectTimeoutError: connected, but no answer in TLS
    |  |- ConnectionLostError         the wire ended with commands in flight
    |  |- CircuitOpenError            not tried: the server was away a moment ago
    |  |- MaxClientsError             redis.MaxConnectionsError: the server takes no more clients
    |  |- ProtocolError               redis.InvalidResponse: the peer does not speak RESP
    |  |- LoadingError                redis.BusyLoadingError
    |  `- AuthenticationError         redis.AuthenticationError: WRONGPASS, NOAUTH
    |- HorizonError                   a job, or the queue it is in
    |  |- UnknownJobError             no job, or no live one, has this name or id (also LookupError)
    |  |- DuplicateJobError           two jobs want one name
    |  |- PayloadError                arguments or a result that do not fit or cannot be encoded (also ValueError)
    |  |  `- PayloadTooLargeError
    |  |- InjectionError              nothing provides what a job asks for
    |  |- JobFailedError              the job is dead; with its traceback as text
    |  |  `- JobCancelledError        it was cancelled or discarded
    |  |- JobTimeoutError             also TimeoutError: the job ran longer than it may
    |  |- ProcessDiedError            the process of a job ended before the job did
    |  |- ResultTimeoutError          also TimeoutError and Python's: no result yet
    |  `- ResultGoneError             the result was not kept, or no longer is
    `- ResponseError                  redis.ResponseError: the server answered with an error
       |- NoPermissionError           NOPERM
       |- NoScriptError               NOSCRIPT
       |- ScriptError                 a Lua script failed; names the script and the line
       |- OutOfMemoryError            OOM
       |- ReadOnlyError               READONLY
       |- ExecAbortError              EXECABORT
       |- WrongTypeError              WRONGTYPE
       |- BusyError                   BUSY: a script blocks the server
       |- TryAgainError               TRYAGAIN
       |- ClusterDownError            CLUSTERDOWN
       |- MasterDownError             MASTERDOWN
       |- CrossSlotError              CROSSSLOT
       |- MovedError, AskError        MOVED, ASK
       `- ModuleError                 MODULE LOAD and UNLOAD

Every instance carries `command` (its name only, never its arguments), `node` (the address), `attempt` (1 for
the first) and `maybe_applied` (True when the server may have carried the command out although no reply came).
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

import redis.exceptions as redis_errors

__all__ = [
    "AskError",
    "AuthenticationError",
    "BusyError",
    "CacheError",
    "CircuitOpenError",
    "ClusterDownError",
    "ConfigurationError",
    "ConnectTimeoutError",
    "ConnectionError",
    "ConnectionLostError",
    "CounterError",
    "CrossSlotError",
    "DataError",
    "DuplicateJobError",
    "EngineError",
    "ExecAbortError",
    "GravitoError",
    "HorizonError",
    "InjectionError",
    "InvalidKeyError",
    "InvalidTTLError",
    "JobCancelledError",
    "JobFailedError",
    "JobTimeoutError",
    "LeaseTimeoutError",
    "LimitExceededError",
    "LoadingError",
    "LockError",
    "LockNotOwnedError",
    "LockTimeoutError",
    "LoopError",
    "MasterDownError",
    "MaxClientsError",
    "ModuleError",
    "MovedError",
    "NameResolutionError",
    "NoPermissionError",
    "NoScriptError",
    "OutOfMemoryError",
    "PayloadError",
    "PayloadTooLargeError",
    "ProcessDiedError",
    "ProtocolError",
    "PubSubError",
    "ReadOnlyError",
    "RefusedError",
    "ResponseError",
    "ResultGoneError",
    "ResultTimeoutError",
    "ScriptError",
    "SerializationError",
    "TLSError",
    "TLSTimeoutError",
    "TimeoutError",
    "TryAgainError",
    "UnknownJobError",
    "UnreadableValueError",
    "WatchError",
    "WrongTypeError",
]


class GravitoError(redis_errors.RedisError):
    """The root of the tree."""

    command: str | None = None  # the command's name; its arguments may hold secrets and are never kept
    node: str | None = None  # address of the server, without credentials
    attempt: int = 1  # which try this was
    maybe_applied: bool = False  # the command may have taken effect although no reply came

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def about(
        self,
        command: str | None = None,
        node: str | None = None,
        attempt: int | None = None,
        maybe_applied: bool | None = None,
    ) -> GravitoError:
        """Note the circumstances that are known here and return the error itself."""
        if command is not None:
            self.command = command
        if node is not None:
            self.node = node
        if attempt is not None:
            self.attempt = attempt
        if maybe_applied is not None:
            self.maybe_applied = maybe_applied
        return self


class ConfigurationError(GravitoError, ValueError):
    """A setting that cannot be used: names the field, the value (never a secret) and what is allowed."""

    def __init__(
        self, message: str, *, field: str | None = None, value: Any = None, allowed: Iterable[Any] | str = ()
    ):
        super().__init__(message)
        self.field = field  # dotted path of the setting
        self.value = value  # what was given; None for secrets
        self.allowed = allowed  # what would be taken, as text or as choices


class EngineError(GravitoError):
    """The embedded engine cannot be found, started or reached; the message says what to do."""


class DataError(GravitoError, redis_errors.DataError):
    """An argument that has no place on the wire (None, bool, a container)."""


class LoopError(GravitoError, RuntimeError):
    """A client was used where it cannot work: no running loop, another process, or after it was closed."""


class WatchError(GravitoError, redis_errors.WatchError):
    """A watched key changed before EXEC."""


class PubSubError(GravitoError, redis_errors.PubSubError):
    """A subscription was used in a way it does not support."""


class CacheError(GravitoError):
    """The cache refuses what it was given, or cannot do it. Errors of the connection keep their own classes."""


class CounterError(CacheError, OverflowError):
    """A counter's new number would not fit in 64 bits. It is left as it was."""


class InvalidKeyError(CacheError, ValueError):
    """A key, a tag, a namespace or a key template that cannot be used; the message says what is allowed."""


class InvalidTTLError(CacheError, ValueError):
    """A time to live that cannot be used; the message says what is allowed."""


class SerializationError(CacheError, TypeError):
    """A value that would not come back as it went in. Names the key, the type and what to do; nothing was written."""


class UnreadableValueError(CacheError, ValueError):
    """Stored bytes that cannot be turned back into a value: the cache takes them for a miss and tells in an event."""


class LockError(CacheError, redis_errors.LockError):
    """A lock cannot be had, kept or given back. `lock_name` is its name."""

    def __init__(self, message: str | None = None, lock_name: str | None = None) -> None:
        redis_errors.LockError.__init__(self, message, lock_name)


class LockTimeoutError(LockError):
    """`async with lock` did not get it within the time that it may wait. Nothing is left of the attempt."""


class LockNotOwnedError(LockError, redis_errors.LockNotOwnedError):
    """The lock is not, or no longer, held under this token: it ran out, was released, or somebody else has it."""


class LimitExceededError(CacheError):
    """A limiter refuses. Nothing was counted.

    `retry_after` is in seconds from now; `remaining` is what a cheaper call may still cost.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, remaining: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.remaining = remaining
        self.limit = limit


class TimeoutError(GravitoError, redis_errors.TimeoutError):
    """A deadline passed."""


class ConnectTimeoutError(TimeoutError):
    """The server did not take the connection, or did not finish the handshake, in time."""


class LeaseTimeoutError(TimeoutError):
    """No leased wire, or no room in flight, came free in time. The command was not sent."""


class ConnectionError(GravitoError, redis_errors.ConnectionError):
    """The connection could not be made or kept."""


class RefusedError(ConnectionError):
    """Nobody listens at the address."""


class NameResolutionError(ConnectionError):
    """The host name does not resolve."""


class TLSError(ConnectionError):
    """The TLS handshake failed: certificate, host name, expiry, or a peer that does not speak TLS."""

    final: bool = True  # connecting again can only fail again


class TLSTimeoutError(TLSError, ConnectTimeoutError):
    """The peer took the connection and answered nothing in TLS in time: a plain port, or a server that hangs."""

    final = False


class ConnectionLostError(ConnectionError):
    """The wire ended before the reply came; `maybe_applied` says if the command may have run."""


class CircuitOpenError(ConnectionError):
    """The connection's breaker is open after repeated failures; nothing was sent. The next attempt comes by itself."""


class MaxClientsError(ConnectionError, redis_errors.MaxConnectionsError):
    """The server has as many clients as it allows."""


class ProtocolError(ConnectionError, redis_errors.InvalidResponse):
    """The peer sent bytes that are not RESP (or that RESP readers must refuse)."""


class LoadingError(ConnectionError, redis_errors.BusyLoadingError):
    """The server is loading its data set (LOADING)."""


class AuthenticationError(ConnectionError, redis_errors.AuthenticationError):
    """Credentials are wrong or missing (WRONGPASS, NOAUTH)."""


class ResponseError(GravitoError, redis_errors.ResponseError):
    """The server answered with an error. An error inside a Lua script says where."""

    script: str | None = None  # the script's name, for one called through `Script`
    line: int | None = None  # the line in the script that the server named


class NoPermissionError(ResponseError, redis_errors.NoPermissionError):
    """The ACL does not allow it (NOPERM)."""


class NoScriptError(ResponseError, redis_errors.NoScriptError):
    """The server does not know the script's digest (NOSCRIPT)."""


class ScriptError(ResponseError):
    """A Lua script failed. `script` is its name, `line` the line that the server named."""


class OutOfMemoryError(ResponseError, redis_errors.OutOfMemoryError):
    """The server is at its memory limit (OOM)."""


class ReadOnlyError(ResponseError, redis_errors.ReadOnlyError):
    """A write reached a replica (READONLY)."""


class ExecAbortError(ResponseError, redis_errors.ExecAbortError):
    """The transaction was refused because one of its commands was (EXECABORT)."""


class WrongTypeError(ResponseError):
    """The key holds another type of value (WRONGTYPE)."""


class BusyError(ResponseError):
    """A script or function blocks the server (BUSY)."""


class TryAgainError(ResponseError, redis_errors.TryAgainError):
    """The keys of a multi-key command are on their way to another node (TRYAGAIN)."""


class ClusterDownError(ResponseError, redis_errors.ClusterDownError):
    """The cluster does not serve this slot now (CLUSTERDOWN)."""

    def __init__(self, message: str, status_code: str | None = None):
        redis_errors.ClusterDownError.__init__(self, message, status_code=status_code)


class MasterDownError(ClusterDownError, redis_errors.MasterDownError):
    """A replica lost its primary and may not serve old data (MASTERDOWN)."""


class CrossSlotError(ResponseError, redis_errors.ClusterCrossSlotError):
    """The keys of one command live in different slots (CROSSSLOT)."""


class AskError(ResponseError, redis_errors.AskError):
    """The slot is moving; ask the named node this once (ASK)."""

    def __init__(self, message: str, status_code: str | None = None):
        redis_errors.AskError.__init__(self, message, status_code=status_code)


class MovedError(AskError, redis_errors.MovedError):
    """The slot lives on the named node (MOVED)."""


class ModuleError(ResponseError, redis_errors.ModuleError):
    """MODULE LOAD or UNLOAD failed."""


class HorizonError(GravitoError):
    """Something about a job, or about the queue it is in."""

    job: str | None = None  # the job's name, where it is known
    job_id: str | None = None


class UnknownJobError(HorizonError, LookupError):
    """No job is registered under this name, or the queue knows no job of this id."""


class DuplicateJobError(HorizonError):
    """Two different functions or classes want to be the job of one name."""


class PayloadError(HorizonError, ValueError):
    """Arguments or a result that do not fit their types, or that cannot be encoded or decoded."""

    parameter: str | None = None  # which one; "return" for a result


class PayloadTooLargeError(PayloadError):
    """The encoded arguments, or the encoded result, are longer than the limit."""


class InjectionError(HorizonError):
    """Nothing provides what a job, or another provider, asks for."""


class JobFailedError(HorizonError):
    """The job is dead: it failed for good, or its worker died under it too often."""

    def __init__(self, message: str, *, error_type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        # the class of what the job raised, with its module
        self.error_type = error_type  # type: ignore[assignment]  # redis-py keeps a category of its own there
        self.traceback = traceback  # as text: the exception lived in another process


class JobCancelledError(JobFailedError):
    """The job was cancelled, or discarded by its own rules; it has no result."""


class JobTimeoutError(HorizonError, TimeoutError):
    """The job ran longer than its timeout."""


class ResultTimeoutError(HorizonError, TimeoutError, builtins.TimeoutError):
    """The job has not finished in the time that was given; it is not affected by that."""


class ResultGoneError(HorizonError):
    """The job finished, and its result was not kept, or is no longer."""


class ProcessDiedError(HorizonError):
    """The process that a job ran in ended before the job did: killed, out of memory, or a crash in C code."""
