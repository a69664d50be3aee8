"""What all pages of one console share, and what one request is to the function that answers it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gravito.errors import HorizonError
from gravito.horizon.console import _charts
from gravito.horizon.console._format import FILTERS
from gravito.horizon.console._live import Live
from gravito.horizon.console._rotation import Rotation
from gravito.horizon.console._security import add_cookie
from gravito.horizon.console._visit import Form, Notice, Visit, visit_of
from gravito.horizon.repository import Repository

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["Answer", "Ask", "Asset", "NotFoundError", "Page", "Site", "assets"]

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LATELY: Final = 500  # things that are remembered for a while
_LONGEST: Final = 500  # characters of a parameter

T = TypeVar("T")
Answer = Callable[["Ask"], Awaitable[Response]]


class NotFoundError(HorizonError):
    """There is no such page, or no longer what it would show."""


class Page(msgspec.Struct, frozen=True):
    """A page that is there to be read.

    Args:
        path: below the console, with parameters in braces.
        name: as templates know it: `active` of the menu.
        answer: makes it.
        menu: its title in the menu; empty: it has no place there.
    """

    path: str
    name: str
    answer: Answer
    menu: str = ""


class Asset(msgspec.Struct, frozen=True):
    """A file that never changes under its name and version."""

    content: bytes
    kind: str
    version: str


def assets() -> dict[str, Asset]:
    """All static files by name; they are small, and read once."""
    found = {}
    for file in sorted((_HERE / "static").iterdir()):
        if file.suffix in _TYPES:
            content = file.read_bytes()
            found[file.name] = Asset(content, _TYPES[file.suffix], hashlib.sha256(content).hexdigest()[:12])
    return found


class Site:
    """See the module.

    Args:
        horizon: whose queues are shown.
        title: above all pages.
        login: whether there is a page to log in, and so one to log out.
    """

    def __init__(self, horizon: Horizon, title: str, *, login: bool) -> None:
        self.horizon = horizon
        self.repository = Repository(horizon)
        self.rotation = Rotation(self.repository)
        self.live = Live()
        self.title = title
        self.login = login
        self.assets = assets()
        self.menu: list[Page] = []
        self._lately: dict[
            str, tuple[float, Any]
        ] = {}  # what samplers share: when it was read, and what it was; read longest ago first
        self._flights: dict[str, asyncio.Future[Any]] = {}  # what is being read of it

    def __repr__(self) -> str:
        return f"<Site of {self.horizon!r}>"

    async def lately(self, key: str, age: float, read: Callable[[], Awaitable[T]]) -> T:
        """What was read at most `age` seconds ago, or is read now.

        Args:
            key: names it.
            age: seconds.
            read: reads it.
        """
        at, value = self._lately.get(key, (-1e9, None))
        if time.monotonic() - at < age:
            return cast("T", value)
        flight = self._flights.get(key) if age else None
        if flight is None or flight.get_loop() is not asyncio.get_running_loop():
            flight = self._flights[key] = asyncio.ensure_future(read())
            flight.add_done_callback(lambda done: self._land(key, done))
        return cast("T", await asyncio.shield(flight))

    def _land(self, key: str, done: asyncio.Future[Any]) -> None:
        if self._flights.get(key) is not done:  # something was changed since it began
            return
        del self._flights[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._lately.pop(key, None)
        self._lately[key] = (time.monotonic(), done.result())
        if len(self._lately) > _LATELY:
            del self._lately[next(iter(self._lately))]

    def forget(self) -> None:
        """Something was changed: live pages show it, and not what was read before."""
        self._lately.clear()
        self._flights.clear()
        self.rotation.forget()

    @cached_property
    def templates(self) -> jinja2.Environment:
        """All are escaped, and a name that is not given is an error."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(FILTERS)
        environment.globals.update(site=self, charts=_charts)
        return environment

    def warm(self) -> None:
        """Compile all templates, so that the first visitors do not wait for it."""
        for name in self.templates.list_templates(["html"]):
            self.templates.get_template(name)

    def render(
        self, visit: Visit, template: str, context: Mapping[str, Any], status: int = 200
    ) -> HTMLResponse:
        """A page; without the names in `_pages` the template knows `visit`, `site`, `url`, `asset` and `charts`."""
        made = self.templates.get_template(template).render(
            {"active": "", "live": "", **context},
            visit=visit,
            url=visit.url,
            asset=lambda name: visit.url(f"/static/{name}", v=self.assets[name].version),
        )
        return HTMLResponse(made, status)


class Ask:
    """One request, to the function that answers it.

    Args:
        site: the console.
        request: as Starlette has it.
    """

    def __init__(self, site: Site, request: Request) -> None:
        self.site = site
        self.request = request
        self.visit = visit_of(request)

    def __repr__(self) -> str:
        return f"<Ask {self.visit.path}>"

    @property
    def repository(self) -> Repository:
        """What all figures and jobs come from."""
        return self.site.repository

    @property
    def horizon(self) -> Horizon:
        """The application's."""
        return self.site.horizon

    @property
    def form(self) -> Form:
        """What was posted."""
        return self.visit.form

    @property
    def again(self) -> bool:
        """Whether an open live page reads itself anew: as many may do so as there are, so what was read lately does."""
        return self.request.headers.get("x-live") == "1"

    @property
    def sure(self) -> bool:
        """Whether the question that an action asks was answered."""
        return self.visit.by_header or self.form.one("sure") == "yes"

    def place(self, name: str) -> str:
        """A part of the path, by the name in its braces."""
        return str(self.request.path_params[name])

    def text(self, name: str, default: str = "") -> str:
        """A parameter of the address, cut to a sane length."""
        return self.request.query_params.get(name, default).strip()[:_LONGEST]

    def choice(self, name: str, among: tuple[str, ...]) -> str:
        """A parameter of the address that is one of these; the first one if it is none of them."""
        given = self.text(name)
        return given if given in among else among[0]

    def number(self, name: str, default: int = 0, low: int = 0, high: int = 10_000_000) -> int:
        """A whole number among the parameters, within bounds."""
        given = self.text(name)
        return max(low, min(high, int(given))) if given.isascii() and given.isdigit() else default

    def render(self, template: str, /, **context: Any) -> HTMLResponse:
        """Answer with a page."""
        return self.site.render(self.visit, template, context)

    def back(self, notice: Notice, target: str = "") -> Response:
        """Answer a change: go to where it was asked for, or to `target`, and tell there what came of it."""
        given = target or self.form.one("back")
        response = RedirectResponse(self.visit.local(given), 303)
        add_cookie(response.headers, self.request, "notice", notice.sealed(), life=60)
        return response
