"""The short form of every row: all zeros, and no promise broken."""

from __future__ import annotations

import pytest
from tests.faults.bench import load, run
from tests.faults.ledger import ZEROS


@pytest.mark.parametrize("name", load())
def test_row(name: str) -> None:
    figures = run(name)
    assert not figures.broken, figures
    assert {zero: getattr(figures, zero) for zero in ZEROS} == dict.fromkeys(ZEROS, 0), figures
