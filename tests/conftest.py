"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own environment must not decide what a test sees."""
    for name in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD", "DB"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)
    for name in ("GRAVITO_ENV", "GRAVITO_CONFIG"):
        monkeypatch.delenv(name, raising=False)
