"""Who may enter: a token, a name and a password, or what a user's own function says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from gravito.errors import ConfigurationError
from gravito.horizon.console._visit import Visit, new_session, read_session

__all__ = ["Answer", "Authentication", "Basic", "Function", "Token", "Tries", "same"]

_SHORTEST: Final = 16  # characters of a token
_LIFE: Final = 12 * 3600  # seconds that a login lasts
_FAILURES: Final = 10  # wrong answers a minute from one address
_ADDRESSES: Final = 10_000  # that are remembered

Answer = str | Response | None  # who it is, another answer, or nobody


class Authentication(Protocol):
    """What the guard asks."""

    login: bool  # whether there is a page to log in
    hint: str  # what somebody reads who is not let in

    async def user(self, request: Request, visit: Visit) -> Answer:
        """Who asks."""

    def refuse(self, request: Request, visit: Visit) -> Response:
        """What somebody gets who did not say who they are."""


def same(one: str, other: str) -> bool:
    """Compare secrets in a time that tells neither where they differ nor how long they are."""
    key = b"gravito"
    mine, theirs = (hmac.new(key, text.encode("utf-8", "replace"), hashlib.sha256) for text in (one, other))
    return hmac.compare_digest(mine.digest(), theirs.digest())


class Tries:
    """Counts wrong answers by address, so that nobody tries passwords at speed."""

    def __init__(self, most: int = _FAILURES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address -> minute's begin, count

    def __repr__(self) -> str:
        return f"<Tries of {len(self._failed)} addresses>"

    def blocked(self, request: Request) -> bool:
        """Whether this address has to wait."""
        began, count = self._failed.get(_address(request), (0.0, 0))
        return count >= self._most and self._clock() - began < 60

    def failed(self, request: Request) -> None:
        """Note a wrong answer."""
        address, now = _address(request), self._clock()
        began, count = self._failed.pop(address, (now, 0))
        self._failed[address] = (began, count + 1) if now - began < 60 else (now, 1)
        while len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def too_many() -> Response:
    """For an address that has to wait."""
    return JSONResponse({"error": "too many wrong answers; wait a minute"}, 429, {"retry-after": "60"})


class Token:
    """One secret for all: people enter it once in a browser, programs send `Authorization: Bearer`.

    Args:
        token: at least 16 characters; `python -c "import secrets; print(secrets.token_urlsafe())"` makes one.

    Raises:
        ConfigurationError: it is too short.
    """

    login = True
    hint = (
        "Enter the token that this console was started with: the value of GRAVITO_CONSOLE_TOKEN, or of "
        "auth=Token(...). There is no user name."
    )

    def __init__(self, token: str) -> None:
        if not isinstance(token, str) or len(token) < _SHORTEST:
            raise ConfigurationError(
                f"the console's token is shorter than {_SHORTEST} characters; make one with "
                'python -c "import secrets; print(secrets.token_urlsafe())"',
                field="auth.token",
                allowed=f"at least {_SHORTEST} characters",
            )
        self._token = token
        # Logins are signed, not stored: several consoles accept each other's, and another token ends them all.
        self._key = hmac.new(token.encode(), b"gravito console session", hashlib.sha256).digest()
        self.tries = Tries()

    def __repr__(self) -> str:
        return "Token(***)"

    async def user(self, request: Request, visit: Visit) -> Answer:
        """Who asks; a session, or a program with the token."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return "token" if self.signed(request.cookies.get(cookie_name(request, "login")), visit) else None
        if self.tries.blocked(request):
            return too_many()
        if not same(given.strip(), self._token):
            self.tries.failed(request)
            return None
        visit.by_header = True
        return "token"

    def refuse(self, request: Request, visit: Visit) -> Response:
        """To the login page with a browser; else 401."""
        page = request.method == "GET" and not visit.path.startswith(("/api/", "/live/", "/metrics"))
        if page and "text/html" in request.headers.get("accept", ""):
            back = visit.url(visit.path) + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(visit.url("/login", next=visit.local(back)), 303)
        return JSONResponse({"error": "no or wrong token"}, 401, {"www-authenticate": "Bearer"})

    def accept(self, given: str, visit: Visit) -> str | None:
        """Begin a login: the cookie's value, or None for a wrong token."""
        if not same(given, self._token):
            return None
        visit.session, visit.fresh = new_session(), True  # nobody else may have planted it before
        now = str(int(time.time()))
        return f"{now}.{self._sign(now, visit.session)}"

    def signed(self, value: str | None, visit: Visit) -> bool:
        """Whether a cookie is a login of this session that lasts."""
        began, _, signature = (value or "").partition(".")
        if not began.isascii() or not began.isdigit() or len(began) > 12:
            return False
        good = hmac.compare_digest(signature.encode(), self._sign(began, visit.session).encode())
        return good and 0 <= time.time() - int(began) < _LIFE

    def _sign(self, began: str, session: str) -> str:
        return hmac.new(self._key, f"{began}.{session}".encode(), hashlib.sha256).hexdigest()


