"""What HTTP says about keeping responses. Pure. See https://www.rfc-editor.org/rfc/rfc9111"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

__all__ = ["Kept", "Rules", "directives", "etag_of", "header", "matches", "names_in"]

Headers = Sequence[tuple[bytes, bytes]]  # as ASGI has them: names in lower case

# What a 304 repeats: https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5
_OF_304: Final = (b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary")
# Of one connection, not of the response.
_HOP_BY_HOP: Final = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer", b"te")
_UNKEPT: Final = ("no-store", "private", "no-cache")
_PERSONAL: Final = frozenset((b"authorization", b"cookie"))  # they say who asks
_NEVER_STALE: Final = ("must-revalidate", "proxy-revalidate")


class Kept(msgspec.Struct):
    """A response, as it is stored."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    etag: bytes
    at: float  # when it was made, by the clock of the process that did; for the header Age only

    @classmethod
    def of(cls, status: int, headers: Headers, body: bytes) -> Kept:
        """A response that was just made. It gets an ETag if it has none."""
        found = [(name, value) for name, value in headers if name not in _HOP_BY_HOP]
        etag = header(found, b"etag")
        if not etag:
            etag = etag_of(body)
            found.append((b"etag", etag))
        if body and header(found, b"content-length") is None:
            found.append((b"content-length", b"%d" % len(body)))
        return cls(status, found, body, etag, time.time())

    def headers_now(self, status: bytes) -> list[tuple[bytes, bytes]]:
        """Its headers as they are sent: with its age, and what the cache did."""
        age = max(0, int(time.time() - self.at))
        return [*self.headers, (b"age", b"%d" % age), (b"cache-status", b"Gravito; " + status)]

    def headers_of_304(self, status: bytes) -> list[tuple[bytes, bytes]]:
        """What goes out in place of it to who has it already."""
        return [
            (name, value)
            for name, value in self.headers_now(status)
            if name in (*_OF_304, b"age", b"cache-status")
        ]


class Rules(msgspec.Struct, frozen=True):
    """Which requests and responses may be kept.

    Args:
        vary: headers of the request, in lower case, that tell responses apart.
        ignore: headers with which a request would not be answered from the cache, and may.
        stale: whether what is kept may be given out past its time.
    """

    vary: tuple[bytes, ...]
    ignore: tuple[bytes, ...]
    stale: bool

    def may_ask(self, method: str, headers: Headers) -> bool:
        """Whether a request may be answered from the cache, and its response kept.

        Who shows who they are gets an answer of their own, unless the header tells responses apart or is said to play
        no part.
        """
        if method not in ("GET", "HEAD") or header(headers, b"range"):
            return False
        if "no-store" in directives(headers):
            return False
        personal = _PERSONAL.difference(self.vary, self.ignore)
        return not any(name in personal for name, _ in headers)

    def lifetime(self, status: int, headers: Headers) -> float | None:
        """Seconds for which a response may be kept: what it says itself, or -1 if it says nothing; None for not at all."""
        said = directives(headers)
        if status != 200 or header(headers, b"set-cookie") or any(name in said for name in _UNKEPT):
            return None
        if self.stale and any(name in said for name in _NEVER_STALE):
            return None
        if not names_in(headers, b"vary") <= set(self.vary):
            return None
        if (header(headers, b"content-type") or b"").startswith(b"text/event-stream"):
            return None
        return _seconds(said, headers)


def _seconds(said: dict[str, str], headers: Headers) -> float | None:
    for name in ("s-maxage", "max-age"):
        if name in said:
            seconds = int(said[name]) if said[name].isdecimal() else 0  # what is no number is stale
            return seconds or None
    expires = header(headers, b"expires")
    if expires is None:
        return -1
    try:
        made = parsedate_to_datetime((header(headers, b"date") or b"").decode("latin-1")).timestamp()
    except (ValueError, TypeError):
        made = time.time()
    try:
        left = parsedate_to_datetime(expires.decode("latin-1")).timestamp() - made
    except (ValueError, TypeError):
        return None  # "0" and the like: past
    return left if left > 0 else None


def header(headers: Headers, name: bytes) -> bytes | None:
    """A header's first value."""
    return next((value for each, value in headers if each == name), None)


def names_in(headers: Headers, name: bytes) -> set[bytes]:
    """The words, in lower case, of a header that lists some."""
    values = b",".join(value for each, value in headers if each == name)
    return {word.strip().lower() for word in values.split(b",") if word.strip()}


def directives(headers: Headers) -> dict[str, str]:
    """Cache-Control, by directive."""
    text = b",".join(value for name, value in headers if name == b"cache-control").decode("latin-1")
    if not text and b"no-cache" in names_in(headers, b"pragma"):
        text = "no-cache"
    parts = (part.strip().partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name}


def etag_of(body: bytes) -> bytes:
    """An ETag of its own for each body."""
    return b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()


def matches(headers: Headers, etag: bytes) -> bool:
    """Whether a request's If-None-Match names the response; weak comparison, as RFC 9110 wants for it."""
    asked = header(headers, b"if-none-match")
    if asked is None:
        return False
    bare = etag.removeprefix(b"W/")
    return asked.strip() == b"*" or any(
        each.strip().removeprefix(b"W/") == bare for each in asked.split(b",")
    )
