"""The console as an ASGI application, to be mounted or served."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gravito.errors import ConfigurationError, GravitoError, HorizonError, UnknownJobError
from gravito.horizon._watch import AlertWatch
from gravito.horizon.console import _api, _entry
from gravito.horizon.console._actions import actions_route
from gravito.horizon.console._auth import Answer, Authentication, Basic, Function, Token
from gravito.horizon.console._live_pages import live_route
from gravito.horizon.console._pages import PAGES
from gravito.horizon.console._security import LOOPBACK, Guard, read_hosts
from gravito.horizon.console._site import Ask, NotFoundError, Site
from gravito.horizon.console._visit import visit_of

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["Auth", "Console", "ConsoleOptions", "console"]

log = logging.getLogger("gravito.horizon")

Auth = Token | Basic | Callable[[Request], Answer | Awaitable[Answer]]


class Console:
    """An ASGI application. It keeps no state of its own but for figures that it has read: any number may run."""

    def __init__(self, site: Site, auth: Authentication | None, hosts: Sequence[str]) -> None:
        self.site = site
        self.auth = auth
        self._watch: asyncio.Task[None] | None = None  # looks at the alerts, while the event loop runs
        self._guard = Guard(
            _inside(site),
            _outside(site, auth),
            public=_entry.public(auth),
            auth=auth,
            hosts=hosts,
            refuse=self._refuse,
            door=self._door,
        )

    def __repr__(self) -> str:
        return f"<Console of {self.site.horizon!r}, {self.auth!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """https://asgi.readthedocs.io/en/latest/specs/main.html"""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self.site.horizon.alerts:
            self._begin_watch()  # an application that this is mounted in passes on no lifespan
        await self._guard(scope, receive, send)

    def close(self) -> None:
        """End the open live pages, so that the server can end."""
        self.site.live.close()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Watch the alerts while the application runs, and end with it. Without it, that begins with the first request.

        Frameworks pass no lifespan on to what is mounted: enter this in the application's own.

        Args:
            app: what frameworks hand over; not used.
        """
        self.site.live.open()
        self.site.warm()
        self._begin_watch()
        try:
            yield
        finally:
            self.close()
            watch, self._watch = self._watch, None
            if watch is not None:
                watch.cancel()
                await asyncio.wait([watch])

    def _begin_watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._watch is None or self._watch.done() or self._watch.get_loop() is not loop:
            watching = AlertWatch(self.site.horizon).run()
            # of a context of its own: it is no part of the request that it happens to begin with
            self._watch = loop.create_task(watching, name="alerts", context=contextvars.Context())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        async with self.lifespan():
            while True:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    self.close()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return

    def _refuse(self, request: Request, status: int, text: str) -> Response:
        return _failure(self.site, request, status, text)

    def _door(self, request: Request, answer: Response) -> Response:
        assert self.auth is not None
        return _entry.door(self.site, self.auth, request, answer)


class ConsoleOptions(TypedDict, total=False):
    """The options of `console`."""

    auth: Auth | None
    allowed_hosts: Sequence[str]
    title: str


def console(
    horizon: Horizon,
    *,
    auth: Auth | None = None,
    allowed_hosts: Sequence[str] = LOOPBACK,
    title: str = "Horizon",
) -> Console:
    """The console of a Horizon, for any ASGI server, or to be mounted in an application under any path.

    Args:
        horizon: whose queues are shown.
        auth: `Token`, `Basic`, or a function that takes the Starlette request and gives the user's name, or None; it
            may be async. Without one, the console answers this machine only.
        allowed_hosts: host names, without port, that it answers to; `*.example.com` takes all below.
        title: above all pages.

    Raises:
        ConfigurationError: `auth` is none of these, or `allowed_hosts` is empty, a lone text, or has what is no
            plain host name: one with scheme, port or path.
    """
    known: Authentication | None
    if auth is None or isinstance(auth, Token | Basic):
        known = auth
    elif callable(auth):
        known = Function(auth)
    else:
        raise ConfigurationError(
            f"auth is a {type(auth).__name__}; allowed: Token(...), Basic(...), a function, or None",
            field="auth",
        )
    site = Site(horizon, title, login=known is not None and known.login)
    return Console(site, known, read_hosts(allowed_hosts))


def _inside(site: Site) -> ASGIApp:
    site.menu[:] = [page for page in PAGES if page.menu]
    routes = [Route(page.path, _endpoint(site, page.answer), name=page.name) for page in PAGES]
    routes += [
        actions_route(site),
        live_route(site),
        *_api.routes(site),
        *_entry.inside_routes(site),
    ]
    return _app(site, routes)


def _outside(site: Site, auth: Authentication | None) -> ASGIApp:
    return _app(site, _entry.outside_routes(site, auth))


def _endpoint(
    site: Site, answer: Callable[[Ask], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(Ask(site, request))

    return endpoint


def _app(site: Site, routes: Sequence[Route]) -> Starlette:
    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _failure(site, request, error.status_code, str(error.detail), error.headers)

    async def expected(request: Request, error: Exception) -> Response:
        if isinstance(error, NotFoundError | UnknownJobError):
            return _failure(site, request, 404, str(error))
        if isinstance(error, HorizonError | ConfigurationError):
            return _failure(site, request, 400, str(error))
        log.warning("the console could not answer %s: %s", request.url.path, error)
        return _failure(site, request, 503, f"The queue's server did not do this: {error}")

    async def unexpected(request: Request, error: Exception) -> Response:
        return _failure(
            site, request, 500, "This page has a fault. The log of the console's process says more."
        )

    handlers: dict[Any, Any] = {HTTPException: known, GravitoError: expected, Exception: unexpected}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


def _failure(site: Site, request: Request, status: int, text: str, headers: Any = None) -> Response:
    """An error as a page, or for programs as JSON."""
    visit = visit_of(request)
    if visit.path.startswith("/api/") or "text/html" not in request.headers.get("accept", "text/html"):
        return JSONResponse({"error": text}, status, headers)
    response = site.render(visit, "error.html", {"status": status, "text": text}, status)
    response.headers.update(headers or {})
    return response
