"""Serializers: a value to bytes and back, faithful to types. None of them knows keys or compression."""

from __future__ import annotations

import pickle
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from gravito import errors
from gravito.stasis import _models
from gravito.stasis._annotations import classes_in, fits
from gravito.stasis._faithful import BOX_KEY, BOXES, Boxer, Opener, is_plain, is_plain_json
from gravito.stasis._models import Models

__all__ = ["JsonFormat", "MsgpackFormat", "PickleFormat", "Serializer", "as_type"]

# What msgspec raises at values that it cannot encode; a ValueError is an int or a text.
REFUSALS: Final = (TypeError, OverflowError, ValueError)
_CODES: Final = {name: code for code, name in enumerate(BOXES, 1)}


@runtime_checkable
class Serializer(Protocol):
    """A serializer of one's own: what `loads` gives must equal what `dumps` took, with its type.

    `name` is stored with each value, so that a reader with another serializer sees a miss and not nonsense.
    """

    name: str

    def dumps(self, value: Any, /) -> bytes:
        """`value` as bytes; any exception means that it cannot be stored."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """The value of what `dumps` gave; any exception means a miss."""
        ...


def as_type(value: Any, annotation: Any) -> Any:
    """`value` itself if it is what `annotation` says, else what msgspec or pydantic builds from it.

    Raises:
        Exception: it is something else.
    """
    return value if fits(value, annotation) else _models.converted(value, annotation)


def _wanted(annotation: Any) -> dict[str, type]:
    return {_models.title(kind): kind for kind in classes_in(annotation)}


def _boxers(models: Models, box: Any, json: bool) -> tuple[tuple[Boxer, Boxer], ...]:
    """By whether readers name the type; each once for usual texts and ints, and once for all."""
    return tuple(
        (Boxer(models, box, json, by_type), Boxer(models, box, json, by_type, all_texts=True))
        for by_type in (False, True)
    )


def _boxed(value: Any, encode: Any, boxers: tuple[Boxer, Boxer]) -> bytes:
    """`value` with boxes, encoded."""
    usual, thorough = boxers
    data: bytes
    try:
        data = encode(usual.put(value))
    except (OverflowError, ValueError):  # an int or a text that the format does not take
        data = encode(thorough.put(value))
    return data


class MsgpackFormat:
    """MessagePack by msgspec; boxes are extension types."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.encode = msgspec.msgpack.Encoder().encode
        self._boxers = _boxers(models, self._box, json=False)
        self.read = self._decoder(Opener(models, None)).decode  # for readers that name no type
        self._plain_of: dict[Any, Any] = {}  # by the type that readers name
        self._boxed_of: dict[Any, Any] = {}  # likewise

    def dumps(self, value: Any, found_by_type: bool) -> tuple[bytes, bool]:
        """Bytes, and whether there are boxes in them. The plain case first: it costs one call and a look."""
        try:
            data = self.encode(value)
            if is_plain(value):
                return data, False
        except REFUSALS:
            pass  # something in it is not plain
        return _boxed(value, self.encode, self._boxers[found_by_type]), True

    def loads(self, data: bytes | memoryview, boxed: bool, annotation: Any) -> Any:
        """The value, as `annotation` says if that is not None."""
        if annotation is None:
            return self.read(data)
        if not boxed:
            return _kept(self._plain_of, annotation, _typed_msgpack)(data)
        return as_type(_kept(self._boxed_of, annotation, self._boxed_reader)(data), annotation)

    def _boxed_reader(self, annotation: Any) -> Any:
        return self._decoder(Opener(self._models, _wanted(annotation))).decode

    def _box(self, name: str, payload: Any) -> msgspec.msgpack.Ext:
        return msgspec.msgpack.Ext(_CODES[name], self.encode(payload))

    def _decoder(self, opener: Opener) -> msgspec.msgpack.Decoder[Any]:
        def open_ext(code: int, payload: memoryview) -> Any:
            name = BOXES[code - 1] if 0 < code <= len(BOXES) else str(code)
            return opener.open(name, decode(payload))

        decoder = msgspec.msgpack.Decoder(ext_hook=open_ext)
        decode = decoder.decode
        return decoder


