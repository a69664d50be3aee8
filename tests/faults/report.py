"""The table, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.faults.bench import ROWS
from tests.faults.ledger import ZEROS, Figures


def show(figures: Sequence[Figures], console: Console) -> None:
    """Print the table and every broken promise."""
    table = Table(title="Faults", title_justify="left")
    for name in ("row", "operations", *ZEROS, "ambiguous", "p50", "p99", "bound", "peak MiB"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for each in figures:
        zeros = [f"[bold red]{getattr(each, name)}[/]" if getattr(each, name) else "0" for name in ZEROS]
        mark = each.row if each.kept else f"[bold red]{each.row}[/]"
        table.add_row(
            mark, f"{each.operations:,}", *zeros, str(each.ambiguous), *_times(each), _plain(each.memory)
        )
    console.print(table)
    for each in figures:
        if each.notes:
            console.print(f"[dim]{each.row}: {each.notes}[/]", highlight=False)
        for text in each.broken:
            console.print(f"[bold red]{each.row}:[/] {text}", highlight=False, markup=True)


def markdown(figures: Sequence[Figures], machine: dict[str, str]) -> str:
    """The same for `docs/reliability.md`."""
    lines = [
        f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}.",
        "",
        "| row | fault | must happen | operations | wrong, unsettled, leaked, secrets | maybe applied | recovery p50 / p99 | bound |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in figures:
        zeros = sum(getattr(each, name) for name in ZEROS)
        p50, p99, bound = _times(each)
        times = f"{p50} / {p99}" if p50 else ""
        lines.append(
            f"| `{each.row}` | {each.fault} | {ROWS[each.row].must} | {each.operations:,} | {zeros} | "
            f"{each.ambiguous} | {times} | {bound} |"
        )
    lines += ["", *(f"- `{each.row}`: {_notes(each)}" for each in figures if each.notes or each.memory)]
    return "\n".join(lines) + "\n"


def _notes(each: Figures) -> str:
    notes = dict(each.notes)
    if each.memory is not None:
        notes["peak memory, MiB"] = each.memory
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in notes.items())


def _times(each: Figures) -> tuple[str, str, str]:
    return _milli(each.recovery_p50), _milli(each.recovery_p99), _milli(each.bound)


def _milli(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
