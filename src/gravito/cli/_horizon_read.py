"""`gravito horizon status|queues|jobs|job|failed|workers|top`: what goes on. They change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from gravito.cli._output import clean, echo_json, say, show, table
from gravito.cli._tables import ago, jobs_table, megabytes, queues_table, span, workers_table
from gravito.cli._target import Json, Target, completing, run_on
from gravito.horizon import Horizon
from gravito.horizon._heartbeat import Order, WorkerRecord
from gravito.horizon._index import State
from gravito.horizon._rows import Filter, JobRow
from gravito.horizon.repository import Metrics, QueueRow, Repository

__all__ = ["failed", "job", "jobs", "queues", "status", "top", "workers"]

_EVERY = 1.0  # seconds between two looks of `top`

Queue = Annotated[str | None, typer.Option("--queue", "-q", help="Of this queue alone.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="So many at most.")]
Name = Annotated[str | None, typer.Option("--name", help="Jobs of this name.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Jobs with this tag.")]
Error = Annotated[str | None, typer.Option("--error", help="Jobs whose latest error is of this class.")]


def status(target: Target, as_json: Json = False) -> None:
    """Show in a few lines whether the work gets done; status 1 if something needs a hand.

    Example: gravito horizon status app:horizon
    """

    async def main(horizon: Horizon) -> int:
        repository = Repository(horizon)
        rows, workers, hour, server = await asyncio.gather(
            repository.queues(), repository.workers(), repository.metrics("1h"), horizon.client.info()
        )
        problems = _problems(rows, server)
        if as_json:
            echo_json(
                {
                    "queues": rows,
                    "workers": len(workers),
                    "last_hour": _ended(hour),
                    "problems": problems,
                }
            )
            return 1 if problems else 0
        waiting = sum(row.ready for row in rows)
        typer.echo(f"Queues   {len(rows)}, {waiting} jobs ready, {sum(row.sizes.dead for row in rows)} dead")
        typer.echo(f"Workers  {len(workers)}, {sum(worker.running for worker in workers)} jobs running")
        typer.echo(f"1 hour   {_hour(hour)}")
        typer.echo(f"Server   {_server(server)}")
        for problem in problems:
            typer.echo(f"Problem  {problem}")
        return 1 if problems else 0

    run_on(target, main)


def queues(target: Target, as_json: Json = False) -> None:
    """List the queues with what is in them.

    Example: gravito horizon queues app:horizon
    """

    async def main(horizon: Horizon) -> None:
        rows = await Repository(horizon).queues()
        if as_json:
            echo_json(rows)
        elif rows:
            show(queues_table(rows))
        else:
            typer.echo("There are no queues yet; the first job makes one.")

    run_on(target, main)


def jobs(
    target: Target,
    state: Annotated[
        str,
        typer.Option(
            "--state",
            "-s",
            help="ready, delayed, running, parked, done or dead.",
            autocompletion=completing(get_args(State)),
        ),
    ] = "ready",
    queue: Queue = None,
    name: Name = None,
    tag: Tag = None,
    error: Error = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List jobs of one state; searches reach every job that is kept.

    Example: gravito horizon jobs app:horizon --state done --tag invoice --limit 20
    """

    async def main(horizon: Horizon) -> None:
        found = [
            row
            async for row in _found(
                horizon, _state(state), queue, Filter(name=name, tag=tag, error=error), limit
            )
        ]
        _show_jobs(found, as_json, f"No jobs are {state}.")

    run_on(target, main)


