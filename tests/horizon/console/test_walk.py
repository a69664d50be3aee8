"""Every route and every method: nothing answers without credentials, and every page holds to the console's policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.horizon.console.browsing import SAME, TOKEN, Browser, Parsed, routes
from tests.horizon.console.conftest import PLANTED, World

from gravito.horizon.console import Basic, Token
from gravito.horizon.console._actions import ACTIONS
from gravito.horizon.console._live_pages import SOURCES
from gravito.horizon.console._pages import PAGES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# what a visitor without credentials may see; the last one with a token
OPEN = {"/healthz", "/static/console.css", "/static/icon.svg", "/favicon.ico", "/login"}
Make = Callable[..., Browser]


def addresses(browser: Browser) -> list[str]:
    """Everything that a console answers to, and some that it does not."""
    console: Any = browser.web._transport.app  # type: ignore[attr-defined]
    found = set()
    for path, _ in routes(console):
        kinds = [*ACTIONS, "theme"] if "actions" in path else SOURCES
        names = kinds if path.endswith("{name}") else ["x"]
        for name in names:
            found.add(re.sub(r"{\w+}", name, path.replace("{queue}", "default")))
    return sorted(found | {"/nothing", "/static/../app.py", "//evil.example/", "/api/nothing", "/queues/"})


def nobody(request: Any) -> None:
    """An application's function that knows nobody."""


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        (Token(TOKEN), {}),
        (Token(TOKEN), {"authorization": "Bearer wrong"}),
        (Token(TOKEN), {"authorization": f"Basic {TOKEN}", "cookie": f"gravito_login={TOKEN}"}),
        (Basic("ada", "secret"), {}),
        (Basic("ada", "secret"), {"authorization": "Basic YWRhOndyb25n"}),
        (nobody, {}),
    ],
    ids=["token", "wrong token", "planted cookie", "basic", "wrong password", "function"],
)
async def test_nothing_answers_without_credentials(browse: Make, auth: Any, headers: dict[str, str]) -> None:
    if isinstance(auth, Token | Basic):
        auth.tries._most = 10**9  # this test asks more often than anybody should
    browser = browse(auth=auth)
    seen = 0
    for address in addresses(browser):
        for method in METHODS:
            answer = await browser.web.request(method, address, headers={**headers, **SAME})
            seen += 1
            if address in OPEN and (address != "/login" or isinstance(auth, Token)):
                assert answer.status_code == 200 or method != "GET", address
                continue
            if answer.status_code == 303:
                assert isinstance(auth, Token)
                assert method == "GET"
                assert answer.headers["location"].startswith("/login")
            else:
                assert answer.status_code == (403 if auth is nobody else 401), (method, address)
            assert "default" not in answer.text
    assert seen > 300


@pytest.mark.parametrize("auth", [Token(TOKEN), Basic("ada", "secret"), nobody])
async def test_the_door_says_how_to_enter_and_has_its_icon(browse: Make, auth: Any) -> None:
    browser = browse(auth=auth, title=PLANTED)
    page = await browser.get("/login" if isinstance(auth, Token) else "//evil.example/")
    check_page(page.text, page.headers, "the door")
    said = {Token: "There is no user name", Basic: "asks for the user name and the password"}
    assert said.get(type(auth), "decides who may enter") in page.text
    assert (page.headers.get("www-authenticate", "")[:5] == "Basic") == isinstance(auth, Basic)
    assert "secret" not in page.text
    assert TOKEN not in page.text
    for address in [*re.findall(r'<link[^>]* href="([^"]+)"', page.text), "/favicon.ico"]:
        found = await browser.get(address)
        assert (found.status_code, len(found.content) > 50) == (200, True), address
    icon = await browser.get("/favicon.ico")
    assert icon.headers["content-type"] == "image/svg+xml"


async def test_health_says_no_more_than_that(browse: Make) -> None:
    answer = await browse(auth=Token(TOKEN)).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_wrong_method_and_an_unknown_page_are_said_to_be(browse: Make) -> None:
    browser = browse()
    assert (await browser.get("/nothing")).status_code == 404
    assert "Not here" in (await browser.get("/nothing")).text
    assert (await browser.get("/actions/queue.pause")).status_code == 405
    assert (await browser.post("/queues")).status_code == 405
    assert (await browser.post("/actions/nothing")).status_code == 404
    assert (await browser.get("/api/nothing")).json()["error"]


