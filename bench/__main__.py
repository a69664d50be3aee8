"""`python -m bench`: measure, print the tables, write the JSON file. Exits 0 whether the targets are met or not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench.report import markdown, show
from bench.run import ROW_NAMES, Plan, run
from gravito.errors import EngineError

ROOT = Path(__file__).parent.parent
QUICK = (0.2, 3)  # seconds per sample, samples of each contender
FULL = (1.0, 5)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark as the arguments say."""
    chosen = _parser().parse_args(arguments)
    seconds, repeat = QUICK if chosen.quick else FULL
    peers = {"python": chosen.peers, "arq": chosen.arq, "modules": chosen.node_modules}
    given = {name: value for name, value in peers.items() if value is not None}
    plan = Plan(chosen.rows, chosen.seconds or seconds, chosen.repeat or repeat, chosen.loop, given)
    console = Console(stderr=chosen.markdown)
    try:
        result = run(plan, console)
    except (EngineError, RuntimeError) as error:
        console.print(f"[bold red]{error}")
        return 1
    show(result, console)
    if chosen.markdown:
        print(markdown(result))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    result.save(chosen.json)
    console.print(f"written: {chosen.json}", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Ours beside other clients and two limits."
    )
    parser.add_argument("--quick", action="store_true", help="short samples: for a look, not for the record")
    parser.add_argument("--rows", type=_rows, default=ROW_NAMES, help=f"some of {','.join(ROW_NAMES)}")
    parser.add_argument("--repeat", type=int, help="samples of each contender")
    parser.add_argument("--seconds", type=float, help="seconds per sample")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "bench.json", help="where to write the figures"
    )
    parser.add_argument(
        "--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop of all"
    )
    parser.add_argument("--markdown", action="store_true", help="print the README's table to standard output")
    parser.add_argument("--peers", help="an interpreter that has the other job queues")
    parser.add_argument("--arq", help="an interpreter that has arq, which wants another redis-py")
    parser.add_argument("--node-modules", type=Path, help="a folder with bullmq and ioredis")
    return parser


def _rows(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    unknown = [name for name in names if name not in ROW_NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(ROW_NAMES)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
