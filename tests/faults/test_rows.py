"""The short form of every row: all zeros, and no promise broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.faults.bench import load, run
from tests.faults.ledger import ZEROS


@pytest.mark.parametrize("name", load())
def test_row(name: str) -> None:
    figures = run(name)
    assert not figures.broken, figures
    assert {zero: getattr(figures, zero) for zero in ZEROS} == dict.fromkeys(ZEROS, 0), figures


def test_the_page_has_every_row_in_its_own_words() -> None:
    """`docs/reliability.md` lists what there is: name, fault, promise."""
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    listed = {
        cells[1]: cells.groups()[1:]
        for cells in re.finditer(r"(?m)^\| `([\w-]+)` \| (.*?) \| (.*?) \|", page)
    }
    assert listed == {row.name: (row.fault, row.must) for row in load().values()}
