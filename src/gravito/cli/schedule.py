"""`gravito schedule`: what fires when."""

from __future__ import annotations

import asyncio
import logging
import signal
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from gravito.cli._output import complain, echo_json, say, show, table
from gravito.cli._target import Json, Target, run_on
from gravito.errors import ConfigurationError
from gravito.horizon import Horizon
from gravito.horizon._book import Book, Page, moment
from gravito.horizon._logs import log_lines
from gravito.horizon._scheduled import check_schedule, scheduled
from gravito.horizon.schedule import Schedule
from gravito.horizon.scheduler import Scheduler

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@app.callback()
def _group() -> None:
    """Schedules: list, run and fire them.

    Example: gravito schedule list app:horizon
    """


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
            echo_json(rows)
        elif rows:
            show(_table(rows))
        else:
            typer.echo("There are no schedules.")

    run_on(target, main)


@app.command()
def run(target: Target, name: Name, as_json: Json = False) -> None:
    """Queue a schedule's job now, whatever its time.

    Example: gravito schedule run app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        schedule = _find(horizon, name)
        handle = await horizon.push(scheduled(schedule).tags(f"schedule:{schedule.name}"))
        text = f"{name} is queued as job {handle.id} on {handle.queue}."
        say(as_json, text, done=True, schedule=name, job=handle.id, queue=handle.queue)

    run_on(target, main)


@app.command()
def pause(target: Target, name: Name, as_json: Json = False) -> None:
    """Stop a schedule from firing, on all machines, until it is resumed.

    Example: gravito schedule pause app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        await Book(horizon).pause(_find(horizon, name).name, paused=True)
        say(as_json, f"{name} is paused.", done=True, schedule=name, paused=True)

    run_on(target, main)


@app.command()
def resume(target: Target, name: Name, as_json: Json = False) -> None:
    """Let a paused schedule fire again; what it missed is not made up for.

    Example: gravito schedule resume app:horizon daily-cleanup
    """

    async def main(horizon: Horizon) -> None:
        await Book(horizon).pause(_find(horizon, name).name, paused=False)
        say(as_json, f"{name} fires again.", done=True, schedule=name, paused=False)

    run_on(target, main)


@app.command()
def work(target: Target) -> None:
    """Fire the schedules until Ctrl-C, without running any jobs; workers do it too, unless told not to.

    Example: gravito schedule work app:horizon
    """

    async def main(horizon: Horizon) -> None:
        log_lines(logging.WARNING)
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
        complain(f"there is no schedule {name!r}; there are: {known}.")
        raise typer.Exit(2)
    return found


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = ("name", "when", "zone", "last", "next")
    return table(
        *(*columns, ""),
        rows=[
            (
                *(row[column] or "never" for column in columns),
                "; ".join(
                    filter(None, ("paused" if row["paused"] else "", row["problem"], row["description"]))
                ),
            )
            for row in rows
        ],
    )


def _row(schedule: Schedule, page: Page, now: datetime) -> dict[str, Any]:
    plan, problem = None, None
    try:
        plan = schedule.plan
        check_schedule(schedule)
    except ConfigurationError as error:  # one that cannot fire hides no other
        problem = str(error)
    following, zone = (plan.after(now), plan.zone) if plan is not None else (None, UTC)
    return {
        "name": schedule.name,
        "when": None if plan is None else schedule.expression,
        "zone": schedule.timezone_name,
        "last": None if page.fired is None else _shown(moment(page.fired).astimezone(zone)),
        "next": None if following is None else _shown(following.astimezone(zone)),
        "paused": page.paused,
        "problem": problem,
        "description": schedule.about,
    }


def _shown(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S %z")
