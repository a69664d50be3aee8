"""Classes of the application: what is recorded about an instance, and how it is built again.

An instance is recorded as `module:qualname` with its fields. The name is looked up among registered classes and
in modules that are already imported, through their dictionaries: stored bytes never cause an import, a module's
`__getattr__`, or a call of anything but a dataclass, msgspec Struct, NamedTuple, pydantic model or Enum.

msgspec (or pydantic) checks the fields by the class's annotations as they are now and makes the instance; then
each field is set to the very value that was recorded, so that neither a conversion, nor `__post_init__`, nor a
validator that is applied twice changes what comes back.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import msgspec
import msgspec.inspect

from gravito import errors

__all__ = ["Models", "build", "converted", "fields_of", "hook", "is_model", "title"]

Fields = dict[str, Any]

# Not read from text: a field that holds a str gets a str, also where its annotation would take a date from one.
_EXACT: Final = (
    bytes, bytearray, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, Decimal, UUID,
)  # fmt: skip
_INSTANCES: Final = (
    msgspec.inspect.StructType, msgspec.inspect.DataclassType, msgspec.inspect.NamedTupleType,
)  # fmt: skip
_BUILTINS: Final = (dict, list, set, frozenset, str, bytes, bytearray, int, float)


def title(kind: type) -> str:
    """`module:qualname`, under which a class is recorded."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_class(found: Any) -> bool:
    """Without asking the object itself: a lazy proxy would run the application's code to answer."""
    return issubclass(type(found), type)


def is_pydantic(kind: type) -> bool:
    """Whether it is a model's class. pydantic is not imported for it: without it there are no models."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and issubclass(kind, base)


def _is_namedtuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_make")


def is_model(kind: Any) -> bool:
    """Whether it is a class that can be recorded by name."""
    if not _is_class(kind):
        return False
    if issubclass(kind, Enum | msgspec.Struct) or _is_namedtuple(kind) or is_pydantic(kind):
        return True
    return not issubclass(kind, _BUILTINS) and dataclasses.is_dataclass(kind)


class Models:
    """The classes that one codec knows by name.

    Args:
        registered: classes that are found by their name wherever they are defined.

    Raises:
        ConfigurationError: something else than a class of the kinds above.
    """

    def __init__(self, registered: Iterable[type] = ()) -> None:
        self._registered: dict[str, type] = {}
        self._found: set[type] = set()  # that find() gives back by their titles
        self._described: set[type] = set()  # that msgspec can build
        for kind in registered:
            if not is_model(kind):
                raise errors.ConfigurationError(
                    f"types: {kind!r} is not a dataclass, msgspec Struct, NamedTuple, pydantic model or Enum",
                    field="types",
                    value=kind,
                )
            self._registered[title(kind)] = kind

    def check(self, kind: type, found_by_type: bool) -> None:
        """Refuse a class whose instances no reader could build.

        Raises:
            SerializationError: it cannot be found by its name, unless readers name it (`found_by_type`), or
                msgspec cannot describe its fields.
        """
        if kind not in self._found and not found_by_type:
            if self.find(title(kind)) is not kind:
                raise errors.SerializationError(
                    f"readers cannot find {title(kind)}: define the class at the top of a module, "
                    "register it with types=[...], or name it with type="
                )
            self._found.add(kind)
        if kind not in self._described:
            _describe(kind)
            self._described.add(kind)

    def find(self, name: str) -> type | None:
        """The class that is recorded as `name`, or None."""
        registered = self._registered.get(name)
        if registered is not None:
            return registered
        module, _, qualname = name.partition(":")
        holder: Any = sys.modules.get(module)
        if holder is None or not qualname:
            return None
        # never getattr: a module's own __getattr__ may import
        names: Mapping[str, Any] = object.__getattribute__(holder, "__dict__")
        found: Any = None
        for part in qualname.split("."):
            found = names.get(part)
            if not _is_class(found):
                return None
            names = found.__dict__
        return found if is_model(found) and title(found) == name else None


def _describe(kind: type) -> None:
    """Refuse a class whose annotations msgspec cannot build from."""
    if issubclass(kind, Enum) or is_pydantic(kind):
        return
    try:
        msgspec.msgpack.Decoder(kind)
    except Exception as error:
        raise errors.SerializationError(
            f"{title(kind)} could not be built again: {error}; "
            "change the annotation, use a pydantic model, or cache what describes it"
        ) from error


def _names_of(kind: type) -> Iterable[str]:
    """The attributes that are recorded, of a class that is no pydantic model."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if issubclass(kind, tuple):
        names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # a NamedTuple
        return names
    described: Any = kind
    return [field.name for field in dataclasses.fields(described)]


def fields_of(value: Any) -> Fields:
    """What is recorded of an instance (no Enum), by attribute. What was never set is left out."""
    kind = type(value)
    if is_pydantic(kind):
        return _pydantic_fields(value)
    fields = {name: getattr(value, name, msgspec.UNSET) for name in _names_of(kind)}
    return {name: item for name, item in fields.items() if item is not msgspec.UNSET}


