"""A run as people read it: a table for the terminal, a table for the README."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.contenders import MODULES, OURS
from bench.limits import NAME as REDIS_BENCHMARK
from bench.result import Result, RowResult
from bench.targets import Verdict
from gravito.cli.measure import Spread

COLUMNS = (*MODULES, REDIS_BENCHMARK)
MET = {True: "met", False: "NOT met", None: "not measured"}
COLOURS = {True: "green", False: "bold red", None: "yellow"}


def show(result: Result, console: Console) -> None:
    """Print the machine, the figures, the judged targets and the notes."""
    console.print(machine_line(result), highlight=False)
    console.print(_figures(result))
    console.print(_verdicts(result))
    for note in _notes(result):
        console.print(f"- {note}", style="dim", highlight=False, markup=False)


def markdown(result: Result) -> str:
    """The README's table: figures, targets, machine."""
    used = _used_columns(result)
    lines = ["| work | " + " | ".join(used) + " | target |", "| --- |" + " --- |" * (len(used) + 1)]
    for row in result.rows:
        cells = [_plain(row, column) for column in used]
        targets = "; ".join(_sentence(verdict) for verdict in row.verdicts)
        lines.append(f"| {row.title} ({row.unit}) | " + " | ".join(cells) + f" | {targets} |")
    return "\n".join([*lines, "", machine_line(result), *(f"- {note}" for note in _notes(result))])


def machine_line(result: Result) -> str:
    """Date, machine, versions and way of measuring in two lines."""
    machine = result.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']},"
        f" {machine['engine']} on loopback TCP, loop {machine['loop']}; pinned: {machine['pinning']}.\n"
        f"{packages}. Medians (lowest to highest) of {result.settings['repeat']} samples of"
        f" {result.settings['seconds']:g} s taken in turn, text replies, values of 32 bytes."
    )


def _figures(result: Result) -> Table:
    table = Table(title="figures: median, and lowest to highest", show_lines=True)
    table.add_column("work")
    used = _used_columns(result)
    for column in used:
        table.add_column(column, justify="right", style="bold" if column == OURS else "")
    for row in result.rows:
        table.add_row(f"{row.title}\n[dim]{row.unit}[/]", *(_rich(row, column) for column in used))
    return table


def _verdicts(result: Result) -> Table:
    table = Table(title="what must be reached")
    for heading, justify in (
        ("work", "left"),
        ("ours against", "left"),
        ("target", "right"),
        ("measured", "right"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("")
    for row in result.rows:
        for verdict in row.verdicts:
            word = f"[{COLOURS[verdict.met]}]{MET[verdict.met]}[/]"
            table.add_row(row.title, verdict.target.who, str(verdict.target), verdict.text, word)
    return table


def _used_columns(result: Result) -> list[str]:
    measured = {name.split(" (")[0] for row in result.rows for name in row.figures}
    return [column for column in COLUMNS if column in measured]


def _ways(row: RowResult, column: str) -> dict[str, Spread]:
    return {
        name.removeprefix(column).strip(): spread
        for name, spread in row.figures.items()
        if _is_of(name, column)
    }


def _is_of(name: str, column: str) -> bool:
    return name == column or name.startswith(f"{column} (")


def _rich(row: RowResult, column: str) -> str:
    return "\n".join(
        f"{_number(spread.median)} {way}".rstrip()
        + f"\n[dim]{_number(spread.low)} to {_number(spread.high)}[/]"
        for way, spread in _ways(row, column).items()
    )


def _plain(row: RowResult, column: str) -> str:
    return "<br>".join(
        f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)}) {way}".rstrip()
        for way, spread in _ways(row, column).items()
    )


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.target.who} {verdict.target}: {verdict.text}, {MET[verdict.met]}"


def _notes(result: Result) -> list[str]:
    failed = [f"{row.title}, {name}: {why}" for row in result.rows for name, why in row.failures.items()]
    return [*result.notes, *failed]
