"""`gravito schedule`: what fires when."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gravito.cli._target import Json, Target, run_on
from gravito.horizon import Horizon
from gravito.horizon._book import Book, Page, moment
from gravito.horizon.call import Call
from gravito.horizon.command import run_command
from gravito.horizon.schedule import Schedule
from gravito.horizon.scheduler import Scheduler

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Schedules: list, run and fire them.")

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@app.callback()
def _group() -> None:
    """Schedules: list, run and fire them."""


@app.command("list")
def list_(target: Target, as_json: Json = False) -> None:
    """List the schedules with their last and next fires.

    Example: gravito schedule list app:horizon
    """

    async def main(horizon: Horizon) -> None:
        now, pages = await Book(horizon).read()
        rows = [
            _row(schedule, pages.get(name, Page()), moment(now))
            for name, schedule in horizon.schedules.items()
        ]
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        if not rows:
            typer.echo("There are no schedules.")
            return
        table = Table("name", "when", "zone", "last", "next", "", box=None)
        for row in rows:
            about = [
                *(["paused"] if row["paused"] else []),
                *([row["description"]] if row["description"] else []),
            ]
            table.add_row(
                row["name"],
                row["when"],
                row["zone"],
                row["last"] or "never",
                row["next"] or "never",
                "; ".join(about),
            )
        Console().print(table)

    run_on(target, main)


@app.command()
def run(target: Target, name: Name) -> None:
    """Queue a schedule's job now, whatever its time.

    Example: gravito schedule run app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        schedule = _find(horizon, name)
        if schedule.argv is not None:
            call: Call[Any] = run_command.make(list(schedule.argv))
        else:
            call = schedule.what if isinstance(schedule.what, Call) else schedule.what.make()
        handle = await horizon.push(call.tags(f"schedule:{schedule.name}"))
        typer.echo(f"{name} is queued as job {handle.id} on {handle.queue}.")

    run_on(target, main)


@app.command()
def pause(target: Target, name: Name) -> None:
    """Stop a schedule from firing, on all machines, until it is resumed.

    Example: gravito schedule pause app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        await Book(horizon).pause(_find(horizon, name).name, paused=True)
        typer.echo(f"{name} is paused.")

    run_on(target, main)


@app.command()
def resume(target: Target, name: Name) -> None:
    """Let a paused schedule fire again; what it missed is not made up for.

    Example: gravito schedule resume app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        await Book(horizon).pause(_find(horizon, name).name, paused=False)
        typer.echo(f"{name} fires again.")

    run_on(target, main)


@app.command()
def work(target: Target) -> None:
    """Fire the schedules until Ctrl-C, without running any jobs; workers do it too, unless told not to.

    Example: gravito schedule work app:horizon
    """

    async def main(horizon: Horizon) -> None:
        scheduler = Scheduler(horizon)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, scheduler.stop)
        typer.echo(f"Firing {len(horizon.schedules)} schedules; stop with Ctrl-C.")
        await scheduler.run()
        typer.echo(f"Stopped: {scheduler.fired} fired.")

    run_on(target, main)


def _find(horizon: Horizon, name: str) -> Schedule:
    found = horizon.schedules.get(name)
    if found is None:
        known = ", ".join(horizon.schedules) or "none"
        typer.echo(f"Error: there is no schedule {name!r}; there are: {known}.", err=True)
        raise typer.Exit(2)
    return found


def _row(schedule: Schedule, page: Page, now: datetime) -> dict[str, Any]:
    following = schedule.plan.after(now)
    zone = schedule.plan.zone
    return {
        "name": schedule.name,
        "when": schedule.expression,
        "zone": schedule.timezone_name,
        "last": None if page.fired is None else _shown(moment(page.fired).astimezone(zone)),
        "next": None if following is None else _shown(following.astimezone(zone)),
        "paused": page.paused,
        "description": schedule.about,
    }


def _shown(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S %z")