def build(kind: type, fields: Fields) -> Any:
    """An instance with these fields.

    Raises:
        Exception: they are not what the class's annotations say; msgspec's or pydantic's error.
    """
    if is_pydantic(kind):
        return _build_pydantic(kind, fields)
    names = _names_of(kind)
    plain = dict(fields)
    for name in _fields_of_enums(kind):
        if name in plain:
            plain[name] = _without_enums(plain[name])
    if issubclass(kind, tuple):
        msgspec.convert([plain[name] for name in names], kind, **_CONVERT)
        return tuple.__new__(kind, [fields[name] for name in names])
    # as attributes, since a Struct's tag, renaming and layout are about its encoded form
    built = msgspec.convert(SimpleNamespace(**plain), kind, **_CONVERT)
    put: Callable[[Any, str, Any], None] = object.__setattr__
    if issubclass(kind, msgspec.Struct):
        put = msgspec.structs.force_setattr
    for name in names:
        if name in fields and getattr(built, name, None) is not fields[name]:
            put(built, name, fields[name])
    return built


def converted(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` says, built by msgspec from what it holds.

    Raises:
        Exception: it is something else; msgspec's or pydantic's error.
    """
    try:
        return msgspec.convert(value, annotation, from_attributes=True, dec_hook=hook)
    except msgspec.ValidationError:
        plain = _without_enums(value)
        if plain is value:
            raise
        return msgspec.convert(plain, annotation, from_attributes=True, dec_hook=hook)


def hook(annotation: Any, value: Any) -> Any:
    """msgspec's `dec_hook`: classes that it does not know itself."""
    if isinstance(value, annotation):
        return value
    if is_pydantic(annotation):
        return annotation.model_validate(value, from_attributes=True, by_name=True)
    raise NotImplementedError(f"{annotation!r} cannot be built from {type(value).__name__}")


_CONVERT: Final[Mapping[str, Any]] = {
    "builtin_types": _EXACT,
    "from_attributes": True,
    "dec_hook": hook,
}


@functools.lru_cache(maxsize=1024)
def _fields_of_enums(kind: type) -> tuple[str, ...]:
    """The fields whose annotations name an Enum: msgspec takes its members' values there, not the members."""
    info: Any = msgspec.inspect.type_info(kind)
    return tuple(field.name for field in info.fields if _names_enum(field.type))


def _names_enum(info: Any) -> bool:
    if isinstance(info, _INSTANCES):
        return False  # it comes as an instance
    if isinstance(info, msgspec.inspect.EnumType | msgspec.inspect.TypedDictType):
        return True
    parts = [getattr(info, name) for name in info.__struct_fields__]
    nested = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
    return any(_names_enum(each) for each in nested if isinstance(each, msgspec.inspect.Type))


def _without_enums(value: Any) -> Any:
    """`value` with the values of its Enum members, as msgspec takes them; itself if it has none."""
    if isinstance(value, Enum):
        return value.value
    kind = type(value)
    if kind in {list, tuple, set, frozenset}:
        if any(changed is not item for item, changed in ((item, _without_enums(item)) for item in value)):
            return kind([_without_enums(item) for item in value])
    elif kind is dict:
        return {_without_enums(key): _without_enums(item) for key, item in value.items()}
    return value


# -- pydantic ------------------------------------------------------------------------------------------------

# Beside the fields, under names that no field can have: extra values, private attributes, and which fields were set.
_EXTRA: Final = "+extra"
_PRIVATE: Final = "+private"
_SET: Final = "+set"


def _pydantic_fields(value: Any) -> Fields:
    """Fields, and what else makes two models equal. Cached properties are not taken."""
    held = value.__dict__
    fields = {name: held[name] for name in type(value).model_fields if name in held}
    if len(value.model_fields_set) != len(fields):
        fields[_SET] = sorted(value.model_fields_set)
    if value.model_extra:
        fields[_EXTRA] = dict(value.model_extra)
    if value.__pydantic_private__:
        fields[_PRIVATE] = dict(value.__pydantic_private__)
    return fields


def _build_pydantic(kind: Any, recorded: Fields) -> Any:
    fields = {name: item for name, item in recorded.items() if name[:1] != "+"}
    if getattr(kind, "__pydantic_root_model__", False):
        built = kind.model_validate(fields["root"])
    else:
        given = {**fields, **recorded.get(_EXTRA, {})}
        # by name: what is recorded are attributes, whatever aliases the model reads
        built = kind.model_validate(given, by_name=True, by_alias=False)
    held = built.__dict__
    for name, item in fields.items():
        if name in held and held[name] is not item:
            held[name] = item
    if _SET in recorded:
        built.model_fields_set.intersection_update(recorded[_SET])
    for name, item in recorded.get(_PRIVATE, {}).items():
        if name in kind.__private_attributes__:
            setattr(built, name, item)
    return built
