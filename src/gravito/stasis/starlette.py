"""A response cache for Starlette and FastAPI. Extra `starlette`.

For one route, a router or a whole application::

    Route("/news", news, middleware=[Middleware(ResponseCache, ttl=60, stale=600)])
    app.add_middleware(ResponseCache, ttl=60, paths=["/news", "/news/*"])
    router = APIRouter(route_class=cached_route(ttl=60))         # FastAPI
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

try:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as missing:
    raise ImportError(
        "gravito.stasis.starlette needs the package starlette: pip install 'gravito[starlette]'",
        name=missing.name,
    ) from missing

from gravito import errors
from gravito.stasis._anew import compute_anew
from gravito.stasis._capture import Passing, Run
from gravito.stasis._computed import Computed
from gravito.stasis._default import default_cache
from gravito.stasis._http import Headers, Kept, Rules, directives, header, matches
from gravito.stasis._policy import Options, policy_of
from gravito.stasis._several import several
from gravito.stasis.cache import Cache

__all__ = ["ResponseCache", "cached_route"]


class ResponseCache:
    """ASGI middleware that keeps responses to GET and HEAD with status 200.

    A response is made once, however many ask, in however many processes. It is kept under method, scheme, host, path,
    query and the headers in `vary`. Its own Cache-Control and Expires are obeyed. Not kept are: what sets a cookie, what
    varies by a header that is not in `vary`, streams of events, and what is longer than `max_body`. Kept responses
    have an ETag and an Age, and answer If-None-Match with 304.

    Args:
        app: what answers.
        ttl: seconds for responses that say nothing about it themselves.
        stale: seconds beyond that for which the old response serves while one process makes the new one.
        vary: headers of the request that tell responses apart. A request with Authorization or Cookie passes by the
            cache unless the header is here, or in `ignore`.
        ignore: of "authorization" and "cookie", what plays no part in any response: everybody gets the same.
        paths: patterns of paths, as "/news/*"; None for all.
        key: gives the entry's key for a request instead, or None to pass by the cache. Of HEAD, ":HEAD" is put
            behind it.
        tags: gives the tags of a request's response, for `cache.tags(...).flush()`.
        reload: whether a request with `Cache-Control: no-cache` has the response made anew.
        max_body: bytes.
        cache: None for `default_cache()`.

    Raises:
        InvalidTTLError, ConfigurationError: a setting that cannot be used.
    """

    def __init__(  # noqa: PLR0913  # frameworks pass the settings of a middleware by name
        self,
        app: ASGIApp,
        ttl: float | timedelta = 60,
        *,
        stale: float | timedelta = 0,
        vary: Iterable[str] = ("accept",),
        ignore: Iterable[str] = (),
        paths: Iterable[str] | None = None,
        key: Callable[[Request], str | None] | None = None,
        tags: Callable[[Request], Iterable[str]] | None = None,
        reload: bool = True,
        max_body: int = 1024 * 1024,
        cache: Cache | None = None,
    ) -> None:
        self._app = app
        options: Options = {"type": Kept, "template": "responses", "stale": stale}
        self._policy = policy_of(ttl, options, flexible=bool(stale))
        self._rules = Rules(_names("vary", vary), _names("ignore", ignore), bool(stale))
        self._paths = None if paths is None else _texts("paths", paths)
        self._key, self._tags = _function("key", key), _function("tags", tags)
        self._reload = reload
        if type(max_body) is not int or max_body < 1:
            raise _wrong("max_body", max_body, "a number of bytes, at least 1")
        self._max_body = max_body
        if not isinstance(cache, Cache | None):
            raise _wrong("cache", cache, "a Cache, or None for default_cache()")
        self._cache = cache
        self._passing = Passing()

    def __repr__(self) -> str:
        return f"<ResponseCache of {self._app!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request from the cache, or let the application do it."""
        key = self._key_of(scope)
        if key is None or self._passing.knows(key):
            await self._app(scope, receive, send)
            return
        run = Run(self._app, scope, self._rules, self._max_body)
        try:
            found = await self._found(scope, key, run)
            if isinstance(found, Kept):
                await _answer(found, scope, send, b"fwd=miss; stored" if run.started else b"hit")
            elif run.started:
                if not run.failed:
                    self._passing.note(key)
                await run.forward(send)
            else:  # somebody else's response, which is not for everybody
                await self._app(scope, receive, send)
        finally:
            run.leave()

    async def _found(self, scope: Scope, key: str, run: Run) -> Any:
        view: Computed = self._cache if self._cache is not None else default_cache()
        if self._tags is not None and (tags := tuple(several("tags", self._tags(Request(scope))))):
            view = default_cache().tags(*tags) if self._cache is None else self._cache.tags(*tags)
        if self._reload and "no-cache" in directives(scope["headers"]):
            return await compute_anew(view, key, self._policy, run.response)
        return await view._remember(key, self._policy, run.response)

    def _key_of(self, scope: Scope) -> str | None:
        """The entry of a request; None if the cache has no part in it."""
        if scope["type"] != "http" or not self._rules.may_ask(scope["method"], scope["headers"]):
            return None
        if self._paths is not None and not any(fnmatchcase(scope["path"], path) for path in self._paths):
            return None
        if self._key is not None:
            key = self._key(Request(scope))
            return f"{key}:HEAD" if key is not None and scope["method"] == "HEAD" else key
        # a digest: a path may be longer than a key, and hold what a key must not
        said = [scope["method"], scope.get("scheme", ""), scope["path"], scope.get("query_string", b"")]
        said += [header(scope["headers"], name) for name in (b"host", *self._rules.vary)]
        return f"responses:{hashlib.sha256(repr(said).encode('utf-8', 'surrogatepass')).hexdigest()}"


def cached_route(**options: Any) -> type[Any]:
    """A class of routes for FastAPI: `APIRouter(route_class=cached_route(ttl=60))`.

    What is answered from the cache runs none of the route's dependencies.

    Args:
        **options: as of `ResponseCache`.
    """
    from fastapi.routing import APIRoute  # noqa: PLC0415  # only who uses FastAPI has it

    ResponseCache(_nobody, **options)  # says now what is wrong with them

    class CachedRoute(APIRoute):
        """A route whose responses are kept."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            # around `handle`, not around `app`: FastAPI may give an included route another app
            self._kept = ResponseCache(super().handle, **options)

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Answer from the cache, or let the route do it."""
            await self._kept(scope, receive, send)

    return CachedRoute


async def _nobody(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is only there to be named."""


async def _answer(kept: Kept, scope: Scope, send: Send, status: bytes) -> None:
    """Send a kept response, or that it is the one that the client has."""
    asked: Headers = scope["headers"]
    tell = partial(_send, send)
    if matches(asked, kept.etag):
        await tell(304, kept.headers_of_304(status), b"")
    else:
        await tell(kept.status, kept.headers_now(status), kept.body)


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _texts(field: str, given: Any) -> tuple[str, ...]:
    found = tuple(several(field, given, partial(errors.ConfigurationError, field=field)))
    for each in found:
        if not isinstance(each, str):
            raise _wrong(field, each, "texts")
    return found


def _names(field: str, names: Any) -> tuple[bytes, ...]:
    return tuple(name.lower().encode("latin-1") for name in _texts(field, names))


def _function(field: str, given: Any) -> Any:
    if given is not None and (not callable(given) or iscoroutinefunction(given)):
        raise _wrong(field, given, "a plain function that takes the request, or None")
    return given


def _wrong(field: str, value: Any, allowed: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"{field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed
    )
