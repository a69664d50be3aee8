"""Values to bytes and back, for the cache.

The first byte says how the rest is to be read, so a reader needs no setting of the writer's::

    bits 0-2   serializer: 0 MessagePack, 1 JSON, 2 pickle, 7 one of the application's
    bit  3     there are boxes: values that the format has no form for (_faithful.py)
    bits 4-7   compression: 0 none, 1 zlib, 2 gzip, 3 lzma, 4 zstd

pickle has a signature behind it: HMAC-SHA256 over the key, this byte and the rest. A serializer of the
application has its name there, behind one byte of length. Then come the value's bytes, compressed or not.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from gravito import errors
from gravito.stasis._annotations import check_type
from gravito.stasis._compression import NAMES, announced, compress, compression_id, decompress
from gravito.stasis._faithful import is_plain
from gravito.stasis._models import Models
from gravito.stasis._serializers import (
    REFUSALS,
    JsonFormat,
    MsgpackFormat,
    OwnFormat,
    PickleFormat,
    Serializer,
)

__all__ = ["LATER", "Codec"]

_MSGPACK: Final = 0
_JSON: Final = 1
_PICKLE: Final = 2
_OWN: Final = 7
_BOXED: Final = 0x08
_USUAL: Final = frozenset({_MSGPACK, _MSGPACK | _BOXED})
_NUMBERS: Final = {"msgpack": _MSGPACK, "json": _JSON, "pickle": _PICKLE}
_PLAIN: Final = bytes([_MSGPACK])
_FLAGS: Final = tuple(bytes([flags]) for flags in range(256))
_SECRET_BYTES: Final = 16
_MAC: Final = 32
LATER: Final = object()  # in place of a value: it is not to be had without an await
_LARGE: Final = 128 * 1024  # bytes; compressing more takes longer than handing it to a thread
_LONG: Final = 256 * 1024  # the same of decompressing, by the length that is announced
_MOST: Final = 2**32 - 1  # what four bytes of length can say

_Secrets = str | bytes | Iterable[str | bytes] | None
_Format = MsgpackFormat | JsonFormat | PickleFormat | OwnFormat


class Codec:
    """Turns values into self-describing bytes and back. It has no state but its settings.

    A value comes back equal and of the same type: None, bool, int of any size, float, str, bytes, bytearray,
    list, tuple, set, frozenset, dict with any of these as keys, datetime, date, time, timedelta, Decimal, UUID,
    Enum, dataclass, NamedTuple, msgspec Struct and pydantic (2.11 or newer) model, nested in each other. A
    datetime keeps its ZoneInfo or its offset. Instances of subclasses of built-in types are refused. Classes are
    recorded by name and found by it among imported modules only.

    Args:
        serializer: "msgpack", "json", "pickle", or an object as `Serializer` describes.
        compression: None, "zlib", "gzip", "lzma", or "zstd" (with the extra of that name). It is used where it
            makes the value smaller.
        compress_over: bytes; what is not longer is not compressed.
        max_bytes: most bytes of one value, before compressing and when decompressed.
        secret: for pickle, which needs it: at least 16 bytes, or several secrets. The first signs, all are
            accepted, so that a secret can be replaced.
        types: classes to be found by name although they are not at the top of a module.

    Raises:
        ConfigurationError: a setting that cannot be used; never shows a secret.
    """

    def __init__(
        self,
        serializer: str | Serializer = "msgpack",
        compression: str | None = None,
        *,
        compress_over: int = 1024,
        max_bytes: int = 64 * 1024 * 1024,
        secret: _Secrets = None,
        types: Iterable[type] = (),
    ) -> None:
        self._compression = compression_id(compression)
        self.compresses = self._compression != 0  # then `encode_apart` may be worth its await
        self._compress_over = _size("compress_over", compress_over, 0)
        self._max_bytes = _size("max_bytes", max_bytes, 1)
        self._number, self._name = _which(serializer)
        self._secrets = _secrets(secret, self._number == _PICKLE)
        models = Models(types)
        msgpack = MsgpackFormat(models)
        self._formats: dict[int, _Format] = {_MSGPACK: msgpack, _JSON: JsonFormat(models)}
        if self._number == _PICKLE:
            self._formats[_PICKLE] = PickleFormat()
        elif not isinstance(serializer, str):
            self._formats[_OWN] = OwnFormat(serializer)
        self._dumps = self._formats[self._number].dumps
        self._read = msgpack.read  # the usual way, without a look-up
        # the same of writing
        self._quick = msgpack.encode if self._number == _MSGPACK and not self.compresses else None
        name = self._name.encode()
        self._own_head = bytes([len(name)]) + name

    def __repr__(self) -> str:
        over = f", {NAMES[self._compression]} over {self._compress_over} bytes" if self._compression else ""
        return f"<Codec {self._name}{over}>"

    def encode(self, value: Any, key: str, type: Any = None) -> bytes:
        """`value` as bytes.

        Args:
            value: what to store.
            key: the entry's full name. It is part of pickle's signature, and named in errors.
            type: what readers will name. Then classes need not be found by their names.

        Raises:
            SerializationError: the value would not come back as it is, or is too large. Names the key, the type
                and what to do.
        """
        if self._quick is not None:
            try:
                data = self._quick(value)
                if is_plain(value) and len(data) < self._max_bytes:
                    return b"".join((_PLAIN, data))
            except (*REFUSALS, RecursionError):
                pass  # it is not plain
        return self._packed(*self._dumped(value, key, type), key)

    async def encode_apart(self, value: Any, key: str, type: Any = None) -> bytes:
        """As `encode`; a large value is compressed in a thread, which leaves the event loop to others meanwhile."""
        data, flags = self._dumped(value, key, type)
        if len(data) > _LARGE and self._compression:
            return await asyncio.to_thread(self._packed, data, flags, key)
        return self._packed(data, flags, key)

    def _dumped(self, value: Any, key: str, type: Any) -> tuple[bytes, int]:
        """What the serializer makes of it, and its flags."""
        try:
            data, boxed = self._dumps(value, type is not None)
        except errors.SerializationError as error:
            raise errors.SerializationError(f"{_about(key, value)}: {error}") from error
        except RecursionError as error:
            raise errors.SerializationError(
                f"{_about(key, value)}: it contains itself, or is nested too deeply"
            ) from error
        except Exception as error:  # a serializer of one's own may raise anything
            raise errors.SerializationError(
                f"{_about(key, value)}: {error!r} in serializer {self._name}"
            ) from error
        size = len(data)
        if size > self._max_bytes:
            raise errors.SerializationError(
                f"{_about(key, value)}: {size} bytes, more than max_bytes={self._max_bytes}: "
                "cache less of it, or raise the limit"
            )
        return data, self._number | _BOXED if boxed else self._number

    def _packed(self, data: bytes, flags: int, key: str) -> bytes:
        """Compressed and signed, as the settings say."""
        size = len(data)
        if size > self._compress_over and self._compression:
            smaller = compress(data, self._compression)
            if len(smaller) < size:
                data, flags = smaller, flags | self._compression << 4
        if self._number < _PICKLE:
            return _FLAGS[flags] + data
        if self._number == _OWN:
            return _FLAGS[flags] + self._own_head + data
        return _FLAGS[flags] + _signature(self._secrets[0], key, flags, data) + data

    def decode(self, body: bytes | memoryview, key: str, type: Any = None, at: int = 0) -> Any:
        """The value in `body`.

        Args:
            body: what `encode` gave.
            key: the name that it was encoded for.
            type: a class or annotation that the value must have. It is built and checked by msgspec or pydantic,
                and wins over what is recorded.
            at: how many bytes in front of it are something else.

        Raises:
            UnreadableValueError: for the cache a miss. The message says why, and what to do.
            ConfigurationError: the type is none.
        """
        return self.decode_now(body, key, type, at, _MOST)

    def decode_now(
        self, body: bytes | memoryview, key: str, type: Any = None, at: int = 0, most: int = _LONG
    ) -> Any:
        """As `decode`; LATER, and nothing is decompressed, if it would be more than `most` bytes."""
        try:
            flags = body[at]
            if type is None and flags in _USUAL:
                return self._read(body[at + 1 :])
            packed: bytes | memoryview = self._unsigned(flags, memoryview(body)[at + 1 :], key)
            if flags >> 4:
                if announced(packed) > most:
                    return LATER
                packed = decompress(packed, flags >> 4, self._max_bytes)
            return self._formats[flags & 7].loads(packed, bool(flags & _BOXED), type)
        except Exception as error:  # the bytes may be anybody's: whatever they cause is a miss
            check_type(type)
            raise _unreadable(key, error) from error

    def decode_all(self, bodies: Sequence[Any], at: int) -> list[Any] | None:
        """The values in several usual bodies; None if one of them has to be looked at by itself."""
        try:  # each look at all of them is one call
            if _USUAL.issuperset(map(itemgetter(at), bodies)):
                return [*map(self._read, map(itemgetter(slice(at + 1, None)), bodies))]
        except Exception:  # the bytes may be anybody's; `decode` says of which, and why
            pass
        return None

    async def decode_apart(self, body: bytes | memoryview, key: str, type: Any = None, at: int = 0) -> Any:
        """As `decode`; a large value is decompressed in a thread, which leaves the event loop to others meanwhile."""
        value = self.decode_now(body, key, type, at)
        if value is not LATER:
            return value
        try:
            flags = body[at]
            packed = self._unsigned(flags, memoryview(body)[at + 1 :], key)
            data = await asyncio.to_thread(decompress, packed, flags >> 4, self._max_bytes)
            return self._formats[flags & 7].loads(data, bool(flags & _BOXED), type)
        except Exception as error:  # as above
            check_type(type)
            raise _unreadable(key, error) from error

    def _unsigned(self, flags: int, data: memoryview, key: str) -> memoryview:
        """What the serializer, or the compressor, is to read."""
        number = flags & 7
        if number not in self._formats:
            raise errors.UnreadableValueError(f"this cache does not read {_writer(number)}")
        if number == _PICKLE:
            return self._verified(flags, data, key)
        if number == _OWN:
            head = len(self._own_head)
            if data[:head] != self._own_head:
                raise errors.UnreadableValueError(f"it was not written by serializer {self._name!r}")
            return data[head:]
        return data

    def _verified(self, flags: int, data: memoryview, key: str) -> memoryview:
        """What stands behind a signature that one of the secrets made. Nothing else of the bytes is looked at."""
        signature, rest = bytes(data[:_MAC]), data[_MAC:]
        good = [
            hmac.compare_digest(signature, _signature(secret, key, flags, rest)) for secret in self._secrets
        ]
        if not any(good):
            raise errors.UnreadableValueError(
                "its signature was made with another secret, or for another key"
            )
        return rest


def _signature(secret: bytes, key: str, flags: int, data: bytes | memoryview) -> bytes:
    """HMAC-SHA256. The key's length comes first, so that no byte can pass from the key to what follows."""
    name = key.encode("utf-8", "surrogatepass")
    return hmac.digest(secret, b"".join((b"%d:" % len(name), name, _FLAGS[flags], data)), "sha256")


