"""Values that MessagePack and JSON have no form for, recorded so that they come back as they went in.

A value is *plain* if the format gives it back by itself: None, bool, int, float, str, bytes (not in JSON), and
lists and dicts of these. Everything else is *boxed*: its name from the table below and a payload, which is plain
or has boxes itself. Formats differ only in what a box looks like.
"""

from __future__ import annotations

import base64
import gc
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from gravito import errors
from gravito.stasis import _models
from gravito.stasis._models import Models

__all__ = ["BOXES", "BOX_KEY", "Boxer", "Opener", "is_plain", "is_plain_json"]

Box = Callable[[str, Any], Any]  # a box's name and payload, as the format has it

# The order is part of what is stored: only ever append.
BOXES: Final = (
    "int", "str", "float", "bytes", "bytearray", "tuple", "set", "frozenset", "dict", "datetime", "date", "time",
    "timedelta", "decimal", "uuid", "enum", "model",
)  # fmt: skip

_LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN: Final = _LEAVES | {list, dict}
_referents = gc.get_referents


# -- plain or not --------------------------------------------------------------------------------------------


def _is_plain_by_level(value: Any) -> bool:
    """Level by level, each in two or three calls into C: it costs about what encoding does."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind in _LEAVES
    level = _referents(value)
    while not _LEAVES.issuperset(map(type, level)):
        if not _PLAIN.issuperset(map(type, level)):
            return False
        level = _referents(*level)
    return True


def _is_plain_by_item(value: Any) -> bool:
    """The same where the interpreter's collector does not show all of a container."""
    kind = type(value)
    if kind is dict:
        return _LEAVES.issuperset(map(type, value)) and all(map(_is_plain_by_item, value.values()))
    return kind in _LEAVES or (kind is list and all(map(_is_plain_by_item, value)))


def _collector_shows_all() -> bool:
    """Whether `gc.get_referents` shows what is_plain looks for. It need not show what cannot be in a cycle."""
    odd = [bytearray(), Decimal(), date.min, timedelta(), 1.5j]
    shown = [_referents(odd), _referents(dict(enumerate(odd))), _referents({date.min: 1})]
    return all(item in shown[0] and item in shown[1] for item in odd) and date.min in shown[2]


# Only for values that were encoded before: those do not contain themselves.
is_plain: Callable[[Any], bool] = _is_plain_by_level if _collector_shows_all() else _is_plain_by_item


def is_plain_json(value: Any) -> bool:
    """Whether JSON gives `value` back by itself: keys are text, and numbers are finite."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(is_plain_json, value.values()))
    if kind is list:
        return all(map(is_plain_json, value))
    if kind is float:
        return math.isfinite(value)
    return kind is not bytes and kind in _LEAVES


# -- into boxes ----------------------------------------------------------------------------------------------


def _moment(value: datetime | time) -> Any:
    """ISO text; with fold and the zone's key where there are any."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    if value.tzinfo is not None and zone is None and value.utcoffset() is None:
        raise errors.SerializationError(
            f"{value!r} has a zone without an offset: use a ZoneInfo or a timezone"
        )
    text = value.isoformat() if zone is None else value.replace(tzinfo=None).isoformat()
    return [text, value.fold, zone] if value.fold or zone else text


def _enum(value: Enum) -> list[Any]:
    """Its class, and the member's name; combinations of flags have none, so their value."""
    kind = type(value)
    known = not isinstance(value, Flag) or value.name in kind.__members__
    return [_models.title(kind), value.name if known else value.value]


_SIMPLE: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    bytearray: ("bytearray", bytes),
    tuple: ("tuple", list),
    set: ("set", list),
    frozenset: ("frozenset", list),
    datetime: ("datetime", _moment),
    date: ("date", date.isoformat),
    time: ("time", _moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", lambda value: value.hex),
}