def failed(
    target: Target,
    listed: Annotated[bool, typer.Option("--list", help="The jobs themselves, not their groups.")] = False,
    queue: Queue = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show dead jobs, grouped by job and error.

    Example: gravito horizon failed app:horizon --list
    """

    async def main(horizon: Horizon) -> None:
        if listed:
            found = [row async for row in _found(horizon, "dead", queue, Filter(), limit)]
            _show_jobs(found, as_json, "No jobs are dead.")
            return
        groups = await Repository(horizon).dead_groups(queue)
        if as_json:
            echo_json(groups)
        elif groups:
            rows = [
                (group.count, group.queue, group.name, group.error, ago(group.latest), group.sample)
                for group in groups[:limit]
            ]
            show(table("jobs", "queue", "job", "error", "latest", "for example", rows=rows, right=("jobs",)))
        else:
            typer.echo("No jobs are dead.")

    run_on(target, main)


def job(
    target: Target, id: Annotated[str, typer.Argument(help="The job's id.")], as_json: Json = False
) -> None:
    """Show all that is known of a job: its arguments, attempts, traceback and result.

    Example: gravito horizon job app:horizon 7a463bc0f83e689bdb5002
    """

    async def main(horizon: Horizon) -> int:
        found = await Repository(horizon).job(id)
        if found is None:
            typer.echo(f"No queue knows a job {id}; perhaps it is no longer kept.", err=True)
            return 1
        if as_json:
            echo_json(found)
            return 0
        given = (
            "encrypted"
            if found.arguments is None
            else ", ".join(f"{k}={v!r}" for k, v in found.arguments.items())
        )
        rows = [("job", f"{found.name}({given})"), ("queue", found.queue), ("state", found.state)]
        rows += [("tags", ", ".join(found.tags))] if found.tags else []
        rows += [("pushed", ago(found.pushed)), ("ended", ago(found.ended))]
        rows += [
            (f"attempt {each.number}", " ".join(filter(None, (each.outcome, each.error_type, each.error))))
            for each in found.attempts
        ]
        rows += [("result", repr(found.result))] if found.has_result else []
        rows += [
            (title, text)
            for title, text in (("batch", found.batch), ("chain", found.chain), ("parent", found.parent))
            if text
        ]
        show(table("", "", rows=rows))
        if found.traceback:
            show(Text("\n".join(clean(line) for line in found.traceback.splitlines())))
        return 0

    run_on(target, main)


def workers(
    target: Target,
    drain: Annotated[
        str | None, typer.Option("--drain", metavar="ID", help="Let this one finish and end.")
    ] = None,
    restart: Annotated[
        str | None, typer.Option("--restart", metavar="ID", help="Let this one finish and be replaced.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List worker processes, or tell one to end.

    Example: gravito horizon workers app:horizon
    """

    if drain is not None and restart is not None:
        raise typer.BadParameter("either --drain or --restart, not both")

    async def main(horizon: Horizon) -> None:
        repository = Repository(horizon)
        if drain is not None or restart is not None:
            worker = drain or restart or ""
            order: Order = "drain" if drain is not None else "restart"
            await repository.order(worker, order)
            say(as_json, f"{worker} finishes its jobs and ends.", done=True, worker=worker, order=order)
            return
        found = await repository.workers()
        if as_json:
            echo_json(found)
        elif found:
            show(workers_table(found, await _now(horizon)))
        else:
            typer.echo("No worker runs: gravito horizon work MODULE:NAME")

    run_on(target, main)


def top(
    target: Target,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one look, as JSON.")] = False,
) -> None:
    """Watch queues, workers and rates, until Ctrl-C.

    Example: gravito horizon top app:horizon
    """

    async def main(horizon: Horizon) -> None:
        repository = Repository(horizon)
        if as_json:
            rows, workers, hour = await _look(repository)
            echo_json({"queues": rows, "workers": workers, "last_hour": _ended(hour)})
            return
        view, before = await _view(repository, None)
        if once:
            show(view)
            return
        with Live(view, auto_refresh=False, screen=True) as live, suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(_EVERY)
                view, before = await _view(repository, before)
                live.update(view, refresh=True)

    run_on(target, main)


async def _look(repository: Repository) -> tuple[list[QueueRow], list[WorkerRecord], Metrics]:
    return await asyncio.gather(repository.queues(), repository.workers(), repository.metrics("1h"))


async def _view(repository: Repository, before: dict[str, int] | None) -> tuple[Group, dict[str, int]]:
    rows, workers, hour = await _look(repository)
    ended = {row.name: row.sizes.totals.get("ok", 0) + row.sizes.totals.get("dead", 0) for row in rows}
    rate = "" if before is None else f"{sum(ended.values()) - sum(before.values())} jobs/s   "
    head = Text(f"{rate}{_hour(hour)}", style="bold")
    now = await _now(repository.horizon)
    return Group(head, Text(), queues_table(rows), Text(), workers_table(workers, now)), ended


async def _now(horizon: Horizon) -> int:
    seconds, micros = await horizon.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def _found(
    horizon: Horizon, state: State, queue: str | None, wanted: Filter, limit: int
) -> AsyncIterator[JobRow]:
    """Jobs that a search finds, page after page."""
    repository, mark, offset = Repository(horizon), None, 0
    while offset < limit:
        page = await repository.jobs(
            state, queue, offset=offset, limit=min(limit - offset, 1000), filter=wanted, mark=mark
        )
        for row in page.jobs[: limit - offset]:
            yield row
        offset += len(page.jobs)
        mark = page.mark
        if mark is None and (wanted.looks_inside or not page.jobs):
            return


def _state(text: str) -> Any:
    allowed = get_args(State)
    if text not in allowed:
        raise typer.BadParameter(
            f"{text!r} is no state; there are: {', '.join(allowed)}", param_hint="--state"
        )
    return text


def _show_jobs(found: list[JobRow], as_json: bool, nothing: str) -> None:
    if as_json:
        echo_json(found)
    elif found:
        show(jobs_table(found))
    else:
        typer.echo(nothing)


def _problems(rows: list[QueueRow], server: dict[str, Any]) -> list[str]:
    found = [
        f"queue {row.name} has {row.ready} ready jobs and no worker"
        for row in rows
        if row.ready and not row.workers and not row.sizes.paused
    ]
    policy = str(server.get("maxmemory_policy", ""))
    if policy.startswith("allkeys") and server.get("maxmemory"):
        found.append(f"the server evicts keys when its memory is full ({policy}), jobs too: set noeviction")
    if str(server.get("rdb_last_bgsave_status", "ok")) != "ok":
        found.append("the server could not save its data; see its log")
    return found


def _ended(hour: Metrics) -> dict[str, int]:
    return {"ok": hour.total.ok, "dead": hour.total.dead, "retried": hour.total.retried}


def _hour(hour: Metrics) -> str:
    total, run, wait = hour.total, hour.total.run_ms(0.95), hour.total.wait_ms(0.95)
    said = f"{total.ok} done, {total.retried} retried, {total.dead} dead"
    if run is not None:
        said += f"; run {span(run / 1000)}, wait {span((wait or 0) / 1000)} at p95"
    return said


def _server(server: dict[str, Any]) -> str:
    version = server.get("valkey_version") or server.get("redis_version")
    kept = "appended to a file" if server.get("aof_enabled") else "snapshots at most"
    return f"{server.get('server_name', 'redis')} {version}, {megabytes(int(server.get('used_memory', 0)))} MiB, {kept}"


Part = Literal["ready", "delayed", "parked", "done", "dead"]
