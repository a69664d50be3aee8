"""The guard before everything: which hosts, who, and which changes. What it lets through, the pages may trust.

In this order: the host name, where the request comes from, who it is; for a change, that it comes from one of our own
pages. See docs/console.md and https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gravito.errors import ConfigurationError
from gravito.horizon.console._auth import Authentication, cookie_name, same, session_of
from gravito.horizon.console._visit import THEMES, Form, Notice, Visit, enter, new_session, route_path

__all__ = ["LOOPBACK", "PROGRAM", "Guard", "is_loopback", "read_hosts"]

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")

PROGRAM: Final = "x-gravito"  # "1": a program asks, which sends no cookies

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?")
_NAME: Final = re.compile(r"\*|(\*\.)?[A-Za-z0-9_.-]+")  # of allowed_hosts
_MOST: Final = 1024 * 1024  # bytes of a body
_FIELDS: Final = 10_000  # in a form: bulk actions name their jobs
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}
# What proxies and their services add, by the common ones' own names.
_FORWARDED: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-forwarded-for",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "fastly-client-ip",
        "fly-client-ip",
    }
)

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send `Origin: null` along with forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

Refuse = Callable[[Request, int, str], Response]
Door = Callable[[Request, Response], Response]


class Guard:
    """An ASGI application before two others.

    Args:
        inside: what only the admitted reach.
        outside: what anybody reaches.
        public: the paths of `outside`.
        auth: who is admitted; None: anybody from this machine.
        hosts: that the console answers to, as `read_hosts` gives them.
        refuse: makes the answer of a refusal.
        door: makes a page of the answer for somebody who is not admitted, where a browser asks.
    """

    def __init__(
        self,
        inside: ASGIApp,
        outside: ASGIApp,
        *,
        public: frozenset[str],
        auth: Authentication | None,
        hosts: Sequence[str],
        refuse: Refuse,
        door: Door,
    ) -> None:
        self._inside = inside
        self._outside = outside
        self._public = public
        self._auth = auth
        self._hosts = tuple(hosts)
        self._refuse = refuse
        self._door = door

    def __repr__(self) -> str:
        return f"<Guard of {self._auth!r}, hosts {', '.join(self._hosts)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        if (host := _host(request)) is None or not self._knows(host[0]):
            name = "that host name" if host is None else repr(host[0])
            text = f"The console does not answer to {name}: name it in allowed_hosts."
            await PlainTextResponse(text, 400, dict(_HEADERS))(scope, receive, send)
            return
        visit = _visit(request)
        enter(scope, visit)
        app = await self._admit(request, visit)
        await app(scope, receive, _Finish(request, visit, send))

    def _knows(self, host: str) -> bool:
        return any(
            known in (host, "*") or (known.startswith("*.") and host.endswith(known[1:]))
            for known in self._hosts
        )

    async def _admit(self, request: Request, visit: Visit) -> ASGIApp:
        """Where the request goes: inside, outside, or no further."""
        if self._auth is None and not _is_local(request):
            text = "Without authentication the console answers this machine only: give auth, as Token(...)."
            return self._refuse(request, 403, text)
        public = visit.path in self._public
        if self._auth is not None and not public:
            answer = await self._auth.user(request, visit)
            if isinstance(answer, Response):
                return answer
            if answer is None:
                return self._door(request, self._auth.refuse(request, visit))
            visit.user = answer
        if request.method not in _SAFE and (refused := await self._check_change(request, visit)) is not None:
            return refused
        return self._outside if public else self._inside

    async def _check_change(self, request: Request, visit: Visit) -> Response | None:
        """None for a change that one of our own pages, or a program, asks for."""
        visit.by_header = visit.by_header or _is_program(request)
        origin = _own_origin(request)
        if origin is False or (origin is None and not visit.by_header):
            return self._refuse(request, 403, "A change must come from one of the console's own pages.")
        body = await _body(request)
        if body is None:
            return self._refuse(request, 413, "This is more than the console takes at once.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            try:
                pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS)
            except ValueError:
                return self._refuse(request, 400, "This form cannot be read.")
            visit.form = Form.of(pairs)
        elif body:
            return self._refuse(request, 415, "Send application/x-www-form-urlencoded.")
        token = visit.form.one("csrf") or request.headers.get("x-csrf-token", "")
        if not visit.by_header and (visit.fresh or not same(token, visit.csrf)):
            return self._refuse(request, 403, "This page is too old: load it again, and try once more.")
        return None


class _Finish:
    """Adds to each answer what all of them have."""

    def __init__(self, request: Request, visit: Visit, send: Send) -> None:
        self._request = request
        self._visit = visit
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
            headers["content-security-policy"] = _policy(self._visit.nonce)
            if self._visit.fresh and "text/html" in headers.get("content-type", ""):
                add_cookie(headers, self._request, "session", self._visit.session)
            if self._visit.notice is not None and "text/html" in headers.get("content-type", ""):
                add_cookie(headers, self._request, "notice", "", life=0)
            message["headers"] = headers.raw
        await self._send(message)


def _policy(nonce: str) -> str:
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def add_cookie(
    headers: MutableHeaders, request: Request, what: str, value: str, life: int | None = None
) -> None:
    """Set one of the console's cookies: for this mount only, unseen by scripts, not sent by other sites' forms.

    Args:
        headers: of the answer.
        request: decides the path, and whether it is bound to TLS.
        what: session, login, theme or notice.
        value: of characters that need no quoting.
        life: seconds; 0 removes it; None: until the browser is closed.
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    parts = [f"{cookie_name(request, what)}={value}", f"Path={root}/", "HttpOnly", "SameSite=Lax"]
    parts += ["Secure"] if request.url.scheme == "https" else []
    parts += [] if life is None else [f"Max-Age={life}"]
    headers.append("set-cookie", "; ".join(parts))


