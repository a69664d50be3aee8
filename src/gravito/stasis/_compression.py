"""Compressors, with what they may produce bounded before and while they decompress.

Compressed bytes open with the length of what they hold (4 bytes, big-endian). A length over the limit is refused
before anything is decompressed, and decompressing stops at the length that was announced.
"""

from __future__ import annotations

import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gravito import errors

__all__ = ["NAMES", "announced", "compress", "compression_id", "decompress"]

# Somebody waits for each value, and small ones are compressed on the event loop: levels are chosen for speed.
_LEVEL: Final = 3
_LZMA_PRESET: Final = 1
_LZMA_MEMORY: Final = 128 * 1024 * 1024  # for the decoder; a stream may ask for gigabytes
_ZSTD_WINDOW: Final = 32 * 1024 * 1024  # likewise
_GZIP: Final = zlib.MAX_WBITS | 16

# The order is part of what is stored: a place in it is the number on the wire.
NAMES: Final = (None, "zlib", "gzip", "lzma", "zstd")


class _Compressor(NamedTuple):
    compress: Callable[[bytes], bytes]
    decompress: Callable[[memoryview, int], bytes]  # what is compressed, and its announced length


def _inflate(window: int) -> Callable[[memoryview, int], bytes]:
    def decompress(data: memoryview, length: int) -> bytes:
        inflater = zlib.decompressobj(window)
        # one byte more, so that the end of the stream is read too
        out = inflater.decompress(data, length + 1)
        return _whole(out, inflater.eof and not inflater.unused_data)

    return decompress


def _deflate(window: int) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, window)
        return deflater.compress(data) + deflater.flush()

    return compress


def _unlzma(data: memoryview, length: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
    out = decompressor.decompress(data, length + 1)
    return _whole(out, decompressor.eof and not decompressor.unused_data)


def _whole(out: bytes, ended: bool) -> bytes:
    if not ended:
        raise errors.UnreadableValueError("the compressed bytes are longer or shorter than they say")
    return out


def _zstd() -> _Compressor | None:
    """The one of the package `zstandard`, if it is installed."""
    try:
        zstandard: Any = importlib.import_module("zstandard")
    except ImportError:
        return None

    def decompress(data: memoryview, length: int) -> bytes:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        with decompressor.stream_reader(data) as reader:
            out: bytes = reader.read(length + 1)
        return out

    def compress(data: bytes) -> bytes:
        out: bytes = zstandard.ZstdCompressor(level=_LEVEL).compress(data)  # one is not for two threads
        return out

    return _Compressor(compress, decompress)


_COMPRESSORS: Final[dict[int, _Compressor | None]] = {
    1: _Compressor(_deflate(zlib.MAX_WBITS), _inflate(zlib.MAX_WBITS)),
    2: _Compressor(_deflate(_GZIP), _inflate(_GZIP)),
    3: _Compressor(lambda data: lzma.compress(data, preset=_LZMA_PRESET), _unlzma),
}


def _compressor(number: int) -> _Compressor | None:
    """The compressor of that number. zstd is looked for when it is first needed."""
    if number == 4 and number not in _COMPRESSORS:
        _COMPRESSORS[number] = _zstd()
    return _COMPRESSORS.get(number)


def compression_id(name: str | None) -> int:
    """The number of a compression, 0 for none.

    Raises:
        ConfigurationError: there is none of that name, or its package is not installed.
    """
    if name not in NAMES:
        known = ", ".join(str(each) for each in NAMES)
        raise errors.ConfigurationError(
            f"compression {name!r} is not known: use one of {known}",
            field="compression",
            value=name,
            allowed=known,
        )
    number = NAMES.index(name)
    if number and _compressor(number) is None:
        raise errors.ConfigurationError(
            'compression "zstd" needs the package zstandard: pip install "gravito[zstd]"',
            field="compression",
            value=name,
        )
    return number


def compress(data: bytes, number: int) -> bytes:
    """`data`, compressed, behind its length."""
    compressor = _compressor(number)
    assert compressor is not None, "compression_id has looked"
    return len(data).to_bytes(4, "big") + compressor.compress(data)


def announced(data: bytes | memoryview) -> int:
    """How many bytes they say to be when decompressed."""
    return int.from_bytes(data[:4], "big")


def decompress(data: bytes | memoryview, number: int, max_bytes: int) -> bytes:
    """What `compress` was given.

    Raises:
        UnreadableValueError: more than `max_bytes`, not what it announces, or a compressor that is not here.
        Exception: bytes that the compressor refuses; its own error.
    """
    compressor = _compressor(number)
    if compressor is None:
        name = NAMES[number] if number < len(NAMES) else f"number {number}"
        raise errors.UnreadableValueError(f"compressed by {name}, which is not installed here")
    length = announced(data)
    if length > max_bytes:
        raise errors.UnreadableValueError(
            f"{length} bytes when decompressed, more than max_bytes={max_bytes}"
        )
    out = compressor.decompress(memoryview(data)[4:], length)
    if len(out) != length:
        raise errors.UnreadableValueError("the compressed bytes are longer or shorter than they say")
    return out
