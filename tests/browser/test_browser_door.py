"""Who enters, and how: the token's page, a name and a password, the icon; and the console below another application."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver.common.keys import Keys
from tests.browser import application as app
from tests.browser.test_browser_actions import fresh
from tests.browser.visitor import Visitor
from tests.browser.world import TOKEN, World
from tests.examples.programs import free_port, served

STATUS = "const done = arguments[1]; fetch(arguments[0]).then(one => done([one.status, one.headers.get('content-type')]))"


@pytest.fixture(scope="module")
def mounted(world: World) -> Iterator[str]:
    """The address of an application with the console in it."""
    port = free_port()
    program = world.serve("tests.browser.mounted:site", port)
    with served(program, f"http://127.0.0.1:{port}"):
        yield f"127.0.0.1:{port}/ops/horizon"
    program.end()


def test_the_page_of_the_token_says_what_to_enter(visitor: Visitor) -> None:
    visitor.driver.delete_all_cookies()
    visitor.get("/jobs?state=dead")
    assert visitor.path.startswith("/login")
    assert "There is no user name" in visitor.text()
    assert "GRAVITO_CONSOLE_TOKEN" in visitor.text()
    assert visitor.focused()["tag"] == "input"
    visitor.shot("login")
    icon = visitor.run("return document.querySelector('link[rel=icon]').getAttribute('href')")
    for path in ("/favicon.ico", icon):
        assert visitor.driver.execute_async_script(STATUS, path) == [200, "image/svg+xml"]
    assert visitor.complaints() == []
    visitor.find("input[name=token]").send_keys(TOKEN + Keys.ENTER)
    visitor.until(lambda: visitor.path == "/jobs?state=dead", "the login led elsewhere")
    assert visitor.complaints() == []


def test_a_name_and_a_password_and_every_address_below_the_mount(
    visitor: Visitor, world: World, mounted: str
) -> None:
    visitor.driver.delete_all_cookies()
    refused = httpx.get(
        f"http://{mounted}/", headers={"accept": "text/html"}
    )  # a browser shows its own dialog first
    assert refused.status_code == 401
    assert "asks for the user name and the password" in refused.text
    assert httpx.get(f"http://{mounted}/favicon.ico").status_code == 200
    queue = fresh()
    world.push(app.greet.on(queue).make("waits"))
    visitor.driver.get(f"http://ada:love-lace@{mounted}/queues/{queue}")
    visitor.driver.get(f"http://{mounted}/queues/{queue}")
    assert visitor.text("h1") == queue
    visitor.until(lambda: visitor.text("#link-text") == "live", "it never became live below a mount")
    visitor.press("Pause")
    assert f"{queue} is paused" in visitor.notice
    assert world.sizes(queue).paused
    assert visitor.driver.current_url == f"http://{mounted}/queues/{queue}"
    assert visitor.complaints() == []
