"""The commands of the terminal: `gravito serve` and its siblings."""

from __future__ import annotations

import typer

from gravito.cli.serve import serve

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Data, cache, messaging and jobs on Redis and Valkey.")


@app.callback()
def _main() -> None:
    # Keeps `serve` a subcommand while it is the only one.
    pass


app.command()(serve)
