"""A run as people read it: a table for the terminal, a table for the README."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.caching.rows import CACHE_ROWS
from bench.caching.rows import COLUMNS as CACHES
from bench.contenders import MODULES, OURS
from bench.limits import NAME as REDIS_BENCHMARK
from bench.queues.contenders import NAMES as QUEUES
from bench.queues.rows import QUEUE_ROWS
from bench.result import Result, RowResult
from gravito.cli.measure import Spread

CLIENTS = (*MODULES, REDIS_BENCHMARK)
OF_CACHES = frozenset(row.name for row in CACHE_ROWS)
MET = {True: "met", False: "not met", None: "not measured"}
COLOURS = {True: "green", False: "bold red", None: "yellow"}


def show(result: Result, console: Console) -> None:
    """Print the machine, the figures, the judged targets and the notes."""
    console.print(machine_line(result), highlight=False)
    for rows, columns in _parts(result):
        console.print(_figures(rows, columns))
    console.print(_verdicts(result))
    for note in _notes(result):
        console.print(f"- {note}", style="dim", highlight=False, markup=False)


def markdown(result: Result) -> str:
    """The README's tables: figures of clients, figures of caches, targets, machine."""
    lines: list[str] = []
    for rows, columns in _parts(result):
        lines += ["| work | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
        for row in rows:
            cells = [_plain(row, column) for column in columns]
            lines.append(f"| {row.title} ({row.unit}) | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["| work | against, and aim | measured | |", "| --- | --- | --- | --- |"]
    for row in result.rows:
        lines += [
            f"| {row.title} | {verdict.target.who} {verdict.target} | {verdict.text} | {MET[verdict.met]} |"
            for verdict in row.verdicts
        ]
    return "\n".join([*lines, "", machine_line(result), *(f"- {note}" for note in _notes(result))])


def machine_line(result: Result) -> str:
    """Date, machine, versions and way of measuring in two lines."""
    machine = result.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']},"
        f" {machine['engine']} on loopback TCP, loop {machine['loop']}; pinned: {machine['pinning']}.\n"
        f"{packages}. Medians (lowest to highest) of {result.settings['repeat']} samples of"
        f" {result.settings['seconds']:g} s taken in turn, text replies, values of 32 bytes; of caches, of 1 KB."
    )


def _parts(result: Result) -> list[tuple[list[RowResult], list[str]]]:
    """The rows of clients, of caches and of queues, each with the columns that have a figure."""
    parts = []
    for rows, columns in (
        ([row for row in result.rows if row.name not in OF_CACHES and row.name not in QUEUE_ROWS], CLIENTS),
        ([row for row in result.rows if row.name in OF_CACHES], CACHES),
        ([row for row in result.rows if row.name in QUEUE_ROWS], QUEUES),
    ):
        measured = {name.split(" (")[0] for row in rows for name in row.figures}
        if rows:
            parts.append((rows, [column for column in columns if column in measured]))
    return parts


def _figures(rows: list[RowResult], used: list[str]) -> Table:
    table = Table(title="figures: median, and lowest to highest", show_lines=True)
    table.add_column("work")
    for column in used:
        table.add_column(column, justify="right", style="bold" if column == OURS else "")
    for row in rows:
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
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 2 else f"{figure:.3g}"


def _notes(result: Result) -> list[str]:
    failed = [f"{row.title}, {name}: {why}" for row in result.rows for name, why in row.failures.items()]
    return [*result.notes, *failed]
