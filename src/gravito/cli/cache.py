"""`gravito cache`: what caches do in all processes, and invalidation by hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from gravito.atlas import Client, Settings
from gravito.cli._output import complain, console, echo_json, say, table
from gravito.cli._server import Connection, Url, settings_of
from gravito.errors import ConfigurationError, GravitoError, InvalidKeyError
from gravito.stasis import Cache, Counts, FailSafe
from gravito.stasis._stats import FIELDS, by_template

__all__ = ["app"]

T = TypeVar("T")

_CHUNK = 1000  # keys forgotten at once
_COLUMNS = (
    *("template", "hits", "misses", "hit rate"),
    *("stale", "writes", "forgotten", "flushes", "errors", "runs", "mean run"),
)
_ALWAYS = 4  # of them are shown even if there is nothing in them
_LEAST = 24  # characters of a template before it is folded

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Prefix = Annotated[str, typer.Option("--prefix", help="The cache's prefix.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="A namespace of it; one in another as outer/inner.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.callback()
def _group() -> None:
    """Caches: statistics, and invalidation.

    Example: gravito cache stats
    """


@app.command()
def stats(
    connection: Connection = None, url: Url = None, prefix: Prefix = "cache", as_json: AsJson = False
) -> None:
    """What all processes together have counted, by template, namespaces included. They report every few seconds.

    Exit code: 0, or 1 if the server could not be asked.

    Example: gravito cache stats --json
    """

    async def ask(cache: Cache) -> Mapping[Any, Any]:
        found: Mapping[Any, Any] = await cache._client().hgetall(f"{prefix}:s")
        return found

    templates = by_template(_run(_settings(connection, url), prefix, None, ask))
    if as_json:
        report = {"prefix": prefix, "total": _shown(_sum(templates))}
        report["templates"] = {name: _shown(counts) for name, counts in templates.items()}
        echo_json(report)
    elif not templates:
        typer.echo(f"No process has reported anything under the prefix {prefix!r} yet.")
    else:
        _table(templates)


@app.command()
def forget(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, without the prefix.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Keys from standard input, one a line.")] = False,
    connection: Connection = None,
    url: Url = None,
    prefix: Prefix = "cache",
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Forget keys. Who computes one of them now does not put it back.

    Exit code: 0, or 1 if the server could not be asked; then some keys may still be there.

    Example: gravito cache forget user:1 user:2
    """
    names = [*(keys or ()), *(_lines() if stdin else ())]
    if not names:
        raise typer.BadParameter("name a key, or say --stdin")

    async def work(cache: Cache) -> int:
        count = 0
        with _progress(len(names)) as advance:
            for start in range(0, len(names), _CHUNK):
                chunk = names[start : start + _CHUNK]
                count += await cache.forget_many(chunk)
                advance(len(chunk))
        return count

    count = _run(_settings(connection, url), prefix, namespace, work)
    say(as_json, f"{count} of {len(names)} were there, and are forgotten.", keys=len(names), forgotten=count)


