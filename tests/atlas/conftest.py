"""Fixtures on the embedded engine, and settings that make failures quick."""

from __future__ import annotations

import pytest

from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]


@pytest.fixture(scope="session")
def gravito_protocol(request: pytest.FixtureRequest) -> int | None:
    """As the option --resp says."""
    chosen: int | None = request.config.getoption("--resp")
    return chosen
