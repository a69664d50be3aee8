"""`gravito bench`: what a server answers to one, 50 and 500 concurrent callers, through this client and redis-py's."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from redis import asyncio as redis_py
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravito.atlas.client import Client
from gravito.atlas.config import Settings
from gravito.atlas.embedded import engine_for
from gravito.cli import _output
from gravito.cli._output import clean
from gravito.cli.measure import Get, PipelineGet, Race, Set, Spread, Work, gets, pipelines, sets
from gravito.errors import ConfigurationError

__all__ = ["bench"]

OURS, THEIRS = "gravito", "redis-py"
TASKS = (1, 50, 500)
BATCH = 100  # commands of one pipeline
POOL = 50  # connections that redis-py may use
VALUE = "v" * 32


@dataclass(frozen=True)
class Subject:
    """A connected client, reduced to what is measured."""

    get: Get
    set: Set
    pipeline_get: PipelineGet


def bench(
    url: Annotated[
        str,
        typer.Argument(help="redis://, rediss://, unix:// or embedded://; nothing for the embedded engine."),
    ] = "embedded://",
    seconds: Annotated[float, typer.Option(min=0.01, max=60, help="Length of one sample.")] = 0.5,
    repeat: Annotated[int, typer.Option(min=1, max=100, help="Samples of each client, taken in turn.")] = 3,
) -> None:
    """Measure a server with 1, 50 and 500 concurrent tasks, beside redis-py's client.

    It writes 500 small keys under a random prefix and removes them afterwards.

    Example: gravito bench redis://127.0.0.1:6379/0
    """
    console = _output.console()
    try:
        settings = Settings.from_url(url, name="bench", decode_responses=True)
    except ConfigurationError as error:
        _fail(str(error))
    try:
        asyncio.run(_bench(settings, seconds, repeat, console))
    except RedisError as error:  # our own tree is part of redis-py's
        _fail(f"{settings.url}: {error}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _bench(settings: Settings, seconds: float, repeat: int, console: Console) -> None:
    prefix = f"gravito:bench:{secrets.token_hex(6)}"
    keys = [f"{prefix}:{number}" for number in range(max(TASKS))]
    async with AsyncExitStack() as stack:
        client = Client(settings)
        stack.push_async_callback(client.aclose)
        server = await client.execute("INFO", "server")
        console.print(Text(f"Server   {settings.url}, {clean(_version(server))}"))  # [fe80::1] is no markup
        console.print(f"Keys     {len(keys)} of {len(VALUE)} bytes as {prefix}:*, removed at the end")
        subjects = {OURS: _ours(client), THEIRS: await stack.enter_async_context(_theirs(settings))}
        stack.push_async_callback(_remove, client, keys, prefix)
        await asyncio.gather(*[client.set(key, VALUE) for key in keys])
        figures, failures = await _measure(subjects, keys, seconds, repeat, console)
    console.print(_table(figures, repeat, seconds))
    for failure in failures:
        console.print(Text("not measured: ", style="yellow").append(clean(failure), style="default"))


async def _remove(client: Client, keys: Sequence[str], prefix: str) -> None:
    try:
        await client.delete(*keys)
    except RedisError as error:
        typer.echo(f"Error: the keys {prefix}:* could not be removed: {error}", err=True)


def _ours(client: Client) -> Subject:
    async def pipeline_get(keys: Sequence[str]) -> list[Any]:
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        return list(await pipe.execute())

    return Subject(client.get, client.set, pipeline_get)


@asynccontextmanager
async def _theirs(settings: Settings) -> AsyncIterator[Subject]:
    kind, options = await _pool_options(settings)
    pool = redis_py.BlockingConnectionPool(max_connections=POOL, timeout=60, connection_class=kind, **options)
    client = redis_py.Redis.from_pool(pool)

    async def pipeline_get(keys: Sequence[str]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            return list(await pipe.execute())

    try:
        yield Subject(client.get, client.set, pipeline_get)
    finally:
        await client.aclose()


async def _pool_options(
    settings: Settings,
) -> tuple[type[redis_py.connection.AbstractConnection], dict[str, Any]]:
    """The same server in redis-py's words."""
    options: dict[str, Any] = {
        "username": settings.username,
        "password": settings.password,
        "db": settings.db,
        "decode_responses": True,
    }
    if settings.driver == "embedded":
        path = await asyncio.to_thread(engine_for(settings.directory).ensure)
        return redis_py.UnixDomainSocketConnection, options | {"path": path}
    if settings.path is not None:
        return redis_py.UnixDomainSocketConnection, options | {"path": settings.path}
    options |= {"host": settings.host, "port": settings.port}
    if settings.tls is None:
        return redis_py.Connection, options
    tls = settings.tls
    return redis_py.SSLConnection, options | {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_password": tls.key_password,
        "ssl_check_hostname": tls.check_hostname and tls.verify,
        "ssl_cert_reqs": "required" if tls.verify else "none",
    }


