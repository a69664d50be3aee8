"""RESP, pure: commands to bytes, error replies to exceptions, and the reader that wires use.

Packing and parsing are hiredis'; what stands here is what it leaves open: arguments that it does not take,
the class of an error, and the one kind of reply (attributes) that it would hand out as if it were an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import hiredis

from gravito import errors

pack = hiredis.pack_command  # raises TypeError for what `encode` below repairs or refuses

INCOMPLETE: Final = Ellipsis  # what the reader returns when the bytes so far end inside a reply

MAX_ARGUMENT = 512 * 1024 * 1024  # the server's proto-max-bulk-len by default

_CLASSES: Final[dict[str, type[errors.GravitoError]]] = {
    "ASK": errors.AskError,
    "BUSY": errors.BusyError,
    "CLUSTERDOWN": errors.ClusterDownError,
    "CROSSSLOT": errors.CrossSlotError,
    "EXECABORT": errors.ExecAbortError,
    "LOADING": errors.LoadingError,
    "MASTERDOWN": errors.MasterDownError,
    "MOVED": errors.MovedError,
    "NOAUTH": errors.AuthenticationError,
    "NOPERM": errors.NoPermissionError,
    "NOSCRIPT": errors.NoScriptError,
    "OOM": errors.OutOfMemoryError,
    "READONLY": errors.ReadOnlyError,
    "TRYAGAIN": errors.TryAgainError,
    "WRONGPASS": errors.AuthenticationError,
    "WRONGTYPE": errors.WrongTypeError,
}
# redis-py cuts these codes off the message; code that compares messages expects the same from us.
_CODE_KEPT: Final = frozenset({"BUSY", "WRONGTYPE"})

_ERR_PHRASES: Final[tuple[tuple[str, type[errors.GravitoError]], ...]] = (
    ("max number of clients reached", errors.MaxClientsError),
    ("invalid password", errors.AuthenticationError),
    ("AUTH <password> called without any password configured", errors.AuthenticationError),
    ("Client sent AUTH, but no password is set", errors.AuthenticationError),
    ("Error loading the extension. Please check the server logs.", errors.ModuleError),
    ("Error unloading module:", errors.ModuleError),
)
_SCRIPT_LINE: Final = re.compile(r"user_(?:script|function):(\d+)")  # Redis 6 to Valkey 9 agree on this much


def encode(args: Sequence[Any]) -> bytes:
    """Pack a command whose arguments hiredis refused: views of bytes are taken, what has no place is named.

    Raises DataError with the argument's position and type; its value may be a secret and is not shown.
    """
    fixed: list[Any] = []
    for position, value in enumerate(args):
        if isinstance(value, (str, bytes, float)) or (isinstance(value, int) and not isinstance(value, bool)):
            fixed.append(value)
        elif isinstance(value, (bytearray, memoryview)):
            fixed.append(bytes(value))
        else:
            raise errors.DataError(
                f"Invalid input of type: '{type(value).__name__}' as argument {position} of {command_name(args)}. "
                "Convert to a bytes, string, int or float first."
            )
    try:
        return bytes(pack(tuple(fixed)))
    except UnicodeEncodeError as error:
        raise errors.DataError(
            f"a text argument of {command_name(args)} cannot be encoded as UTF-8 ({error.reason})"
        ) from error


def unpack(packed: bytes) -> list[Any]:
    """The words and arguments of an encoded command, as bytes. For the few that are looked at again."""
    reader = hiredis.Reader()
    reader.feed(packed)
    words: list[Any] = reader.gets()
    return words


def check_size(packed: bytes, args: Sequence[Any]) -> None:
    """Refuse an argument that every server refuses, by closing the connection, with its default settings.

    Raises DataError with the argument's position and size.
    """
    if len(packed) <= MAX_ARGUMENT:
        return
    for position, value in enumerate(args):
        size = len(value) if isinstance(value, (bytes, str, bytearray, memoryview)) else 0
        if size > MAX_ARGUMENT:
            raise errors.DataError(
                f"argument {position} of {command_name(args)} has {size} bytes; a server takes {MAX_ARGUMENT} at most "
                "(proto-max-bulk-len). The command was not sent."
            )


def command_name(args: Sequence[Any]) -> str:
    """The command's name for messages: the first word, as text."""
    if not args:
        return "(empty command)"
    name = args[0]
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def error_from(text: str) -> Exception:
    """The exception for an error reply, with the code kept or cut from the message as redis-py does."""
    code, _, rest = text.partition(" ")
    cls = _CLASSES.get(code)
    if cls is not None:
        try:
            error = cls(text if code in _CODE_KEPT else rest)
        except (ValueError, IndexError):  # MOVED without an address, from a script: an error like any other
            error = errors.ResponseError(text)
    elif code == "ERR":
        error = _err(rest)
    else:
        error = errors.ResponseError(text)
    error.status_code = code
    if isinstance(error, errors.ResponseError) and (line := _SCRIPT_LINE.search(text)) is not None:
        error.line = int(line[1])
    return error


def _err(message: str) -> errors.GravitoError:
    for phrase, cls in _ERR_PHRASES:
        if message.startswith(phrase):
            return cls(message)
    if _SCRIPT_LINE.search(message) is not None:
        return errors.ScriptError(message)
    return errors.ResponseError(message)


def new_reader() -> hiredis.Reader:
    """A reader that decodes UTF-8 unless told otherwise reply by reply: `gets(False)` leaves bytes."""
    return hiredis.Reader(
        protocolError=errors.ProtocolError,
        replyError=error_from,
        encoding="utf-8",
        notEnoughData=INCOMPLETE,
    )
