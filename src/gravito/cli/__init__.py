"""The commands of the terminal. Each is imported when it is called, so that `gravito --help` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gravito import __version__

__all__ = ["app"]

_COMMANDS = {  # name, which is the module's and the function's too -> the first line of its help
    "demo": "See what Gravito does, on the embedded engine.",
    "serve": "Run the embedded engine on a TCP port, for other programs.",
    "redis": "A shell on Redis or Valkey, or one command.",
    "doctor": "Check the configuration and the server: what is wrong, and the cure.",
    "bench": "Measure a server, beside redis-py's client.",
}


_GROUPS: dict[str, str] = {  # as above, for modules whose `app` has commands of its own
    "cache": "Caches: statistics, and invalidation.",
    "horizon": "Workers of the job queue, and its jobs.",
    "schedule": "Schedules: list, run and fire them.",
}


class _Lazy(TyperGroup):
    """Lists the commands from the tables above and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in _COMMANDS:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(name)(getattr(import_module(f"gravito.cli.{name}"), name))
            self.commands[name] = typer.main.get_command(single)
        elif name in _GROUPS:
            self.commands[name] = typer.main.get_command(import_module(f"gravito.cli.{name}").app)
        return super().resolve_command(ctx, args)


def _listed(summary: str) -> Callable[[], None]:
    def command() -> None:
        pass

    command.__doc__ = summary
    return command


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gravito {__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Lazy, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Data, cache, messaging and jobs on Redis and Valkey.

    Example: gravito demo
    """


for _name, _summary in (_COMMANDS | _GROUPS).items():
    app.command(_name)(_listed(_summary))
