"""How to give a decoded value to many callers, none of whom sees what another one changes.

What cannot be changed is given out itself. Of dicts, lists, sets and bytearrays of such, each caller gets containers of
their own. Everything else is decoded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

__all__ = ["copier"]

Copier: TypeAlias = Callable[[], Any]  # a value for one more caller

_CONSTANT: Final = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID}
)
_DEEPEST: Final = 32  # levels; a value with more is decoded anew, which has no such limit


class _NoCopyError(Exception):
    """It has something that is not known to be safe to share."""


def copier(value: Any) -> Copier | None:
    """What gives a value equal to this one, of the same types, to each caller; None if only decoding does.

    Args:
        value: nobody else may have it, for it becomes the pattern.
    """
    if _is_constant(value):
        return lambda: value
    try:
        return _copier(value, _DEEPEST)
    except _NoCopyError:
        return None


def _is_constant(value: Any) -> bool:
    """Whether nobody can change it."""
    kind = type(value)
    if kind in _CONSTANT:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(_is_constant, value))
    if isinstance(value, msgspec.Struct):
        frozen = kind.__struct_config__.frozen and not hasattr(value, "__dict__")
        return frozen and all(_is_constant(getattr(value, name, None)) for name in kind.__struct_fields__)
    return isinstance(value, Enum)  # one for the process, however often it is decoded


def _copier(value: Any, levels: int) -> Copier:
    kind = type(value)
    if not levels:
        raise _NoCopyError
    if kind is dict:
        if not all(map(_is_constant, value)):
            raise _NoCopyError
        return _with_parts(value, value.items(), levels)
    if kind is list:
        return _with_parts(value, enumerate(value), levels)
    if kind is bytearray or (kind is set and all(map(_is_constant, value))):
        copy: Copier = value.copy
        return copy
    raise _NoCopyError


def _with_parts(pattern: Any, items: Any, levels: int) -> Copier:
    """A copy of a dict or a list, in which what can be changed is copied, too."""
    copy: Copier = pattern.copy
    parts = [(place, _copier(item, levels - 1)) for place, item in items if not _is_constant(item)]
    if not parts:
        return copy

    def make() -> Any:
        made = copy()
        for place, part in parts:
            made[place] = part()
        return made

    return make
