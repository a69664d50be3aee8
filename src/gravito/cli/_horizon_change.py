"""`gravito horizon retry|forget|cancel|pause|resume|purge`: what changes queues and jobs."""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer

from gravito.cli._horizon_read import Error, Name, Part, Queue, Tag
from gravito.cli._target import Target, run_on
from gravito.horizon import Horizon
from gravito.horizon._acts import Acted, Action
from gravito.horizon._index import State
from gravito.horizon._rows import Filter
from gravito.horizon.repository import Repository

__all__ = ["cancel", "forget", "pause", "purge", "resume", "retry"]

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of jobs; or choose by options.")]
All = Annotated[bool, typer.Option("--all", help="All of them, or all that the options choose.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TheQueue = Annotated[str, typer.Argument(help="The queue's name.")]


def retry(
    target: Target,
    ids: Ids = None,
    every: All = False,
    queue: Queue = None,
    name: Name = None,
    tag: Tag = None,
    error: Error = None,
    yes: Yes = False,
) -> None:
    """Queue dead jobs again.

    Example: gravito horizon retry app:horizon --all --name send_welcome
    """
    wanted = Filter(name=name, tag=tag, error=error)
    _act(target, "retry", "dead", ids, every=every, queue=queue, wanted=wanted, yes=yes)


def forget(
    target: Target,
    ids: Ids = None,
    every: All = False,
    queue: Queue = None,
    name: Name = None,
    tag: Tag = None,
    error: Error = None,
    yes: Yes = False,
) -> None:
    """Discard dead jobs.

    Example: gravito horizon forget app:horizon 7a463bc0f83e689bdb5002
    """
    wanted = Filter(name=name, tag=tag, error=error)
    _act(target, "discard", "dead", ids, every=every, queue=queue, wanted=wanted, yes=yes)


def cancel(target: Target, ids: Annotated[list[str], typer.Argument(help="Ids of jobs.")]) -> None:
    """Cancel jobs: waiting ones end at once, running ones are asked to.

    Example: gravito horizon cancel app:horizon 7a463bc0f83e689bdb5002
    """
    _act(target, "cancel", "ready", ids, every=False, queue=None, wanted=Filter(), yes=True)


def pause(target: Target, queue: TheQueue) -> None:
    """Let no worker claim jobs of a queue; running ones go on.

    Example: gravito horizon pause app:horizon emails
    """

    async def main(horizon: Horizon) -> None:
        await Repository(horizon).pause(queue)
        typer.echo(f"{queue} is paused.")

    run_on(target, main)


def resume(target: Target, queue: TheQueue) -> None:
    """Let workers claim jobs of a queue again.

    Example: gravito horizon resume app:horizon emails
    """

    async def main(horizon: Horizon) -> None:
        await Repository(horizon).resume(queue)
        typer.echo(f"{queue} goes on.")

    run_on(target, main)


def purge(
    target: Target,
    queue: TheQueue,
    part: Annotated[
        str, typer.Option("--part", help="What to forget: ready, delayed, parked, done or dead.")
    ] = "ready",
    yes: Yes = False,
) -> None:
    """Forget all jobs of a part of a queue; running jobs stay.

    Example: gravito horizon purge app:horizon emails --part dead
    """
    if part not in get_args(Part):
        raise typer.BadParameter(
            f"{part!r} is no part; there are: {', '.join(get_args(Part))}", param_hint="--part"
        )

    async def main(horizon: Horizon) -> int:
        row = await Repository(horizon).queue(queue)
        count = row.ready if part == "ready" else getattr(row.sizes, part)
        if count and not _agreed(yes, f"Forget {count} {part} jobs of {queue}?"):
            return 1
        gone = 0
        async for step, left in Repository(horizon).purging(queue, part):  # type: ignore[arg-type]  # checked above
            gone += step
            if left:
                _progress(f"{gone} forgotten, {left} left")
        typer.echo(f"Jobs forgotten: {gone}")
        return 0

    run_on(target, main)


def _act(
    target: str,
    action: Action,
    state: State,
    ids: list[str] | None,
    *,
    every: bool,
    queue: str | None,
    wanted: Filter,
    yes: bool,
) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("say either ids, or --all with or without --queue, --name, --tag, --error")

    async def main(horizon: Horizon) -> int:
        repository = Repository(horizon)
        if ids:
            acted = await _by_id(repository, action, ids)
        else:
            count = await repository.count(state, queue, wanted)
            if count and not _agreed(yes, f"{action.capitalize()} {count} {state} jobs?"):
                return 1
            acted = Acted()
            async for acted in repository.acting(action, state, queue, wanted):
                _progress(f"{acted.done} of {count}")
        typer.echo(_said(action, acted))
        return 1 if acted.left else 0

    run_on(target, main)


async def _by_id(repository: Repository, action: Action, ids: list[str]) -> Acted:
    acted = Acted()
    for job_id in dict.fromkeys(ids):
        found = await repository.job(job_id)
        if found is None:
            typer.echo(f"No queue knows a job {job_id}.", err=True)
            acted = acted.plus(Acted(left=1))
            continue
        acted = acted.plus(await repository.act(action, found.queue, [job_id]))
    return acted


def _said(action: Action, acted: Acted) -> str:
    verb = {"retry": "queued again", "discard": "discarded", "cancel": "cancelled"}[action]
    said = f"Jobs {verb}: {acted.done}"
    said += f"; asked to end: {acted.asked}" if acted.asked else ""
    return said + (f"; left as they are: {acted.left}" if acted.left else "")


def _agreed(yes: bool, question: str) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        typer.echo(f"{question} Nobody can be asked here; say --yes.", err=True)
        return False
    return typer.confirm(question)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{text}", nl=False, err=True)