@app.command("flush-tags")
def flush_tags(
    tags: Annotated[list[str], typer.Argument(help="Tags, without the prefix.")],
    connection: Connection = None,
    url: Url = None,
    prefix: Prefix = "cache",
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Forget everything that bears one of the tags. One write, however many keys that is.

    Exit code: 0, or 1 if the server could not be asked.

    Example: gravito cache flush-tags team:7 users
    """

    async def work(cache: Cache) -> None:
        await cache.tags(*tags).flush()

    _run(_settings(connection, url), prefix, namespace, work)
    say(as_json, f"Flushed {', '.join(tags)}.", flushed=tags)


@app.command()
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    connection: Connection = None,
    url: Url = None,
    prefix: Prefix = "cache",
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Forget everything under a prefix, or in one namespace of it. One write; other keys of the server stay.

    Exit code: 0, or 1 if the server could not be asked or you said no.

    Example: gravito cache clear --prefix cache --yes
    """
    settings = _settings(connection, url)
    what = f"the cache {prefix!r}" if namespace is None else f"the namespace {namespace!r} of {prefix!r}"
    if not yes:
        if as_json:
            raise typer.BadParameter("--json asks nothing: say --yes, too")
        typer.confirm(f"Forget everything in {what} on {settings.address}?", abort=True, err=True)

    async def work(cache: Cache) -> None:
        await cache.clear()

    _run(settings, prefix, namespace, work)
    say(as_json, f"Cleared {what}.", cleared=prefix if namespace is None else f"{prefix}/{namespace}")


# -- steps ---------------------------------------------------------------------------------------------------


def _settings(connection: str | None, url: str | None) -> Settings:
    """Where the server is. Ends the program where that cannot be said."""
    try:
        return settings_of(connection, url)
    except ConfigurationError as error:
        complain(error)
        raise typer.Exit(2) from error


def _run(settings: Settings, prefix: str, namespace: str | None, work: Callable[[Cache], Awaitable[T]]) -> T:
    """Do something with the cache. Ends the program with a message if that fails."""

    async def main() -> T:
        async with Client(settings) as client:
            # without a timeout of the cache's own: nobody waits for this but a person
            fail_safe = FailSafe(timeout=None, on_error="raise")
            cache = Cache(connection=client, prefix=prefix, fail_safe=fail_safe)
            for name in namespace.split("/") if namespace is not None else ():
                cache = cache.namespace(name)
            return await work(cache)

    try:
        return asyncio.run(main())
    except InvalidKeyError as error:
        complain(error)
        raise typer.Exit(2) from error
    except GravitoError as error:
        complain(error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _lines() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]


def _progress(total: int) -> Any:
    """A bar on stderr, for people who wait; entering it gives the function that moves it."""
    from contextlib import contextmanager  # noqa: PLC0415  # as below

    from rich.console import Console  # noqa: PLC0415  # takes longer than most commands do
    from rich.progress import Progress  # noqa: PLC0415

    @contextmanager
    def bar() -> Any:
        console = Console(stderr=True)
        with Progress(
            console=console, transient=True, disable=total <= _CHUNK or not console.is_terminal
        ) as shown:
            task = shown.add_task("Forgetting", total=total)
            yield lambda count: shown.advance(task, count)

    return bar()


# -- statistics ----------------------------------------------------------------------------------------------


def _sum(templates: Mapping[str, Counts]) -> Counts:
    return Counts(**{field: sum(getattr(each, field) for each in templates.values()) for field in FIELDS})


def _shown(counts: Counts) -> dict[str, Any]:
    return {
        **{field: getattr(counts, field) for field in FIELDS},
        "hit_rate": round(_rate(counts), 4),
        "mean_run_ms": round(counts.run_ms / counts.runs, 1) if counts.runs else 0.0,
    }


def _rate(counts: Counts) -> float:
    reads = counts.hits + counts.misses
    return counts.hits / reads if reads else 0.0


def _table(templates: Mapping[str, Counts]) -> None:
    """On a narrow terminal templates are folded, headers and numbers never are; columns of nothing are left out."""
    rows = [(template or "(no template)", *_row(counts)) for template, counts in templates.items()]
    rows.append(("all", *_row(_sum(templates))))
    used = [at for at, sum_ in enumerate(rows[-1]) if at < _ALWAYS or sum_ not in ("0", "-")]
    columns, *cells = [[row[at] for at in used] for row in (_COLUMNS, *rows)]
    made = table(*columns, rows=cells, right=columns[1:])
    for column in made.columns[1:]:
        column.no_wrap = True
    first, *others = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    screen = console()
    # lines that run over can be read, columns that are cut cannot
    screen.width = max(screen.width, min(first, _LEAST) + sum(others) + 2 * len(others))
    screen.print(made)


def _row(counts: Counts) -> list[str]:
    run = f"{counts.run_ms / counts.runs:,.0f} ms" if counts.runs else "-"
    numbers = (counts.stales, counts.writes, counts.forgets, counts.flushes, counts.errors, counts.runs)
    reads = f"{counts.hits:,}", f"{counts.misses:,}", f"{_rate(counts):.1%}"
    return [*reads, *[f"{number:,}" for number in numbers], run]
