"""A browser without a screen: it keeps cookies, fills in the hidden fields of forms, and reads pages as a parser does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any, Self

import httpx

from gravito.horizon.console import Console

TOKEN = "a-token-of-more-than-sixteen"
SAME = {"sec-fetch-site": "same-origin"}


class Element:
    """A tag with its attributes, and the text directly inside of it."""

    def __init__(self, tag: str, attributes: Mapping[str, str | None]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.text = ""

    def __repr__(self) -> str:
        return f"<{self.tag} {dict(self.attributes)}>"


class Parsed(HTMLParser):
    """All elements of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        self._open.append(element)

    def handle_data(self, data: str) -> None:
        """Text goes to the element that was opened last."""
        if self._open:
            self._open[-1].text += data

    def all(self, *tags: str) -> list[Element]:
        """The elements of these tags."""
        return [element for element in self.elements if element.tag in tags]

    def keys(self) -> dict[str, str]:
        """The live values that the page was loaded with."""
        return {
            str(one.attributes["data-key"]): one.text
            for one in self.elements
            if "data-key" in one.attributes and "data-to" not in one.attributes
        }


class Browser:
    """One visitor of a console.

    Args:
        app: the console, or an application that it is mounted in.
        root: where it is mounted.
        base: scheme and host of the address.
        client: address of the visitor's machine.
    """

    def __init__(
        self,
        app: Any,
        root: str = "",
        base: str = "http://localhost",
        client: tuple[str, int] = ("127.0.0.1", 50000),
    ) -> None:
        transport = httpx.ASGITransport(app=app, client=client, raise_app_exceptions=False)
        self.web = httpx.AsyncClient(transport=transport, base_url=base, headers={"accept": "text/html"})
        self.root = root

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.web.aclose()

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A page; redirects are not followed."""
        return await self.web.get(self.root + path, **options)

    async def csrf(self, page: str = "/") -> str:
        """The token that the forms of a page have."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await self.get(page)).text)
        assert found is not None, page
        return found[1]

    async def post(
        self, path: str, page: str = "/", headers: Mapping[str, str] = SAME, **fields: Any
    ) -> httpx.Response:
        """Send a form of a page, as a browser does."""
        data = {"csrf": await self.csrf(page), "back": f"{self.root}{page}", **fields}
        return await self.web.post(self.root + path, data=data, headers=dict(headers))

    async def act(self, name: str, page: str = "/", **fields: Any) -> httpx.Response:
        """An action of a page, with its question answered."""
        return await self.post(f"/actions/{name}", page, sure="yes", **fields)

    async def log_in(self, token: str = TOKEN) -> httpx.Response:
        """Enter the token."""
        return await self.post("/login", "/login", token=token, next=f"{self.root}/")


def routes(console: Console) -> list[tuple[str, set[str]]]:
    """All routes of a console: path and methods."""
    guard = console._guard
    return [
        (route.path, set(route.methods)) for app in (guard._inside, guard._outside) for route in app.routes
    ]
