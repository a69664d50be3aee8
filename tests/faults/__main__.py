"""`python -m tests.faults [row ...] [--full]`: run rows, print the table, write the figures."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from tests.faults.bench import ROWS, load, run
from tests.faults.ledger import Figures
from tests.faults.report import markdown, show

from gravito import __version__

ROOT = Path(__file__).parent.parent.parent
LIMIT = 900  # seconds that a row may take


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say. Exits 1 when a promise was not kept."""
    load()
    chosen = _parser().parse_args(arguments)
    if chosen.child:
        print(msgspec.json.encode(run(chosen.rows[0], chosen.full)).decode())
        return 0
    console = Console()
    names = chosen.rows or list(ROWS)
    figures = []
    for name in names:
        with console.status(f"{name}: {ROWS[name].fault}"):
            figures.append(_apart(name, chosen.full))
        mark = "[green]kept[/]" if figures[-1].kept else "[bold red]BROKEN[/]"
        console.print(f"{mark} {name} [dim]{figures[-1].seconds:.1f} s[/]", highlight=False)
    show(figures, console)
    chosen.out.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    (chosen.out / "faults.json").write_bytes(
        msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": figures}), indent=2)
    )
    (chosen.out / "faults.md").write_text(markdown(figures, machine), encoding="utf-8")
    console.print(f"written: {chosen.out / 'faults.json'}, {chosen.out / 'faults.md'}", highlight=False)
    return 0 if all(each.kept for each in figures) else 1


def _apart(name: str, full: bool) -> Figures:
    """Each row has a process to itself: peaks of memory are its own, and a hang ends nothing else."""
    command = [sys.executable, "-m", "tests.faults", name, "--child", *(["--full"] if full else [])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False, env=os.environ
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Figures)
    except subprocess.TimeoutExpired:
        return Figures(name, ROWS[name].fault, full, broken=[f"did not end within {LIMIT} s"])
    except (IndexError, msgspec.DecodeError):
        return Figures(name, ROWS[name].fault, full, broken=[f"failed: {done.stderr[-2000:]}"])


def _machine() -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "gravito": __version__,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Real faults, real processes."
    )
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--full", action="store_true", help="the scale of the published table")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder for the figures")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