class JsonFormat:
    """JSON by msgspec, readable by people; a box is a dict with one key, `{"@": [name, payload]}`."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode
        self._boxers = _boxers(models, self._box, json=True)
        self._opener = Opener(models, None)
        self._plain_of: dict[Any, Any] = {}  # by the type that readers name
        self._openers: dict[Any, Any] = {}  # likewise

    def dumps(self, value: Any, found_by_type: bool) -> tuple[bytes, bool]:
        """Bytes, and whether there are boxes in them."""
        try:
            data = self._encode(value)
            if is_plain_json(value):
                return data, False
        except REFUSALS:
            pass  # something in it is not plain
        return _boxed(value, self._encode, self._boxers[found_by_type]), True

    def loads(self, data: bytes | memoryview, boxed: bool, annotation: Any) -> Any:
        """The value, as `annotation` says if that is not None."""
        if annotation is None:
            value = self._decode(data)
            return _opened(value, self._opener) if boxed else value
        if not boxed:
            return _kept(self._plain_of, annotation, _typed_json)(data)
        opener = _kept(self._openers, annotation, lambda each: Opener(self._models, _wanted(each)))
        return as_type(_opened(self._decode(data), opener), annotation)

    @staticmethod
    def _box(name: str, payload: Any) -> Any:
        return {BOX_KEY: [name, payload]}


def _opened(value: Any, opener: Opener) -> Any:
    """A decoded value with its boxes open."""
    kind = type(value)
    if kind is list:
        return [_opened(item, opener) for item in value]
    if kind is not dict:
        return value
    if BOX_KEY in value:
        name, payload = value[BOX_KEY]
        return opener.open(name, _opened(payload, opener))
    return {key: _opened(item, opener) for key, item in value.items()}


def _typed_msgpack(annotation: Any) -> Any:
    return msgspec.msgpack.Decoder(annotation, dec_hook=_models.hook).decode


def _typed_json(annotation: Any) -> Any:
    return msgspec.json.Decoder(annotation, dec_hook=_models.hook).decode


def _kept(kept: dict[Any, Any], annotation: Any, make: Any) -> Any:
    """What `make` gives for an annotation, made once; an annotation that has no hash is not kept."""
    try:
        found = kept.get(annotation)
    except TypeError:
        return make(annotation)
    if found is None:
        found = kept[annotation] = make(annotation)
    return found


class PickleFormat:
    """pickle. It must see only bytes whose signature was checked: reading runs whatever they say."""

    def dumps(self, value: Any, found_by_type: bool) -> tuple[bytes, bool]:
        """Bytes; pickle has no boxes."""
        try:
            return pickle.dumps(value, protocol=5), False
        except Exception as error:  # pickle raises what it likes
            raise errors.SerializationError(
                f"cannot be pickled: {error}; cache plain values or a dataclass"
            ) from error

    def loads(self, data: bytes | memoryview, boxed: bool, annotation: Any) -> Any:
        """The value, as `annotation` says if that is not None."""
        value = pickle.loads(data)  # noqa: S301  # the codec checks the signature first
        return value if annotation is None else as_type(value, annotation)


class OwnFormat:
    """A serializer that the application brought."""

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer

    def dumps(self, value: Any, found_by_type: bool) -> tuple[bytes, bool]:
        """Bytes; what is in them is the serializer's matter."""
        data = self._serializer.dumps(value)
        if not isinstance(data, bytes):
            raise errors.SerializationError(
                f"serializer {self._serializer.name!r} gave {type(data).__name__} instead of bytes"
            )
        return data, False

    def loads(self, data: bytes | memoryview, boxed: bool, annotation: Any) -> Any:
        """The value, as `annotation` says if that is not None."""
        value = self._serializer.loads(bytes(data))
        return value if annotation is None else as_type(value, annotation)
