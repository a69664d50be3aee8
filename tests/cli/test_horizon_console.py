"""`gravito horizon console` as a process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.application import Application, stop

TOKEN = "a-token-of-more-than-sixteen"


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """In an empty folder."""
    made = Application(tmp_path)
    yield made
    made.close()


def address(process: subprocess.Popen[str]) -> str:
    """Where it serves, as its first line says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+:\d+/", line)
    assert found is not None, line
    return found[0]


def test_it_serves_a_page_and_ends_although_live_pages_are_open(application: Application) -> None:
    application.push("note", "one")
    console = application.start("horizon", "console", "app:horizon", "--port", "0")
    where = address(console)
    assert console.stdout is not None
    assert "this machine only" in console.stdout.readline()
    with httpx.Client(base_url=where, headers={"accept": "text/html"}) as web:
        page = web.get("/queues")
        assert page.status_code == 200
        assert 'href="/queues/default"' in page.text
        assert "server" not in page.headers
        assert web.get("/", headers={"host": "evil.example"}).status_code == 400
        with web.stream("GET", "/live/overview") as live:
            lines = live.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: all"
            output = stop(console)
    assert output == "Stopped.\n"


def test_a_token_comes_from_the_environment(application: Application) -> None:
    application.environ["GRAVITO_CONSOLE_TOKEN"] = TOKEN
    console = application.start(
        "horizon", "console", "app:horizon", "--port", "0", "--allowed-host", "jobs.test"
    )
    where = address(console)
    assert httpx.get(where + "api/queues").status_code == 401
    given = {"authorization": f"Bearer {TOKEN}", "host": "jobs.test"}
    assert httpx.get(where + "api/queues", headers=given).json() == []
    command = Path(f"/proc/{console.pid}/cmdline")
    if command.exists():
        assert TOKEN.encode() not in command.read_bytes()
    assert TOKEN not in stop(console)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_another_address_is_refused_without_authentication(application: Application, host: str) -> None:
    output = application.run("horizon", "console", "app:horizon", "--host", host, status=2)
    assert f"{host} is reachable from other machines" in output
    assert "GRAVITO_CONSOLE_TOKEN" in output
    assert "--host 127.0.0.1" in output


@pytest.mark.parametrize(
    ("token", "args", "said"),
    [
        ("short", ("app:horizon",), "GRAVITO_CONSOLE_TOKEN: the console's token is shorter than 16"),
        ("", ("app:nothing",), "has no 'nothing'"),
        ("", ("app:horizon", "--allowed-host", "http://a"), "--allowed-host: allowed_hosts has 'http://a'"),
        (TOKEN, ("app:horizon", "--host", "no.such.host.invalid"), "does not resolve"),
        (TOKEN, ("app:horizon", "--host", "192.0.2.1", "--port", "0"), "Cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_served_is_said(
    application: Application, token: str, args: tuple[str, ...], said: str
) -> None:
    application.environ["GRAVITO_CONSOLE_TOKEN"] = token
    output = application.run("horizon", "console", *args, status=2)
    assert said in output
    assert "Traceback" not in output


def test_a_machine_with_a_name_that_no_browser_asks_for(application: Application) -> None:
    with (application.folder / "app.py").open("a") as file:
        file.write("\nimport socket\nsocket.gethostname = lambda: 'a b'\n")
    console = application.start("horizon", "console", "app:horizon", "--port", "0")
    assert httpx.get(address(console) + "api/queues").status_code == 200
    stop(console)


def test_a_port_that_is_taken(application: Application) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        output = application.run("horizon", "console", "app:horizon", "--port", port, status=2)
    assert f"Port {port} on 127.0.0.1 is taken" in output


def test_without_its_packages_the_remedy_is_said(application: Application) -> None:
    (application.folder / "uvicorn.py").write_text("raise ModuleNotFoundError('No module', name='uvicorn')")
    output = application.run("horizon", "console", "app:horizon", status=2)
    assert "pip install 'gravito[console]'" in output


def test_the_queue_works_without_the_console_s_packages(application: Application) -> None:
    program = "import sys, app; print(sorted({'starlette', 'jinja2', 'uvicorn'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=application.folder,
        env={**os.environ, **application.environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == "[]\n"