def read_hosts(given: Sequence[str]) -> tuple[str, ...]:
    """Host names as they are compared: in lower case, an IPv6 address in brackets.

    Args:
        given: names or addresses without scheme, port and path; `*.example.com` takes all below, `*` all.

    Raises:
        ConfigurationError: there are none, or one is none.
    """
    if isinstance(given, str) or not given:
        raise ConfigurationError(
            f"allowed_hosts is {given!r}; allowed: a list of host names, with one at least",
            field="allowed_hosts",
        )
    return tuple(map(_read_host, given))


def _read_host(given: str) -> str:
    if isinstance(given, str):
        try:
            return f"[{ipaddress.IPv6Address(given.removeprefix('[').removesuffix(']'))}]"
        except ValueError:
            if _NAME.fullmatch(given):
                return given.lower()
    raise ConfigurationError(
        f"allowed_hosts has {given!r}; allowed: a host name alone, without scheme, port and path",
        field="allowed_hosts",
    )


def is_loopback(address: str) -> bool:
    """Whether an address, or a name that means one, is this machine's own."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_local(request: Request) -> bool:
    # A proxy on this machine connects from here on behalf of anybody.
    if any(name in request.headers for name in _FORWARDED):
        return False
    return request.client is not None and is_loopback(request.client.host)


def _host(request: Request) -> tuple[str, int] | None:
    """Name and port that the request is for; None for a header that is missing, twice there, or none."""
    given = request.headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        return None
    return found[1].lower(), int(found[2] or _PORTS.get(request.url.scheme, 80))


def _is_program(request: Request) -> bool:
    """Whether no browser can have sent this on behalf of another site's page.

    A form cannot set the header. A script of another site must ask first whether it may, which is never allowed here;
    where an application around the console allows it, the browser says the origin along with the change.
    """
    by_browser = ("cookie", "origin", "sec-fetch-site")
    return request.headers.get(PROGRAM) == "1" and not any(name in request.headers for name in by_browser)


def _own_origin(request: Request) -> bool | None:
    """Whether the browser says that one of our pages asks; None if it says nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True if site is not None else None
    try:
        parts = urlsplit(origin)
        # The scheme is not compared: a proxy that ends TLS hides it from us.
        theirs = ((parts.netloc.rpartition(":")[0] if parts.port else parts.netloc).lower(), parts.port)
    except ValueError:
        return False
    host = request.headers["host"].lower()
    found = _HOST.fullmatch(host)
    assert found is not None
    mine = (found[1], int(found[2]) if found[2] else None)
    return bool(parts.scheme in _PORTS) and (
        theirs == mine or _with_port(parts.scheme, theirs) == _with_port(parts.scheme, mine)
    )


def _with_port(scheme: str, place: tuple[str, int | None]) -> tuple[str, int]:
    return place[0], place[1] or _PORTS[scheme]


async def _body(request: Request) -> bytes | None:
    """The whole body; None if it is too long."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > _MOST:
            return None
    return bytes(parts)


def _visit(request: Request) -> Visit:
    session = session_of(request)
    theme = request.cookies.get(cookie_name(request, "theme"), "auto")
    notice: Any = request.cookies.get(cookie_name(request, "notice"))
    return Visit(
        root=str(request.scope.get("root_path", "")).rstrip("/"),
        path=route_path(request.scope),
        session=session or new_session(),
        fresh=session is None,
        theme=theme if theme in THEMES else "auto",
        notice=Notice.opened(notice) if notice else None,
    )