class Boxer:
    """Puts into boxes what is not plain.

    Args:
        models: the classes that can be found again.
        box: makes a box of the format.
        json: the format has neither bytes, nor infinity, nor keys that are not text.
        found_by_type: readers name the type, so classes need not be found by their names.
        all_texts: look at each text and each int, since one of them was refused by the format.
    """

    def __init__(
        self, models: Models, box: Box, json: bool, found_by_type: bool, all_texts: bool = False
    ) -> None:
        self._models = models
        self._box = box
        self._json = json
        self._found_by_type = found_by_type
        leaves = _LEAVES - {bytes, float} if json else _LEAVES
        self._leaves = leaves - {str, int} if all_texts else leaves  # not looked at
        self._keys = frozenset({str}) if json else _LEAVES  # of a map of the format

    def put(self, value: Any) -> Any:
        """`value` in plain values and boxes.

        Raises:
            SerializationError: it has something that would not come back.
        """
        kind = type(value)
        if kind in self._leaves:
            return value
        if kind is dict:
            return self._dict(value)
        if kind is list:
            leaves, put = self._leaves, self.put
            return [item if type(item) in leaves else put(item) for item in value]
        if kind in _LEAVES:
            return self._leaf(value, kind)
        simple = _SIMPLE.get(kind)
        if simple is not None:
            name, payload = simple
            return self._box(name, self.put(payload(value)))
        return self._model(value, kind)

    def _leaf(self, value: Any, kind: type) -> Any:
        """A str, int, float or bytes that the format may not take."""
        if kind is str:
            return (
                value
                if _has_utf8(value)
                else self._box("str", self.put(value.encode("utf-8", "surrogatepass")))
            )
        if kind is int:
            return value if -(2**63) <= value < 2**64 else self._box("int", hex(value))
        if kind is bytes:
            return self._box("bytes", base64.b64encode(value).decode())
        return value if math.isfinite(value) else self._box("float", repr(value))

    def _dict(self, value: dict[Any, Any]) -> Any:
        """A map if its keys are plain, else a box of keys and values in turn."""
        leaves, put = self._leaves, self.put
        items = [item if type(item) in leaves else put(item) for item in value.values()]
        keys = [key if type(key) in leaves else put(key) for key in value]
        if self._keys.issuperset(map(type, keys)) and not (self._json and BOX_KEY in value):
            return dict(zip(keys, items, strict=True))
        return self._box("dict", [each for pair in zip(keys, items, strict=True) for each in pair])

    def _model(self, value: Any, kind: type) -> Any:
        """An instance of one of the application's classes."""
        if not _models.is_model(kind):
            raise errors.SerializationError(_no_form(kind))
        self._models.check(kind, self._found_by_type)
        if isinstance(value, Enum):
            return self._box("enum", self.put(_enum(value)))
        return self._box("model", [_models.title(kind), self.put(_models.fields_of(value))])


# A dict of JSON with this one key is a box; a real one with that key is put into a box itself.
BOX_KEY: Final = "@"


def _has_utf8(text: str) -> bool:
    """Lone surrogates have no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_form(kind: type) -> str:
    """The message for a type that nothing is known about."""
    base = next((each for each in kind.__mro__[1:-1] if each in _PLAIN or each in _SIMPLE), None)
    if base is not None:
        return f"{_models.title(kind)} would come back as a {base.__name__}: cache {base.__name__}(value)"
    return (
        f"{_models.title(kind)} has no form in MessagePack or JSON: cache plain values, a dataclass, a msgspec "
        'Struct or a pydantic model, or choose serializer="pickle" with a secret'
    )


# -- out of boxes --------------------------------------------------------------------------------------------


def _at(payload: Any, kind: Any) -> Any:
    """A datetime or a time."""
    if type(payload) is str:
        return kind.fromisoformat(payload)
    text, fold, zone = payload
    value = kind.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


_OPEN: Final[dict[str, Callable[[Any], Any]]] = {
    "int": lambda payload: int(payload, 16),
    "str": lambda payload: payload.decode("utf-8", "surrogatepass"),
    "float": float,
    "bytes": base64.b64decode,
    "bytearray": bytearray,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda payload: dict(zip(payload[::2], payload[1::2], strict=True)),
    "datetime": lambda payload: _at(payload, datetime),
    "date": date.fromisoformat,
    "time": lambda payload: _at(payload, time),
    "timedelta": lambda payload: timedelta(*payload),
    "decimal": Decimal,
    "uuid": UUID,
}


class Opener:
    """Takes values out of their boxes.

    Args:
        models: the classes that can be found.
        wanted: classes that the reader names, by their title; they are found first. None: the reader names no type,
            and a class that is not found is an error. Otherwise its fields are given for msgspec to build from.
    """

    def __init__(self, models: Models, wanted: dict[str, type] | None) -> None:
        self._models = models
        self._wanted = wanted

    def open(self, name: str, payload: Any) -> Any:
        """What is in a box; the payload's own boxes are open.

        Raises:
            UnreadableValueError: a class that is not found.
            Exception: a payload that is not what the box's name says.
        """
        simple = _OPEN.get(name)
        if simple is not None:
            return simple(payload)
        if name not in {"enum", "model"}:
            raise errors.UnreadableValueError(f"box {name!r} is not known here: a newer version wrote it?")
        called, content = payload
        kind = self._find(called)
        if kind is None:
            return content
        if name == "model":
            return _models.build(kind, content)
        if not issubclass(kind, Enum):
            raise errors.UnreadableValueError(f"{called} is no Enum any more")
        return kind[content] if type(content) is str and content in kind.__members__ else kind(content)

    def _find(self, called: str) -> type | None:
        kind = None if self._wanted is None else self._wanted.get(called)
        kind = kind or self._models.find(called)
        if kind is None and self._wanted is None:
            raise errors.UnreadableValueError(
                f"no class {called} is known here: import its module, register it with types=[...], "
                "or name it with type="
            )
        return kind
