"""`gravito demo`: a walk through what Gravito does, on real data and the embedded engine.

A step is a function of `_demo_steps`; the code that the terminal shows is that function's own source, so what is
shown is what ran.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.text import Text

from gravito.atlas import DB, embedded
from gravito.cli import _demo_steps as steps
from gravito.errors import GravitoError

__all__ = ["demo"]

STEP_TIMEOUT = 30.0  # seconds; a step takes a fraction of one, unless something is wrong
_HIDDEN = ('"""', "say(", "advance(")


class Screen:
    """What a step writes to: results, and a progress bar for long ones."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, number: int, text: str) -> None:
        """Open a step."""
        self._console.print(Text(f"\n{number}. {text}", style="bold"))

    def code(self, source: str) -> None:
        """Show the lines that are about to run."""
        text = Syntax(source, "python", theme="ansi_dark", background_color="default").highlight(source)
        text.rstrip()
        for line in text.split("\n"):
            self._console.print(Text("   " if line else "").append_text(line), soft_wrap=True)

    def say(self, *results: Any) -> None:
        """Show results, one a line."""
        for result in results:
            shown = result if isinstance(result, str) else repr(result)
            self._console.print(Text(f"   -> {shown}", style="green"), soft_wrap=True)

    @contextmanager
    def progress(self, total: int) -> Iterator[Any]:
        """Give a function that moves the bar on by so many."""
        columns = (TextColumn("   "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # redrawn by hand: a thread that draws would run beside what is measured
        with Progress(*columns, console=self._console, auto_refresh=False) as progress:
            task = progress.add_task("", total=total)
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                if done % max(1, total // 50) == 0:
                    progress.update(task, completed=done, refresh=True)

            yield advance
            progress.update(task, completed=done, refresh=True)


def demo(
    gets: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Concurrent GETs of the last step.")
    ] = 100_000,
) -> None:
    """See what Gravito does, on the embedded engine, in under a minute.

    Connects, reads, writes, sends a pipeline and a transaction, publishes from a second process, runs a Lua script
    and then many concurrent GETs. Needs no server, touches none that is there, and leaves nothing behind.

    Example: gravito demo
    """
    console = Console(highlight=False)
    began = time.perf_counter()
    try:
        asyncio.run(_walk(Screen(console), gets))
    except KeyboardInterrupt:
        console.print("\nStopped.")
        raise typer.Exit(130) from None
    except GravitoError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    except TimeoutError:
        typer.echo(f"Error: this step did not end within {STEP_TIMEOUT:g} s.", err=True)
        raise typer.Exit(1) from None
    finally:
        embedded.stop_all()
    console.print(
        f"\nDone in {time.perf_counter() - began:.1f} s. The engine has ended and left nothing behind."
    )
    console.print("Next: README.md, docs/redis.md, and `gravito doctor` for a server of your own.")


async def _walk(screen: Screen, gets: int) -> None:
    # The demonstration must not read, let alone write, what the user has configured.
    DB.configure({"connections": {"redis": {"driver": "embedded"}}})
    async with DB.lifespan(connect=False):
        redis = DB.connection("redis")
        for number, step in enumerate(steps.STEPS, 1):
            screen.title(number, (step.__doc__ or step.__name__).rstrip("."))
            screen.code(_source(step))
            async with asyncio.timeout(STEP_TIMEOUT):
                await step(redis, screen.say)
        screen.title(len(steps.STEPS) + 1, f"{gets:,} concurrent GETs over one connection")
        screen.code(_source(steps.read_all))
        await _read_many(screen, gets)


async def _read_many(screen: Screen, gets: int) -> None:
    redis = DB.connection("redis")
    expected = {f"reading:{number}": f"{number * number % 997}" for number in range(min(gets, 1000))}
    await redis.mset(expected)
    names = list(expected)
    keys = [names[number % len(names)] for number in range(gets)]
    with screen.progress(gets) as advance:
        began = time.perf_counter()
        values = await steps.read_all(redis, keys, advance)
        took = time.perf_counter() - began
    wrong = sum(value != expected[key] for key, value in zip(keys, values, strict=True))
    if wrong:
        raise GravitoError(f"{wrong} of {gets} replies did not match their keys")
    screen.say(
        f"{gets:,} replies, each the right one, in {took:.2f} s: {gets / took:,.0f} GETs a second",
        "compare with another client: gravito bench",
    )


def _source(step: Any) -> str:
    """The step's own lines, without its head, its docstring, and what only moves the display."""
    body = []
    for line in inspect.getsource(step).splitlines()[1:]:
        if line.endswith("# shown"):
            body.append(line.replace("say(", "print(", 1).removesuffix("  # shown"))
        elif not line.lstrip().startswith(_HIDDEN) and "# not shown" not in line:
            body.append(line)
    return textwrap.dedent("\n".join(body)).strip("\n")
