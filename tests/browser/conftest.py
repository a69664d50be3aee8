"""One world and one browser for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.browser.visitor import DESK, Visitor, opened
from tests.browser.world import World, running


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Engine, worker and console."""
    with running(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="session")
def browser(world: World) -> Iterator[Visitor]:
    """Chromium."""
    with opened(world.address) as made:
        yield made


@pytest.fixture
def visitor(browser: Visitor) -> Visitor:
    """Logged in, at a desk, in light colours, with nothing said so far."""
    browser.scripts(True)
    browser.size(*DESK)
    browser.scheme("light")
    if not browser.path.startswith("/"):  # cookies are for the page that is open
        browser.get("/healthz")
    browser.enter()
    browser.complaints()
    return browser