def _rows(subjects: dict[str, Subject], keys: Sequence[str]) -> dict[str, dict[str, Work]]:
    rows: dict[str, dict[str, Work]] = {}
    for tasks in TASKS:
        rows[f"GET, {_tasks(tasks)}"] = {n: gets(s.get, keys[:tasks], VALUE) for n, s in subjects.items()}
    for tasks in TASKS:
        rows[f"SET, {_tasks(tasks)}"] = {n: sets(s.set, keys[:tasks], VALUE) for n, s in subjects.items()}
    rows[f"pipeline of {BATCH} GETs"] = {
        n: pipelines(s.pipeline_get, keys[:BATCH], VALUE) for n, s in subjects.items()
    }
    return rows


def _tasks(number: int) -> str:
    return "1 task in sequence" if number == 1 else f"{number} tasks"


async def _measure(
    subjects: dict[str, Subject], keys: Sequence[str], seconds: float, repeat: int, console: Console
) -> tuple[dict[str, dict[str, Spread]], list[str]]:
    rows = _rows(subjects, keys)
    figures: dict[str, dict[str, Spread]] = {}
    failures: list[str] = []
    with _progress(console) as progress:
        task = progress.add_task("", total=len(rows) * repeat * len(subjects))
        for title, works in rows.items():
            progress.update(task, description=title)
            race = Race(works, seconds, repeat, smallest=100)
            figures[title] = await race.run(_stepper(progress, task))
            failures += [f"{title}, {name}: {why}" for name, why in race.failures.items()]
    return figures, failures


def _progress(console: Console) -> Progress:
    # redrawn between samples only: a thread that draws would run beside what is measured
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


def _stepper(progress: Progress, task: Any) -> Callable[[str], None]:
    def step(_: str) -> None:
        progress.advance(task)
        progress.refresh()

    return step


def _table(figures: dict[str, dict[str, Spread]], repeat: int, seconds: float) -> Table:
    table = Table(
        caption=f"commands per second: median of {repeat} samples of {seconds:g} s, lowest to highest"
    )
    table.add_column("work")
    for name in (OURS, THEIRS):
        table.add_column(name, justify="right", style="bold" if name == OURS else "")
    table.add_column("ratio", justify="right")
    for title, found in figures.items():
        ours, theirs = found.get(OURS), found.get(THEIRS)
        ratio = f"{ours.median / theirs.median:.1f} x" if ours and theirs else "-"
        table.add_row(title, _cell(ours), _cell(theirs), ratio)
    return table


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:,.0f} [dim]({spread.low:,.0f} to {spread.high:,.0f})[/]"


def _version(info: Any) -> str:
    if not isinstance(info, dict):
        info = dict(line.split(":", 1) for line in str(info).splitlines() if ":" in line)
    name = info.get("server_name") or "redis"
    return f"{name} {info.get(f'{name}_version') or info.get('redis_version', '?')}"


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)
