"""Fixtures on the embedded engine, and settings that make failures quick."""

from __future__ import annotations

from gravito.testing import gravito_engine, redis

__all__ = ["gravito_engine", "redis"]
