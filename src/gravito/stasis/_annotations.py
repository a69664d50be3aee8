"""What an annotation says about a value, as far as it can be told without building anything."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final, Union, get_args, get_origin

from gravito.errors import ConfigurationError

__all__ = ["check_type", "classes_in", "fits"]

_UNIONS: Final = (Union, types.UnionType)
_EACH: Final = (list, set, frozenset, Sequence, Set)
_PAIRS: Final = (dict, Mapping)
# instances of these are no types
_VALUES: Final = (str, bytes, int, float, list, tuple, dict, set, frozenset)


def classes_in(annotation: Any) -> Iterator[type]:
    """Each class that an annotation names, at any depth."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for part in get_args(annotation):
        yield from classes_in(part)


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is surely what `annotation` says; False also where only msgspec can tell.

    Numbers and text must be of the very class, so that a bool is no int; an instance of a subclass of one of the
    application's classes fits.
    """
    if annotation is Any or annotation is object:
        return True
    if annotation is None:
        return value is None
    origin: Any = get_origin(annotation)
    if origin is None:
        return _is_a(value, annotation)
    parts = get_args(annotation)
    if origin in _UNIONS:
        return any(fits(value, part) for part in parts)
    if not isinstance(origin, type) or not isinstance(value, origin) or not parts:
        return False
    return _parts_fit(value, origin, parts)


def check_type(wanted: Any) -> None:
    """Say what is wrong with a `type` that is no type, like the name of one.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(wanted, _VALUES):
        allowed = "a class or an annotation, like User or list[int]"
        raise ConfigurationError(
            f"type is {wanted!r:.100}; allowed: {allowed}", field="type", value=wanted, allowed=allowed
        )


def _parts_fit(value: Any, origin: type, parts: tuple[Any, ...]) -> bool:
    """For a container of the right kind."""
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(fits(item, parts[0]) for item in value)
        return len(parts) == len(value) and all(map(fits, value, parts))
    if origin in _PAIRS:
        return all(fits(key, parts[0]) and fits(item, parts[1]) for key, item in value.items())
    return origin in _EACH and not isinstance(value, str) and all(fits(item, parts[0]) for item in value)


def _is_a(value: Any, annotation: Any) -> bool:
    """For an annotation without parts."""
    if not isinstance(annotation, type):
        return False
    if annotation.__module__ == "builtins":
        return type(value) is annotation
    return isinstance(value, annotation)
