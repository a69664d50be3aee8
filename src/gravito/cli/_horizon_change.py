"""`gravito horizon retry|forget|cancel|pause|resume|purge`: what changes queues and jobs."""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer

from gravito.cli._horizon_read import Error, Name, Part, Queue, Tag
from gravito.cli._output import say
from gravito.cli._target import Json, Target, completing, run_on
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
    as_json: Json = False,
) -> None:
    """Queue dead jobs again.

    Example: gravito horizon retry app:horizon --all --name send_welcome
    """
    wanted = Filter(name=name, tag=tag, error=error)
    _act(target, "retry", "dead", ids, every=every, queue=queue, wanted=wanted, yes=yes, as_json=as_json)


def forget(
    target: Target,
    ids: Ids = None,
    every: All = False,
    queue: Queue = None,
    name: Name = None,
    tag: Tag = None,
    error: Error = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Discard dead jobs.

    Example: gravito horizon forget app:horizon 7a463bc0f83e689bdb5002
    """
    wanted = Filter(name=name, tag=tag, error=error)
    _act(target, "discard", "dead", ids, every=every, queue=queue, wanted=wanted, yes=yes, as_json=as_json)


def cancel(
    target: Target,
    ids: Annotated[list[str], typer.Argument(help="Ids of jobs.")],
    as_json: Json = False,
) -> None:
    """Cancel jobs: waiting ones end at once, running ones are asked to.

    Example: gravito horizon cancel app:horizon 7a463bc0f83e689bdb5002
    """
    _act(target, "cancel", "ready", ids, every=False, queue=None, wanted=Filter(), yes=True, as_json=as_json)


def pause(target: Target, queue: TheQueue, as_json: Json = False) -> None:
    """Let no worker claim jobs of a queue; running ones go on.

    Ahead of its first job, too, if a job or a schedule of the application names the queue.

    Example: gravito horizon pause app:horizon emails
    """

    async def main(horizon: Horizon) -> None:
        await Repository(horizon).pause(queue)
        say(as_json, f"{queue} is paused.", done=True, queue=queue, paused=True)

    run_on(target, main)


def resume(target: Target, queue: TheQueue, as_json: Json = False) -> None:
    """Let workers claim jobs of a queue again.

    Example: gravito horizon resume app:horizon emails
    """

    async def main(horizon: Horizon) -> None:
        await Repository(horizon).resume(queue)
        say(as_json, f"{queue} goes on.", done=True, queue=queue, paused=False)

    run_on(target, main)


def purge(
    target: Target,
    queue: TheQueue,
    part: Annotated[
        str,
        typer.Option(
            "--part",
            help="What to forget: ready, delayed, parked, done or dead.",
            autocompletion=completing(get_args(Part)),
        ),
    ] = "ready",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Forget all jobs of a part of a queue; running jobs stay.

    Example: gravito horizon purge app:horizon emails --part dead
    """
    if part not in get_args(Part):
        raise typer.BadParameter(
            f"{part!r} is no part; there are: {', '.join(get_args(Part))}", param_hint="--part"
        )
    _must_say(yes, as_json)

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
        _progress("")
        say(as_json, f"Jobs forgotten: {gone}", done=gone, queue=queue, part=part)
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
    as_json: bool,
) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("say either ids, or --all with or without --queue, --name, --tag, --error")
    _must_say(yes or not every, as_json)

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
            _progress("")
        say(as_json, _said(action, acted), done=acted.done, asked=acted.asked, left=acted.left)
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


def _must_say(yes: bool, as_json: bool) -> None:
    if as_json and not yes:
        raise typer.BadParameter("--json asks nothing: say --yes, too")


def _agreed(yes: bool, question: str) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        typer.echo(f"{question} Nobody can be asked here; say --yes.", err=True)
        return False
    return typer.confirm(question, err=True)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", nl=False, err=True)