def _unreadable(key: str, error: Exception) -> errors.UnreadableValueError:
    return errors.UnreadableValueError(f"{key!r} cannot be read: {_why(error)}")


def _about(key: str, value: Any) -> str:
    kind = value.__class__
    return f"{key!r}: a value of type {kind.__module__}.{kind.__qualname__} cannot be stored"


def _why(error: Exception) -> str:
    """The reason in a few words; the error itself is the cause of the one that is raised."""
    return (
        str(error) if isinstance(error, errors.UnreadableValueError) else f"{type(error).__name__}: {error}"
    )


def _writer(number: int) -> str:
    if number == _PICKLE:
        return 'pickle: that takes serializer="pickle" and the secret'
    return "what another serializer wrote" if number == _OWN else f"format {number}"


def _which(serializer: Any) -> tuple[int, str]:
    """The number and the name of a serializer."""
    if isinstance(serializer, str) and serializer in _NUMBERS:
        return _NUMBERS[serializer], serializer
    name = getattr(serializer, "name", None)
    own = not isinstance(serializer, str) and isinstance(serializer, Serializer)
    if own and isinstance(name, str) and 0 < len(name.encode()) < 256:
        return _OWN, name
    raise errors.ConfigurationError(
        f'serializer {serializer!r} is not known: use "msgpack", "json", "pickle", '
        "or an object with name (1 to 255 bytes), dumps and loads",
        field="serializer",
        value=serializer,
        allowed=tuple(_NUMBERS),
    )


def _size(field: str, value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST:
        raise errors.ConfigurationError(
            f"{field} {value!r}: give a number of bytes from {least} to {_MOST}", field=field, value=value
        )
    return value


def _secrets(secret: _Secrets, needed: bool) -> tuple[bytes, ...]:
    """The secrets as bytes, the one that signs first."""
    if not needed:
        if secret is not None:
            raise errors.ConfigurationError('secret is only used with serializer="pickle"', field="secret")
        return ()
    given = [secret] if isinstance(secret, str | bytes) else list(secret or ())
    secrets = tuple(each.encode() if isinstance(each, str) else each for each in given)
    if not secrets or not all(isinstance(each, bytes) and len(each) >= _SECRET_BYTES for each in secrets):
        raise errors.ConfigurationError(
            f'serializer="pickle" needs a secret of at least {_SECRET_BYTES} bytes, or several of them: '
            "reading a pickle runs what it says, so only what was signed is read",
            field="secret",
        )
    return secrets
