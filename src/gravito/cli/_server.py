"""Which server a command is about: a configured connection, or a URL."""

from __future__ import annotations

from typing import Annotated

import typer

from gravito.atlas import DB, Settings

__all__ = ["Connection", "Url", "settings_of"]

Connection = Annotated[
    str | None, typer.Option("--connection", "-n", help="Name of a connection; the default one if left out.")
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Use this server instead; one with a password goes into REDIS_URL or .env."),
]


def settings_of(connection: str | None, url: str | None) -> Settings:
    """The settings of the one or the other. A URL with a password ends the program: arguments are no secret.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if url is None:
        return DB.connection(connection).settings
    settings = Settings.from_url(url)
    if settings.password is not None:
        typer.echo(
            "Error: --url holds a password, which every user of this machine could see. Put the URL into REDIS_URL "
            "or into .env, and leave --url out.",
            err=True,
        )
        raise typer.Exit(2)
    return settings
