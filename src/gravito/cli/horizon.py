"""`gravito horizon`: workers of the job queue, and what they work on."""

from __future__ import annotations

from typing import Annotated

import typer

from gravito.cli import _horizon_change, _horizon_read, schedule
from gravito.cli._console import TOKEN, run_console
from gravito.cli._target import HELP, load
from gravito.cli._work import become_worker, run_supervisor
from gravito.horizon.process import Work

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Workers of the job queue, and its jobs.

    Example: gravito horizon status app:horizon
    """


@app.command()
def work(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help=HELP)],
    queues: Annotated[
        str, typer.Option("--queues", "-q", help="Queues, parted by commas; the first one goes first.")
    ] = "default",
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Jobs that a process runs at the same time.")
    ] = 100,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="Worker processes.")] = 1,
    balance: Annotated[
        bool,
        typer.Option("--balance", help="Each process serves one queue, and goes where most work waits."),
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that running jobs get at the end.")
    ] = 30.0,
    burst: Annotated[bool, typer.Option("--burst", help="End when nothing is left to run.")] = False,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Restart when a file of the application changes; for development."),
    ] = False,
    schedules: Annotated[
        bool, typer.Option("--schedules/--no-schedules", help="Fire the application's schedules, too.")
    ] = True,
    max_jobs: Annotated[
        int | None, typer.Option("--max-jobs", min=1, help="Replace a process after so many jobs.")
    ] = None,
    max_memory: Annotated[
        int | None, typer.Option("--max-memory", min=1, help="Replace a process that uses more MiB.")
    ] = None,
) -> None:
    """Run jobs until Ctrl-C or SIGTERM; running jobs are finished first.

    Example: gravito horizon work app:horizon --queues critical,default --concurrency 100 --processes 4
    """
    names = tuple(name.strip() for name in queues.split(",") if name.strip())
    settings = Work(
        target=target,
        queues=names,
        concurrency=concurrency,
        grace=grace,
        burst=burst,
        schedules=schedules,
        max_jobs=max_jobs,
        max_memory=max_memory,
    )
    replaced = max_jobs is not None or max_memory is not None
    if not (processes > 1 or reload or balance or replaced):
        become_worker(settings)
    if burst and (reload or balance):
        raise typer.BadParameter("--burst ends by itself; it goes with neither --reload nor --balance")
    if balance and processes < len(names):
        raise typer.BadParameter(f"--balance needs a process for each of the {len(names)} queues")
    run_supervisor(load(target), settings, processes, balance=balance, reload=reload)


@app.command()
def demo(
    jobs: Annotated[int, typer.Option("--jobs", min=100, max=1_000_000, help="How many jobs.")] = 20_000,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, max=64, help="Worker processes.")] = 3,
) -> None:
    """See the queue at work: many jobs, some of which fail, and a worker that is killed. None is lost.

    Needs no server, touches none that is there, and leaves nothing behind. Ends with the tally of all jobs; the exit
    status is 1 if one was lost.

    Example: gravito horizon demo
    """
    from gravito.cli._horizon_demo import run  # noqa: PLC0415  # it brings rich's live views

    raise typer.Exit(run(jobs, processes))


for _name in _horizon_read.__all__:
    app.command(_name)(getattr(_horizon_read, _name))
for _name in _horizon_change.__all__:
    app.command(_name)(getattr(_horizon_change, _name))
app.add_typer(schedule.app, name="schedule")


@app.command()
def console(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help=HELP)],
    host: Annotated[
        str, typer.Option("--host", help=f"Address to listen on; beyond this machine only with {TOKEN} set.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="TCP port to listen on; 0 for any.")
    ] = 8484,
    names: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A further host name to answer to; repeatable."),
    ] = None,
) -> None:
    """Serve the console: pages on the queues, jobs and workers.

    Example: gravito horizon console app:horizon --port 8484

    A token that everybody has to enter comes from the environment variable GRAVITO_CONSOLE_TOKEN.
    """
    run_console(load(target), host, port, names or [])