async def test_every_page_holds_to_the_policy_and_shows_text_as_text(browse: Make, world: World) -> None:
    browser = browse(title=PLANTED, auth=lambda request: PLANTED)
    for page in PAGES:
        answer = await browser.get(world.path(page.path))
        assert answer.status_code == 200, (page.path, answer.text)
        check_page(answer.text, answer.headers, page.path)


async def test_no_page_depends_on_what_is_planted_into_its_address(browse: Make, world: World) -> None:
    browser = browse()
    names = (
        "window",
        "offset",
        "limit",
        "mark",
        "state",
        "queue",
        "name",
        "tag",
        "q",
        "id",
        "since",
        "of",
        "error",
        "job",
    )
    for page in PAGES:
        query = dict.fromkeys(names, PLANTED)
        answer = await browser.get(world.path(page.path), params=query)
        assert answer.status_code in (200, 400, 404), (page.path, answer.text)
        check_page(answer.text, answer.headers, page.path)


async def test_questions_notices_errors_and_the_login_show_text_as_text(browse: Make, world: World) -> None:
    browser = browse()
    answers = [
        await browser.post(
            "/actions/queue.purge", queue="default", part="delayed", done=PLANTED, back=PLANTED
        ),
        await browser.post("/actions/jobs.all", do="retry", state="dead", name="fail"),
        await browser.post("/actions/jobs.all", **{PLANTED: PLANTED}),
        await browser.get("/queues/" + "%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        await browser.get("/%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        await browse(auth=Token(TOKEN)).get("/login", params={"next": "/" + PLANTED}),
    ]
    told = await browser.act("queue.pause", queue=PLANTED)
    assert told.status_code == 303
    answers.append(await browser.get("/"))
    assert "no name for a queue" in answers[-1].text
    for answer in answers:
        check_page(answer.text, answer.headers, str(answer.url))


def check_page(text: str, headers: Any, where: str) -> None:
    """What must hold for the HTML of any page."""
    parsed = Parsed(text)
    nonce = re.search(r"script-src 'nonce-([\w-]{16,})'", headers["content-security-policy"])
    assert nonce is not None
    assert PLANTED not in text, where
    assert not parsed.all("style", "img", "iframe", "object", "embed", "base"), where
    for script in parsed.all("script"):
        assert script.attributes.get("src"), where
        assert script.attributes.get("nonce") == nonce[1], where
        assert not script.text.strip(), where
    for element in parsed.elements:
        names = set(element.attributes)
        assert not [name for name in names if name == "style" or name.startswith("on")], (where, element)
        for name in names & {"href", "src", "action", "formaction"}:
            assert re.match(r"/(?!/)|#", str(element.attributes[name])), (where, element)
        if element.tag == "link" and element.attributes["rel"] == "stylesheet":
            assert element.attributes["nonce"] == nonce[1]
        if element.tag == "form" and element.attributes.get("method") != "get":
            assert element.attributes.get("method") == "post", (where, element)
    check_reading(parsed, where)


def check_reading(parsed: Parsed, where: str) -> None:
    """What screen readers and keyboards need."""
    ids = [one.attributes["id"] for one in parsed.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids)), (where, "an id is there twice")
    assert len(parsed.all("main")) == len(parsed.all("h1")) == 1, where
    assert parsed.all("html")[0].attributes.get("lang") == "en"
    labelled = {one.attributes.get("for") for one in parsed.all("label")}
    for field in parsed.all("input", "select", "textarea"):
        if field.attributes.get("type") != "hidden":
            named = field.attributes.get("aria-label") or field.attributes.get("id") in labelled
            assert named, (where, field)
    for image in parsed.all("svg"):
        attributes = image.attributes
        assert attributes.get("aria-hidden") or (attributes.get("role") and attributes.get("aria-label")), (
            where,
            image,
        )
    for head in parsed.all("th"):
        assert head.attributes.get("scope"), (where, head)
    for one in parsed.elements:
        name = one.attributes.get("aria-labelledby")
        assert name is None or name in ids, (where, one)
