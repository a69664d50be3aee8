"""What a run found: the shape of the JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.targets import Verdict, judge
from gravito.cli.measure import Spread


@dataclass(frozen=True)
class RowResult:
    """One row: the figures by contender, and why some have none."""

    name: str
    title: str
    unit: str
    figures: dict[str, Spread]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        """The row's targets, judged."""
        return judge(self.name, self.figures)


@dataclass
class Result:
    """A whole run."""

    machine: dict[str, Any]
    settings: dict[str, Any]  # seconds per sample, repetitions
    notes: list[str] = field(default_factory=list)
    rows: list[RowResult] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the run as JSON: machine, settings, notes, rows with medians, lows, highs, samples and verdicts."""
        rows = [
            asdict(row) | {"verdicts": [asdict(verdict) for verdict in row.verdicts]} for row in self.rows
        ]
        whole = {"machine": self.machine, "settings": self.settings, "notes": self.notes, "rows": rows}
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
