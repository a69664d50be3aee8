"""Exceptions that are kept: by the name of their class, their arguments, and their attributes.

Only a class that the reader itself names, or a subclass of it that exists already, is ever made from this. Nothing
is imported, and no constructor of the application's runs: many make their text, or ask for what is only in attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.stasis._codec import Codec

__all__ = ["pack", "revive"]

_LONGEST: Final = 10_000  # characters of a text that stands for an argument

# of each argument and attribute; an error is no place for a document
_codec: Final = Codec(max_bytes=64 * 1024)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, list[bytes], dict[str, bytes]]).decode


def pack(error: BaseException) -> bytes:
    """The exception as bytes.

    Text stands for an argument that cannot be stored; an attribute that cannot be is left out.
    """
    kind = type(error)
    args = _builtin(kind).__reduce__(error)[1]  # beside `args`, what OSError and its kin keep elsewhere
    packed = [_packed(arg) or _codec.encode(_text(arg), "") for arg in args]
    state = {name: body for name, value in vars(error).items() if (body := _packed(value))}
    return _encode((_name(kind), packed, state))


def revive(body: bytes, kinds: Iterable[type[Exception]]) -> Exception | None:
    """The exception, if it is of one of these classes and can be read; else None."""
    try:
        name, args, state = _decode(body)
        kind = _known(name, kinds)
        if kind is None:
            return None
        return _made(kind, map(_value, args), {field: _value(each) for field, each in state.items()})
    except Exception:  # the bytes may be anybody's: whatever they cause is a miss
        return None


def _known(name: str, kinds: Iterable[type[Exception]]) -> type[Exception] | None:
    """The class of this name among some and their subclasses."""
    open_ = list(kinds)
    seen: set[type[Exception]] = set()
    while open_:
        kind = open_.pop()
        if _name(kind) == name:
            return kind
        if kind not in seen:
            seen.add(kind)
            open_.extend(kind.__subclasses__())
    return None


def _made(kind: type[Exception], args: Iterable[Any], state: dict[str, Any]) -> Exception:
    base, args = _builtin(kind), tuple(args)
    made: Exception = base.__new__(kind, *args)
    base.__init__(made, *args)  # sets what a built-in class has beside its `args`
    vars(made).update(state)
    return made


def _builtin(kind: type[BaseException]) -> Any:
    """The class of Python's own that the instances are built on."""
    while kind.__module__ != "builtins":
        assert kind.__base__ is not None
        kind = kind.__base__
    return kind


def _packed(value: Any) -> bytes | None:
    try:
        return _codec.encode(value, "")
    except errors.SerializationError:
        return None


def _value(body: bytes) -> Any:
    return _codec.decode(body, "")


def _text(value: Any) -> str:
    try:
        return str(value)[:_LONGEST]
    except Exception:  # its class may have any `__str__`
        return type(value).__qualname__


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
