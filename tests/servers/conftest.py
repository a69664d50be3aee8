"""Every server of the matrix, both protocols, and two users: one who may do all, one with the documented rights."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from tests.servers.catalogue import SERVERS, lacks, needed

from gravito.atlas import Client
from gravito.atlas.embedded import Engine
from gravito.testing import empty

PASSWORD = "a-long-password"
DOCUMENT = Path(__file__).parents[2] / "docs/security.md"
FEATURE_OF = {"+client|setinfo": "CLIENT SETINFO"}  # others are named like their command


def documented_rules(server: str) -> list[str]:
    """The rules that docs/security.md gives, without those that the server is too old for."""
    block = re.search(r"```text\n(ACL SETUSER.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    assert block is not None
    lines = [line for line in block[1].splitlines() if not line.startswith("#")]
    words = " ".join(lines).split()
    assert words[:3] == ["ACL", "SETUSER", "app"]
    return [word for word in words[3:] if _knows(server, word)]


def _knows(server: str, rule: str) -> bool:
    feature = FEATURE_OF.get(rule, rule.removeprefix("+").upper())
    try:
        return not lacks(server, feature)
    except KeyError:
        return True


@pytest.fixture(scope="session")
def engines() -> Iterator[Callable[[str], Engine]]:
    """One engine of each server that is asked for."""
    running: dict[str, Engine] = {}
    with ExitStack() as stack:

        def engine(name: str) -> Engine:
            if name not in running:
                running[name] = stack.enter_context(Engine(binary=needed(name)))
            return running[name]

        yield engine


@pytest.fixture(params=list(SERVERS))
def server_name(request: pytest.FixtureRequest) -> str:
    """Each server."""
    name: str = request.param
    return name


@pytest.fixture(params=[3, 2], ids=["resp3", "resp2"])
def protocol(request: pytest.FixtureRequest) -> int:
    """Each protocol."""
    version: int = request.param
    return version


@pytest.fixture(params=["default", "app"])
def user(request: pytest.FixtureRequest) -> str:
    """Who may do all, and who has the documented rights."""
    name: str = request.param
    return name


@pytest.fixture
def path(server_name: str, engines: Callable[[str], Engine]) -> str:
    """Socket of the server, which is empty and has the user `app`."""
    path = engines(server_name).ensure()
    empty(path)
    with Redis(unix_socket_path=path) as plain:
        plain.execute_command("ACL", "SETUSER", "app", "reset", *documented_rules(server_name))
    return path


@pytest.fixture
async def redis(path: str, protocol: int, user: str) -> AsyncIterator[Client]:
    """A client of that server, in that protocol, as that user."""
    login = {"username": "app", "password": PASSWORD} if user == "app" else {}
    async with Client.from_url(f"unix://{path}", protocol=protocol, client_name="matrix", **login) as client:
        yield client
