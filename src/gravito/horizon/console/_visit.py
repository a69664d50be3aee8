"""One request, as the pages and actions see it: who asks, what was posted, and where the console is mounted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.types import Scope

__all__ = ["THEMES", "Form", "Notice", "Visit", "route_path", "visit_of"]

THEMES: Final = ("auto", "light", "dark")

_LONGEST: Final = 400  # characters of a notice: up to six bytes each in JSON, and a third more in base64
_KEY: Final = "gravito.console"  # of the scope
_SESSION: Final = re.compile(r"[0-9a-f]{32}")


class Notice(msgspec.Struct, frozen=True):
    """What an action tells the page that comes after it."""

    text: str
    kind: Literal["good", "bad"] = "good"

    def sealed(self) -> str:
        """As the value of a cookie; a long text is cut, since browsers throw away cookies of more than 4096 bytes."""
        text = self.text if len(self.text) <= _LONGEST else f"{self.text[: _LONGEST - 3]}..."
        return base64.urlsafe_b64encode(msgspec.json.encode(Notice(text, self.kind))).decode().rstrip("=")

    @classmethod
    def opened(cls, value: str) -> Notice | None:
        """From the value of a cookie; None for what is none."""
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)), type=cls)
        except (ValueError, msgspec.MsgspecError):
            return None


class Form(dict[str, list[str]]):
    """What was posted: all values by name."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Form:
        """From the pairs as they came."""
        form = cls()
        for name, value in pairs:
            form.setdefault(name, []).append(value)
        return form

    def one(self, name: str, default: str = "") -> str:
        """The first value of a name."""
        values = self.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """All values of a name."""
        return self.get(name, [])


@dataclass(slots=True)
class Visit:
    """See the module.

    Args:
        root: the path under which the console is mounted, without a slash at its end.
        path: of this request, below `root`.
        session: a random text of this browser; only it and its cookie know it.
        nonce: what lets a script and a style sheet of this one answer in.
    """

    root: str
    path: str
    session: str
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    fresh: bool = False  # the session began with this request, and has to be put into a cookie
    user: str | None = None  # who asks, where somebody has to say so
    by_header: bool = False  # a program asks: it sent a header that no browser adds by itself
    theme: str = "auto"
    notice: Notice | None = None
    form: Form = field(default_factory=Form)

    def __repr__(self) -> str:
        return f"<Visit {self.path} by {self.user or 'anybody'}>"

    @property
    def csrf(self) -> str:
        """What each change must bring along: derived from the session, so that several consoles agree on it."""
        return hmac.new(self.session.encode(), b"gravito console csrf", hashlib.sha256).hexdigest()

    def url(self, path: str, query: Mapping[str, Any] | None = None, **more: Any) -> str:
        """The address of a page.

        Args:
            path: below the console, from its slash on; quoted here.
            query: parameters, and `more` of them; None and empty texts are left out.
        """
        pairs = {name: value for name, value in {**(query or {}), **more}.items() if value not in (None, "")}
        tail = f"?{urlencode(pairs, doseq=True)}" if pairs else ""
        return f"{self.root}{quote(path, safe='/:')}{tail}"

    def local(self, target: str) -> str:
        """An address that was sent to us, if it is one of this console's pages; else the first page.

        A browser reads `//host` and `/\\host` as another machine's address.
        """
        inside = target.startswith(f"{self.root}/") and not re.search(r"^//|[\\\x00-\x20\x7f]", target)
        return target if inside else f"{self.root}/"


def read_session(value: str | None) -> str | None:
    """The session that a cookie names, if it is one of ours."""
    return value if value is not None and _SESSION.fullmatch(value) else None


def new_session() -> str:
    """A random one."""
    return secrets.token_hex(16)


def enter(scope: Scope, visit: Visit) -> None:
    """Let the pages find the visit."""
    scope[_KEY] = visit


def visit_of(request: Request) -> Visit:
    """The visit that a request is."""
    visit = request.scope[_KEY]
    assert isinstance(visit, Visit)
    return visit


def route_path(scope: Scope) -> str:
    """The path below the mount; servers differ in whether `path` repeats `root_path`."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path or "/"
