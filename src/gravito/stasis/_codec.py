"""Values to bytes and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gravito import errors

__all__ = ["Codec"]


class Codec:
    """Turns values into self-describing bytes and back.

    Args:
        serializer: "msgpack", "json", "pickle", or an object with `name`, `dumps` and `loads`.
        compression: None, "zlib", "gzip", "lzma" or "zstd".
        compress_over: bytes from which compressing is tried.
        max_bytes: most bytes of a value, before compression and after decompression.
        secret: one or several secrets of at least 16 bytes; for pickle only. The first signs, all are tried.
        types: classes that may come back although their module is not where readers find them.
    """

    def __init__(
        self,
        serializer: Any = "msgpack",
        compression: str | None = None,
        *,
        compress_over: int = 1024,
        max_bytes: int = 64 * 1024 * 1024,
        secret: str | bytes | Iterable[str | bytes] | None = None,
        types: Iterable[type] = (),
    ) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: Any, key: str, type: Any = None) -> bytes:
        """`value` as bytes. `type` is what readers will name, if that is known.

        Raises:
            SerializationError: the value would not come back as it is; names key, type and remedy.
        """
        try:
            return b"\0" + msgspec.msgpack.encode(value)
        except Exception as error:
            raise errors.SerializationError(f"{key!r}: {error}") from error

    def decode(self, body: bytes | memoryview, key: str, type: Any = None) -> Any:
        """The value in `body`; with `type`, checked and built by it.

        Raises:
            UnreadableValueError: for the cache a miss; the message says why and what to do.
        """
        try:
            return msgspec.msgpack.decode(body[1:], type=Any if type is None else type)
        except Exception as error:
            raise errors.UnreadableValueError(f"{key!r}: {error}") from error
