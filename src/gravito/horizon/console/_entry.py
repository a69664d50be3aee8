"""What stands at the door: health, login and logout, and the static files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gravito.errors import GravitoError
from gravito.horizon.console._auth import Authentication, Token, too_many
from gravito.horizon.console._security import add_cookie
from gravito.horizon.console._site import Site
from gravito.horizon.console._visit import visit_of

Endpoint = Callable[[Request], Awaitable[Response]]

__all__ = ["door", "inside_routes", "outside_routes", "public"]

_HEALTH: Final = "/healthz"
_LOGIN: Final = "/login"
_STYLE: Final = "/static/console.css"  # pages at the door wear it; there is nothing of the queues in it
_ICON: Final = "/static/icon.svg"
_FAVICON: Final = (
    "/favicon.ico"  # browsers ask for it without being told to, and before anybody has logged in
)
_FOREVER: Final = "public, max-age=31536000, immutable"  # their address has their version in it


def public(auth: Authentication | None) -> frozenset[str]:
    """The paths that need no credentials."""
    found = {_HEALTH, _STYLE, _ICON, _FAVICON}
    return frozenset(found | {_LOGIN} if auth is not None and auth.login else found)


def outside_routes(site: Site, auth: Authentication | None) -> list[Route]:
    """What anybody reaches."""
    routes = [
        Route(_HEALTH, _health(site), name="health"),
        Route(_STYLE, _static(site, "console.css"), name="style"),
        Route(_ICON, _static(site, "icon.svg"), name="icon"),
        Route(_FAVICON, _static(site, "icon.svg"), name="favicon"),
    ]
    if isinstance(auth, Token):
        routes += [
            Route(_LOGIN, _login_page(site, auth), name="login"),
            Route(_LOGIN, _login(site, auth), methods=["POST"]),
        ]
    return routes


def door(site: Site, auth: Authentication, request: Request, answer: Response) -> Response:
    """What somebody gets who is not admitted: for a browser a page that says how, with the status of `answer`."""
    if answer.status_code not in (401, 403) or "text/html" not in request.headers.get("accept", ""):
        return answer
    page = site.render(visit_of(request), "door.html", {"hint": auth.hint}, answer.status_code)
    if challenge := answer.headers.get("www-authenticate"):
        page.headers["www-authenticate"] = challenge
    return page


def inside_routes(site: Site) -> list[Route]:
    """What the admitted reach."""
    routes = [
        Route(f"/static/{name}", _static(site, name))
        for name in site.assets
        if f"/static/{name}" not in (_STYLE, _ICON)
    ]
    if site.login:
        routes.append(Route("/logout", _logout, methods=["POST"]))
    return routes


def _health(site: Site) -> Endpoint:
    async def health(request: Request) -> Response:
        try:
            async with asyncio.timeout(5):
                await site.horizon.client.ping()
        except (GravitoError, TimeoutError):
            return JSONResponse({"status": "the queue's server does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    return health


def _static(site: Site, name: str) -> Endpoint:
    asset = site.assets[name]

    async def static(request: Request) -> Response:
        tag = f'"{asset.version}"'
        headers = {"cache-control": _FOREVER, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.kind, headers=headers)

    return static


def _login_page(site: Site, auth: Token) -> Endpoint:
    async def login_page(request: Request) -> Response:
        visit = visit_of(request)
        target = visit.local(request.query_params.get("next", ""))
        context = {"next": target, "wrong": False, "hint": auth.hint}
        return site.render(visit, "login.html", context)

    return login_page


def _login(site: Site, auth: Token) -> Endpoint:
    async def login(request: Request) -> Response:
        visit = visit_of(request)
        if auth.tries.blocked(request):
            return too_many()
        target = visit.local(visit.form.one("next"))
        cookie = auth.accept(visit.form.one("token"), visit)
        if cookie is None:
            auth.tries.failed(request)
            context = {"next": target, "wrong": True, "hint": auth.hint}
            return site.render(visit, "login.html", context, 401)
        response = RedirectResponse(target, 303)
        add_cookie(response.headers, request, "session", visit.session)
        add_cookie(response.headers, request, "login", cookie, life=12 * 3600)
        return response

    return login


async def _logout(request: Request) -> Response:
    response = RedirectResponse(visit_of(request).url("/login"), 303)
    for what in ("login", "session"):
        add_cookie(response.headers, request, what, "", life=0)
    return response