class Basic:
    """A name and a password, asked for by the browser. Use it behind TLS only.

    Args:
        username: without a colon.
        password: any text.

    Raises:
        ConfigurationError: one is empty, or there is a colon in the name.
    """

    login = False
    hint = (
        "Your browser asks for the user name and the password that this console was made with: "
        "auth=Basic(name, password)."
    )

    def __init__(self, username: str, password: str) -> None:
        if not username or not password or ":" in username:
            raise ConfigurationError(
                "the console's name and password must not be empty, and a name has no colon",
                field="auth",
                allowed="a name without a colon, and a password",
            )
        self._username = username
        self._password = password
        self.tries = Tries()

    def __repr__(self) -> str:
        return f"Basic({self._username!r}, ***)"

    async def user(self, request: Request, visit: Visit) -> Answer:
        """Who asks."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        if self.tries.blocked(request):
            return too_many()
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no text in it
            return None
        if same(name, self._username) & same(password, self._password):  # & compares both, always
            return self._username
        self.tries.failed(request)
        return None

    def refuse(self, request: Request, visit: Visit) -> Response:
        """The browser asks for name and password."""
        challenge = {"www-authenticate": 'Basic realm="Horizon", charset="UTF-8"'}
        return JSONResponse({"error": "no or wrong name and password"}, 401, challenge)


class Function:
    """A user's own function.

    Args:
        ask: takes the Starlette request, may be async, gives the user's name; or a response to send instead, as a
            redirect to a login; or nothing for nobody.
    """

    login = False
    hint = "The application that this console belongs to decides who may enter, and it does not let you in."

    def __init__(self, ask: Callable[[Request], Answer | Awaitable[Answer]]) -> None:
        self._ask = ask

    def __repr__(self) -> str:
        return f"Function({getattr(self._ask, '__qualname__', self._ask)})"

    async def user(self, request: Request, visit: Visit) -> Answer:
        """Who asks, as the function has it."""
        answer = self._ask(request)
        if isawaitable(answer):
            answer = await answer
        if isinstance(answer, Response) or (isinstance(answer, str) and answer):
            return answer
        if answer:  # a plain yes would hide a mistake: a mapping of claims, or a user object without a name
            raise ConfigurationError(
                f"the console's auth function gave a {type(answer).__name__}",
                field="auth",
                allowed="the user's name, a response, or None",
            )
        return None

    def refuse(self, request: Request, visit: Visit) -> Response:
        """403."""
        return JSONResponse({"error": "not allowed"}, 403)


def cookie_name(request: Request, what: str) -> str:
    """A cookie's name; over TLS one that no plain connection can set."""
    return f"{'__Secure-' if request.url.scheme == 'https' else ''}gravito_{what}"


def session_of(request: Request) -> str | None:
    """The session that the browser has."""
    return read_session(request.cookies.get(cookie_name(request, "session")))
