"""The console under a path of another application: every address that it gives lies below that path."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.horizon.console.browsing import TOKEN, Browser, Parsed
from tests.horizon.console.conftest import World

from gravito.horizon import Horizon
from gravito.horizon.console import Console, Token
from gravito.horizon.console._pages import PAGES


def in_starlette(console: Console) -> Any:
    """Mounted by Starlette, two levels deep."""
    home = Route("/", lambda request: PlainTextResponse("the application"))
    return Starlette(routes=[home, Mount("/admin", routes=[Mount("/horizon", app=console)])])


def in_fastapi(console: Console) -> Any:
    """Mounted by FastAPI."""
    app = FastAPI()
    app.mount("/admin/horizon", console)
    return app


def by_root_path(console: Console) -> Any:
    """Behind a server that takes the path away and says so, as WSGI's SCRIPT_NAME did."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix("/admin/horizon")
        await console({**scope, "path": path, "root_path": "/admin/horizon"}, receive, send)

    return app


MOUNTS = pytest.mark.parametrize("mount", [in_starlette, in_fastapi, by_root_path])


@MOUNTS
async def test_every_address_lies_below_the_mount(
    horizon: Horizon, world: World, mount: Callable[[Console], Any]
) -> None:
    root = "/admin/horizon"
    async with Browser(mount(horizon.console()), root) as browser:
        for page in PAGES:
            answer = await browser.get(world.path(page.path))
            assert answer.status_code == 200, page.path
            for element in Parsed(answer.text).elements:
                for name in set(element.attributes) & {"href", "src", "action", "data-live"}:
                    value = str(element.attributes[name])
                    assert value.startswith((root + "/", "#")), (page.path, element)
        for asset in re.findall(r'(?:src|href)="/admin/horizon(/static/[^"]+)"', answer.text):
            assert (await browser.get(asset)).status_code == 200
        cookies = answer.headers.get_list("set-cookie") + (await browser.get("/")).headers.get_list(
            "set-cookie"
        )
        assert all(f"Path={root}/;" in cookie for cookie in cookies)


@MOUNTS
async def test_logging_in_and_changing_something_works_below_the_mount(
    horizon: Horizon, mount: Callable[[Console], Any]
) -> None:
    async with Browser(mount(horizon.console(auth=Token(TOKEN))), "/admin/horizon") as browser:
        answer = await browser.get("/queues?window=7d")
        assert (
            answer.headers["location"]
            == "/admin/horizon/login?next=%2Fadmin%2Fhorizon%2Fqueues%3Fwindow%3D7d"
        )
        answer = await browser.log_in()
        assert answer.headers["location"] == "/admin/horizon/"
        answer = await browser.post("/actions/queue.pause", queue="default")
        assert answer.headers["location"] == "/admin/horizon/"
        assert (await horizon.broker("default").sizes()).paused


async def test_the_application_around_it_stays_as_it_was(horizon: Horizon) -> None:
    async with Browser(in_starlette(horizon.console())) as browser:
        answer = await browser.get("/")
        assert answer.text == "the application"
        assert "content-security-policy" not in answer.headers
        assert (await browser.get("/admin/horizon", follow_redirects=True)).status_code == 200


async def test_a_server_s_start_and_end_are_heard(horizon: Horizon) -> None:
    console, sent = horizon.console(), []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await console({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_refused(horizon: Horizon) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    await horizon.console()({"type": "websocket", "path": "/", "headers": []}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("missing", ["starlette", "jinja2", "prometheus_client"])
def test_without_the_extra_it_is_named(missing: str) -> None:
    program = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from gravito.errors import ConfigurationError\n"
        "from gravito.horizon import Horizon\n"
        "try: Horizon().console()\n"
        "except ConfigurationError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"the console needs the package {missing}: pip install 'gravito[console]'\n"
