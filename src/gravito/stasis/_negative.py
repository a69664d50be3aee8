"""Exceptions that are kept: by the name of their class and those of their arguments that are plain.

Only a class that the reader itself names, or a subclass of it that exists already, is ever made from this. Nothing
is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

__all__ = ["pack", "revive"]

_PLAIN: Final = (str, int, float, bool, bytes, type(None))
_LONGEST: Final = 10_000  # of an argument; an error's text is no place for a document

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, list[Any]]).decode


def pack(error: BaseException) -> bytes:
    """The exception as bytes. Arguments that are not plain are left out, and its text stands for them."""
    args = list(error.args)
    if any(type(arg) not in _PLAIN or len(str(arg)) > _LONGEST for arg in args):
        args = [str(error)[:_LONGEST]]
    return _encode((_name(type(error)), args))


def revive(body: bytes, kinds: Iterable[type[Exception]]) -> Exception | None:
    """The exception, if it is of one of these classes; else None."""
    try:
        name, args = _decode(body)
    except msgspec.DecodeError:
        return None
    open_ = list(kinds)
    seen: set[type[Exception]] = set()
    while open_:
        kind = open_.pop()
        if _name(kind) == name:
            return _made(kind, args)
        if kind not in seen:
            seen.add(kind)
            open_.extend(kind.__subclasses__())
    return None


def _made(kind: type[Exception], args: list[Any]) -> Exception:
    try:
        return kind(*args)
    except Exception:  # its constructor takes something else
        made = kind.__new__(kind)
        made.args = tuple(args)
        return made


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
