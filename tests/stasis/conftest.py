"""Fixtures on the embedded engine."""

from __future__ import annotations

import pytest

from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]


@pytest.fixture(scope="session")
def gravito_protocol(request: pytest.FixtureRequest) -> int | None:
    """As the option --resp says."""
    return 2 if request.config.getoption("--resp") == 2 else None
