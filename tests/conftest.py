"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
from tests.servers.catalogue import SERVERS, find, skip_if_lacking

from gravito.atlas._local_cluster import LocalCluster

# what is slow on a busy machine is no failure
hypothesis.settings.register_profile("gravito", deadline=None)
hypothesis.settings.load_profile("gravito")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Run the suite on another server than the newest, or with another protocol than the default."""
    group = parser.getgroup("gravito")
    group.addoption(
        "--server", choices=sorted(SERVERS), default="valkey9", help="the server to run the suite on"
    )
    group.addoption("--resp", type=int, choices=(2, 3), default=3, help="RESP on the wire")
    group.addoption(
        "--cluster", action="store_true", help="run the cache's suite on three nodes whose slots keep moving"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Every embedded engine, those of other processes too, runs the chosen server."""
    config.addinivalue_line("markers", "newest: compares with the newest server's own words")
    config.addinivalue_line(
        "markers", "needs(*features): what an older server lacks, by the catalogue's names"
    )
    name = config.getoption("--server")
    if name == "valkey9":
        return
    binary = find(name)
    if binary is None:
        raise pytest.UsageError(f"{SERVERS[name].title} is not installed: {SERVERS[name].install}")
    os.environ["GRAVITO_ENGINE"] = str(binary)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip before any fixture asks the server what it cannot answer."""
    if config.getoption("--server") == "valkey9":
        return
    skip = pytest.mark.skip(reason=f"what it compares with is of {SERVERS['valkey9'].title}")
    for item in items:
        if item.get_closest_marker("newest"):
            item.add_marker(skip)


def pytest_report_header(config: pytest.Config) -> str:
    """Which server this run is about."""
    return f"server: {SERVERS[config.getoption('--server')].title}, RESP{config.getoption('--resp')}"


@pytest.fixture(scope="session")
def server_name(request: pytest.FixtureRequest) -> str:
    """Name, in the catalogue, of the server that the run is on."""
    name: str = request.config.getoption("--server")
    return name


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Three primaries, made once for the whole run. Whoever moves slots moves them back; nobody ends a node of it."""
    with LocalCluster(3) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own environment must not decide what a test sees."""
    for name in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD", "DB"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)
    for name in ("GRAVITO_ENV", "GRAVITO_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _only_what_the_server_has(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("needs")
    if marker is not None:
        skip_if_lacking(request.getfixturevalue("server_name"), *marker.args)
